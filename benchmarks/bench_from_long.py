"""Time and memory of `from_long` for tables of pandas, polars and pyarrow.

A table has the columns id, time and four features, and 1,000 steps for each id. Each row is
measured in a new process, on one core, after a small call. "table_MB" is the size of the table,
"peak_MB" the increase of the resident memory during the call, on Linux, which includes the result.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
from bench_growth import cost
from harness import begin, parser, report

from sklearn_cls.datasets import from_long

N_STEPS = 1000  # of a sequence
LIBRARIES = ("pandas", "polars", "pyarrow")
TABLES = ("sorted, int time", "shuffled, int time", "shuffled, text id, datetime")


def long_table(kind, n_rows):
    """Return a table of pandas."""
    rng = np.random.default_rng(0)
    rows = np.arange(n_rows)
    if kind.startswith("shuffled"):
        rng.shuffle(rows)
    ids, time = np.divmod(rows, N_STEPS)
    if "text" in kind:
        ids = pd.array([f"patient {i}" for i in range(ids.max() + 1)], dtype="str").take(ids)
        time = np.datetime64("2024-01-01", "us") + time.astype("timedelta64[s]")
    features = {f"x{j}": rng.normal(size=n_rows) for j in range(4)}
    return pd.DataFrame({"id": ids, "time": time, **features})


def convert(frame, library):
    """Return a table of pandas as one of another library."""
    if library == "polars":
        import polars as pl

        return pl.from_pandas(frame)
    if library == "pyarrow":
        import pyarrow as pa

        return pa.Table.from_pandas(frame, preserve_index=False)
    return frame


def measure(library, kind, n_rows):
    """Return the seconds of a call and its memory in MB."""
    from_long(convert(long_table(kind, 100), library), id="id", time="time")
    table = convert(long_table(kind, n_rows), library)
    size = table.memory_usage(deep=True).sum() if library == "pandas" else (
        table.estimated_size() if library == "polars" else table.nbytes
    )  # fmt: skip
    seconds, peak = cost(lambda: from_long(table, id="id", time="time"))
    return {"seconds": seconds, "table_MB": size / 2**20, "peak_MB": peak}


def main():
    """Measure all libraries and tables."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--rows", type=int, default=10_000_000, help="default: %(default)s")
    args = begin(options, "narwhals", *LIBRARIES)
    print(f"# data: {args.rows} rows, {N_STEPS} for each id, four columns of noise, float64")
    # The libraries read these variables when they are imported.
    os.environ.update({"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"})
    rows = []
    for kind in TABLES:
        for library in LIBRARIES:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
                futures = [
                    pool.submit(measure, library, kind, args.rows) for _ in range(args.rounds)
                ]
                results = [future.result() for future in futures]
            medians = {name: float(np.median([r[name] for r in results])) for name in results[0]}
            rows.append({"library": library, "table": kind, "rows": args.rows, **medians})
    report(rows, args.out)


if __name__ == "__main__":
    main()
