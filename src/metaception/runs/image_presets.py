"""The presets for Omniglot, mini-ImageNet and CIFAR-FS, at the papers' settings."""

from __future__ import annotations

import dataclasses
from typing import Any

from metaception.domains.classification.image_tasks import ImageTasks
from metaception.methods.anil import ANIL
from metaception.methods.boil import BOIL
from metaception.methods.fomaml import FOMAML
from metaception.methods.imaml import IMAML
from metaception.methods.maml import MAML
from metaception.methods.maml_plus_plus import MAMLPlusPlus
from metaception.methods.mann import MANN
from metaception.methods.meta_lstm import MetaLSTM
from metaception.methods.method import Method
from metaception.methods.multiclass import MulticlassPretrain
from metaception.methods.nil import NIL
from metaception.methods.protonet import ProtoNet
from metaception.methods.reptile import Reptile
from metaception.runs.networks import Convolutional, Dense, Pixels
from metaception.runs.preset import MetaTest, Preset


def _omniglot(name: str, description: str, method: Method, ways: int, shots: int, **changes: Any) -> Preset:
    """On the network of Finn et al. 2017, with as many queries a class as shots, as their released code has it."""
    preset = Preset(
        f"{name}-omniglot-{ways}w{shots}s",
        f"{description} on Omniglot, {ways}-way {shots}-shot",
        method,
        ImageTasks("omniglot", ways=ways, shots=shots, queries=shots, rotations=True),
        Convolutional(),
        steps=60_000,
        test=MetaTest(test_shots=(shots,), test_steps=3 if ways == 5 else 5, test_queries=shots),
    )
    return dataclasses.replace(preset, **changes)


def _gradient(kind: type, ways: int) -> Method:
    """A method of MAML's family at the settings of Finn et al. 2017, section 5.2 and appendix A."""
    if ways == 5:
        return kind(inner_rate=0.4, inner_steps=1, meta_batch_size=32)
    return kind(inner_rate=0.1, inner_steps=5, meta_batch_size=16)


def _reptile(ways: int, shots: int) -> Preset:
    """Reptile as its authors' commands have it: trained with 10 shots whatever the test has."""
    rate, inner, batch, tested, steps = (1e-3, 5, 10, 5, 100_000) if ways == 5 else (5e-4, 10, 20, 10, 200_000)
    method = Reptile(
        inner_rate=rate, inner_steps=inner, inner_batch_size=batch, test_batch_size=tested, inner_optimizer="adam"
    )
    tasks = ImageTasks("omniglot", ways=ways, shots=10, queries=1, rotations=True)
    test = MetaTest(test_shots=(shots,), test_steps=50, test_queries=1)
    network = Convolutional(readout="flatten")
    return _omniglot("reptile", "Reptile", method, ways, shots, tasks=tasks, test=test, network=network, steps=steps)


def _mini_imagenet(
    name: str, description: str, method: Method, shots: int, images: str = "mini_imagenet", **changes: Any
) -> Preset:
    """On the network of Finn et al. 2017: 4 × 32 filters with max-pooling, 15 queries a class in training."""
    preset = Preset(
        f"{name}-{images.replace('_', '-')}-5w{shots}s",
        f"{description} on {_TITLES[images]}, 5-way {shots}-shot",
        method,
        ImageTasks(images, shots=shots, queries=15, validation_queries=15),
        Convolutional(filters=32, downsampling="max_pool", readout="flatten"),
        steps=60_000,
        test=MetaTest(test_shots=(shots,), test_steps=10, test_queries=15),
    )
    return dataclasses.replace(preset, **changes)


_TITLES = {"mini_imagenet": "mini-ImageNet", "cifar_fs": "CIFAR-FS"}
_KINDS: tuple[tuple[str, str, type], ...] = (
    ("maml", "MAML", MAML),
    ("fomaml", "First-order MAML", FOMAML),
    ("anil", "ANIL", ANIL),
    ("nil", "NIL", NIL),
    ("boil", "BOIL", BOIL),
)
_CASES = ((5, 1), (5, 5), (20, 1), (20, 5))
_DENSE = "MAML with a network without convolutions"
_MINI_REPTILE = Reptile(inner_rate=1e-3, inner_steps=8, inner_batch_size=10, inner_optimizer="adam")
_FLAT = Convolutional(readout="flatten")

IMAGE_PRESETS = (
    *(_omniglot(name, title, _gradient(kind, w), w, s) for name, title, kind in _KINDS for w, s in _CASES),
    *(_reptile(ways, shots) for ways, shots in _CASES),
    # As the released code configures it, but for its pooling and its batch normalisation for each inner step.
    *(
        _omniglot(
            "maml++",
            "MAML++",
            MAMLPlusPlus(inner_rate=0.1, meta_batch_size=8, multi_step=5_000),
            ways,
            shots,
            steps=50_000,
            test=MetaTest(test_shots=(shots,), test_steps=5, test_queries=shots),
        )
        for ways, shots in _CASES
    ),
    # The paper prints no settings of iMAML's for images that were found; these are the released example's.
    _omniglot(
        "imaml",
        "Implicit MAML",
        IMAML(inner_rate=0.1, inner_steps=16, strength=2.0, damping=2.0, meta_batch_size=32),
        5,
        1,
    ),
    # The paper has no figures on Omniglot; inner and outer steps are those of the authors' configuration for it. At meta-test
    # the authors take batch statistics from the support set (section 3.4), in training from each half.
    _omniglot(
        "meta-lstm",
        "LSTM meta-learner",
        MetaLSTM(inner_steps=15),
        5,
        1,
        test=MetaTest(test_shots=(1,), test_steps=15, test_queries=1, test_statistics="support"),
        steps=50_000,
    ),
    *(_omniglot("dense-maml", _DENSE, _gradient(MAML, 5), 5, s, network=Dense()) for s in (1, 5)),
    *(
        _omniglot(
            "protonet",
            "Prototypical networks",
            ProtoNet(),
            ways,
            shots,
            tasks=ImageTasks("omniglot", ways=ways, train_ways=60, shots=shots, queries=5, rotations=True),
            network=_FLAT,
        )
        for ways, shots in _CASES
    ),
    *(
        _omniglot(
            "mann",
            "Memory-augmented neural network",
            MANN(),
            5,
            shots,
            tasks=ImageTasks("omniglot", shots=shots, queries=5, rotations=True),
            network=Pixels(),
            steps=100_000,
        )
        for shots in (1, 5)
    ),
    # CIFAR-FS at the settings of mini-ImageNet, and with its network: its images are smaller, so the last layer sees fewer
    # features.
    *(
        _mini_imagenet(
            name,
            title,
            kind(inner_rate=0.01, inner_steps=5, meta_batch_size=4 if s == 1 else 2, outer_clip=10.0),
            s,
            images=images,
        )
        for images in _TITLES
        for name, title, kind in _KINDS
        for s in (1, 5)
    ),
    *(
        _mini_imagenet(
            "maml++",
            "MAML++",
            # Its released configuration keeps the outer step size as it is here.
            MAMLPlusPlus(meta_batch_size=2, outer_schedule="constant", outer_clip=10.0),
            s,
            network=Convolutional(filters=48, downsampling="max_pool", readout="flatten"),
            steps=50_000,
            test=MetaTest(test_shots=(s,), test_steps=5, test_queries=15),
        )
        for s in (1, 5)
    ),
    *(
        _mini_imagenet(
            "multiclass",
            "Baseline: one classifier of all training classes, then a new last layer,",
            MulticlassPretrain(inner_rate=0.3),
            s,
            tasks=ImageTasks("mini_imagenet", shots=s, queries=15, validation_queries=15, batches=16),
            test=MetaTest(test_shots=(s,), test_steps=100, test_queries=15),
        )
        for s in (1, 5)
    ),
    *(
        _omniglot(
            "multiclass",
            "Baseline: one classifier of all training classes, then a new last layer,",
            MulticlassPretrain(inner_rate=0.3),
            ways,
            shots,
            tasks=ImageTasks("omniglot", ways=ways, shots=shots, queries=shots, rotations=True, batches=16),
            test=MetaTest(test_shots=(shots,), test_steps=100, test_queries=shots),
        )
        for ways, shots in _CASES
    ),
    *(
        _mini_imagenet(
            "meta-lstm",
            "LSTM meta-learner",
            MetaLSTM(inner_steps=inner),
            s,
            test=MetaTest(test_shots=(s,), test_steps=inner, test_queries=15, test_statistics="support"),
            steps=75_000,
        )
        for s, inner in ((1, 12), (5, 5))
    ),
    *(
        _mini_imagenet(
            "reptile",
            "Reptile",
            dataclasses.replace(_MINI_REPTILE, test_batch_size=5 if s == 1 else 15),
            s,
            tasks=ImageTasks("mini_imagenet", shots=15, queries=1, validation_queries=15),
            test=MetaTest(test_shots=(s,), test_steps=50, test_queries=1),
            steps=100_000,
        )
        for s in (1, 5)
    ),
)
