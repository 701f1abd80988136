"""The presets: named configurations that flags override."""

from __future__ import annotations

import dataclasses

from metaception.domains.classification.image_tasks import ImageTasks
from metaception.domains.regression.tasks import Lines, Sinusoids, SinusoidsAndLines
from metaception.methods.anil import ANIL
from metaception.methods.fomaml import FOMAML
from metaception.methods.imaml import IMAML
from metaception.methods.joint import Oracle, Pretrain, RandomInitialisation
from metaception.methods.maml import MAML
from metaception.methods.meta_sgd import MetaSGD
from metaception.methods.reptile import Reptile
from metaception.runs.networks import Convolutional, Perceptron
from metaception.runs.preset import MetaTest, Preset

_PAPER = Perceptron(initialiser="truncated_normal")
_HE = Perceptron(initialiser="he")

_OMNIGLOT = MetaTest(test_shots=(1,), test_steps=3, test_queries=1)

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
    # Finn et al. 2017, section 5.2 and their released code: as many queries a class as shots.
    Preset(
        "maml-omniglot-5w1s",
        "MAML on Omniglot, 5-way 1-shot, as the paper has it",
        MAML(inner_rate=0.4, meta_batch_size=32),
        ImageTasks("omniglot", shots=1, queries=1, rotations=True),
        Convolutional(),
        steps=60_000,
        test=_OMNIGLOT,
    ),
    Preset(
        "maml-omniglot-5w5s",
        "MAML on Omniglot, 5-way 5-shot, as the paper has it",
        MAML(inner_rate=0.4, meta_batch_size=32),
        ImageTasks("omniglot", shots=5, queries=5, rotations=True),
        Convolutional(),
        steps=60_000,
        test=dataclasses.replace(_OMNIGLOT, test_shots=(5,), test_queries=5),
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
