"""A few-shot classifier with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from metaception.estimators.base import FewShot, outputs_of
from metaception.runs.errors import UsageError


class FewShotClassifier(ClassifierMixin, FewShot):
    """A scikit-learn classifier that adapts a trained run to a few labelled examples.

    Args:
        run: a `TrainedRun`, or the path of a run's folder. None: no meta-training: a small perceptron with random weights
            (two hidden layers of 40) that 200 steps of Adam fit to the standardised features; what a run is compared with.
        steps: inner steps; as many as in training unless given.
        statistics: what batch normalisation takes its statistics from in `predict`. `support`: the examples of `fit` alone, so
            that no prediction depends on the others. `one`: each input joins these, one at a time. `batch`: the inputs to
            `predict` together (transductive; how the papers report MAML on images).
        which: the `best` meta-parameters on validation, or the `last`.
        index: which seed's, by its place in the run's `seeds`.
        random_state: what is drawn in `fit` follows from it: the order of minibatches, and the weights where there is no run.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: features of an input, where inputs are feature vectors.
        feature_names_in_: their names, where X has any.
        model_: the adapted model as plain data.

    Images are [n, height, width, channels], or [n, height, width] for grey ones: uint8, or floats from 0 to 1. There may be
    fewer classes than the run has outputs: the others are left out of the softmax.

    Examples:
        >>> import numpy as np, metaception as mc
        >>> x = np.array([[0.0, 1.0], [0.2, 0.9], [3.0, 4.0], [3.1, 4.2]])
        >>> classifier = mc.FewShotClassifier().fit(x, ["low", "low", "high", "high"])
        >>> classifier.predict([[2.9, 4.0], [0.1, 1.0]]).tolist(), classifier.predict_proba(x).shape
        (['high', 'low'], (4, 2))
    """

    classification = True
    classes_: np.ndarray

    def fit(self, X: Any, y: Any) -> FewShotClassifier:
        """Adapt to the support set.

        Args:
            X: [n, features], or images [n, height, width, channels].
            y: [n], labels: strings, whole numbers, booleans, or whatever else scikit-learn takes for classes.

        Raises:
            ValueError: for inputs that training did not have, fewer than two classes, or more than the run has outputs.
        """
        run = self._open()
        X, y = self._rows(run, X, y)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"FewShotClassifier: y has only one class, {classes.tolist()[0]!r}; expected two classes or more."
            )
        outputs = len(classes)
        if run is not None:
            outputs = outputs_of(run)
            if len(classes) > outputs:
                raise UsageError(
                    f"FewShotClassifier: y has {len(classes)} classes and the run has {outputs} outputs, its ways in training; "
                    f"leave classes out, or train with {len(classes)} ways."
                )
        self._learn(run, X, labels.astype(np.int32), outputs)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities [n, classes] of the classes in the order of `classes_`."""
        logits = self._outputs(X)
        return softmax(logits[:, : len(self.classes_)], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The labels [n] of the largest probabilities."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return self.classes_[chosen]

    def _facts(self) -> dict[str, Any]:
        labels = self.classes_.tolist()
        if not all(isinstance(label, (str, int, float, bool)) for label in labels):
            raise UsageError(
                f"FewShotClassifier: labels like {labels[0]!r} cannot be written to a file; use strings or numbers, or pickle "
                "the estimator."
            )
        return {"classes": labels, "dtype": self.classes_.dtype.str}

    def _take_facts(self, facts: dict[str, Any]) -> None:
        self.classes_ = np.array(facts["classes"], np.dtype(facts["dtype"]))
