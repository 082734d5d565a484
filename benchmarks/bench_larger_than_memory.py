"""Memory and time that training takes on data of 20 MB and 2 GB in a file.

Each fit runs in its own process. RssAnon, the resident anonymous memory, excludes the pages of
mapped files, which the operating system can free at any time. Zarr, HDF5 and Parquet are decoded
before the first epoch; `decode_s` is the time of the fit without its epochs.
"""

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
    """Measure every format in both sizes; print differences and ratios."""
    args = begin(parser(__doc__, rounds=1), "zarr", "h5py", "pyarrow")
    print("# data: normal noise, (n, 500, 8) float32; 2 epochs, batch 128, embedding='linear'")
    rows = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for name in FORMATS:
            for megabytes in (20, 2000):
                path = Path(folder) / f"{name}-{megabytes}"
                write(name, path, n=megabytes * 2**20 // (4 * SHAPE[0] * SHAPE[1]))
                command = [sys.executable, __file__, "--train", name, path, str(args.threads)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                before, peak, decode, epoch = map(float, out.split())
                rows.append(
                    {"format": name, "data_mb": megabytes, "rss_anon_before_mb": before,
                     "rss_anon_peak_mb": peak, "decode_s": decode, "epoch_s": epoch}
                )  # fmt: skip
    report(rows, args.out)
    large = {row["format"]: row for row in rows if row["data_mb"] == 2000}
    for row in rows:
        if row["data_mb"] == 20:
            same = large[row["format"]]
            more = same["rss_anon_peak_mb"] - row["rss_anon_peak_mb"]
            ratio = same["epoch_s"] / large["memory map"]["epoch_s"]
            print(f"{row['format']}: {more:.0f} MB more for 2 GB than for 20 MB; an epoch takes "
                  f"{ratio:.2f} times that on a memory map")  # fmt: skip


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


def train(name, path, threads):
    """Fit two epochs; print the memory before and at its peak, and the time of decoding, an epoch.

    The time of an epoch is that of the second one: the first one of a memory map reads the disk.
    """
    from sklearn_cls import CLSTransformerClassifier

    torch.set_num_threads(threads)
    X = opened(name, path)
    n = X.count_rows() if name == "parquet" else X.shape[0]
    y = np.arange(n) % 2
    before, peak, done = rss_anon(), [0.0], threading.Event()

    def watch():
        while not done.is_set():
            peak[0] = max(peak[0], rss_anon())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    clf = CLSTransformerClassifier(
        embedding="linear", max_epochs=2, batch_size=128, random_state=0
    ).fit(X, y)  # fmt: skip
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(before, peak[0], seconds - sum(clf.history_["dur"]), clf.history_["dur"][1])


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
