"""A family of tasks as a preset holds it: settings, from which the distributions of training, validation and test come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from metaception.core.task import TaskDistribution


class Family(ABC):
    """Settings of a family of tasks; nothing is loaded before a distribution is asked for."""

    measure: ClassVar[str]
    """What a test reports: `mse`, or `accuracy`."""

    @abstractmethod
    def train_tasks(self) -> TaskDistribution:
        """What training draws from."""

    @abstractmethod
    def validation_tasks(self) -> TaskDistribution:
        """What the best meta-parameters are chosen by."""

    @abstractmethod
    def test_tasks(self, shots: int, queries: int) -> TaskDistribution:
        """What a test draws from: so many support examples, and query examples (a class, in classification)."""

    @abstractmethod
    def tuning_tasks(self, shots: int, queries: int) -> TaskDistribution:
        """What a step size that the method leaves open is chosen by: the test's shots and queries, without its classes.

        They are drawn from validation's stream of keys.
        """

    @abstractmethod
    def shapes(self) -> TaskDistribution:
        """Tasks with training's shapes, made without any data that would have to be there."""

    @abstractmethod
    def citations(self) -> tuple[str, ...]:
        """The keys of what the family comes from, in `metaception.methods.references`."""

    @property
    @abstractmethod
    def loss(self) -> Any:
        """`(predictions, targets) -> scalar`, of training and test."""
