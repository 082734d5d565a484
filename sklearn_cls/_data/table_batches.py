"""Tables that may not fit into memory are read in batches of sequences.

Shapes: S steps of several sequences, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sklearn_cls._data.columns import NUMBER, Column, library_of
from sklearn_cls._data.errors import errors_name_batch
from sklearn_cls._data.tables import Table, offsets_of, read_table
from sklearn_cls._data.temporary_arrays import BLOCK_BYTES
from sklearn_cls._data.warning_filters import FILTERS_LOCK

BUFFER_BYTES = 2**20  # of a Parquet file, per column; without a limit, row groups are read whole
ROWS_PER_BATCH = 256  # if the size of a row is unknown


@dataclass(frozen=True)
class TableBatches:
    """The sequences of X in batches, which can be read several times.

    Attributes
    ----------
    read : callable
        Returns an iterator over tables of pyarrow with some sequences each.
    header : pyarrow.Table
        A table without rows, which has the names of the columns.
    """

    read: Callable
    header: object

    def __iter__(self):
        """Yield `Table`s."""
        first = 0
        for batch in self.read():
            with errors_name_batch(first, len(batch)), FILTERS_LOCK:
                table = _as_table(read_table(batch))
            yield table
            first += len(batch)


def table_batches(X):
    """Return X as `TableBatches`, or None if it is anything else."""
    library = library_of(X)
    if library == "pyarrow" and hasattr(X, "iter_batches"):
        return _of_parquet_file(X)
    if library == "pyarrow" and hasattr(X, "get_fragments"):
        return _of_arrow_dataset(X)
    if library == "datasets":
        return _of_hugging_face(X)
    return None


def _as_table(read):
    """Return what `read_table` has returned as a `Table`."""
    if isinstance(read, Table):
        return read
    if not isinstance(read, list):
        raise ValueError(
            "X has no column of lists. If each row is a sequence of a single feature, pass the "
            "table in memory: X.read(), X.to_table() or X.with_format('arrow')[:]. If X has a row "
            "for each step, convert it by sklearn_cls.datasets.from_long."
        )
    values = np.concatenate(read)  # (S, F)
    columns = [Column(NUMBER, column) for column in values.reshape(len(values), -1).T]
    return Table(columns, offsets_of([len(x) for x in read]))


def _of_parquet_file(file):
    """Return a `pyarrow.parquet.ParquetFile`, whose row groups are read one after the other."""

    def read():
        for i in range(file.num_row_groups):
            yield from _batches(file, row_groups=[i])

    return TableBatches(read, file.schema_arrow.empty_table())


def _of_arrow_dataset(dataset):
    """Return a `pyarrow.dataset.Dataset` of Parquet files, read a few pages at a time."""
    import pyarrow.parquet as pq

    if dataset.format.default_extname != "parquet":
        raise ValueError(
            f"X is a dataset of {dataset.format.default_extname} files, and only Parquet files are "
            "read in parts; pass X.to_table() if it fits into memory."
        )

    def read():
        for fragment in dataset.get_fragments():
            with fragment.open() as source:
                file = pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
                yield from _batches(file, columns=dataset.schema.names)

    return TableBatches(read, dataset.schema.empty_table())


def _batches(file, **kwargs):
    """Yield the rows of a Parquet file as tables of about `BLOCK_BYTES`."""
    import pyarrow as pa

    metadata = file.metadata
    n_bytes = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    n_rows = max(1, int(BLOCK_BYTES * metadata.num_rows / max(n_bytes, 1)))
    for batch in file.iter_batches(batch_size=n_rows, **kwargs):
        if len(batch):
            yield pa.Table.from_batches([batch])


def _of_hugging_face(dataset):
    """Return a `datasets.Dataset`, or one of its columns."""
    if hasattr(dataset, "column_name"):
        dataset = dataset.source.select_columns([dataset.column_name])
    arrow = dataset.with_format("arrow")
    read = partial(arrow.iter, batch_size=ROWS_PER_BATCH)
    return TableBatches(read, dataset.features.arrow_schema.empty_table())
