"""A few-shot regressor with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin

from metaception.estimators.base import FewShot, support_of
from metaception.runs.errors import UsageError


class FewShotRegressor(RegressorMixin, FewShot):
    """A scikit-learn regressor that adapts a trained run to a few examples.

    Args:
        run: a `TrainedRun`, or the path of a run's folder. None: no meta-training: a small perceptron with random weights
            (two hidden layers of 40) that 200 steps of Adam fit to standardised features and targets; what a run is compared
            with.
        steps: inner steps; as many as in training unless given.
        statistics: what batch normalisation, where the model has any, takes its statistics from in `predict`: the `support`
            set alone, the support set and each input (`one`), or the inputs to `predict` together (`batch`, transductive).
        which: the `best` meta-parameters on validation, or the `last`.
        index: which seed's, by its place in the run's `seeds`.
        random_state: what is drawn in `fit` follows from it: the order of minibatches, and the weights where there is no run.

    Attributes:
        n_features_in_: features of an input.
        feature_names_in_: their names, where X has any.
        model_: the adapted model as plain data.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> run = mc.train(mc.MAML(inner_rate=0.25).build(line, mc.Lines()), steps=20)
        >>> regressor = mc.FewShotRegressor(run, steps=30).fit([[1.0]], [4.0])
        >>> regressor.predict([[2.0], [3.0]]).round(3).tolist()
        [8.0, 12.0]
    """

    classification = False

    def fit(self, X: Any, y: Any) -> FewShotRegressor:
        """Adapt to the support set.

        Args:
            X: [n, features].
            y: [n], or [n, outputs].

        Raises:
            ValueError: for inputs or targets that training did not have.
        """
        run = self._open()
        X, y = self._rows(run, X, y)
        targets = np.asarray(y, np.float32)
        self._flat_ = targets.ndim == 1
        targets = targets[:, None] if self._flat_ else targets
        if run is not None and targets.shape[1:] != (seen := support_of(run).targets.shape[1:]):
            raise UsageError(
                f"FewShotRegressor: y has shape {np.shape(y)} and the run was trained on targets of shape {seen} a row; give y "
                f"as [n, {', '.join(map(str, seen))}]."
            )
        self._learn(run, X, targets, targets.shape[1])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The predictions, [n] or [n, outputs] as y was."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._flat_ else outputs

    def _facts(self) -> dict[str, Any]:
        return {"flat": self._flat_}

    def _take_facts(self, facts: dict[str, Any]) -> None:
        self._flat_ = bool(facts["flat"])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
