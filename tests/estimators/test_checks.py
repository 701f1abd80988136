"""Feature vectors: every one of scikit-learn's checks, with nothing declared away."""

import pytest
from sklearn.utils.estimator_checks import check_estimator

import metaception as mc

# What these need is no part of our environment; they were run once with it (docs/how-to/use_your_own_images.md).
ELSEWHERE = {"check_array_api_input", "check_classifier_data_not_an_array", "check_regressor_data_not_an_array"}


@pytest.mark.filterwarnings("default")  # scikit-learn provokes warnings, and looks at them itself
@pytest.mark.parametrize("kind", [mc.FewShotClassifier, mc.FewShotRegressor])
def test_all_of_scikit_learns_checks_pass(kind):
    results = check_estimator(kind(), on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] not in ("passed", "skipped")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= ELSEWHERE
    assert len(results) > 45
