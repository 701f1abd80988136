"""`metaception export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from metaception.cli.console import console
from metaception.cli.evaluate import open_run
from metaception.core.learner import Iterative
from metaception.domains.classification.image_tasks import OF_IMAGES
from metaception.learners.supervised import Statistics
from metaception.runs.errors import UsageError
from metaception.runs.run import Which
from metaception.runs.testing import tuned_learner


@dataclass(frozen=True)
class Export:
    """Write a run's model as files that load without Metaception: StableHLO, safetensors, JSON, and how to load them.

    Without a support set, the program adapts too: it takes a support set and new inputs. With one, it is adapted now, and takes
    inputs alone; metaception.FewShotClassifier.load reads it as well.

    Attributes:
        run: the run folder.
        out: the folder to make; one that holds an exported model is replaced, any other is refused.
        support: images to adapt to, sorted into folders: FOLDER/CLASS/IMAGE.
        steps: inner steps; as many as in training unless given.
        statistics: what batch normalisation takes its statistics from: the support set alone, the support set and each input
            (one), or all new inputs together (batch: then an output depends on the others).
        invert: swap black and white in the support images.
        last: take the last meta-parameters instead of the best on validation.
    """

    run: Annotated[Path, tyro.conf.Positional]
    out: Path
    support: Path | None = None
    steps: int | None = None
    statistics: Statistics = "support"
    invert: bool = False
    last: bool = False


def run(command: Export) -> int:
    """Export a run."""
    # Only here: scikit-learn takes a moment to import, for every command.
    from metaception.estimators.base import support_of, with_policy  # noqa: PLC0415
    from metaception.estimators.saving import check_folder, meta_model  # noqa: PLC0415

    check_folder(command.out)
    loaded, preset = open_run(command.run)
    which: Which = "last" if command.last else "best"
    if command.invert and command.support is None:
        raise UsageError("--invert goes with --support; leave it out, or give both.")
    if command.support is not None:
        from metaception.estimators import files  # noqa: PLC0415
        from metaception.estimators.classifier import FewShotClassifier  # noqa: PLC0415

        expected = files.format_of(loaded)
        classes = files.support_files(command.support, expected)
        files.note_conversions([path for own in classes.values() for path in own], expected)
        support, labels = files.read_support(classes, expected, invert=command.invert)
        classifier = FewShotClassifier(loaded, steps=command.steps, statistics=command.statistics, which=which).fit(
            support, labels
        )
        classifier.save(command.out)
        what = f"adapted to {len(labels)} images of {len(classes)} classes"
    else:
        learner = with_policy(tuned_learner(loaded, preset.test.test_shots[0]), command.statistics)
        steps = command.steps
        if isinstance(learner, Iterative):
            steps = learner.steps if steps is None else steps
        if steps is not None and (steps < 0 or not isinstance(learner, Iterative)):
            raise UsageError(f"--steps {steps}: expected 0 or more, or none for a learner without inner steps.")
        meta = jax.device_get(loaded.meta(which))
        pixels = isinstance(loaded.algorithm.tasks, OF_IMAGES)
        facts = {"preset": preset.name, "outer_steps": loaded.step, "statistics": command.statistics, "pixels": pixels}
        meta_model(learner, meta, support=support_of(loaded), steps=steps, facts=facts).save(command.out)
        what = "meta-learned, adapts inside the program"
    console().print(f"{preset.name}, {what}: {command.out} (its README.md says how to load it)", markup=False)
    return 0
