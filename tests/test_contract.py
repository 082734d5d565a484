"""scikit-learn's own checks, for every strategy and every pooling."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.helpers import small

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "weights and repeats are equal in expectation; mini-batches of float32 are not at 1e-7"
    ),
}
ESTIMATORS = [
    *(small(cls_strategy=s, lr=1e-2) for s in ("learned", "zeros", "fixed", "random")),
    *(small(pooling=p, lr=1e-2) for p in ("mean", "max", "attention")),
]


@pytest.mark.filterwarnings("default")  # the checks give warnings of their own
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
