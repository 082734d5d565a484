"""Time of a sum over two processes of this machine, by the number of values and their dtype.

The processes are connected by gloo over the loopback interface. The sums are timed one after the
other; medians and minima of all rounds, the slower of both processes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from harness import begin, parser, report

SIZES = (129, 100_000, 1_000_000, 30_000_000)  # the first is a sum of batch norm
DTYPES = ("float32", "bfloat16")


def main():
    """Print the times of all sizes and dtypes."""
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        measure(int(sys.argv[2]), sys.argv[3])
        return
    args = begin(parser(__doc__, rounds=20))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            __file__, "--worker", str(args.rounds), folder,
        ]  # fmt: skip
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        times = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    slower = np.max(times, 0)  # (sizes and dtypes, rounds)
    names = [(size, dtype) for size in SIZES for dtype in DTYPES]
    rows = [
        {"values": size, "dtype": dtype, "median_ms": np.median(ms), "least_ms": np.min(ms)}
        for (size, dtype), ms in zip(names, slower, strict=True)
    ]
    report(rows, args.out)


def measure(rounds, folder):
    """Time all sums as one of the processes, and write the milliseconds to a file."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    times = []
    for size in SIZES:
        for dtype in DTYPES:
            values = torch.ones(size)
            dist.all_reduce(values.to(getattr(torch, dtype)))
            ms = []
            for _ in range(rounds):
                dist.barrier()
                start = time.perf_counter()
                part = values.to(getattr(torch, dtype))
                dist.all_reduce(part)
                part.float()
                ms.append(1000 * (time.perf_counter() - start))
            times.append(ms)
    Path(folder, os.environ["RANK"]).write_text(json.dumps(times))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
