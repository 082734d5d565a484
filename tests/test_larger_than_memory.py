"""Arrays, tables and datasets that are not in memory are decoded in parts."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.model_selection import cross_val_score
from torch.utils.data import DataLoader, IterableDataset

from sklearn_cls._data import lazy_arrays, table_batches, temporary_arrays, validation
from sklearn_cls._data.temporary_arrays import TemporaryArray
from sklearn_cls._data.validation import check_sequences
from tests.helpers import small

N, N_STEPS = 50, 12
LENGTHS = np.where(np.arange(N) % 3 == 0, 7, N_STEPS)
Y = np.arange(N) % 2


@pytest.fixture
def small_blocks(monkeypatch):
    """Decode a few sequences at a time."""
    for module in (lazy_arrays, table_batches, validation):
        monkeypatch.setattr(module, "BLOCK_BYTES", 2**10)
    monkeypatch.setattr(table_batches, "ROWS_PER_BATCH", 7)


def numbers(dtype=np.float32):
    """Return padded sequences, one of which has a gap."""
    X = np.random.default_rng(0).normal(1e3, 1e2, size=(N, N_STEPS, 2)).astype(dtype)
    if X.dtype.kind == "f":
        X[np.arange(N_STEPS) >= LENGTHS[:, np.newaxis]] = np.nan
        X[4, 3, 1] = np.nan
    return X


class Array:
    """An array of which only a few sequences are read at the same time."""

    def __init__(self, values, **attributes):
        self.values, self.shape = values, values.shape
        self.reads = []
        self.__dict__.update(attributes)

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.reads.append((rows.start, rows.stop))
        return self.values[rows]


class Items(torch.utils.data.Dataset):
    """A map-style dataset of PyTorch."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        assert i < len(self)  # Many datasets raise no IndexError.
        return self.items[i]


class Stream(IterableDataset):
    """An iterable dataset of PyTorch."""

    def __iter__(self):
        return iter([np.ones(3), np.ones(3)])


def as_zarr(X, folder, **kwargs):
    zarr = pytest.importorskip("zarr")
    kwargs = {"chunks": (4, *X.shape[1:]), **kwargs}
    array = zarr.create_array(folder / "zarr", shape=X.shape, dtype=X.dtype, **kwargs)
    array[:] = X
    return zarr.open_array(folder / "zarr", mode="r")


def as_h5py(X, folder, **kwargs):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "h5", "w") as file:
        file.create_dataset("X", data=X, **kwargs)
    return h5py.File(folder / "h5")["X"]


def as_dask(X, folder):
    return pytest.importorskip("dask.array").from_array(X, chunks=(9, 5, -1)[: X.ndim])


def as_xarray(X, folder):
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(as_dask(X, folder), dims=["case", "time", "feature"][: X.ndim])


ARRAYS = {
    "zarr": as_zarr,
    "zarr in chunks of steps": lambda X, folder: as_zarr(X, folder, chunks=(3, 5, 1)[: X.ndim]),
    "h5py": as_h5py,
    "h5py in chunks": lambda X, folder: as_h5py(X, folder, chunks=True, compression="gzip"),
    "dask": as_dask,
    "xarray": as_xarray,
    "any array": lambda X, folder: Array(X),
    "any array with chunks": lambda X, folder: Array(X, chunks=(20, 12, 2), dtype=X.dtype),
}
each_array = pytest.mark.parametrize("as_array", ARRAYS.values(), ids=list(ARRAYS))


def probabilities(X, X_test=None):
    clf = small(max_epochs=2).fit(X, Y)
    return clf.predict_proba(as_predicted(X if X_test is None else X_test))


def as_predicted(X):
    """Return X as an array if it is one of dask, of which predictions are lazy."""
    return X.compute() if isinstance(X, dask_array().Array) else X


def dask_array():
    return pytest.importorskip("dask.array")


# Arrays


@each_array
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_results_are_those_of_the_array_in_memory(as_array, dtype, tmp_path, small_blocks):
    X = numbers(dtype)
    assert np.array_equal(probabilities(as_array(X, tmp_path)), probabilities(X))


@each_array
def test_two_dimensions_are_univariate_sequences(as_array, tmp_path, small_blocks):
    X = numbers()[:, :, 0]
    lazy = as_array(X, tmp_path)
    clf = small(max_epochs=1).fit(lazy, Y)
    assert clf.n_features_in_ == N_STEPS
    assert np.array_equal(clf.predict_proba(as_predicted(lazy)), clf.predict_proba(X))


@each_array
def test_an_array_is_mapped_into_memory_and_its_file_is_deleted(
    as_array, tmp_path, small_blocks, monkeypatch
):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(temporary_arrays, "temporary_folder", lambda: str(folder))
    X = numbers()
    sequences, _ = check_sequences(as_array(X, tmp_path), "Classifier")
    values = sequences.reader.values
    assert is_mapped(values)
    assert np.array_equal(values, X, equal_nan=True)
    assert os.listdir(folder) == []


def is_mapped(values):
    """Return whether an array is part of a memory map."""
    while isinstance(values.base, np.ndarray):
        values = values.base
    return isinstance(values, np.memmap) or type(values.base).__name__ == "mmap"


def test_an_array_is_read_once_in_order_and_never_whole(small_blocks):
    array = Array(numbers())
    check_sequences(array, "Classifier")
    reads = array.reads[1:]  # The first one finds the dtype.
    assert [start for start, _ in reads] == [0, *(stop for _, stop in reads[:-1])]
    assert reads[-1][1] == N
    assert max(stop - start for start, stop in reads) <= 2**10 // (4 * N_STEPS * 2)


def test_parts_consist_of_whole_chunks(small_blocks):
    array = Array(numbers(), chunks=(6, N_STEPS, 2), dtype=np.dtype("float32"))
    check_sequences(array, "Classifier")
    assert all(start % 6 == 0 for start, _ in array.reads)


def test_a_chunk_may_be_larger_than_what_is_read_at_once(small_blocks, monkeypatch):
    monkeypatch.setattr(lazy_arrays, "MAX_CHUNK_BYTES", 2**11)
    array = Array(numbers(), chunks=(N, N_STEPS, 2), dtype=np.dtype("float32"))
    check_sequences(array, "Classifier")
    assert max(stop - start for start, stop in array.reads) <= 2**10 // (4 * N_STEPS * 2)


def test_a_labeled_array_in_memory_is_not_copied(small_blocks):
    xarray = pytest.importorskip("xarray")
    X = numbers()
    sequences, _ = check_sequences(xarray.DataArray(X), "Classifier")
    assert np.shares_memory(sequences.reader.values, X)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_masked_values_of_floats_are_missing(dtype, small_blocks):
    X = np.ma.array(numbers("float32") if dtype == "float32" else np.ones((N, 4, 2), dtype))
    X[3, 2, 1] = np.ma.masked
    array = Array(X, dtype=np.dtype(dtype))
    if dtype == "int32":
        with pytest.raises(ValueError, match="X has masked values and dtype int32"):
            check_sequences(array, "Classifier")
        return
    sequences, _ = check_sequences(array, "Classifier")
    assert np.isnan(sequences.reader.values[3, 2, 1])
    assert sequences.has_gaps[3]


def test_errors_about_values_name_the_sequence(small_blocks):
    X = numbers()
    X[30, 2, 0] = np.inf
    with pytest.raises(ValueError, match=r"X\[30\] contains infinity"):
        check_sequences(Array(X), "Classifier")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (Array(np.full((4, 3), "a")), r"X has dtype <U1, .*pass np.asarray\(X\)"),
        (Array(np.ones((4, 3), complex)), r"X has dtype complex128"),
        (Array(np.ones((4, 3), "M8[s]")), r"X has dtype datetime64"),
        (Array(np.ones(4)), r"X has 1 dimensions \(shape \(4,\)\)"),
        (Array(np.ones((2, 2, 2, 2))), r"X has 4 dimensions"),
        (Array(np.ones((0, 3, 2))), r"X is empty: it has shape \(0, 3, 2\)"),
    ],
    ids=["text", "complex", "dates", "1-D", "4-D", "empty"],
)
def test_errors_about_arrays_say_what_to_pass(array, message):
    with pytest.raises(ValueError, match=message):
        small().fit(array, Y)


def test_an_unknown_number_of_sequences_is_an_error(tmp_path):
    X = as_dask(np.ones((4, 3)), tmp_path)
    with pytest.raises(ValueError, match=r"unknown shape .*X.compute_chunk_sizes\(\)"):
        small().fit(X[X[:, 0] > 0], Y)


def test_a_closed_hdf5_file_is_an_error(tmp_path):
    X = as_h5py(numbers(), tmp_path)
    X.file.close()
    with pytest.raises(ValueError, match=r"^X"):
        small().fit(X, Y)


def as_dask_of_zarr(X, folder):
    return pytest.importorskip("dask.array").from_zarr(as_zarr(X, folder))


@pytest.mark.parametrize("as_array", [as_dask_of_zarr, as_h5py], ids=["dask", "h5py"])
def test_cross_validation_takes_parts_of_arrays(as_array, tmp_path):
    X = numbers()
    scores = cross_val_score(small(max_epochs=1), as_array(X, tmp_path), Y, cv=2)
    assert np.array_equal(scores, cross_val_score(small(max_epochs=1), X, Y, cv=2))


# Disk space


def test_a_full_disk_is_an_error_before_anything_is_decoded(small_blocks, monkeypatch):
    usage = lambda folder: type("Usage", (), {"free": 1000})  # noqa: E731
    monkeypatch.setattr(lazy_arrays.shutil, "disk_usage", usage)
    array = Array(numbers(), dtype=np.dtype("float32"))
    with pytest.raises(ValueError, match=r"X is decoded .* TMPDIR"):
        check_sequences(array, "Classifier")
    assert array.reads == []


WRITE_TOO_MUCH = """
import resource, numpy as np
from sklearn_cls._data.temporary_arrays import TemporaryArray
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
array = TemporaryArray("float64", (4,))
try:
    for _ in range(100):
        array.append(np.zeros((1000, 4)))
except ValueError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_is_an_error():
    command = [sys.executable, "-c", WRITE_TOO_MUCH]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "X is decoded into a temporary file" in out
    assert "TMPDIR" in out


def test_temporary_files_are_on_disk_unless_the_user_chose_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(temporary_arrays.tempfile, "tempdir", "/tmp")
    assert temporary_arrays.temporary_folder() == "/var/tmp"
    monkeypatch.setattr(temporary_arrays.tempfile, "tempdir", str(tmp_path))
    assert temporary_arrays.temporary_folder() == str(tmp_path)


def test_a_temporary_array_becomes_wider_if_items_need_it():
    with TemporaryArray("float32", (1,)) as array:
        array.append(np.array([[0.5], [np.nan]], dtype=np.float32))
        array.append(np.array([[1e300]]))
        values = array.close()
    assert values.dtype == np.float64
    assert values[:, 0].tolist()[::2] == [0.5, 1e300]
    assert not values.flags.writeable


# Tables


def frame():
    """Return a table of numbers, codes, a clock and scalars, and what it is in memory."""
    rng = np.random.default_rng(0)
    X = numbers("float64")
    start = np.datetime64("2024-01-01", "ms")
    return pa.table(
        {
            "a": pa.array([x[:n, 0] for x, n in zip(X, LENGTHS, strict=True)]),
            "code": pa.array([list(rng.choice(list("abcd"), n)) for n in LENGTHS]),
            "time": pa.array(
                [start + 1000 * rng.random(n).cumsum().astype("m8[ms]") for n in LENGTHS]
            ),
            "b": pa.array([x[:n, 1].astype(np.float32) for x, n in zip(X, LENGTHS, strict=True)]),
            "age": pa.array(rng.integers(20, 60, size=N)),
            "sex": pa.array(rng.choice(["f", "m"], N)),
        }
    )


def as_parquet_file(table, folder):
    pq.write_table(table, folder / "x.parquet", row_group_size=11)
    return pq.ParquetFile(folder / "x.parquet")


def as_arrow_dataset(table, folder):
    pq.write_table(table[:20], folder / "a.parquet", row_group_size=11)
    pq.write_table(table[20:], folder / "b.parquet")
    return pyarrow.dataset.dataset([folder / "a.parquet", folder / "b.parquet"])


def as_hugging_face(table, folder):
    return pytest.importorskip("datasets").Dataset(table)


TABLES = {
    "ParquetFile": as_parquet_file,
    "pyarrow.dataset": as_arrow_dataset,
    "datasets": as_hugging_face,
}
each_table = pytest.mark.parametrize("as_table", TABLES.values(), ids=list(TABLES))


@each_table
def test_results_are_those_of_the_table_in_memory(as_table, tmp_path, small_blocks):
    table = frame()
    lazy = as_table(table, tmp_path)
    clf = small(max_epochs=2).fit(lazy, Y)
    assert clf.feature_names_in_.tolist() == table.column_names
    expected = probabilities(table)
    for X in (lazy, table, table.to_pandas()):
        assert np.array_equal(clf.predict_proba(X), expected)
    sequences, _ = check_sequences(lazy, "Classifier")
    assert is_mapped(sequences.reader.values)


@each_table
def test_other_names_and_kinds_are_errors(as_table, tmp_path):
    table = frame()
    clf = small(max_epochs=1).fit(table, Y)
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(as_table(table.select(["code", "a", *table.column_names[2:]]), tmp_path))
    text = table.set_column(3, "b", pa.array([["x"] * n for n in LENGTHS]))
    with pytest.raises(ValueError, match=r"X has text or categories in feature 'b'"):
        clf.predict(as_table(text, tmp_path))


@each_table
def test_a_single_column_may_hold_two_dimensional_cells(as_table, tmp_path, small_blocks):
    X = numbers("float64")
    table = pa.table({"x": pa.array([x[:n].tolist() for x, n in zip(X, LENGTHS, strict=True)])})
    assert np.array_equal(probabilities(as_table(table, tmp_path)), probabilities(table))


@each_table
def test_codes_that_first_occur_in_a_later_batch_are_in_the_vocabulary(as_table, tmp_path):
    codes = [[None, None]] * 20 + [["b", "a"]] * 20 + [["a", "c"]] * 10
    table = pa.table({"code": pa.array(codes, pa.list_(pa.string()))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_batches, "ROWS_PER_BATCH", 11)
        patch.setattr(table_batches, "BLOCK_BYTES", 200)
        lazy = as_table(table, tmp_path)
        extra = pa.table({"x": pa.array([[1.0, 2.0]] * N)})
        lazy = as_table(table.append_column("x", extra["x"]), tmp_path)
        _, features = check_sequences(lazy, "Classifier")
    assert features.vocabularies[0].categories.tolist() == ["a", "b", "c"]


@each_table
def test_errors_name_the_row_of_a_later_batch(as_table, tmp_path, small_blocks):
    values = [[1.0, 2.0]] * 40 + [[1.0, np.inf]] + [[1.0, 2.0]] * 9
    table = pa.table({"a": pa.array(values)})
    with pytest.raises(
        ValueError, match=r"X\[\d+\] contains infinity.*about X\[(\d+):\d+\]"
    ) as info:
        check_sequences(as_table(table, tmp_path), "Classifier")
    words = str(info.value)
    i, first = int(words[2:].split("]")[0]), int(words.split("about X[")[1].split(":")[0])
    assert first > 0
    assert first + i == 40


@each_table
def test_tables_without_lists_are_errors(as_table, tmp_path):
    table = pa.table({"a": pa.array(np.arange(5.0)), "b": pa.array(np.arange(5.0))})
    with pytest.raises(ValueError, match=r"X has no column of lists.*from_long"):
        small().fit(as_table(table, tmp_path), Y[:5])


@each_table
def test_empty_tables_are_errors(as_table, tmp_path):
    with pytest.raises(ValueError, match="X is empty: 0 sample"):
        small().fit(as_table(frame()[:0], tmp_path), [])


def test_columns_of_an_arrow_dataset_can_be_selected(tmp_path):
    table = frame()
    dataset = as_arrow_dataset(table, tmp_path)
    dataset = dataset.replace_schema(pa.schema([table.schema.field(n) for n in ("a", "b")]))
    expected = probabilities(table.select(["a", "b"]))
    assert np.array_equal(probabilities(dataset), expected)


def test_a_column_and_selected_rows_of_a_hugging_face_dataset(tmp_path, small_blocks):
    table = frame()
    dataset = as_hugging_face(table, tmp_path)
    order = np.random.default_rng(0).permutation(N)
    shuffled = dataset.select_columns(["a"]).select(order)
    expected = probabilities(table.select(["a"]).take(order))
    assert np.array_equal(probabilities(shuffled), expected)
    assert np.array_equal(probabilities(dataset["a"]), probabilities(table.select(["a"])))


def test_other_files_of_an_arrow_dataset_are_an_error(tmp_path):
    pd.DataFrame({"a": [1.0]}).to_csv(tmp_path / "a.csv")
    dataset = pyarrow.dataset.dataset(tmp_path / "a.csv", format="csv")
    with pytest.raises(ValueError, match=r"dataset of csv files.*X.to_table\(\)"):
        small().fit(dataset, [0])


# Datasets of PyTorch


@pytest.mark.parametrize("as_item", [np.asarray, torch.tensor], ids=["arrays", "tensors"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_results_are_those_of_a_list(as_item, dtype, small_blocks):
    X = [x[:n] for x, n in zip(numbers(dtype), LENGTHS, strict=True)]
    dataset = Items([as_item(x) for x in X])
    assert np.array_equal(probabilities(dataset), probabilities(X))
    clf = small(max_epochs=1, categorical_features=[1]).fit(dataset, Y)
    expected = small(max_epochs=1, categorical_features=[1]).fit(X, Y)
    assert np.array_equal(clf.predict_proba(dataset), expected.predict_proba(X))


def test_datasets_of_univariate_sequences_and_of_several_dtypes(small_blocks):
    X = [
        np.full(n, 0.1 * i, dtype=np.float32 if i < 30 else np.float64)
        for i, n in enumerate(LENGTHS)
    ]
    sequences, _ = check_sequences(Items(X), "Classifier")
    assert sequences.dtype == np.float64
    assert sequences.lengths.tolist() == LENGTHS.tolist()
    assert sequences.reader.part(40, 0, 1).tolist() == [[4.0]]


@pytest.mark.parametrize(
    ("X", "kind", "message"),
    [
        (Items([(np.ones(3), 0)] * 2), TypeError, r"X\[0\] is a tuple, .*\[x for x, _ in X\]"),
        (Items([np.ones((3, 2)), np.ones((3, 1))]), ValueError, r"X\[1\] has shape \(3, 1\)"),
        (Items([np.ones(3), np.array([])]), ValueError, r"X\[1\] has no steps"),
        (Items([]), ValueError, r"X is empty: 0 sample"),
        (DataLoader(Items([np.ones(3)] * 2)), TypeError, r"X is a DataLoader.*X.dataset"),
        (Stream(), TypeError, r"IterableDataset.*list\(X\)"),
    ],
    ids=["pairs", "features", "no steps", "empty", "loader", "stream"],
)
def test_errors_about_datasets_say_what_to_pass(X, kind, message):
    with pytest.raises(kind, match=message):
        small().fit(X, [0, 1])


# Other containers


@pytest.mark.parametrize("kind", ["h5py", "zarr", "xarray", "datasets"])
def test_errors_about_containers_of_arrays_name_one_of_them(kind, tmp_path):
    library = pytest.importorskip(kind)
    if kind == "h5py":
        as_h5py(np.ones((2, 3)), tmp_path)
        X = library.File(tmp_path / "h5")
    elif kind == "zarr":
        X = library.open_group(tmp_path / "group")
        X.create_array("X", shape=(2, 3), dtype="float32")
    elif kind == "xarray":
        X = library.Dataset({"X": (("n", "t"), np.ones((2, 3)))})
    else:
        X = library.DatasetDict({"X": as_hugging_face(frame(), tmp_path)})
    with pytest.raises(TypeError, match=r"holds several arrays.*X\['X'\]"):
        small().fit(X, [0, 1])


@pytest.mark.parametrize("path", ["x.parquet", Path("x.parquet")])
def test_a_path_is_an_error(path):
    with pytest.raises(TypeError, match=r"X is a path, .*pyarrow.dataset.dataset\(path\)"):
        small().fit(path, Y)


# Memory


MEASURED = """
import sys, threading, time, numpy as np
from sklearn_cls import CLSTransformerClassifier

kind, path, n = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Noise:
    shape, dtype = (n, 200, 5), np.dtype("float32")

    def __getitem__(self, rows):
        return np.random.default_rng(rows.start).normal(size=(rows.stop - rows.start, 200, 5))

class Items(__import__("torch").utils.data.Dataset):
    def __len__(self):
        return n

    def __getitem__(self, i):
        return np.random.default_rng(i).standard_normal((200, 5), dtype=np.float32)

def parquet():
    import pyarrow.dataset
    return pyarrow.dataset.dataset(path)

def anonymous():
    status = open("/proc/self/status").read()
    return int(status.split("RssAnon:")[1].split()[0]) // 1024

X = {"array": Noise, "dataset": Items, "parquet": parquet}[kind]()
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.005):
        peak[0] = max(peak[0], anonymous())

thread = threading.Thread(target=watch)
thread.start()
clf = CLSTransformerClassifier(
    depth=1, d_model=16, n_heads=1, dim_feedforward=16, patch_size=50, embedding="linear",
    max_epochs=1, batch_size=128, n_jobs=1, random_state=0,
)
clf.fit(X, np.arange(n) % 2)
done.set()
thread.join()
print(peak[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads RssAnon of Linux")
@pytest.mark.parametrize("kind", ["array", "dataset", "parquet"])
def test_ten_times_the_data_take_little_more_memory(kind, tmp_path):
    peaks = []
    for n in (4_000, 40_000):  # 16 MB and 160 MB
        path = tmp_path / f"{n}.parquet"
        if kind == "parquet":
            write_parquet(path, n)
        command = [sys.executable, "-c", MEASURED, kind, path, str(n)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks.append(int(out))
    assert peaks[1] - peaks[0] < 60  # MB


def write_parquet(path, n):
    values = np.random.default_rng(0).standard_normal((n, 200), dtype=np.float32)
    offsets = pa.array(200 * np.arange(n + 1, dtype=np.int32))
    column = pa.ListArray.from_arrays(offsets, values.reshape(-1))
    pq.write_table(pa.table({f"x{j}": column for j in range(5)}), path)


def test_a_fitted_estimator_does_not_keep_the_decoded_data(small_blocks):
    deleted = []
    close = TemporaryArray.close

    def watch(array):
        values = close(array)
        weakref.finalize(values, deleted.append, True)
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TemporaryArray, "close", watch)
        clf = small(max_epochs=1).fit(Array(numbers()), Y)
        clf.predict(Array(numbers()))
    gc.collect()
    assert deleted == [True, True]
