"""Time of a sum over two processes of this machine, by the number of values and their dtype.

The processes are connected by gloo over the loopback interface. The sums are timed one after the
other; medians and minima of all rounds, the slower of both processes.

To measure a slower network, run the script in a network namespace of Linux with a limit. The two
processes share the interface, so that 20 Gbit/s are 10 for each of them:

    ip netns add slow
    ip netns exec slow ip link set lo up
    ip netns exec slow tc qdisc add dev lo root tbf rate 20gbit burst 2mb latency 100ms
    ip netns exec slow python benchmarks/bench_sums.py --network "10 Gbit/s"
"""

import sys
import time
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from harness import begin, parser, report, run_in_processes, write_measured

SIZES = (129, 100_000, 1_000_000, 30_000_000)  # the first is a sum of batch norm
DTYPES = ("float32", "bfloat16")


def main():
    """Print the times of all sizes and dtypes."""
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        measure(sys.argv[2], int(sys.argv[3]))
        return
    options = parser(__doc__, rounds=20)
    options.add_argument("--network", default="loopback", help="name for the table")
    args = begin(options)
    times = run_in_processes(__file__, 2, args.rounds)
    slower = np.max(times, 0)  # (sizes and dtypes, rounds)
    names = [(size, dtype) for size in SIZES for dtype in DTYPES]
    rows = [
        {
            "network": args.network,
            "values": size,
            "dtype": dtype,
            "median_ms": round(np.median(ms), 2),
            "least_ms": round(np.min(ms), 2),
        }
        for (size, dtype), ms in zip(names, slower, strict=True)
    ]
    report(rows, args.out)


def measure(folder, rounds):
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
    write_measured(times, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
