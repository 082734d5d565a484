import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import bumps, small

pytest.importorskip("sktime")
from sktime.classification.compose import ClassifierPipeline
from sktime.classification.model_evaluation import evaluate
from sktime.datatypes import convert_to
from sktime.transformations.exponent import ExponentTransformer
from sktime.utils.estimator_checks import check_estimator

from sklearn_cls import sktime

# The number of threads changes the rounding of sums, so the probabilities are not bitwise equal.
EXCLUDED = ["test_multiprocessing_idempotent"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # some checks cause warnings
def test_the_classifier_passes_the_checks_of_sktime():
    results = check_estimator(
        sktime.CLSTransformerClassifier, tests_to_exclude=EXCLUDED, raise_exceptions=True, verbose=0
    )
    assert len(results) > 200


@pytest.fixture(scope="module")
def channels_first():
    X, y = bumps()
    return X.transpose(0, 2, 1).astype(np.float64), y


def small_sktime(**params):
    return sktime.CLSTransformerClassifier(**(small(**params).get_params()))


@pytest.mark.parametrize("mtype", ["numpy3D", "nested_univ", "pd-multiindex", "df-list"])
def test_predictions_equal_those_of_our_classifier(channels_first, mtype):
    X, y = channels_first
    panel = convert_to(X, mtype)
    ours = small().fit(X.transpose(0, 2, 1), y).predict_proba(X.transpose(0, 2, 1))
    theirs = small_sktime().fit(panel, y)
    assert np.array_equal(theirs.predict_proba(panel), ours)
    assert isinstance(theirs.classifier_, CLSTransformerClassifier)


def test_parameters_are_those_of_our_classifier():
    params = sktime.CLSTransformerClassifier(depth=3).get_params()
    assert params == CLSTransformerClassifier(depth=3).get_params()
    assert clone(sktime.CLSTransformerClassifier(d_model=32)).d_model == 32


def test_dates_of_the_index_are_the_clock(channels_first):
    X, y = channels_first
    panel = convert_to(X, "pd-multiindex")
    case, step = (panel.index.get_level_values(i) for i in (0, 1))
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(step, unit="h")
    panel.index = pd.MultiIndex.from_arrays([case, times], names=["case", "time"])
    clf = small_sktime(max_epochs=1).fit(panel, y)
    assert clf.classifier_.feature_names_in_[0] == "time"
    assert clf.predict(panel).shape == (60,)


def test_pipelines_and_evaluation_take_the_classifier(channels_first):
    X, y = channels_first
    pipeline = ClassifierPipeline(small_sktime(), [ExponentTransformer(1)])
    assert pipeline.fit(X, y).score(X, y) > 0.8
    results = evaluate(small_sktime(max_epochs=1), X=X, y=y, error_score="raise")
    assert results["test_accuracy_score"].notna().all()
