"""Efficiency and duration of fits on large clusters, and the cost of lost workers.

An update of N processes takes C + G + B seconds:

C
    the time of the process's own part of the batch, which "auto" chooses: 16 sequences with 8
    processes or 64, and 4 with 512. It is measured here on one thread of a CPU, for sequences of
    200 steps and 8 features; those of a GPU are assumed.
G
    the sum of P gradients of 4 bytes: 2 (N - 1) / N * 4 P / bandwidth + n * latency. In a ring, as
    of gloo, n = 2 (N - 1); in trees, as of NCCL, n = 2 log2(N).
B
    four sums of batch norm, 4 * 2 log2(N) * latency.

The efficiency is C / (C + G + B). With sums in bfloat16, G has half of the bytes; with overlap, the
sum hides behind the backward pass, two thirds of C, which is the most that it could.

The hours are those of 10 epochs of 100 million sequences.

Lost workers: a simulation of a fit of `HOURS` on 512 workers, of which one is lost every hour on
average. A checkpoint is written every `interval` minutes and takes `WRITE` seconds; after a loss,
the fit needs `RESTART` seconds to start again, and repeats what it has done since the last one.
"""

import argparse
import math
import time

import numpy as np
import torch
from harness import noise, print_versions, report

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._training.auto import AUTO_MIN_EPOCHS, auto_batch_size

N_STEPS, N_FEATURES = 200, 8
NETWORKS = {  # by the millions of parameters: parameters of the estimator, updates to time
    0.1: ({}, 100),
    1: ({"d_model": 128, "dim_feedforward": 512, "depth": 5}, 40),
    30: ({"d_model": 512, "dim_feedforward": 2048, "depth": 9, "n_heads": 8}, 8),
}
GPU_SECONDS = {0.1: 5e-3, 1: 5e-3, 30: 20e-3}  # assumed, for 16 sequences or fewer
WORKERS = (8, 64, 512)
MORE_WORKERS = (8, 64, 128, 512)
MANY = 10**8  # sequences
BACKWARD = 2 / 3  # fraction of the backward pass in the computation
LINKS = {  # bytes per second, seconds of latency, whether the sum is a ring; assumed
    "10 Gbit/s Ethernet": (1.1e9, 50e-6, True),
    "NVLink": (200e9, 5e-6, False),
}
HARDWARE = (("CPU core", "10 Gbit/s Ethernet"), ("GPU", "10 Gbit/s Ethernet"), ("GPU", "NVLink"))
HOURS, LOSSES_PER_HOUR, WRITE, RESTART = 24, 1.0, 2.0, 60.0
INTERVALS = (0.1, 1, 5, 15, 60, 180)  # minutes


def main():
    """Print and write the tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--out-efficiency", help="CSV file to write the first table to")
    options.add_argument("--out-hours", help="CSV file to write the second table to")
    options.add_argument("--out-losses", help="CSV file to write the third table to")
    args = options.parse_args()
    torch.set_num_threads(1)
    print_versions()
    rows, hours = [], []
    for millions, (params, n_updates) in NETWORKS.items():
        measured = {n: seconds_per_update(params, n, n_updates) for n in (4, 16)}
        for hardware, link in HARDWARE:
            compute = measured
            if hardware == "GPU":
                compute = dict.fromkeys(measured, GPU_SECONDS[millions])
            seconds = {n: compute[auto_batch_size(MANY, n) // n] for n in MORE_WORKERS}
            sums = {n: seconds_of_sums(millions, n, link) for n in MORE_WORKERS}
            name = {"parameters": f"{millions} million", "worker": hardware, "network": link}
            row = {**name, "ms": rounded(1000 * compute[16])}
            for n in WORKERS:
                row[f"{n} workers"] = rounded(seconds[n] / (seconds[n] + sums[n]))
            halved = seconds_of_sums(millions, 64, link, n_bytes=2)
            row["64, bfloat16"] = rounded(seconds[64] / (seconds[64] + halved))
            overlapped = seconds_of_sums(millions, 64, link, hidden=BACKWARD * seconds[64])
            row["64, overlap"] = rounded(seconds[64] / (seconds[64] + overlapped))
            rows.append(row)
            row = dict(name)
            for n in MORE_WORKERS:
                n_updates_of_fit = AUTO_MIN_EPOCHS * MANY / auto_batch_size(MANY, n)
                row[f"{n} workers"] = rounded(n_updates_of_fit * (seconds[n] + sums[n]) / 3600)
            hours.append(row)
    report(rows, args.out_efficiency)
    report(hours, args.out_hours)
    rng = np.random.default_rng(0)
    losses = []
    for interval in INTERVALS:
        mean = np.mean([simulated_hours(interval, rng) for _ in range(2000)])
        losses.append({"minutes": interval, "additional time": rounded(mean / HOURS - 1)})
    report(losses, args.out_losses)


def seconds_per_update(params, batch_size, n_updates):
    """Return the CPU time of an update, without the fixed costs of a fit."""
    X, y = noise((batch_size * n_updates, N_STEPS, N_FEATURES), n_classes=4)
    seconds = []
    for n in (batch_size, batch_size, len(X)):  # The first fit is a warm-up.
        clf = CLSTransformerClassifier(
            max_epochs=1, batch_size=batch_size, random_state=0, n_jobs=1, **params
        )
        start = time.process_time()
        clf.fit(X[:n], y[:n])
        seconds.append(time.process_time() - start)
    n_parameters = sum(p.numel() for p in clf.module_.parameters())
    print(f"# {n_parameters / 1e6:.2f} million parameters, batches of {batch_size}", flush=True)
    return (seconds[2] - seconds[1]) / (n_updates - 1)


def seconds_of_sums(millions, n, link, *, n_bytes=4, hidden=0.0):
    """Return the seconds of the sums of an update over `n` workers.

    Parameters
    ----------
    millions : float
        Number of parameters in millions.
    n : int
        Number of workers.
    link : str
        One of `LINKS`.
    n_bytes : int
        Bytes of a gradient.
    hidden : float
        Seconds of computation during which gradients are summed.
    """
    bandwidth, latency, is_ring = LINKS[link]
    n_latencies = 2 * (n - 1) if is_ring else 2 * math.log2(n)
    gradients = 2 * (n - 1) / n * n_bytes * 1e6 * millions / bandwidth + n_latencies * latency
    return max(0.0, gradients - hidden) + 4 * 2 * math.log2(n) * latency


def rounded(value):
    """Return a number with two significant digits."""
    return float(f"{value:.2g}")


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


if __name__ == "__main__":
    main()
