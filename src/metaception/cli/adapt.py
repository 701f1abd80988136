"""`metaception adapt`."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from metaception.cli.console import console
from metaception.cli.evaluate import open_run
from metaception.core.files import write_atomically
from metaception.learners.supervised import Statistics
from metaception.runs.errors import UsageError
from metaception.runs.files import disk_errors
from metaception.runs.preset import Preset

_FIRST = ("file", "predicted", "probability")


@dataclass(frozen=True)
class Adapt:
    """Adapt a run to images of your own, and classify others: a CSV file, and a picture beside it.

    Images are resized to the run's size and made grey or RGB as it needs them. An image to be classified that cannot be read
    is named in its row, and the others are classified.

    Attributes:
        run: the run folder; or glyphs, a small model that comes with the package.
        support: the images to learn from, sorted into folders: FOLDER/CLASS/IMAGE.
        query: the images to classify, FOLDER/IMAGE; or FOLDER/CLASS/IMAGE, and the right ones are counted.
        out: the CSV file: file, class (with FOLDER/CLASS/IMAGE), predicted, probability, p_CLASS of every class, error. A
            file that this command made is overwritten, any other is not. The picture has the same name and .png.
        steps: inner steps; as many as in training unless given.
        statistics: what batch normalisation takes its statistics from: the support set alone, the support set and each image
            (one), or all images to be classified together (batch: then a prediction depends on the others).
        invert: swap black and white first: for dark ink on white paper, where the run was trained on white ink on black.
        last: take the last meta-parameters instead of the best on validation.
    """

    run: Annotated[Path, tyro.conf.Positional]
    support: Path
    query: Path
    out: Path
    steps: int | None = None
    statistics: Statistics = "support"
    invert: bool = False
    last: bool = False


def run(command: Adapt) -> int:
    """Adapt, classify, write the table and the picture."""
    # Only here: scikit-learn and matplotlib take a moment to import, for every command.
    from metaception.estimators import files  # noqa: PLC0415
    from metaception.estimators.classifier import FewShotClassifier  # noqa: PLC0415
    from metaception.estimators.picture import draw  # noqa: PLC0415

    picture = _check_out(command.out)
    loaded, preset = open_run(command.run)
    expected = files.format_of(loaded)
    classes = files.support_files(command.support, expected)
    queries = files.query_files(command.query, list(classes))
    paths = [path for path, _ in queries]
    files.note_passed_over([own[0].parent for own in classes.values()] + sorted({path.parent for path in paths}))
    files.note_conversions([*(path for own in classes.values() for path in own), *paths], expected)
    support, labels = files.read_support(classes, expected, invert=command.invert)

    which = "last" if command.last else "best"
    classifier = FewShotClassifier(loaded, steps=command.steps, statistics=command.statistics, which=which)
    classifier.fit(support, labels)
    images, errors = files.read(paths, expected, invert=command.invert)
    good = [image for image in images if image is not None]
    # In the order of the folders, which is natural, and not in that of the labels.
    order = [list(classifier.classes_).index(name) for name in classes]
    chances = classifier.predict_proba(np.stack(good))[:, order] if good else np.zeros((0, len(classes)))

    names, known = list(classes), [name for _, name in queries]
    table, left = io.StringIO(newline=""), iter(chances)
    write = csv.writer(table, lineterminator="\n").writerow
    truth = any(name is not None for name in known)
    write([_FIRST[0], *(["class"] if truth else []), *_FIRST[1:], *(f"p_{name}" for name in names), "error"])
    for (path, name), error in zip(queries, errors, strict=True):
        row = [path.relative_to(command.query).as_posix(), *([name or ""] if truth else [])]
        if error:
            write([*row, "", "", *("" for _ in names), error])
            continue
        chance = next(left)
        write([*row, names[chance.argmax()], f"{chance.max():.6g}", *(f"{p:.6g}" for p in chance), ""])
    named = [name for name, error in zip(known, errors, strict=True) if not error]
    steps = classifier.model_.facts["steps"]
    title = f"{preset.name} adapted to {len(labels)} images of {len(names)} classes" + (
        "" if steps is None else f", {steps} inner step{'s' * (steps != 1)}"
    )
    policy = _policy(command.statistics, preset)
    places = np.array([names.index(label) for label in labels])
    drawn = draw(
        title,
        names,
        support=support,
        labels=places,
        queries=np.array(good).reshape(-1, *support.shape[1:]),
        chances=chances,
        truth=named,
    )
    with disk_errors(str(command.out), "Choose a place that can be written (--out)."):
        command.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(command.out, table.getvalue().encode(errors="surrogateescape"))
        write_atomically(picture, drawn)

    say = console()
    say.print(f"{title}{policy}.", markup=False)
    for error in errors:
        if error:
            files.warn(error)
    said = [names[chance.argmax()] for chance in chances]
    right = [name == guess for name, guess in zip(named, said, strict=True) if name is not None]
    if right:
        say.print(f"Right: {sum(right)} of {len(right)} ({np.mean(right):.1%}).")
    say.print(f"Classified {len(good)} of {len(queries)} images: {command.out}; picture: {picture}", markup=False)
    return 0 if good else 1


def _policy(statistics: Statistics, preset: Preset) -> str:
    """The policy of batch statistics, and training's where that is another; nothing for a network that has none."""
    if getattr(preset.network, "normalisation", "none") != "batch":
        return ""
    trained = preset.method.statistics
    names = {
        "batch": "of all queries together (transductive)",
        "support": "of the support set",
        "one": "of the support set and one query",
    }
    other = f"; trained with those {names[trained]}" if trained != statistics else ""
    return f"; batch statistics {names[statistics]}{other}"


def _check_out(out: Path) -> Path:
    """The picture's path; refuses to overwrite what this command did not make."""
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {out}: expected the name of a CSV file, for example predictions.csv.")
    picture = out.with_suffix(".png")
    ours = False
    if out.is_file():
        with open(out, encoding="utf-8", errors="replace", newline="") as file:
            header = next(csv.reader(file), [])
        ours = [name for name in header if name != "class"][: len(_FIRST)] == list(_FIRST) and header[-1] == "error"
    for path in (out, picture):
        if path.exists() and not ours:
            raise UsageError(
                f"--out: {path} exists and was not made by `metaception adapt`; give another name, or remove it."
            )
    return picture
