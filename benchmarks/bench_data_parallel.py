"""Time and communication of an update in one process and in several.

Each number of processes is started by torchrun, with one thread per process. The CPU time of an
update is the difference between fits of one and of several epochs, divided by the number of updates
between them, so that imports, checks and the first batches do not count. The bytes are those that a
process adds up with the others; the communication is the time in these sums, which includes waiting
for the slowest process, divided by the time of the fit.
"""

import sys
import time

import numpy as np
import torch
from harness import begin, noise, parser, report, run_in_processes, write_measured

FITS = {  # shape of X, parameters
    "wide": ((2000, 200, 8), {"d_model": 128, "depth": 4, "batch_size": 128}),
    "default": ((400, 50, 3), {}),
}
EPOCHS = {"wide": (1, 4), "default": (4, 24)}


def main():
    """Measure every fit in one process and in two."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        measure(sys.argv[2], sys.argv[3])
        return
    args = begin(options)
    print("# normal noise, ten classes; one thread per process")
    rows = []
    for name in FITS:
        runs = {n: [] for n in args.processes}
        for _ in range(args.rounds):
            for n in args.processes:
                runs[n].append(start(name, n))
        for n, measured in runs.items():
            medians = {k: np.median([run[k] for run in measured]) for k in measured[0]}
            alone = np.median([run["cpu_ms"] for run in runs[args.processes[0]]])
            medians["ratio"] = alone / medians["cpu_ms"]
            medians = {k: float(f"{value:.3g}") for k, value in medians.items()}
            rows.append({"fit": name, "processes": n, **medians})
    report(rows, args.out)


def start(name, n_processes):
    """Return the medians over the processes of a fit."""
    measured = run_in_processes(__file__, n_processes, name)
    return {k: float(np.median([each[k] for each in measured])) for k in measured[0]}


def measure(folder, name):
    """Fit as one of several processes, and write what was measured to a file."""
    import sklearn_cls
    from sklearn_cls._torch.processes import ProcessGroup

    sums, sum_ = {"bytes": 0, "seconds": 0.0}, ProcessGroup.sum_

    def timed_sum(self, tensor):
        start = time.perf_counter()
        result = sum_(self, tensor)
        sums["seconds"] += time.perf_counter() - start
        sums["bytes"] += tensor.nbytes
        return result

    ProcessGroup.sum_ = timed_sum
    torch.set_num_threads(1)
    shape, params = FITS[name]
    X, y = noise(shape)
    results = []
    with sklearn_cls.data_parallel(60):
        for epochs in EPOCHS[name]:
            sums.update(bytes=0, seconds=0.0)
            clf = sklearn_cls.CLSTransformerClassifier(
                max_epochs=epochs, random_state=0, n_jobs=1, **params
            )
            cpu, wall = time.process_time(), time.perf_counter()
            clf.fit(X, y)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            results.append((cpu, wall, sums["bytes"], sums["seconds"]))
    n_updates = -(-len(X) // clf.net_.batch_size) * (EPOCHS[name][1] - EPOCHS[name][0])
    cpu, wall, n_bytes, seconds = np.subtract(*results[::-1])
    n_parameters = sum(p.numel() for p in clf.module_.parameters())
    measured = {
        "parameters": n_parameters,
        "updates": n_updates,
        "cpu_ms": 1000 * cpu / n_updates,
        "wall_ms": 1000 * wall / n_updates,
        "mb": n_bytes / n_updates / 1e6,
        "communication": seconds / wall,
    }
    write_measured(measured, folder)


if __name__ == "__main__":
    main()
