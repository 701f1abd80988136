"""Metaception: every flavour of learning to learn, as one Python library."""

from typing import TYPE_CHECKING, Any

from metaception._version import __version__
from metaception.core.algorithm import Info, MetaAlgorithm, State
from metaception.core.learner import (
    Descending,
    GradientBased,
    Initialising,
    Iterative,
    Learner,
    Sampling,
    Stationary,
    advance,
    unroll,
)
from metaception.core.mapping import Chunked, Mapping, Sequential, Sharded, Vectorised, as_mapping
from metaception.core.metagradient import Differentiating, Estimate, MetaGradient, Unsuitable
from metaception.core.model import Model, as_model, count_parameters, sequential
from metaception.core.task import ArrayTasks, Examples, FunctionTasks, Task, TaskDistribution
from metaception.data.folders import load_folder
from metaception.data.images import ImageSet
from metaception.domains.classification.batches import Batches
from metaception.domains.classification.convolution import convolve
from metaception.domains.classification.episodes import Episodes
from metaception.domains.classification.image_tasks import ImageTasks
from metaception.domains.classification.losses import CrossEntropy, cross_entropy
from metaception.domains.classification.networks import conv_net, dense_net, pixels
from metaception.domains.classification.resnet import resnet12
from metaception.domains.regression.losses import mean_squared_error
from metaception.domains.regression.networks import mlp
from metaception.domains.regression.tasks import Lines, Sinusoids, SinusoidsAndLines
from metaception.evaluation.curves import Evaluation, evaluate, tune_rate
from metaception.evaluation.per_step import per_step_statistics
from metaception.learners.fresh_head import FreshHead
from metaception.learners.head import Head
from metaception.learners.initialisation import Initialisation
from metaception.learners.lstm_optimizer import LSTMOptimizer
from metaception.learners.memory import MemoryAugmented
from metaception.learners.metric import Matching, Nearest, Prototypes
from metaception.learners.per_step import PerStep
from metaception.learners.proximal import ProximalInitialisation
from metaception.learners.rates import LearnedRates, LearnedStepRates
from metaception.metagrad.evolution import EvolutionStrategies, PersistentES
from metaception.metagrad.first_order import FirstOrder
from metaception.metagrad.implicit import Implicit
from metaception.metagrad.multi_step import MultiStep
from metaception.metagrad.truncated import Truncated
from metaception.metagrad.unroll import Unroll
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
from metaception.methods.multiclass import MulticlassPretrain
from metaception.methods.nearest import NearestNeighbour
from metaception.methods.nil import NIL
from metaception.methods.protonet import ProtoNet
from metaception.methods.reptile import Reptile
from metaception.runs.errors import Diverged, OutOfMemory, RunError, Stopped, UsageError
from metaception.runs.run import TrainedRun, load_run
from metaception.runs.training import train

if TYPE_CHECKING:
    from metaception.estimators.classifier import FewShotClassifier
    from metaception.estimators.regressor import FewShotRegressor

__all__ = [
    "ANIL",
    "BOIL",
    "FOMAML",
    "IMAML",
    "MAML",
    "MANN",
    "NIL",
    "ArrayTasks",
    "Batches",
    "Chunked",
    "CrossEntropy",
    "Descending",
    "Differentiating",
    "Diverged",
    "Episodes",
    "Estimate",
    "Evaluation",
    "EvolutionStrategies",
    "Examples",
    "FewShotClassifier",
    "FewShotRegressor",
    "FirstOrder",
    "FreshHead",
    "FunctionTasks",
    "GradientBased",
    "Head",
    "ImageSet",
    "ImageTasks",
    "Implicit",
    "Info",
    "Initialisation",
    "Initialising",
    "Iterative",
    "LSTMOptimizer",
    "LearnedRates",
    "LearnedStepRates",
    "Learner",
    "Lines",
    "MAMLPlusPlus",
    "Mapping",
    "Matching",
    "MatchingNet",
    "MemoryAugmented",
    "MetaAlgorithm",
    "MetaGradient",
    "MetaLSTM",
    "MetaSGD",
    "Model",
    "MultiStep",
    "MulticlassPretrain",
    "Nearest",
    "NearestNeighbour",
    "Oracle",
    "OutOfMemory",
    "PerStep",
    "PersistentES",
    "Pretrain",
    "ProtoNet",
    "Prototypes",
    "ProximalInitialisation",
    "RandomInitialisation",
    "Reptile",
    "RunError",
    "Sampling",
    "Sequential",
    "Sharded",
    "Sinusoids",
    "SinusoidsAndLines",
    "State",
    "Stationary",
    "Stopped",
    "Task",
    "TaskDistribution",
    "TrainedRun",
    "Truncated",
    "Unroll",
    "Unsuitable",
    "UsageError",
    "Vectorised",
    "__version__",
    "advance",
    "as_mapping",
    "as_model",
    "conv_net",
    "convolve",
    "count_parameters",
    "cross_entropy",
    "dense_net",
    "evaluate",
    "load_folder",
    "load_run",
    "mean_squared_error",
    "mlp",
    "per_step_statistics",
    "pixels",
    "resnet12",
    "sequential",
    "train",
    "tune_rate",
    "unroll",
]


def __getattr__(name: str) -> Any:
    """The estimators, imported when they are asked for: scikit-learn takes a second to import."""
    if name in ("FewShotClassifier", "FewShotRegressor"):
        from importlib import import_module  # noqa: PLC0415

        module = import_module(f"metaception.estimators.{name.removeprefix('FewShot').lower()}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
