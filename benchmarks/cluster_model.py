"""Efficiency of a fit on a cluster, and the cost of lost workers, computed from measured times.

Efficiency: an update takes T_c + T_g + T_b seconds. T_c is the time of the own part of the batch;
T_g = 2 (N - 1) / N * 4 P / B + 2 (N - 1) a is the sum of P gradients over N workers in a ring, with
a bandwidth of B bytes/s and a latency of a; T_b = 4 * 2 log2(N) a are the four sums of batch norm.
The efficiency is T_c / (T_c + T_g + T_b). A sum by halving and doubling has 2 log2(N) latencies
instead of 2 (N - 1).

Lost workers: a simulation of a fit of `HOURS` on 512 workers, of which one is lost every hour on
average. A checkpoint is written every `interval` minutes and takes `WRITE` seconds; after a loss,
the fit needs `RESTART` seconds to start again, and repeats what it has done since the last one.
"""

import argparse
import math

import numpy as np
from harness import report

WORKERS = (8, 64, 512)
NETWORKS = {  # bytes per second and seconds; assumed
    "10 Gbit/s Ethernet": (0.875e9, 50e-6),
    "NVLink": (200e9, 5e-6),
}
HOURS, LOSSES_PER_HOUR, WRITE, RESTART = 24, 1.0, 2.0, 60.0
INTERVALS = (0.1, 2 / 3, 1, 5, 15, 60)  # minutes


def efficiency(compute, parameters, n, bandwidth, latency, *, is_ring):
    """Return the efficiency of N workers that compute for `compute` seconds per update."""
    n_latencies = 2 * (n - 1) if is_ring else 2 * math.log2(n)
    gradients = 2 * (n - 1) / n * 4 * parameters / bandwidth + n_latencies * latency
    norms = 4 * 2 * math.log2(n) * latency
    return compute / (compute + gradients + norms)


def simulated_hours(interval, rng):
    """Return the hours of a fit that would take `HOURS` without checkpoints and losses."""
    left, hours = HOURS * 3600.0, 0.0  # seconds of work that are left
    while left > 0:
        until_loss = rng.exponential(3600 / LOSSES_PER_HOUR)
        period = 60 * interval + WRITE
        if until_loss >= left + WRITE * (left // (60 * interval)):
            return hours + (left + WRITE * (left // (60 * interval))) / 3600
        left -= 60 * interval * (until_loss // period)
        hours += (until_loss + RESTART) / 3600
    return hours


def main():
    """Print and write both tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--compute",
        type=float,
        nargs=3,
        default=[0.019, 0.075, 0.050],
        help="seconds of an update of 16 sequences with 0.1, 0.5 and 30 million parameters; the "
        "last is that of a GPU (default: %(default)s)",
    )
    options.add_argument("--out-efficiency")
    options.add_argument("--out-losses")
    args = options.parse_args()
    rows = []
    for parameters, compute in zip((0.1e6, 0.5e6, 30e6), args.compute, strict=True):
        for network, (bandwidth, latency) in NETWORKS.items():
            row = {"parameters": parameters, "compute_ms": 1000 * compute, "network": network}
            for n in WORKERS:
                for is_ring in (True, False):
                    name = f"{n} ring" if is_ring else f"{n} halving"
                    row[name] = efficiency(
                        compute, parameters, n, bandwidth, latency, is_ring=is_ring
                    )
            rows.append(row)
    report(rows, args.out_efficiency)
    rng = np.random.default_rng(0)
    losses = []
    for interval in INTERVALS:
        hours = [simulated_hours(interval, rng) for _ in range(2000)]
        losses.append({"interval_minutes": interval, "extra": np.mean(hours) / HOURS - 1})
    report(losses, args.out_losses)


if __name__ == "__main__":
    main()
