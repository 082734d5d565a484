"""Memory that training takes on files of 20 MB and 2 GB, and the time of an epoch on one of 200 MB.

For the memory, each fit runs in its own process. RssAnon, the resident anonymous memory, excludes
the pages of mapped files, which the operating system can free at any time. The epochs are timed in
one process, in interleaved rounds. Zarr, HDF5 and Parquet are decoded before the first epoch;
`decode_s` is the time of a fit without its epochs, which also includes all checks.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from harness import begin, parser, report

SHAPE = (500, 8)  # 16 kB per sequence
CHUNK = 64  # sequences per chunk of zarr and HDF5, 1 MB
FORMATS = ("memory map", "zarr", "h5py", "parquet")


def main():
    """Measure every format; print the differences in memory and the ratios of time."""
    args = begin(parser(__doc__, rounds=3), "zarr", "h5py", "pyarrow")
    print("# data: normal noise, (n, 500, 8) float32; batch 128, embedding='linear'")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        rows = [measure_memory(name, Path(folder), args.threads) for name in FORMATS]
        paths = {name: Path(folder) / f"{name}-200" for name in FORMATS}
        for name, path in paths.items():
            write(name, path, n_sequences(200))
        times = {name: [] for name in FORMATS}
        for i in range(args.rounds + 1):
            for name, path in paths.items():
                seconds = fit(name, path, max_epochs=2)
                if i > 0:  # The first round warms up.
                    times[name].append(seconds)
    for row in rows:
        decode, epoch = np.median(times[row["format"]], axis=0)
        pairs = zip(times[row["format"]], times["memory map"], strict=True)
        ratio = np.median([ours[1] / mapped[1] for ours, mapped in pairs])
        row |= {"decode_s": decode, "epoch_s": epoch, "epoch_ratio": ratio}
    report(rows, args.out)


def n_sequences(megabytes):
    """Return how many sequences take this much memory."""
    return megabytes * 2**20 // (4 * SHAPE[0] * SHAPE[1])


def measure_memory(name, folder, threads):
    """Return the peaks of the memory of a fit on a small and on a large file."""
    row = {"format": name}
    for megabytes in (20, 2000):
        path = folder / f"{name}-{megabytes}"
        write(name, path, n_sequences(megabytes))
        command = [sys.executable, __file__, "--train", name, path, str(threads)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        row[f"rss_anon_{megabytes}_mb"] = float(out)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {**row, "difference_mb": row["rss_anon_2000_mb"] - row["rss_anon_20_mb"]}


def parts(n):
    """Yield n random sequences, a thousand at a time, and where each part begins."""
    rng = np.random.default_rng(0)
    for start in range(0, n, 1000):
        yield start, rng.standard_normal((min(1000, n - start), *SHAPE), dtype=np.float32)


def write(name, path, n):
    """Write n random sequences in one of the formats."""
    shape = (n, *SHAPE)
    if name == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [f"x{j}" for j in range(SHAPE[1])]
        schema = pa.schema([(column, pa.list_(pa.float32())) for column in columns])
        with pq.ParquetWriter(path, schema) as writer:
            for _, values in parts(n):
                offsets = SHAPE[0] * np.arange(len(values) + 1, dtype=np.int32)
                arrays = [
                    pa.ListArray.from_arrays(offsets, values[..., j].reshape(-1))
                    for j in range(SHAPE[1])
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        return
    if name == "memory map":
        array = np.memmap(path, dtype=np.float32, mode="w+", shape=shape)
    elif name == "zarr":
        import zarr

        chunks = (CHUNK, *SHAPE)
        array = zarr.create_array(path, shape=shape, chunks=chunks, dtype="float32")
    else:
        import h5py

        file = h5py.File(path, "w")
        array = file.create_dataset(
            "X", shape=shape, chunks=(CHUNK, *SHAPE), dtype="float32", compression="lzf"
        )
    for start, values in parts(n):
        array[start : start + len(values)] = values
    if name == "h5py":
        file.close()


def opened(name, path):
    """Return X, opened in one of the formats."""
    if name == "parquet":
        import pyarrow.dataset

        return pyarrow.dataset.dataset(path)
    if name == "zarr":
        import zarr

        return zarr.open_array(path, mode="r")
    if name == "h5py":
        import h5py

        return h5py.File(path)["X"]
    n = Path(path).stat().st_size // (4 * SHAPE[0] * SHAPE[1])
    return np.memmap(path, dtype=np.float32, mode="r", shape=(n, *SHAPE))


def fit(name, path, max_epochs):
    """Return the seconds of a fit without its epochs, and those of its last epoch."""
    from sklearn_cls import CLSTransformerClassifier

    X = opened(name, path)
    n = X.count_rows() if name == "parquet" else X.shape[0]
    start = time.perf_counter()
    clf = CLSTransformerClassifier(
        embedding="linear", max_epochs=max_epochs, batch_size=128, random_state=0
    ).fit(X, np.arange(n) % 2)  # fmt: skip
    seconds = time.perf_counter() - start
    return seconds - sum(clf.history_["dur"]), clf.history_["dur"][-1]


def train(name, path, threads):
    """Fit for one epoch and print the peak of the anonymous memory."""
    torch.set_num_threads(threads)
    peak, done = [0.0], threading.Event()

    def watch():
        while not done.wait(0.01):
            peak[0] = max(peak[0], rss_anon())

    watcher = threading.Thread(target=watch)
    watcher.start()
    fit(name, path, max_epochs=1)
    done.set()
    watcher.join()
    print(peak[0])


def rss_anon():
    """Return the resident anonymous memory of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("this benchmark reads RssAnon from /proc/self/status, which exists only on Linux")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
