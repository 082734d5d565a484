"""scikit-learn's own checks of estimators, for every strategy and every pooling."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.helpers import small

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "weights and repeated sequences are equivalent in expectation, but not in mini-batches"
    ),
}
# Few and large batches keep the checks fast.
PARAMS = {"max_epochs": 8, "batch_size": 32, "lr": 2e-2, "depth": 1}


@pytest.mark.filterwarnings("default")  # some checks cause warnings
@parametrize_with_checks(
    [small(**PARAMS), small(**PARAMS, cls_strategy="random"), small(**PARAMS, pooling="attention")],
    expected_failed_checks=lambda _: EXPECTED_FAILURES,
)
def test_the_estimator_passes_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@parametrize_with_checks(
    [
        *(small(**PARAMS, cls_strategy=s) for s in ("zeros", "fixed")),
        *(small(**PARAMS, pooling=p) for p in ("mean", "max")),
    ],
    expected_failed_checks=lambda _: EXPECTED_FAILURES,
)
def test_the_other_strategies_and_poolings_pass_scikit_learns_checks(estimator, check):
    check(estimator)
