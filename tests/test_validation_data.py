"""The validation data of early stopping: held out, held out by group, or passed to `fit`."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_cls._data.split import split_for_validation
from tests.helpers import Hook, bumps, labeled_ones, small

STOPPING = {"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 6}


def datasets_of_fit(*args, **kwargs):
    """Return the classifier of a fit, and its training and validation datasets."""
    seen = {}
    hook = Hook(on_epoch_begin=lambda net, **datasets: seen.update(datasets))
    params = kwargs.pop("params", {})
    clf = small(callbacks=[hook], **{**STOPPING, **params}).fit(*args, **kwargs)
    return clf, seen["dataset_train"], seen["dataset_valid"]


# Held out at random.


def test_the_split_is_stratified_and_sorted_by_length():
    rng = np.random.default_rng(0)
    data = labeled_ones(rng.integers(1, 50, size=100), np.arange(100) % 10 == 0)
    train, valid = split_for_validation(data, 0.2, seed=0)
    assert (len(train), len(valid)) == (80, 20)
    assert (train.y.sum(), valid.y.sum()) == (8, 2)
    assert sorted([*train.indices, *valid.indices]) == list(range(100))
    assert (np.diff(valid.lengths) >= 0).all()
    again = split_for_validation(data, 0.2, seed=0)[1]
    other = split_for_validation(data, 0.2, seed=1)[1]
    assert again.indices.tolist() == valid.indices.tolist()
    assert set(other.indices) != set(valid.indices)


def test_the_validation_size_is_rounded_up_and_every_class_is_included():
    assert len(split_for_validation(labeled_ones([1] * 25, [0, 1] * 12 + [0]), 0.1, 0)[1]) == 3
    assert len(split_for_validation(labeled_ones([1] * 20, [0, 1, 2, 3] * 5), 0.05, 0)[1]) == 4


def test_too_few_sequences_of_a_class_for_a_split_raise():
    message = (
        r"early_stopping=True cannot hold out validation_fraction=0.5 of 3 sequences by class: "
        r"2 would be held out, .* 2 classes; the smallest class has 1\. "
        r"Add data or set early_stopping=False\."
    )
    with pytest.raises(ValueError, match=message):
        split_for_validation(labeled_ones([1, 1, 1], [0, 0, 1]), 0.5, seed=0)
    with pytest.raises(ValueError, match=r"3 would be held out, .* smallest class has 2\."):
        split_for_validation(labeled_ones([1] * 4, [0, 0, 1, 1]), 0.75, seed=0)


def test_the_split_keeps_one_sequence_of_each_class_for_training_and_for_validation():
    y = np.repeat([0, 1, 2], 2)
    train, valid = split_for_validation(labeled_ones([1] * 6, y), 0.01, seed=0)
    assert sorted(train.y) == sorted(valid.y) == [0, 1, 2]


# Held out by group.


def test_no_group_is_in_both_parts_of_the_split():
    rng = np.random.default_rng(0)
    groups = rng.integers(30, size=300)
    y = (rng.random(300) < 0.2 + 0.6 * (groups % 2)).astype(int)
    train, valid = split_for_validation(labeled_ones([1] * 300, y), 0.2, 0, groups)
    assert not set(groups[train.indices]) & set(groups[valid.indices])
    assert sorted([*train.indices, *valid.indices]) == list(range(300))
    assert abs(len(valid) - 60) <= 10
    assert abs(valid.y.mean() - y.mean()) < 0.1


def test_every_class_stays_in_training_if_groups_permit_it():
    groups = np.repeat(np.arange(6), 10)
    y = (groups == 5).astype(int)
    y[0] = 1  # Only groups 0 and 5 have class 1.
    for seed in range(5):
        train, _ = split_for_validation(labeled_ones([1] * 60, y), 0.3, seed, groups)
        assert set(train.y) == {0, 1}


@pytest.mark.parametrize("groups", [np.zeros(20, int), np.arange(20) % 2], ids=["one", "classes"])
def test_groups_that_cannot_be_split_raise(groups):
    y = np.arange(20) % 2
    message = r"early_stopping=True cannot hold out whole groups: there are [12] groups, .* X_val"
    with pytest.raises(ValueError, match=message):
        split_for_validation(labeled_ones([1] * 20, y), 0.5, 0, groups)


@pytest.mark.parametrize(
    "as_groups",
    [list, np.array, pd.Series, lambda g: pd.Series(g, dtype="category"), lambda g: [*map(str, g)]],
    ids=["list", "array", "series", "categories", "text"],
)
def test_fit_holds_out_whole_groups(as_groups, data):
    person = np.arange(60) // 6
    weight = np.ones(60)
    weight[:3] = 0  # These sequences are left out.
    clf, train, valid = datasets_of_fit(*data, weight, groups=as_groups(person))
    assert not set(person[train.indices]) & set(person[valid.indices])
    assert sorted([*train.indices, *valid.indices]) == list(range(3, 60))
    assert len(np.unique(person[valid.indices])) == 1
    assert len(clf.history_["valid_loss"]) == clf.n_iter_


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(59), r"^groups: .*inconsistent numbers of samples: \[60, 59\]"),
        ([None, *range(59)], r"^groups contains NaN or another missing value: groups\[0\]"),
        (np.ones((60, 2)), r"^groups should be a 1d array"),
        ([1, "a", *range(58)], r"^groups has labels of type int, str"),
    ],
    ids=["length", "missing", "2-D", "mixed"],
)
def test_invalid_groups_raise_even_if_they_are_not_used(groups, message, data):
    for early_stopping in (False, True):
        with pytest.raises(ValueError, match=message):
            small(early_stopping=early_stopping).fit(*data, groups=groups)


def test_metadata_routing_passes_groups_to_the_splitter_and_to_fit(data):
    X, y = data
    groups, clf = np.arange(60) // 6, small(**STOPPING)
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(groups=True)
        results = cross_validate(
            clf, X, y, cv=GroupKFold(2), params={"groups": groups}, return_indices=True,
            return_estimator=True,
        )  # fmt: skip
    for i, fitted in zip(results["indices"]["train"], results["estimator"], strict=True):
        expected = small(**STOPPING).fit(X[i], y[i], groups=groups[i])
        assert fitted.history_["valid_loss"] == expected.history_["valid_loss"]


# Passed to fit.


def split(data):
    X, y = data
    return (X[:40], y[:40]), {"X_val": X[40:], "y_val": y[40:]}


def test_the_validation_data_that_fit_gets_are_those_of_every_epoch(data):
    train, valid = split(data)
    clf, used_train, used_valid = datasets_of_fit(*train, **valid)
    assert len(used_train) == 40
    assert len(used_valid) == 20
    labels, losses = valid["y_val"], []
    proba = clf.predict_proba(valid["X_val"])
    smooth = np.full((20, 2), 0.05)
    smooth[np.arange(20), labels] += 0.9
    losses = -(smooth * np.log(proba)).sum(1)
    best = np.argmin(clf.history_["valid_loss"])
    assert np.isclose(losses.mean(), clf.history_["valid_loss"][best], rtol=1e-4)
    accuracy = (clf.predict(valid["X_val"]) == labels).mean()
    assert accuracy == clf.history_["valid_accuracy"][best]


def test_validation_data_change_only_when_training_stops(data):
    train, valid = split(data)
    params = {"n_iter_no_change": 100, "max_epochs": 3}
    clf, *_ = datasets_of_fit(*train, **valid, params=params)
    assert clf.loss_curve_ == small(max_epochs=3).fit(*train).loss_curve_


def test_validation_sequences_are_weighted(data):
    train, valid = split(data)
    weight = np.where(np.arange(20) < 10, 2.0, 0.0)
    clf, _, used = datasets_of_fit(*train, **valid, sample_weight_val=weight)
    assert len(used) == 10
    first = {name: values[:10] for name, values in valid.items()}
    expected, *_ = datasets_of_fit(*train, **first)
    assert clf.history_["valid_loss"] == expected.history_["valid_loss"]


def test_class_weights_are_those_of_the_training_data():
    X, y = bumps(n=60)
    y[:30] = 0
    params = {"class_weight": "balanced"}
    _, train, valid = datasets_of_fit(X, y, X_val=X[30:40], y_val=y[30:40], params=params)
    of_training = train.weights[train.y == 1][0] / train.weights[train.y == 0][0]
    of_validation = valid.weights[valid.y == 1][0] / valid.weights[valid.y == 0][0]
    assert np.isclose(of_training, of_validation)
    assert np.isclose(of_training, 45 / 15)


def test_validation_data_of_any_form_are_read_as_x_is(data):
    (X, y), valid = split(data)
    frames = [pd.DataFrame(x, columns=["a", "b"]) for x in X]
    val_frames = [pd.DataFrame(x, columns=["a", "b"]) for x in valid["X_val"]]
    expected, *_ = datasets_of_fit(X, y, **valid)
    clf, *_ = datasets_of_fit(frames, y, X_val=val_frames, y_val=valid["y_val"])
    assert clf.history_["valid_loss"] == expected.history_["valid_loss"]
    swapped = [frame[["b", "a"]] for frame in val_frames]
    with pytest.raises(ValueError, match=r"X_val.*The feature names should match"):
        datasets_of_fit(frames, y, X_val=swapped, y_val=valid["y_val"])


def test_codes_of_validation_data_that_do_not_occur_in_training_are_unknown():
    text = ["abab", "bbaa", "ccdd", "dcdc"] * 10
    y = [0, 0, 1, 1] * 10
    clf, _, valid = datasets_of_fit(text, y, X_val=["abzz", "cdzz"], y_val=[0, 1])
    assert valid.sequences.pad(valid.indices)[0, :, 0].tolist() == [1, 2, 0, 0]
    assert clf.n_features_in_ == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_val": None}, r"needs X_val and y_val, but y_val is None"),
        ({"X_val": None}, r"needs X_val and y_val, but X_val is None"),
        ({"X_val": None, "y_val": None, "sample_weight_val": [1]}, r"but X_val is None"),
        ({"y_val": np.zeros(3)}, r"^y_val: .*inconsistent numbers of samples: \[20, 3\]"),
        ({"y_val": np.full(20, 7)}, r"^y_val has classes \[7\], .*remove .* from X_val"),
        ({"y_val": np.full(20, np.nan)}, r"^y_val contains NaN"),
        ({"X_val": np.ones((20, 20, 3))}, r"X_val has 3 features, but .* is expecting 2"),
        ({"X_val": np.full((20, 20, 2), np.inf)}, r"^X_val\[0\] contains infinity"),
        ({"sample_weight_val": -np.ones(20)}, r"sample_weight_val"),
        ({"sample_weight_val": np.zeros(20)}, r"sample_weight_val.* (non-zero|class_weight)"),
    ],
    ids=[
        "no labels", "no sequences", "weights only", "length", "class", "missing", "features",
        "infinity", "negative", "zero",
    ],
)  # fmt: skip
def test_invalid_validation_data_raise_by_name(change, message, data):
    train, valid = split(data)
    clf = small(**STOPPING)
    with pytest.raises(ValueError, match=message):
        clf.fit(*train, **{**valid, **change})
    assert not hasattr(clf, "net_")


def test_validation_data_of_classes_with_weight_0_only_raise():
    X, y = bumps(n=60)
    y[40:] = 2
    clf = small(**STOPPING, class_weight={2: 0})
    with pytest.raises(ValueError, match=r"All sequences of X_val have weight 0; check y_val"):
        clf.fit(X[:50], y[:50], X_val=X[50:], y_val=y[50:])


def test_validation_data_without_early_stopping_raise(data):
    train, valid = split(data)
    with pytest.raises(ValueError, match=r"X_val and y_val .* set early_stopping=True"):
        small().fit(*train, **valid)


def test_learned_positions_reject_longer_validation_sequences(data):
    (X, y), valid = split(data)
    with pytest.raises(ValueError, match=r"X_val\[0\] has 20 steps, .* only the first 10"):
        small(**STOPPING, positions="learned").fit(X[:, :10], y, **valid)


def test_a_pipeline_transforms_the_validation_data(data):
    (X, y), valid = split(data)
    with sklearn.config_context(enable_metadata_routing=True):
        clf = small(**STOPPING).set_fit_request(X_val=True, y_val=True)
        steps = [("half", FunctionTransformer(lambda X: X / 2)), ("clf", clf)]
        pipeline = Pipeline(steps, transform_input=["X_val"]).fit(X, y, **valid)
    expected = small(**STOPPING).fit(X / 2, y, X_val=valid["X_val"] / 2, y_val=valid["y_val"])
    assert pipeline[-1].history_["valid_loss"] == expected.history_["valid_loss"]
