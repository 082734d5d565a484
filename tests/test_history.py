from copy import deepcopy

import numpy as np

from sklearn_cls._training.history import history_columns, is_finished
from tests.helpers import Hook, small


def test_history_is_a_dict_of_lists_with_one_python_value_per_epoch(data):
    clf = small(early_stopping=True, max_epochs=5).fit(*data)
    assert set(clf.history_) == {
        "epoch", "train_loss", "valid_loss", "valid_accuracy", "lr", "dur", "train_loss_best",
        "valid_loss_best",
    }  # fmt: skip
    assert type(clf.history_) is dict
    for name, values in clf.history_.items():
        assert type(values) is list
        assert len(values) == clf.n_iter_ == 5
        assert {type(value) for value in values} == {
            "epoch": {int}, "train_loss_best": {bool}, "valid_loss_best": {bool},
        }.get(name, {float})  # fmt: skip
    assert clf.history_["epoch"] == [1, 2, 3, 4, 5]
    assert clf.loss_curve_ == clf.history_["train_loss"]


def test_validation_scores_are_recorded_with_early_stopping_only(data):
    assert set(small(max_epochs=1).fit(*data).history_) == {
        "epoch", "train_loss", "lr", "dur", "train_loss_best"
    }  # fmt: skip


def test_the_history_contains_only_the_epochs_of_the_last_call(data):
    clf = small(warm_start=True, max_epochs=3).fit(*data)
    assert clf.set_params(max_epochs=2).fit(*data).history_["epoch"] == [1, 2]
    assert clf.partial_fit(*data).history_["epoch"] == [1]


def test_the_history_is_none_in_epochs_in_which_a_callback_recorded_nothing(data):
    def record(net, **kwargs):
        n_epochs = len(net.history)
        net.history.record("mixed", "a" if n_epochs == 1 else np.float32(0.5))
        net.history.record("list", list(range(n_epochs)))
        if n_epochs == 2:
            net.history.record("once", np.int64(7))

    clf = small(max_epochs=3, callbacks=[Hook(on_epoch_end=record)]).fit(*data)
    assert clf.history_["mixed"] == ["a", 0.5, 0.5]
    assert clf.history_["list"] == [[0], [0, 1], [0, 1, 2]]
    assert clf.history_["once"] == [None, 7, None]
    assert [type(value) for value in clf.history_["mixed"]] == [str, float, float]
    assert type(clf.history_["once"][1]) is int
    assert deepcopy(clf).history_ == clf.history_


def test_an_unfinished_epoch_is_left_out():
    history = [{"epoch": 1, "dur": 0.5, "batches": [{}]}, {"epoch": 2, "batches": [{}]}]
    assert list(map(is_finished, history)) == [True, False]
    assert history_columns(history) == {"epoch": [1], "dur": [0.5]}
