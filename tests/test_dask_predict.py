"""Lazy predictions of Dask collections, on a cluster of real processes and in this process."""

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import bumps, small

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
dask = pytest.importorskip("dask")
pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

METHODS = ["predict", "predict_proba", "predict_log_proba", "transform", "cls_attention"]


def padded(n=50):
    """Return sequences of unequal lengths in an array, with NaN at the end, and labels."""
    X, y = bumps(n)
    for i, x in enumerate(X):
        x[14 + i % 7 :] = np.nan
    return X, np.array(["a", "bc"])[y]


@pytest.fixture(scope="module")
def clf():
    return small(max_epochs=3).fit(*padded())


def frame(X):
    """Return sequences as a frame with a list of values in each cell."""
    # Dask converts columns of objects to text.
    lists = pd.ArrowDtype(pa.list_(pa.float64()))
    columns = {name: [x[:, j].tolist() for x in X] for j, name in enumerate(("u", "v"))}
    columns = {name: pd.Series(cells, dtype=lists) for name, cells in columns.items()}
    return pd.DataFrame(columns).set_axis(np.arange(len(X)) + 100)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_for_an_array_is_lazy_and_equal_to_that_of_its_chunks(clf, method, client):
    X, _ = padded()
    dX = da.from_array(X, chunks=(13, 7, 1))
    result = getattr(clf, method)(dX)
    expected = np.concatenate([getattr(clf, method)(X[i : i + 13]) for i in range(0, 50, 13)])
    assert isinstance(result, da.Array)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert result.chunks[0] == (13, 13, 13, 11)
    assert_array_equal(result.compute(), expected)


def test_nothing_is_computed_before_it_is_asked_for(clf):
    n_computed = []

    def make(i):
        n_computed.append(i)
        return padded(10)[0]

    parts = [da.from_delayed(dask.delayed(make)(i), (10, 20, 2), np.float32) for i in range(3)]
    result = clf.predict_proba(da.concatenate(parts))
    assert n_computed == []
    assert result[:10].compute(scheduler="sync").shape == (10, 2)
    assert len(n_computed) == 1


def test_the_sizes_of_partitions_may_be_unknown(clf):
    X, _ = padded()
    parts = [dask.delayed(X[:20]), dask.delayed(X[20:])]
    result = clf.predict_proba(parts)
    assert np.isnan(result.shape[0])
    assert_array_equal(
        result.compute(), np.concatenate([clf.predict_proba(X[:20]), clf.predict_proba(X[20:])])
    )


def test_a_frame_gives_frames_with_its_index(client):
    X, y = bumps(50)
    X = frame(X)
    clf = small(max_epochs=2).fit(X, np.array(["a", "b"])[y])
    dX = dd.from_pandas(X, npartitions=3)
    proba, labels, vectors = clf.predict_proba(dX), clf.predict(dX), clf.transform(dX)
    assert [*proba.columns] == ["a", "b"]
    assert [*vectors.columns] == [*clf.get_feature_names_out()]
    assert labels.dtype == labels.compute().dtype
    assert_array_equal(proba.compute().index, X.index)
    np.testing.assert_allclose(proba.compute().to_numpy(), clf.predict_proba(X), atol=1e-6)
    assert_array_equal(labels.compute().to_numpy(), clf.predict(X))
    np.testing.assert_allclose(vectors.compute().to_numpy(), clf.transform(X), atol=1e-5)


def test_empty_partitions_give_empty_results(clf):
    X, y = bumps(20)
    X = frame(X)
    clf = small(max_epochs=1).fit(X, y)
    parts = [dask.delayed(X.iloc[:0]), dask.delayed(X)]
    labels = clf.predict(dd.from_delayed(parts, meta=X.iloc[:0]))
    assert_array_equal(labels.compute(), clf.predict(X))


def test_scores_are_those_of_the_labels_of_all_partitions(clf, client):
    X, y = padded()
    assert clf.score(da.from_array(X, chunks=(13, 20, 2)), da.from_array(y, chunks=13)) == (
        clf.score(X, y)
    )


def test_set_output_does_not_compute_anything(clf):
    X, _ = padded()
    clf = small(max_epochs=1).fit(*bumps()).set_output(transform="pandas")
    result = clf.transform(da.from_array(X, chunks=(13, 20, 2)))
    assert isinstance(result, da.Array)
    assert_array_equal(result[:13].compute(scheduler="threads"), clf.transform(X[:13]))


def test_other_features_are_an_error_at_once(clf):
    for shape in ((10, 20, 3), (10, 20)):
        with pytest.raises(ValueError, match=r"X has [13] features, but CLSTransformerClassifier"):
            clf.predict(da.zeros(shape))
    for shape in ((10,), (10, 20, 2, 1)):
        with pytest.raises(ValueError, match=r"X has \d dimensions .* pass an array of shape"):
            clf.predict(da.zeros(shape))
    X, y = bumps(10)
    named = small(max_epochs=1).fit(frame(X), y)
    with pytest.raises(ValueError, match="feature names should match"):
        named.predict(dd.from_pandas(frame(X)[["v", "u"]], npartitions=2))
    pooled = small(max_epochs=1, pooling="mean").fit(X, y)
    with pytest.raises(ValueError, match="cls_attention needs a"):
        pooled.cls_attention(da.from_array(X))


def test_collections_of_other_things_are_an_error_that_says_what_to_pass(clf):
    bag = pytest.importorskip("dask.bag").from_sequence([1, 2])
    for X, advice in ((dask.delayed(padded()[0]), r"\[X\]"), (bag, r"X.to_delayed\(\)")):
        for function in (clf.predict, lambda X: small().fit(X, [0, 1])):
            with pytest.raises(TypeError, match=f"X is a .* of dask; pass .*: {advice}"):
                function(X)


def test_errors_name_the_sequences_of_the_partition(clf):
    X, y = padded()
    X[30, 2] = np.inf
    parts = [dask.delayed(X[:26]), dask.delayed(X[26:])]
    named = small(max_epochs=1).fit(frame(X[:20]), y[:20])
    for lazy, where in (
        (clf.predict(da.from_array(X, chunks=(13, 20, 2))), r"X\[26:39\]"),
        (clf.predict(parts), "partition 1 of X"),
        (named.predict(dd.from_pandas(frame(X), 2)), "the index from 125 to 149"),
    ):
        with pytest.raises(ValueError, match=rf"X\[[45]\] contains infinity.*about .*{where}"):
            lazy.compute(scheduler="sync")


def test_a_series_of_sequences_gives_a_series():
    X, y = bumps(20)
    X = frame(X)["u"]
    clf = small(max_epochs=1).fit(X, y)
    labels = clf.predict(dd.from_pandas(X, npartitions=2))
    assert_array_equal(labels.compute(), clf.predict(X))


SEEN = []  # by the methods of `Recording` in this process


class Recording(CLSTransformerClassifier):
    """A classifier that records in which objects and threads it predicts arrays."""

    def predict(self, X):
        if isinstance(X, np.ndarray):
            SEEN.append((id(self), threading.get_ident()))
        return super().predict(X)

    def __setstate__(self, state):
        super().__setstate__(state)
        SEEN.append("unpickled")


def test_the_model_is_sent_once_to_a_worker_whose_threads_share_it():
    distributed = pytest.importorskip("distributed")
    X, y = padded(60)
    clf = Recording(**small(max_epochs=1).get_params()).fit(X, y)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster),
    ):
        result = clf.predict(da.from_array(X, chunks=(2, 20, 2)))
        SEEN.clear()
        assert_array_equal(result.compute(), small(max_epochs=1).fit(X, y).predict(X))
    assert SEEN.count("unpickled") <= 2  # in the scheduler, and in the worker
    objects, threads = zip(*(item for item in SEEN if item != "unpickled"), strict=True)
    assert len(objects) == 30
    assert len(set(objects)) == 1
    assert len(set(threads)) > 1


def test_the_model_is_sent_once_to_each_worker(client):
    clf = small(d_model=256, max_epochs=1).fit(*padded(20))
    n_bytes = len(pickle.dumps(clf))
    X = da.random.default_rng(0).normal(size=(400, 20, 2), chunks=(10, 20, 2))
    before = sum(client.run(sent_bytes).values())
    assert clf.predict_proba(X).compute().shape == (400, 2)
    sent = sum(client.run(sent_bytes).values()) - before
    assert n_bytes > 1e6
    assert sent < 1.5 * n_bytes  # from the first of two workers to the other, and the results


def test_a_worker_holds_few_chunks_at_a_time(client):
    rng = np.random.default_rng(0)
    clf = small(max_epochs=1).fit(rng.normal(size=(20, 20, 200)), np.arange(20) % 2)
    X = da.random.default_rng(0).normal(size=(20_000, 20, 200), chunks=(500, 20, 200))
    assert clf.predict_proba(X[:2000]).compute().shape == (2000, 2)
    before = client.run(reset_peak_bytes)
    assert clf.predict_proba(X).compute().shape == (20_000, 2)
    peaks = client.run(peak_bytes)
    chunk = X[:500].nbytes  # 16 MB, of which each worker predicts about 20
    held = [(peaks[worker] - before[worker]) / chunk for worker in peaks]
    assert max(held) < 6


def reset_peak_bytes():
    """Forget the peak of the resident memory of this process; return what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes():
    """Return the peak of the resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def sent_bytes(dask_worker):
    """Return how many bytes of results a worker has sent to others."""
    return dask_worker.transfer_outgoing_bytes_total


def test_lazy_predictions_can_be_arguments_of_a_fit(clf):
    X, y = padded()
    dX = da.from_array(X, chunks=(13, -1, -1))
    results = []

    def fit():
        labels = clf.predict(dX)
        results.append(clf.score(dX, labels))
        results.append(small(max_epochs=1).fit(X, labels).classes_.tolist())
        weights = clf.predict_proba(dX)[:, 0]
        small(max_epochs=1).fit(X, y, sample_weight=weights)
        results.append(small(max_epochs=1).fit(clf.transform(dX), y).n_features_in_)

    # Dask computes the predictions in other threads, which must not wait for a lock of the fit.
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert results == [1.0, ["a", "bc"], clf.d_model]
