"""The estimator in pipelines, searches and other tools of scikit-learn."""

import numpy as np
import pytest
import sklearn
import torch
from joblib import Parallel, cpu_count, delayed
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_cls._torch.threads import ELEMENTS_PER_THREAD
from tests.helpers import Hook, bumps, small


def test_a_pipeline_predicts_what_its_steps_predict(data):
    X, y = data
    pipeline = make_pipeline(FunctionTransformer(np.abs), small(max_epochs=2)).fit(X, y)
    expected = small(max_epochs=2).fit(np.abs(X), y).predict_proba(np.abs(X))
    assert np.array_equal(pipeline.predict_proba(X), expected)


def test_embeddings_are_the_input_of_another_classifier(data):
    pipeline = make_pipeline(small(max_epochs=25), LogisticRegression()).fit(*data)
    X_test, y_test = bumps(seed=1)
    assert pipeline.score(X_test, y_test) > 0.9
    assert pipeline[:-1].transform(X_test).shape == (60, 16)


@pytest.mark.slow
def test_a_grid_search_over_strategy_and_depth_is_the_same_in_two_processes(data):
    grid = {"cls_strategy": ["learned", "random"], "depth": [1, 2]}
    clf = small(max_epochs=15, batch_size=8, lr=1e-2)
    search = GridSearchCV(clf, grid, cv=2, n_jobs=2).fit(*data)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 4
    assert search.best_score_ == scores.max() > 0.8
    assert search.best_estimator_.get_params()["depth"] == search.best_params_["depth"]
    serial = GridSearchCV(clf, grid, cv=2, refit=False).fit(*data)
    assert np.array_equal(scores, serial.cv_results_["mean_test_score"])


def test_a_grid_search_takes_lists_of_sequences_of_unequal_length(data):
    X = [x[: 15 + i % 5] for i, x in enumerate(data[0])]
    clf = small(max_epochs=15, batch_size=8, lr=1e-2, depth=1)
    search = GridSearchCV(clf, {"patch_size": [1, 2]}, cv=2).fit(X, data[1])
    assert search.best_score_ > 0.8


def test_cross_validate_scores_each_fold_with_its_own_model(data):
    X, y = data
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    result = cross_validate(small(), X, y, cv=folds, return_estimator=True, scoring="roc_auc")
    for score, clf, (_, test) in zip(
        result["test_score"], result["estimator"], folds.split(X, y), strict=True
    ):
        assert score == get_scorer("roc_auc")(clf, X[test], y[test])
    assert result["test_score"].mean() > 0.7


def test_calibration_lowers_overconfident_probabilities():
    X, y = bumps(n=80)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(80) < 0.3, 1 - y, y)  # 30 % of the labels are wrong
    clf = small(max_epochs=30, label_smoothing=0.0, augment=False, lr=1e-2)
    calibrated = CalibratedClassifierCV(clf, cv=2, method="sigmoid").fit(X, y)
    X_test, _ = bumps(seed=1)
    confidence = clf.fit(X, y).predict_proba(X_test).max(1).mean()
    assert calibrated.predict_proba(X_test).max(1).mean() < confidence - 0.05


def test_voting_averages_the_probabilities_of_its_estimators(data):
    X, y = data
    estimators = [("cls", small(max_epochs=2)), ("mean", small(max_epochs=2, pooling="mean"))]
    voting = VotingClassifier(estimators, voting="soft").fit(X, y)
    expected = np.mean([clone(clf).fit(X, y).predict_proba(X) for _, clf in estimators], axis=0)
    assert np.allclose(voting.predict_proba(X), expected, atol=1e-6)


def test_permutation_importance_finds_the_decisive_step():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 8)), rng.integers(2, size=100)
    X[:, 5] += 4 * y
    clf = small(max_epochs=20, embedding="linear", depth=1).fit(X, y)
    importance = permutation_importance(clf, X, y, n_repeats=2, random_state=0).importances_mean
    assert importance.argmax() == 5
    assert importance[5] > 0.2


def test_a_clone_is_unfitted_and_has_the_same_parameters(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "net_")


def test_metadata_routing_passes_sample_weight_to_fit_and_score(data):
    X, y = data
    weight = np.where(y == 1, 5.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        clf = small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), clf)
        routed = pipeline.fit(X, y, sample_weight=weight).predict_proba(X)
        search = GridSearchCV(clf, {"depth": [2]}, cv=2).fit(X, y, sample_weight=weight)
    expected = small().fit(X, y, weight).predict_proba(X)
    assert np.array_equal(routed, expected)
    assert np.array_equal(search.predict_proba(X), expected)
    assert not np.allclose(expected, small().fit(X, y).predict_proba(X))


def test_the_html_representation_shows_every_parameter(fitted):
    html = fitted._repr_html_()
    assert all(name in html for name in fitted.get_params())


def number_of_threads_of_a_large_fit():
    """Return the number of threads of a fit that is large enough for all cores."""
    threads, n_sequences, d_model = [], 16, 128
    n_steps = (cpu_count() + 1) * ELEMENTS_PER_THREAD // (n_sequences * d_model)
    params = {"d_model": d_model, "depth": 1, "patch_size": 1, "max_epochs": 1, "augment": False}
    hook = Hook(on_epoch_end=lambda net, **_: threads.append(torch.get_num_threads()))
    small(**params, embedding="linear", callbacks=[hook]).fit(*bumps(n_sequences, n_steps))
    return threads


@pytest.mark.skipif(cpu_count() < 2, reason="needs two cores")
def test_the_fits_of_a_parallel_search_share_the_cores(monkeypatch):
    # joblib divides the cores among its workers, unless the user has set a number of threads.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(cpu_count())
    assert number_of_threads_of_a_large_fit() == [cpu_count()]
    threads = Parallel(n_jobs=2)(delayed(number_of_threads_of_a_large_fit)() for _ in range(2))
    assert threads == [[cpu_count() // 2]] * 2
