"""The presets: named configurations that flags override."""

from __future__ import annotations

import dataclasses
from typing import Any

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
from metaception.methods.reptile import Reptile
from metaception.runs.image_presets import IMAGE_PRESETS
from metaception.runs.networks import Convolutional, Perceptron, Pixels
from metaception.runs.preset import MetaTest, Preset

_PAPER = Perceptron(initialiser="truncated_normal")
_HE = Perceptron(initialiser="he")

_GLYPHS = ImageTasks("glyphs", shots=1, queries=5)
_GLYPHS_TEST = MetaTest(test_shots=(1, 5), test_steps=10, test_queries=5)
_FLAT = Convolutional(filters=32, readout="flatten")


def _on_glyphs(name: str, description: str, method: Method, **changes: Any) -> Preset:
    """5-way 1-shot with a network that is small enough for a CPU; `changes` are to that."""
    preset = Preset(
        f"{name}-glyphs", description, method, _GLYPHS, Convolutional(filters=32), steps=5_000, test=_GLYPHS_TEST
    )
    return dataclasses.replace(preset, **changes)


_ALL = (
    # MAML's, FOMAML's, Meta-SGD's, ANIL's and iMAML's step sizes and λ: chosen on validation tasks by experiments/tuning.py.
    Preset(
        "maml-sinusoid",
        "MAML on sinusoids: our best at the paper's network and budget",
        MAML(inner_rate=0.002, outer_rate=5e-3, outer_schedule="cosine"),
        Sinusoids(shots=5),
        _HE,
    ),
    Preset(
        "maml-sinusoid-paper",
        "MAML on sinusoids as the paper prints it: inner rate 0.01",
        MAML(inner_rate=0.01),
        Sinusoids(),
        _PAPER,
    ),
    Preset(
        "maml-sinusoid-paper-alpha001",
        "MAML on sinusoids as the authors' published command runs it: inner rate 0.001",
        MAML(inner_rate=0.001),
        Sinusoids(),
        _PAPER,
    ),
    # As maml-sinusoid in everything but the method and its step sizes.
    Preset(
        "fomaml-sinusoid",
        "First-order MAML on sinusoids",
        FOMAML(inner_rate=0.002, outer_rate=5e-3, outer_schedule="cosine"),
        Sinusoids(shots=5),
        _HE,
    ),
    Preset(
        "meta-sgd-sinusoid",
        "Meta-SGD on sinusoids: the step sizes are learned too",
        MetaSGD(inner_rate=0.002, outer_rate=5e-3, outer_schedule="cosine"),
        Sinusoids(shots=5),
        _HE,
    ),
    Preset(
        "anil-sinusoid",
        "ANIL on sinusoids: the inner loop adapts the last layer alone",
        ANIL(inner_rate=0.003, outer_rate=5e-3, outer_schedule="cosine"),
        Sinusoids(shots=5),
        _HE,
    ),
    Preset("reptile-sinusoid", "Reptile on MAML's sinusoids", Reptile(), Sinusoids()),
    Preset("reptile-sinusoid-2pi", "Reptile on its own paper's sinusoids, phase to 2π", Reptile(), Sinusoids.reptile()),
    Preset(
        "imaml-sinusoid",
        "Implicit MAML on sinusoids",
        IMAML(inner_rate=0.002, strength=1.0, damping=10.0, outer_rate=2e-3, outer_schedule="cosine"),
        Sinusoids(shots=5),
        _HE,
    ),
    Preset(
        "pretrain-sinusoid",
        "Baseline: one network for all sinusoids, fine-tuned at test with a tuned step size",
        Pretrain(),
        Sinusoids(),
    ),
    Preset(
        "oracle-sinusoid",
        "Upper bound: a network that is told amplitude and phase",
        Oracle(),
        Sinusoids(told=True),
    ),
    Preset(
        "random-sinusoid",
        "Baseline: no training, fine-tuned at test with a tuned step size",
        RandomInitialisation(),
        Sinusoids(),
        _HE,
        steps=0,
    ),
    Preset("maml-lines", "MAML on straight lines", MAML(), Lines(), test=MetaTest(test_shots=(5,))),
    Preset(
        "maml-sinusoids-and-lines",
        "MAML where half of the tasks are sinusoids and half are lines, with noise",
        MAML(inner_steps=5),
        SinusoidsAndLines(),
        test=MetaTest(test_shots=(5,)),
    ),
    Preset(
        "maml-sinusoid-bayesian",
        "MAML on Bayesian MAML's sinusoids: frequency varies, targets are noisy",
        MAML(),
        Sinusoids.bayesian_maml(),
    ),
    # Glyphs come with the package; first settings, not tuned: MAML's on Omniglot, and Reptile's and iMAML's authors'.
    _on_glyphs("maml", "MAML on Glyphs, 5-way 1-shot", MAML(inner_rate=0.4, meta_batch_size=16)),
    _on_glyphs("fomaml", "First-order MAML on Glyphs, 5-way 1-shot", FOMAML(inner_rate=0.4, meta_batch_size=16)),
    _on_glyphs(
        "reptile",
        "Reptile on Glyphs, 5-way, trained with 10 shots",
        Reptile(inner_rate=1e-3, inner_steps=5, inner_batch_size=10, inner_optimizer="adam"),
        tasks=dataclasses.replace(_GLYPHS, shots=10, queries=1),
        test=dataclasses.replace(_GLYPHS_TEST, test_steps=50),
    ),
    _on_glyphs(
        "meta-sgd",
        "Meta-SGD on Glyphs, 5-way 1-shot: the step sizes are learned too",
        MetaSGD(inner_rate=0.4, meta_batch_size=16),
    ),
    _on_glyphs(
        "maml++",
        "MAML++ on Glyphs, 5-way 1-shot: a loss after every step, step sizes learned per layer and step",
        MAMLPlusPlus(inner_rate=0.1, meta_batch_size=16, multi_step=500),
    ),
    _on_glyphs(
        "meta-lstm",
        "LSTM meta-learner on Glyphs, 5-way 1-shot: the update rule is learned too",
        MetaLSTM(inner_rate=0.1, inner_steps=5),
        test=dataclasses.replace(_GLYPHS_TEST, test_steps=5),
    ),
    _on_glyphs(
        "anil",
        "ANIL on Glyphs, 5-way 1-shot: the inner loop adapts the last layer alone",
        ANIL(inner_rate=0.4, inner_steps=5, meta_batch_size=16),
    ),
    _on_glyphs(
        "boil",
        "BOIL on Glyphs, 5-way 1-shot: the inner loop adapts all but the last layer",
        BOIL(inner_rate=0.4, meta_batch_size=16),
    ),
    _on_glyphs(
        "nil",
        "NIL on Glyphs, 5-way 1-shot: trained as ANIL, tested without the head",
        NIL(inner_rate=0.4, inner_steps=5, meta_batch_size=16),
    ),
    _on_glyphs(
        "imaml",
        "Implicit MAML on Glyphs, 5-way 1-shot",
        IMAML(inner_rate=0.1, inner_steps=16, strength=2.0, damping=2.0, meta_batch_size=16),
        test=dataclasses.replace(_GLYPHS_TEST, test_steps=16),
    ),
    _on_glyphs(
        "protonet",
        "Prototypical networks on Glyphs, 1-shot, trained 20-way and tested 5-way",
        ProtoNet(),
        tasks=dataclasses.replace(_GLYPHS, train_ways=20),
        network=_FLAT,
    ),
    _on_glyphs("matching", "Matching networks on Glyphs, 5-way 1-shot", MatchingNet(meta_batch_size=16), network=_FLAT),
    # Smaller than the paper's, and chosen on validation tasks in runs of minutes; the memory is for one shot.
    _on_glyphs(
        "mann",
        "Memory-augmented neural network on Glyphs, 5-way 1-shot",
        MANN(hidden=100, slots=24, reads=2, sharpness=10.0, outer_rate=3e-3),
        network=dataclasses.replace(_FLAT, filters=16),
        test=dataclasses.replace(_GLYPHS_TEST, test_shots=(1,)),
    ),
    _on_glyphs(
        "multiclass",
        "Baseline on Glyphs: one classifier of all training characters, then a new last layer, fine-tuned",
        MulticlassPretrain(inner_rate=0.3),
        tasks=dataclasses.replace(_GLYPHS, batches=16),
        network=_FLAT,
        steps=20_000,
        test=dataclasses.replace(_GLYPHS_TEST, test_steps=100),
    ),
    _on_glyphs(
        "random",
        "Baseline on Glyphs: no training, fine-tuned at test with a tuned step size",
        RandomInitialisation(),
        steps=0,
    ),
    _on_glyphs(
        "nearest",
        "Baseline on Glyphs: the nearest support image, pixel by pixel",
        NearestNeighbour(),
        network=Pixels(),
        steps=0,
    ),
    _on_glyphs(
        "nearest-random",
        "Baseline on Glyphs: the nearest support image, by the features of a random network",
        NearestNeighbour(),
        network=_FLAT,
        steps=0,
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (*_ALL, *IMAGE_PRESETS)}
