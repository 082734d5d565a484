"""Memory that one epoch of training on a memory map takes, for files of 20 MB and 2 GB.

Each file is measured in its own process. RssAnon, the resident anonymous memory, excludes the pages
of the mapped file, which the operating system can free at any time.
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


def main():
    """Measure both files and print the difference between their peaks."""
    args = begin(parser(__doc__, rounds=1))
    print("# data: normal noise, (n, 500, 8) float32; one epoch, batch 128, embedding='linear'")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in (20, 2000):
            path = Path(folder) / f"{megabytes}.dat"
            write(path, n=megabytes * 2**20 // (4 * SHAPE[0] * SHAPE[1]))
            command = [sys.executable, __file__, "--train", path, str(args.threads)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            before, peak, seconds = map(float, out.split())
            rows.append({"file_mb": megabytes, "rss_anon_before_mb": before,
                         "rss_anon_peak_mb": peak, "fit_s": seconds})  # fmt: skip
    report(rows, args.out)
    small, large = (row["rss_anon_peak_mb"] for row in rows)
    print(f"difference between the peaks: {large - small:.0f} MB")


def write(path, n):
    """Write n random sequences, a thousand at a time."""
    rng = np.random.default_rng(0)
    mapped = np.memmap(path, dtype=np.float32, mode="w+", shape=(n, *SHAPE))
    for start in range(0, n, 1000):
        chunk = mapped[start : start + 1000]
        chunk[:] = rng.standard_normal(chunk.shape, dtype=np.float32)
    mapped.flush()


def train(path, threads):
    """Fit one epoch; print the anonymous memory before it, its peak, and the time in seconds."""
    from sklearn_cls import CLSTransformerClassifier

    torch.set_num_threads(threads)
    n = Path(path).stat().st_size // (4 * SHAPE[0] * SHAPE[1])
    X = np.memmap(path, dtype=np.float32, mode="r", shape=(n, *SHAPE))
    y = np.arange(n) % 2
    before, peak, done = rss_anon(), [0.0], threading.Event()

    def watch():
        while not done.is_set():
            peak[0] = max(peak[0], rss_anon())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    CLSTransformerClassifier(
        embedding="linear", max_epochs=1, batch_size=128, random_state=0
    ).fit(X, y)  # fmt: skip
    done.set()
    watcher.join()
    print(before, peak[0], time.perf_counter() - start)


def rss_anon():
    """Return the resident anonymous memory of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("this benchmark reads RssAnon from /proc/self/status, which exists only on Linux")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], int(sys.argv[3]))
    else:
        main()
