"""What a scikit-learn user puts an estimator into; each test asserts a result."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.fixes import parse_version
from skorch.callbacks import Callback

from tests.helpers import bumps, small

has_callbacks = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"), reason="scikit-learn has none"
)


def test_pipeline_predicts_as_its_steps_do(data):
    X, y = data
    pipeline = make_pipeline(FunctionTransformer(np.abs), small()).fit(X, y)
    assert np.array_equal(
        pipeline.predict_proba(X), small().fit(np.abs(X), y).predict_proba(np.abs(X))
    )


def test_embeddings_feed_another_classifier(data):
    X, y = data
    pipeline = make_pipeline(small(max_epochs=25), LogisticRegression()).fit(X, y)
    X_test, y_test = bumps(seed=1)
    assert pipeline.score(X_test, y_test) > 0.9
    assert pipeline[:-1].transform(X_test).shape == (60, 16)


def test_grid_search_over_strategy_and_depth_in_two_processes():
    X, y = bumps(n=90)
    grid = {"cls_strategy": ["learned", "zeros", "fixed", "random"], "depth": [1, 2]}
    search = GridSearchCV(small(max_epochs=10), grid, cv=3, n_jobs=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 8
    assert search.best_score_ == search.cv_results_["mean_test_score"].max() > 0.8
    assert search.best_estimator_.get_params()["depth"] == search.best_params_["depth"]
    serial = GridSearchCV(small(max_epochs=10), grid, cv=3).fit(X, y)
    key = "mean_test_score"
    assert np.array_equal(search.cv_results_[key], serial.cv_results_[key])


def test_grid_search_over_lists_of_unequal_length():
    X, y = bumps(n=60)
    X = [x[: 15 + i % 5] for i, x in enumerate(X)]
    search = GridSearchCV(small(max_epochs=20), {"patch_size": [1, 2]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.8


def test_cross_validate_scores_each_fold_by_itself():
    X, y = bumps(n=90)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    result = cross_validate(small(), X, y, cv=folds, return_estimator=True, scoring="roc_auc")
    for score, clf, (_, test) in zip(
        result["test_score"], result["estimator"], folds.split(X, y), strict=True
    ):
        assert score == get_scorer("roc_auc")(clf, X[test], y[test])
    assert result["test_score"].mean() > 0.8


def test_calibration_brings_over_confident_probabilities_down():
    X, y = bumps(n=120)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(120) < 0.3, 1 - y, y)  # 30 % of the labels are wrong
    clf = small(max_epochs=60, label_smoothing=0.0, lr=1e-2)
    calibrated = CalibratedClassifierCV(clf, cv=3, method="sigmoid").fit(X, y)
    X_test, _ = bumps(seed=1)
    confidence = clf.fit(X, y).predict_proba(X_test).max(1).mean()
    assert calibrated.predict_proba(X_test).max(1).mean() < confidence - 0.05


def test_voting_averages_the_probabilities_of_its_members(data):
    X, y = data
    members = [("cls", small()), ("mean", small(pooling="mean"))]
    voting = VotingClassifier(members, voting="soft").fit(X, y)
    mean = np.mean([clone(clf).fit(X, y).predict_proba(X) for _, clf in members], axis=0)
    assert np.allclose(voting.predict_proba(X), mean, atol=1e-6)


def test_permutation_importance_finds_the_steps_that_decide():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 8)), rng.integers(2, size=200)
    X[:, 5] += 4 * y
    clf = small(max_epochs=20, embedding="linear").fit(X, y)
    importance = permutation_importance(clf, X, y, n_repeats=3, random_state=0).importances_mean
    assert importance.argmax() == 5
    assert importance[5] > 0.2


def test_clone_is_unfitted_with_the_same_parameters(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "net_")


def test_metadata_routing_brings_sample_weight_to_fit_and_score(data):
    X, y = data
    weight = np.where(y == 1, 5.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        clf = small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), clf)
        routed = pipeline.fit(X, y, sample_weight=weight).predict_proba(X)
        search = GridSearchCV(clf, {"depth": [1]}, cv=2).fit(X, y, sample_weight=weight)
    direct = small().fit(X, y, weight)
    assert np.array_equal(routed, direct.predict_proba(X))
    assert not np.allclose(routed, small().fit(X, y).predict_proba(X))
    expected = small(depth=1).fit(X, y, weight).predict_proba(X)
    assert np.array_equal(search.predict_proba(X), expected)


class Recorder:
    """A callback that counts what it is told, and stops when told to."""

    max_propagation_depth = None

    def __init__(self, stop_at=None):
        self.begun, self.ended, self.scores, self.stop_at = [], [], [], stop_at

    def setup(self, estimator, context):
        self.is_set_up = True

    def teardown(self, estimator, context):
        self.is_set_up = False

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        self.ended.append(context.task_name)
        if context.task_name != "epoch":
            return False
        self.metadata = metadata
        self.scores.append((fitted_estimator, fitted_estimator.score(X, y)))
        return len(self.scores) == self.stop_at


@has_callbacks
def test_callbacks_see_every_epoch(data):
    recorder = Recorder()
    clf = small(max_epochs=5).set_callbacks(recorder).fit(*data)
    assert recorder.begun == ["fit", *["epoch"] * 5]
    assert recorder.ended == [*["epoch"] * 5, "fit"]
    assert not recorder.is_set_up
    assert clf.n_iter_ == 5
    assert recorder.metadata == {}


@has_callbacks
def test_callbacks_get_the_model_of_their_epoch(data):
    recorder = Recorder()
    clf = small(max_epochs=12, lr=1e-3).set_callbacks(recorder).fit(*data)
    scores = [score for _, score in recorder.scores]
    assert scores[-1] == clf.score(*data) > scores[0]
    assert [estimator.score(*data) for estimator, _ in recorder.scores] == scores


@has_callbacks
def test_a_hook_that_asks_to_stop_stops_training(data):
    clf = small(max_epochs=20).set_callbacks(Recorder(stop_at=3)).fit(*data)
    assert clf.n_iter_ == 3
    assert clf.predict(data[0]).shape == (60,)


@has_callbacks
def test_an_interrupt_during_a_hook_is_an_interrupt(data):
    class Slow(Recorder):
        def on_fit_task_end(self, estimator, context, *, X=None):
            if context.task_name == "epoch" and len(self.begun) == 3:  # scoring the second
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted in epoch 3 of 6"):
        clf = small(max_epochs=6).set_callbacks(Slow()).fit(*data)
    assert clf.n_iter_ == 2


@has_callbacks
def test_callbacks_are_told_the_weights(data):
    recorder = Recorder()
    small(max_epochs=1).set_callbacks(recorder).fit(*data, sample_weight=np.ones(60))
    assert recorder.metadata["sample_weight"].sum() == 60


@has_callbacks
def test_callbacks_are_torn_down_after_an_error(data):
    recorder = Recorder()
    with pytest.raises(ValueError, match="lower lr"):
        small(lr=1e30, max_epochs=30).set_callbacks(recorder).fit(*data)
    assert not recorder.is_set_up


@has_callbacks
def test_a_scoring_monitor_logs_every_epoch_everywhere():
    from sklearn.callback import ScoringMonitor

    X, y = bumps(n=60)
    monitor = ScoringMonitor(scoring="accuracy")
    clf = small(max_epochs=6).set_callbacks(monitor).fit(X, y)
    log = monitor.get_logs().data_as_pandas
    epochs = log[log["task_name"] == "epoch"]["accuracy"]
    assert len(epochs) == 6
    assert epochs.iloc[-1] == clf.score(X, y)

    monitor = ScoringMonitor(scoring="accuracy")
    make_pipeline(FunctionTransformer(), small(max_epochs=6).set_callbacks(monitor)).fit(X, y)
    log = monitor.get_logs().data_as_pandas
    assert (log["task_name"] == "epoch").sum() == 6

    monitor = ScoringMonitor(scoring="accuracy")
    clf = small(max_epochs=4).set_callbacks(monitor)
    GridSearchCV(clf, {"depth": [1, 2]}, cv=2, refit=False).fit(X, y)
    logs = monitor.get_logs(select="all")
    n_epochs = sum((log.data_as_pandas["task_name"] == "epoch").sum() for log in logs)
    assert n_epochs == 4 * 2 * 2


@has_callbacks
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_progress_bar_shows_the_epochs_of_every_candidate(n_jobs, capfd, monkeypatch):
    from sklearn.callback import ProgressBar

    monkeypatch.setenv("COLUMNS", "200")
    X, y = bumps(n=60)
    bar = ProgressBar(max_propagation_depth=None)
    search = GridSearchCV(small(max_epochs=4), {"depth": [1, 2]}, cv=2, n_jobs=n_jobs)
    search.set_callbacks(bar).fit(X, y)
    shown = capfd.readouterr().out
    assert "GridSearchCV" in shown
    bars = [line for line in shown.splitlines() if "CLSTransformerClassifier - fit" in line]
    assert len(bars) >= 5  # 4 candidates and the refit, whose epochs are all done
    assert all("100%" in line for line in bars[-5:])

    bar = ProgressBar(max_propagation_depth=None)
    pipeline = make_pipeline("passthrough", small(max_epochs=4))
    pipeline.set_callbacks(bar).fit(X, y)
    assert "CLSTransformerClassifier" in capfd.readouterr().out


def test_html_shows_every_parameter(fitted):
    html = fitted._repr_html_()
    assert all(name in html for name in fitted.get_params())


def test_the_fits_of_a_parallel_search_share_the_cores():
    from joblib import Parallel, cpu_count, delayed

    threads = Parallel(n_jobs=2)(delayed(threads_of_a_fit)() for _ in range(2))
    assert sum(threads) <= max(cpu_count(), 2)


def threads_of_a_fit():
    import torch

    threads = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            threads.append(torch.get_num_threads())

    small(max_epochs=1, callbacks=[Watch()]).fit(*bumps())
    return threads[0]
