"""Callbacks of skorch and of scikit-learn, and the progress bar."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.fixes import parse_version
from skorch import callbacks as skorch_callbacks

from tests.helpers import Hook, bumps, small, stop_after

needs_sklearn_callbacks = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"), reason="needs scikit-learn 1.9"
)


@pytest.mark.parametrize(
    ("callback", "why"),
    [
        (skorch_callbacks.EarlyStopping(), "EarlyStopping, which monitors 'valid_loss'"),
        (skorch_callbacks.EarlyStopping, "EarlyStopping, which monitors 'valid_loss'"),
        (("stop", skorch_callbacks.EarlyStopping(monitor="valid_accuracy")), "'valid_accuracy'"),
        (skorch_callbacks.Checkpoint(), "Checkpoint, which monitors 'valid_loss_best'"),
        (
            skorch_callbacks.LRScheduler("ReduceLROnPlateau", monitor="valid_loss"),
            "LRScheduler, which monitors 'valid_loss'",
        ),
        (skorch_callbacks.EpochScoring("accuracy"), "EpochScoring, which scores the validation"),
        (skorch_callbacks.BatchScoring("accuracy"), "BatchScoring, which scores the validation"),
    ],
)
def test_callbacks_that_need_a_validation_set_are_refused_without_one(data, callback, why):
    clf = small(callbacks=[callback])
    message = f"callbacks has .*{why}.*Set early_stopping=True"
    with pytest.raises(ValueError, match=message):
        clf.fit(*data)
    with pytest.raises(ValueError, match=message):
        clf.partial_fit(*data)
    assert not hasattr(clf, "net_")


def test_skorch_callbacks_are_called_during_training(data, tmp_path, capsys):
    epochs = []
    scoring = skorch_callbacks.EpochScoring("accuracy", name="acc", lower_is_better=False)
    callbacks = [
        ("scores", scoring),
        skorch_callbacks.EpochScoring("accuracy", name="acc_train", on_train=True),
        skorch_callbacks.BatchScoring("accuracy", name="acc_batch", lower_is_better=False),
        skorch_callbacks.PrintLog(),
        skorch_callbacks.ProgressBar(),
        skorch_callbacks.Checkpoint(dirname=tmp_path),
        skorch_callbacks.GradientNormClipping(0.5),
        Hook(on_train_end=lambda net, **_: epochs.extend(dict(epoch) for epoch in net.history)),
    ]
    clf = small(callbacks=callbacks, early_stopping=True, max_epochs=12).fit(*data)
    assert clf.callbacks is callbacks
    history = {name: [epoch[name] for epoch in epochs] for name in epochs[0] if name != "batches"}
    assert history == clf.history_
    assert len(history["epoch"]) == 12
    assert history["acc"] == history["valid_accuracy"]
    assert history["acc"][-1] > 0.8
    assert history["acc_train"][-1] > 0.8
    assert history["acc_batch"][-1] == pytest.approx(history["acc"][-1], abs=0.2)
    assert history["valid_loss_best"][int(np.argmin(history["valid_loss"]))]
    assert (tmp_path / "params.pt").exists()


def test_a_skorch_callback_that_asks_to_stop_ends_the_training(data):
    seen = []
    watch = Hook(on_epoch_end=lambda net, **_: seen.append(len(net.history)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = small(callbacks=[stop_after(3), watch]).fit(*data)
    assert clf.n_iter_ == 3
    assert seen == [1, 2, 3]  # later callbacks are called for the last epoch, too


def test_a_callback_that_stops_before_the_end_of_the_first_epoch_raises(data):
    def stop(net, **kwargs):
        raise KeyboardInterrupt

    clf = small(callbacks=[Hook(on_batch_end=stop)])
    with pytest.raises(RuntimeError, match="stopped training before the end of the first epoch"):
        clf.fit(*data)
    assert not hasattr(clf, "net_")


class Recorder:
    """A scikit-learn callback that records its calls and stops after `stop_at` epochs."""

    max_propagation_depth = None

    def __init__(self, stop_at=None):
        self.stop_at, self.is_set_up = stop_at, False
        self.begun, self.ended, self.scores = [], [], []

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


class InterruptedRecorder(Recorder):
    """Simulates Ctrl-C during a long evaluation at the end of epoch `epoch`."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_fit_task_end(self, estimator, context, *, X=None):
        if context.task_name == "epoch" and self.begun.count("epoch") == self.epoch:
            raise KeyboardInterrupt


def by_parameter(clf, *callbacks):
    return clf.set_params(callbacks=list(callbacks))


def by_method(clf, *callbacks):
    return clf.set_callbacks(*callbacks)


both_ways = pytest.mark.parametrize("add", [by_parameter, by_method])


@needs_sklearn_callbacks
@both_ways
def test_scikit_learn_callbacks_are_called_during_the_fit_and_each_epoch(add, data):
    recorder = Recorder()
    clf = add(small(max_epochs=5), recorder).fit(*data)
    assert recorder.begun == ["fit", *["epoch"] * 5]
    assert recorder.ended == [*["epoch"] * 5, "fit"]
    assert not recorder.is_set_up
    assert clf.n_iter_ == 5
    assert recorder.metadata == {}


@needs_sklearn_callbacks
@both_ways
def test_scikit_learn_callbacks_get_the_model_of_their_epoch(add, data):
    recorder = Recorder()
    clf = add(small(max_epochs=12, lr=1e-3), recorder).fit(*data)
    scores = [score for _, score in recorder.scores]
    assert scores[-1] == clf.score(*data) > scores[0]
    assert [estimator.score(*data) for estimator, _ in recorder.scores] == scores
    assert [estimator.n_iter_ for estimator, _ in recorder.scores] == list(range(1, 13))


@needs_sklearn_callbacks
@both_ways
def test_a_scikit_learn_callback_that_returns_true_ends_the_training(add, data):
    clf = add(small(max_epochs=20), Recorder(stop_at=3)).fit(*data)
    assert clf.n_iter_ == 3
    assert clf.predict(data[0]).shape == (60,)


@needs_sklearn_callbacks
@both_ways
def test_callbacks_passed_as_a_parameter_are_not_registered_after_the_fit(add, data):
    recorder = Recorder()
    clf = add(small(max_epochs=1), recorder).fit(*data)
    registered = [recorder] if add is by_method else []
    assert getattr(clf, "_skl_callbacks", []) == registered
    assert hasattr(clf, "_skl_callbacks") == bool(registered)
    assert not {"_callback_fit_ctx", "_skl_callbacks_to_teardown"} & set(vars(clf))


@needs_sklearn_callbacks
def test_both_ways_of_adding_callbacks_can_be_combined(data):
    first, second, epochs = Recorder(), Recorder(), []
    watch = Hook(on_epoch_end=lambda net, **_: epochs.append(len(net.history)))
    small(max_epochs=3, callbacks=[watch, second]).set_callbacks(first).fit(*data)
    assert first.begun == second.begun == ["fit", *["epoch"] * 3]
    assert epochs == [1, 2, 3]


@needs_sklearn_callbacks
@pytest.mark.parametrize("epoch", [3, 6])
def test_ctrl_c_in_a_scikit_learn_callback_interrupts_the_training(epoch, data):
    with pytest.warns(
        UserWarning, match=f"interrupted in epoch {min(epoch + 1, 6)} of 6"
    ) as caught:
        clf = small(max_epochs=6, callbacks=[InterruptedRecorder(epoch)]).fit(*data)
    assert [warning.filename for warning in caught] == [__file__]
    assert clf.n_iter_ == epoch


@needs_sklearn_callbacks
def test_scikit_learn_callbacks_get_the_sample_weights(data):
    recorder = Recorder()
    small(max_epochs=1, callbacks=[recorder]).fit(*data, sample_weight=np.ones(60))
    assert recorder.metadata["sample_weight"].sum() == 60


@needs_sklearn_callbacks
@both_ways
def test_scikit_learn_callbacks_are_torn_down_after_an_error(add, data):
    recorder = Recorder()
    clf = add(small(lr=1e30, max_epochs=30), recorder)
    with pytest.raises(ValueError, match="lower lr"):
        clf.fit(*data)
    assert recorder.begun[:1] == ["fit"]
    assert not recorder.is_set_up
    assert hasattr(clf, "_skl_callbacks") == (add is by_method)


@needs_sklearn_callbacks
@both_ways
def test_a_scoring_monitor_logs_every_epoch(add, data):
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    clf = add(small(max_epochs=6), monitor).fit(*data)
    log = monitor.get_logs().data_as_pandas
    epochs = log[log["task_name"] == "epoch"]["accuracy"]
    assert len(epochs) == 6
    assert epochs.iloc[-1] == clf.score(*data)

    monitor = ScoringMonitor(scoring="accuracy")
    make_pipeline(FunctionTransformer(), add(small(max_epochs=6), monitor)).fit(*data)
    log = monitor.get_logs().data_as_pandas
    assert (log["task_name"] == "epoch").sum() == 6


@needs_sklearn_callbacks
def test_a_scoring_monitor_logs_every_epoch_of_a_search(data):
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    clf = small(max_epochs=4).set_callbacks(monitor)
    GridSearchCV(clf, {"depth": [1, 2]}, cv=2, refit=False).fit(*data)
    logs = monitor.get_logs(select="all")
    n_epochs = sum((log.data_as_pandas["task_name"] == "epoch").sum() for log in logs)
    assert n_epochs == 4 * 2 * 2


@needs_sklearn_callbacks
@both_ways
def test_a_scikit_learn_progress_bar_shows_a_fit(add, data, capfd, monkeypatch):
    from sklearn.callback import ProgressBar

    monkeypatch.setenv("COLUMNS", "200")
    add(small(max_epochs=2), ProgressBar()).fit(*data)
    bars = [line for line in capfd.readouterr().out.splitlines() if "100%" in line]
    assert "CLSTransformerClassifier - fit" in bars[-1]


@needs_sklearn_callbacks
@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_progress_bar_of_a_search_shows_the_epochs_of_every_fit(n_jobs, data, capfd, monkeypatch):
    from sklearn.callback import ProgressBar

    monkeypatch.setenv("COLUMNS", "200")
    bar = ProgressBar(max_propagation_depth=None)
    search = GridSearchCV(small(max_epochs=2), {"depth": [1, 2]}, cv=2, n_jobs=n_jobs)
    search.set_callbacks(bar).fit(*data)
    shown = capfd.readouterr().out
    assert "GridSearchCV" in shown
    bars = [line for line in shown.splitlines() if "CLSTransformerClassifier - fit" in line]
    assert len(bars) >= 5  # of two candidates on two folds, and of the refit
    assert all("100%" in line for line in bars[-5:])


@needs_sklearn_callbacks
def test_a_progress_bar_of_a_pipeline_shows_the_fit(data, capfd, monkeypatch):
    from sklearn.callback import ProgressBar

    monkeypatch.setenv("COLUMNS", "200")
    pipeline = make_pipeline("passthrough", small(max_epochs=2))
    pipeline.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*data)
    assert "CLSTransformerClassifier" in capfd.readouterr().out


@needs_sklearn_callbacks
@pytest.mark.parametrize(
    "wrap",
    [
        lambda clf: GridSearchCV(clf, {"depth": [1]}, cv=2, error_score="raise"),
        lambda clf: make_pipeline("passthrough", clf),
    ],
    ids=["search", "pipeline"],
)
def test_a_progress_bar_of_an_estimator_inside_a_meta_estimator_raises(wrap, data):
    from sklearn.callback import ProgressBar

    clf = small(max_epochs=1, callbacks=[ProgressBar()])
    with pytest.raises(TypeError, match=r"callbacks contains a ProgressBar, .* set_callbacks\("):
        wrap(clf).fit(*data)
    assert not hasattr(clf, "net_")


@pytest.mark.parametrize(
    "callbacks",
    ["all", ["all"], [("name", 3)], [skorch_callbacks], [Recorder], [("name", Recorder())]],
)
def test_invalid_callbacks_raise(callbacks, data):
    with pytest.raises(ValueError, match=r"callbacks.* must"):
        small(callbacks=callbacks).fit(*data)


@pytest.mark.parametrize("names", [("a", "a"), ("train_loss",), (3,)])
def test_invalid_names_of_callbacks_raise(names, data):
    callbacks = [(name, skorch_callbacks.Callback()) for name in names]
    with pytest.raises(ValueError, match=f"callbacks must have unique names .* got {names[0]!r}"):
        small(callbacks=callbacks).fit(*data)


def test_a_pickle_leaves_out_what_callbacks_stored_during_training(data):
    scheduler = skorch_callbacks.LRScheduler("StepLR", step_size=1)
    with_callbacks = small(max_epochs=2, callbacks=[("rate", scheduler)]).fit(*data)
    without = small(max_epochs=2).fit(*data)
    sizes = [len(pickle.dumps(clf)) for clf in (with_callbacks, without)]
    assert sizes[0] < sizes[1] + 1000
    assert hasattr(scheduler, "lr_scheduler_")  # the caller's callback is unchanged
    loaded = pickle.loads(pickle.dumps(with_callbacks))
    assert not hasattr(loaded.callbacks[0][1], "lr_scheduler_")
    assert loaded.fit(*data).n_iter_ == 2


@needs_sklearn_callbacks
def test_an_estimator_with_scikit_learn_callbacks_can_be_pickled(data):
    from sklearn.callback import ScoringMonitor

    clf = small(max_epochs=1, callbacks=[ScoringMonitor(scoring="accuracy")]).fit(*data)
    loaded = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(loaded.predict_proba(data[0]), clf.predict_proba(data[0]))
    assert loaded.fit(*data).n_iter_ == 1


def test_verbose_shows_epoch_losses_and_remaining_time(data, capsys):
    small(verbose=1, max_epochs=3, early_stopping=True).fit(*data)
    shown = capsys.readouterr()
    assert shown.out == ""
    for text in ("3/3", "train_loss=", "valid_loss=", "epoch/s", "<"):
        assert text in shown.err
    small(verbose=0, max_epochs=1).fit(*data)
    assert capsys.readouterr().err == ""


def test_the_progress_bar_is_closed_after_an_error(capsys, monkeypatch):
    closed = []
    monkeypatch.setattr("tqdm.auto.tqdm.close", lambda bar: closed.append(bar.n))

    def fail(net, **kwargs):
        if len(net.history) == 2:
            raise ZeroDivisionError

    # Keep the traceback, which references the bar: a bar that is garbage-collected is closed, too.
    with pytest.raises(ZeroDivisionError) as error:
        small(verbose=1, callbacks=[Hook(on_epoch_end=fail)]).fit(*bumps(20))
    assert closed == [1], error


def test_a_callback_may_be_named_like_a_callback_class(data, tmp_path):
    callbacks = [("Checkpoint", skorch_callbacks.Checkpoint(dirname=tmp_path))]
    callbacks += [("EarlyStopping", skorch_callbacks.EarlyStopping(patience=99))]
    clf = small(max_epochs=2, early_stopping=True, callbacks=callbacks, verbose=1).fit(*data)
    assert clf.n_iter_ == 2
