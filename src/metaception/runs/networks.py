"""Networks as settings: what a preset holds of its model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from metaception.core.model import Model
from metaception.domains.classification.convolution import Precision
from metaception.domains.classification.networks import (
    Downsampling,
    Normalisation,
    Readout,
    conv_net,
    dense_net,
    pixels,
)
from metaception.domains.classification.resnet import resnet12
from metaception.domains.regression.networks import Activation, Initialiser, mlp


class Network(ABC):
    """Settings of a model, which takes its inputs and outputs from the tasks."""

    @abstractmethod
    def build(self, inputs: tuple[int, ...], outputs: int) -> Model:
        """The model for inputs of that shape (of one example) and so many outputs."""


@dataclass(frozen=True)
class Perceptron(Network):
    """A multi-layer perceptron.

    Attributes:
        widths: units of each hidden layer.
        activation: of the hidden layers.
        initialiser: truncated_normal (standard deviation 0.01, zero biases) or he.
    """

    widths: tuple[int, ...] = (40, 40)
    activation: Activation = "relu"
    initialiser: Initialiser = "truncated_normal"

    def build(self, inputs: tuple[int, ...], outputs: int) -> Model:
        return mlp(inputs[-1], outputs, widths=self.widths, activation=self.activation, initialiser=self.initialiser)


@dataclass(frozen=True)
class Convolutional(Network):
    """Blocks of a 3×3 convolution, normalisation and ReLU, each halving the image; then one linear layer.

    Attributes:
        filters: of each convolution.
        blocks: how many.
        downsampling: by a stride of 2 in the convolution, or by 2×2 max_pooling after it.
        normalisation: batch (of whatever batch the network sees, so that a query set is classified transductively), group,
            layer or none.
        readout: what the last layer sees: the mean over all places, or all of them (flatten).
        precision: of the factors in the convolutions' products: float32, or bfloat16, which is faster where the processor has
            instructions for it.
    """

    filters: int = 64
    blocks: int = 4
    downsampling: Downsampling = "stride"
    normalisation: Normalisation = "batch"
    readout: Readout = "mean"
    precision: Precision = "float32"

    def build(self, inputs: tuple[int, ...], outputs: int) -> Model:
        return conv_net(
            inputs,
            outputs,
            filters=self.filters,
            blocks=self.blocks,
            downsampling=self.downsampling,
            normalisation=self.normalisation,
            readout=self.readout,
            precision=self.precision,
        )


@dataclass(frozen=True)
class Dense(Network):
    """A perceptron on pixels with batch normalisation: the papers' network without convolutions.

    Attributes:
        widths: units of each hidden layer.
        normalisation: batch (as in Convolutional) or none.
    """

    widths: tuple[int, ...] = (256, 128, 64, 64)
    normalisation: Literal["batch", "none"] = "batch"

    def build(self, inputs: tuple[int, ...], outputs: int) -> Model:
        return dense_net(inputs, outputs, widths=self.widths, normalisation=self.normalisation)


@dataclass(frozen=True)
class ResNet(Network):
    """ResNet-12.

    Attributes:
        widths: filters of each of the blocks.
        normalisation: as in Convolutional.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    normalisation: Normalisation = "batch"

    def build(self, inputs: tuple[int, ...], outputs: int) -> Model:
        return resnet12(inputs, outputs, widths=self.widths, normalisation=self.normalisation)


@dataclass(frozen=True)
class Pixels(Network):
    """No network: the features of an image are its pixels; then one linear layer."""

    def build(self, inputs: tuple[int, ...], outputs: int) -> Model:
        return pixels(inputs, outputs)


NETWORKS: dict[str, type[Network]] = {
    "perceptron": Perceptron,
    "convolutional": Convolutional,
    "dense": Dense,
    "resnet": ResNet,
    "pixels": Pixels,
}
"""The networks by the names that configurations have for them."""
