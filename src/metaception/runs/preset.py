"""A preset: everything that a training run is made from, as one plain, comparable, savable value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from metaception.core.algorithm import MetaAlgorithm
from metaception.core.family import Family
from metaception.core.task import TaskDistribution
from metaception.domains.classification.image_tasks import ImageTasks
from metaception.domains.regression.tasks import Lines, Sinusoids, SinusoidsAndLines
from metaception.methods.anil import ANIL
from metaception.methods.boil import BOIL
from metaception.methods.fomaml import FOMAML
from metaception.methods.imaml import IMAML
from metaception.methods.joint import Oracle, Pretrain, RandomInitialisation
from metaception.methods.maml import MAML
from metaception.methods.maml_plus_plus import MAMLPlusPlus
from metaception.methods.mann import MANN
from metaception.methods.matching import MatchingNet
from metaception.methods.meta_lstm import MetaLSTM
from metaception.methods.meta_sgd import MetaSGD
from metaception.methods.method import Method
from metaception.methods.multiclass import MulticlassPretrain
from metaception.methods.nearest import NearestNeighbour
from metaception.methods.nil import NIL
from metaception.methods.protonet import ProtoNet
from metaception.methods.references import LIBRARY
from metaception.methods.reptile import Reptile
from metaception.runs.errors import UsageError
from metaception.runs.networks import NETWORKS, Network, Perceptron

TestStatistics = Literal["batch", "support", "one", "per_step"]


@dataclass(frozen=True)
class MetaTest:
    """How a trained run is tested, on tasks that training and validation never see.

    Attributes:
        test_shots: support examples K of a test task (a class, in classification); one table row for each.
        test_steps: inner steps, from 0 to this.
        test_tasks: how many tasks.
        test_queries: query examples: points evenly over the range of x; in classification, images a class.
        test_seed: which tasks; runs with the same number are tested on the same ones.
        test_statistics: what batch normalisation takes its statistics from: batch (transductive), support, one, or per_step
            (what training tasks had after as many inner steps); as in training unless given.
    """

    test_shots: tuple[int, ...] = (5, 10)
    test_steps: int = 10
    test_tasks: int = 600
    test_queries: int = 100
    test_seed: int = 0
    test_statistics: TestStatistics | None = None

    def __post_init__(self) -> None:
        least = {"test_steps": 0, "test_tasks": 1, "test_queries": 1, "test_seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name}={getattr(self, name)}; expected {low} or more.")
        if not self.test_shots or min(self.test_shots) < 1:
            raise UsageError(f"test_shots={list(self.test_shots)}; expected at least one number, each 1 or more.")


@dataclass(frozen=True)
class Preset:
    """A named configuration of a training run.

    Attributes:
        name: its name.
        description: one line on what it is.
        method: the method and its settings.
        tasks: the family of tasks.
        network: the model.
        steps: outer steps.
        seed: the first seed.
        seeds: independent trainings in one run, with the seeds `seed`, `seed` + 1, …; reported together.
        validation_tasks: tasks that the best meta-parameters are chosen by.
        log_every: outer steps a row of metrics; a hundredth of all (at most 1,000) unless given.
        validate_every: outer steps between validations; every row unless given.
        test: how the run is tested in the end.
    """

    name: Annotated[str, tyro.conf.Suppress]
    description: Annotated[str, tyro.conf.Suppress]
    method: Method
    tasks: Family
    network: Network = field(default_factory=Perceptron)
    steps: int = 70_000
    seed: int = 0
    seeds: int = 1
    validation_tasks: int = 100
    log_every: int | None = None
    validate_every: int | None = None
    test: MetaTest = field(default_factory=MetaTest)

    def build(self, *, data: bool = True) -> MetaAlgorithm:
        """The algorithm.

        Args:
            data: whether to load the data that training draws from; without it, the algorithm can adapt and be tested.

        Raises:
            ValueError: for settings that cannot work, and data that is not there.
        """
        if getattr(self.tasks, "batches", 0) and not isinstance(self.method, MulticlassPretrain):
            raise ValueError(
                f"{self.method.name}: batches={self.tasks.batches} is for pretraining on all classes (multiclass_pretrain); in "  # type: ignore[attr-defined]
                "a batch of all classes there is no support set to learn a task from. Leave it out."
            )
        tasks = self.tasks.train_tasks() if data else self.tasks.shapes()
        task = jax.eval_shape(tasks.sample, jax.random.key(0))
        classes = getattr(self.tasks, "outputs", None)
        outputs = task.support.targets.shape[-1] if classes is None else classes
        model = self.network.build(task.support.inputs.shape[1:], outputs)
        return self.method.build(model, tasks, loss=self.tasks.loss, steps=self.steps)

    def test_distribution(self, shots: int) -> TaskDistribution:
        """The distribution of test tasks with so many support examples."""
        return self.tasks.test_tasks(shots, self.test.test_queries)

    def citations(self) -> tuple[str, ...]:
        """The keys of what this uses, in `metaception.methods.references`."""
        keys = [LIBRARY, *self.method.citations]
        if getattr(self.method, "memory", None) == "mixed":
            keys.append("kemaev2025mixflow")
        return tuple(dict.fromkeys([*keys, *self.tasks.citations()]))


def called_by_its_images(preset: Preset, original: Preset) -> Preset:
    """A preset that was given other images than `original` has, with a name and a description that say so."""
    tasks = preset.tasks
    if (
        not isinstance(tasks, ImageTasks)
        or not isinstance(original.tasks, ImageTasks)
        or tasks.images == original.tasks.images
    ):
        return preset
    images = Path(tasks.images).name
    description = f"{preset.method.title} on {images}, {tasks.ways}-way"
    return dataclasses.replace(preset, name=f"{preset.method.name}-{images}", description=description)


METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(MAML, MAMLPlusPlus, FOMAML, Reptile, MetaSGD, MetaLSTM, ANIL, BOIL, NIL, IMAML, ProtoNet, MatchingNet, MANN),
        *(Pretrain, MulticlassPretrain, Oracle, RandomInitialisation, NearestNeighbour),
    )
}
FAMILIES: dict[str, type[Family]] = {
    "images": ImageTasks,
    "sinusoids": Sinusoids,
    "lines": Lines,
    "sinusoids_and_lines": SinusoidsAndLines,
}


def to_dict(preset: Preset) -> dict[str, Any]:
    """A preset as plain values, for a JSON file. Nothing in it is code."""
    families = {family: name for name, family in FAMILIES.items()}
    networks = {network: name for name, network in NETWORKS.items()}
    return {
        **_fields(preset),
        "method": {"kind": preset.method.name, **_fields(preset.method)},
        "tasks": {"kind": families[type(preset.tasks)], **_fields(preset.tasks)},
        "network": {"kind": networks[type(preset.network)], **_fields(preset.network)},
        "test": _fields(preset.test),
    }


def from_dict(values: dict[str, Any]) -> Preset:
    """The inverse of `to_dict`.

    Raises:
        UsageError: for what this version does not know.
    """
    given = dict(values)
    try:
        parts = {
            "method": _known("method", given.pop("method"), METHODS),
            "tasks": _known("family of tasks", given.pop("tasks"), FAMILIES),
            "network": _known("network", {"kind": "perceptron"} | given.pop("network"), NETWORKS),
            "test": _make(MetaTest, given.pop("test")),
        }
        return _make(Preset, given | parts)
    except (KeyError, TypeError) as error:
        raise UsageError(f"the configuration is not one of this version's: {error}") from error


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: _listed(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _make(kind: type, values: dict[str, Any]) -> Any:
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _known(what: str, values: dict[str, Any], kinds: dict[str, type]) -> Any:
    kind = values.get("kind")
    if kind not in kinds:
        raise UsageError(f"unknown {what} {kind!r} in the configuration; this version knows {', '.join(kinds)}.")
    return _make(kinds[kind], {name: value for name, value in values.items() if name != "kind"})
