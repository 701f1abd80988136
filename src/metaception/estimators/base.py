"""What the classifier and the regressor share: opening the run, checking inputs, adapting, predicting, keeping."""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from metaception.core.learner import Iterative, Learner
from metaception.core.streams import stream_key
from metaception.core.task import Examples
from metaception.domains.classification.image_tasks import OF_IMAGES
from metaception.estimators.saving import Portable, adapt, adapted_model
from metaception.estimators.untrained import for_raw, perceptron, random_parameters, standardised
from metaception.learners.supervised import Statistics
from metaception.methods.method import with_statistics
from metaception.runs.errors import RunError, UsageError
from metaception.runs.run import TrainedRun, Which, load_run
from metaception.runs.testing import tuned_learner

Estimator = TypeVar("Estimator", bound="FewShot")
CHUNK = 32
"""Rows that are predicted at once, where each is predicted by itself."""


class NotKept(NamedTuple):
    """In place of a run that a saved or pickled estimator could not take along.

    Attributes:
        what: the run that it was.
    """

    what: str


class FewShot(BaseEstimator):
    """An estimator that adapts a trained run to the examples of `fit`; use `FewShotClassifier` or `FewShotRegressor`."""

    classification: bool
    model_: Portable

    def __init__(
        self,
        run: Any = None,
        *,
        steps: Any = None,
        statistics: Any = "support",
        which: Any = "best",
        index: Any = 0,
        random_state: Any = 0,
    ):
        # As scikit-learn wants it: stored as given, looked at in `fit`.
        self.run = run
        self.steps = steps
        self.statistics = statistics
        self.which = which
        self.index = index
        self.random_state = random_state

    @abstractmethod
    def fit(self, X: Any, y: Any) -> Any:
        """Adapt to the examples."""

    def _open(self) -> TrainedRun | None:
        """The run, checked to be one of this estimator's kind."""
        name, run = type(self).__name__, self.run
        for what, value, known in (("statistics", self.statistics, Statistics), ("which", self.which, Which)):
            if value not in get_args(known):
                raise UsageError(f"{name}: {what}={value!r}; expected one of {', '.join(get_args(known))}.")
        if isinstance(run, NotKept):
            raise UsageError(
                f"{name}: it was saved or pickled without its run ({run.what}), which has no folder to be loaded from again; "
                "give it anew with set_params(run=...). A run's folder, given as the path, is kept."
            )
        if isinstance(run, (str, os.PathLike)):
            run = load_run(run)
        if run is None:
            return None
        if not isinstance(run, TrainedRun):
            raise UsageError(
                f"{name}: run={run!r}; expected a metaception.TrainedRun, the path of a run's folder, or None for a network "
                "without meta-training."
            )
        if not 0 <= self.index < len(run.seeds):
            raise UsageError(f"{name}: index={self.index}; the run has {len(run.seeds)} seeds, counted from 0.")
        targets = support_of(run).targets
        classifies = jnp.issubdtype(targets.dtype, jnp.integer) and targets.ndim == 1
        if classifies != self.classification:
            kinds = ("regression", "FewShotRegressor"), ("classification", "FewShotClassifier")
            kind, other = kinds[classifies]
            raise UsageError(f"{name}: {run!r} was trained on {kind}; use metaception.{other}.")
        return run

    def _rows(self, run: TrainedRun | None, X: Any, y: Any = None) -> Any:
        """X, or X and y, checked; X as float32, pixels from 0 to 1."""
        expected = None if run is None else support_of(run).inputs.shape[1:]
        if expected is None or len(expected) == 1:
            options = {
                "dtype": np.float32,
                **({} if self.classification else {"multi_output": True, "y_numeric": True}),
            }
            X, y = validate_data(self, X, y, **options)
            if expected is not None and X.shape[1:] != expected:
                raise ValueError(
                    f"{type(self).__name__}: X has {X.shape[1]} features and the run was trained on {expected[0]}; give the "
                    "same features as in training."
                )
            return X, y
        pixels = run is not None and isinstance(run.algorithm.tasks, OF_IMAGES)
        X, y = arrays(type(self).__name__, X, expected, pixels), np.asarray(y)
        check_consistent_length(X, y)
        if self.classification or y.ndim == 1:
            y = column_or_1d(y, warn=True)
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        self._pixels_ = pixels
        return X, y

    def _learn(self, run: TrainedRun | None, X: np.ndarray, targets: np.ndarray, outputs: int) -> None:
        """Adapt to float32 inputs and encoded targets [n, ...]; keeps the model that comes out."""
        seed = self.random_state
        seed = int(seed if isinstance(seed, (int, np.integer)) else check_random_state(seed).randint(2**31 - 1))
        key = stream_key(seed, "test")
        learner: Learner
        if run is None:
            learner = perceptron(X.shape[1], outputs, self.classification)
            meta = random_parameters(X.shape[1], outputs, seed)
            scaled, *moments = standardised(X)
            data, undo = Examples(scaled, targets), {"inputs": tuple(moments)}
            if not self.classification:
                scaled, *moments = standardised(targets)
                data, undo["targets"] = data._replace(targets=scaled), tuple(moments)
            adapted = for_raw(_adapt(learner, key, meta, data, self._steps(learner)), **undo)
        else:
            shots = round(len(X) / len(np.unique(targets))) if self.classification else len(X)
            learner = with_policy(tuned_learner(run, shots), self.statistics)
            meta = run.meta(self.which, self.index)
            adapted = _adapt(learner, key, meta, Examples(X, targets), self._steps(learner))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(adapted)):
            raise RunError(
                f"{type(self).__name__}: adaptation diverged, the adapted parameters are not finite; take fewer steps (now "
                f"{self._steps(learner)}), or inputs of the range that training had."
            )
        facts = {"outputs": outputs, "statistics": self.statistics, "steps": self._steps(learner)}
        self._together_ = run is not None and self.statistics == "batch"
        self.model_ = adapted_model(learner, jax.tree.map(np.asarray, adapted), X.shape[1:], facts)

    def _steps(self, learner: Learner) -> int | None:
        if not isinstance(learner, Iterative):
            if self.steps is not None:
                raise UsageError(
                    f"{type(self).__name__}: steps={self.steps}; {type(learner).__name__} has no inner steps; give None."
                )
            return None
        if self.steps is None:
            return learner.steps
        if isinstance(self.steps, bool) or not isinstance(self.steps, (int, np.integer)) or self.steps < 0:
            raise UsageError(
                f"{type(self).__name__}: steps={self.steps!r}; expected a whole number, 0 or more, or None."
            )
        return int(self.steps)

    def _outputs(self, X: Any) -> np.ndarray:
        """The model's outputs [n, ...] in double precision."""
        check_is_fitted(self)
        expected = tuple(self.model_.facts["inputs"])
        if len(expected) == 1:
            X = validate_data(self, X, dtype=np.float32, reset=False)
        else:
            X = arrays(type(self).__name__, X, expected, self._pixels_)
        outputs = self.model_(X) if self._together_ else self.model_.in_chunks(X, CHUNK)
        return outputs.astype(np.float64)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Keep the fitted estimator as files that no pickle is in; `metaception export` writes the same.

        Args:
            folder: made, or replaced where it holds such a model already.

        Raises:
            UsageError: where something else is there, or labels are neither numbers, booleans nor strings.
            NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        parameters = {**self.get_params(deep=False), "run": keepable(self.run)}
        if isinstance(parameters["run"], NotKept):
            parameters["run"] = {"not kept": parameters["run"].what}
        elif isinstance(parameters["run"], os.PathLike):
            parameters["run"] = os.fspath(parameters["run"])
        if not isinstance(self.random_state, (int, np.integer)):
            parameters["random_state"] = None  # a generator's state is not for a file; it was used in `fit` alone
        names = getattr(self, "feature_names_in_", None)
        facts = {
            **self.model_.facts,
            "estimator": type(self).__name__,
            "parameters": parameters,
            "feature_names": None if names is None else [str(name) for name in names],
            "pixels": getattr(self, "_pixels_", False),
            **self._facts(),
        }
        return dataclasses.replace(self.model_, facts=facts).save(folder)

    @classmethod
    def load(cls: type[Estimator], folder: str | os.PathLike[str]) -> Estimator:
        """What `save`, or `metaception export` with a support set, wrote; the files are checked.

        Raises:
            UsageError: where it is no such folder, or damaged, or of another estimator.
        """
        model = Portable.load(folder)
        facts = model.facts
        if facts.get("estimator") != cls.__name__:
            found = facts.get("estimator") or "a meta-learned model that has not adapted yet"
            raise UsageError(f"{folder} holds {found}, and was to be loaded as {cls.__name__}.")
        try:
            parameters = dict(facts["parameters"])
            if isinstance(parameters["run"], dict):
                parameters["run"] = NotKept(parameters["run"]["not kept"])
            estimator = cls(**parameters)
            estimator.model_, estimator._pixels_ = model, bool(facts["pixels"])
            estimator._together_ = facts["statistics"] == "batch" and parameters["run"] is not None
            if len(facts["inputs"]) == 1:
                estimator.n_features_in_ = facts["inputs"][0]
            if facts["feature_names"] is not None:
                estimator.feature_names_in_ = np.array(facts["feature_names"], object)
            estimator._take_facts(facts)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{folder} is not a model of this version ({error!r}); save or export it again."
            ) from error
        return estimator

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What `fit` learned beside the model, as plain values."""

    @abstractmethod
    def _take_facts(self, facts: dict[str, Any]) -> None:
        """The inverse of `_facts`."""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "run": keepable(self.run)}


def support_of(run: TrainedRun) -> Examples:
    """The shapes of a support set in training."""
    seen = jax.eval_shape(run.algorithm.tasks.sample, jax.random.key(0)).support
    if not isinstance(seen, Examples):
        raise UsageError(f"{run!r} was not trained on labelled examples, which an estimator adapts to.")
    return seen


def outputs_of(run: TrainedRun) -> int:
    """How many outputs the model has."""
    ways = getattr(run.algorithm.tasks, "ways", None)
    if ways is not None:
        return ways

    def outputs(key: Any) -> Any:
        learner, support = run.algorithm.test_learner, run.algorithm.tasks.sample(key).support
        return learner.predict(learner.adapt(key, run.algorithm.learner.init_meta(key), support), support.inputs)

    return jax.eval_shape(outputs, jax.random.key(0)).shape[-1]


def keepable(run: Any) -> Any:
    """What a file can hold of a run: the path of its folder, if it can be loaded from there."""
    if not isinstance(run, TrainedRun):
        return run
    loads = run.folder is not None and run.config["preset"] is not None
    return str(run.folder) if loads else NotKept(repr(run))


def with_policy(learner: Learner, statistics: Statistics) -> Learner:
    """The learner with another policy of batch statistics, if it has one."""
    return with_statistics(learner, statistics) if hasattr(learner, "statistics") else learner


_adapt = eqx.filter_jit(adapt)


def arrays(name: str, X: Any, expected: tuple[int, ...], pixels: bool) -> np.ndarray:
    """Inputs [n, ...] of more than one axis a row as float32; uint8 pixels become 0 to 1.

    Raises:
        ValueError: for other shapes, types or ranges.
    """
    X = np.asarray(X)
    grey = pixels and expected[-1] == 1
    given = X[..., None] if grey and X.ndim == len(expected) else X
    row = "×".join(map(str, expected))
    if given.ndim != len(expected) + 1 or not len(given) or given.shape[1:] != expected:
        channels = ""
        if pixels and given.ndim == 4 and given.shape[1:3] == expected[:2]:
            channels = f" ({given.shape[3]} channels; the run has {expected[2]})"
        how = (
            "resize and convert them (metaception.data.folders.read_image does)"
            if pixels
            else "bring them into that shape"
        )
        raise ValueError(
            f"{name}: X has shape {X.shape}{channels}; the run was trained on inputs of {row}, so expected "
            f"[n, {', '.join(map(str, expected))}]{' or [n, height, width]' if grey else ''} with n of 1 or more: {how}."
        )
    if pixels and given.dtype == np.uint8:
        return given.astype(np.float32) / 255
    if given.dtype.kind not in ("f" if pixels else "fiub"):
        wanted = "uint8 from 0 to 255, or floats from 0 to 1" if pixels else "numbers"
        raise ValueError(f"{name}: X has type {given.dtype}; expected {wanted}: convert it with X.astype.")
    given = given.astype(np.float32)
    assert_all_finite(given, input_name="X")
    if pixels and (given.min() < 0 or given.max() > 1):
        raise ValueError(
            f"{name}: X has pixels from {given.min():g} to {given.max():g}; expected floats from 0 to 1: divide by 255, or "
            "give uint8."
        )
    return given
