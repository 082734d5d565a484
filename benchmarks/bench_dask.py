"""Speed of lazy predictions on a Dask cluster of two workers, compared with one process.

The sequences are normal noise that is made in chunks where they are predicted. Every worker, and
the single process, uses one thread. Interleaved rounds; the ratio is the median over them.
"""

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from harness import begin, noise, parser, report, time_interleaved

from sklearn_cls import CLSTransformerClassifier

CHUNK = 2000  # sequences


def main():
    """Predict on two workers and in one process, in turn."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--n", type=int, default=200_000, help="number of sequences")
    args = begin(options, "dask", "distributed")
    clf = CLSTransformerClassifier(max_epochs=1, random_state=0, n_jobs=1)
    clf.fit(*noise((200, 100, 8)))
    X = da.random.default_rng(0).normal(size=(args.n, 100, 8), chunks=(CHUNK, -1, -1))
    X = X.astype(np.float32)

    def on_cluster():
        return clf.predict_proba(X).compute()

    def in_this_process():
        with dask.config.set(scheduler="synchronous"):
            return clf.predict_proba(X).compute()

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        if not np.array_equal(on_cluster(), in_this_process()):
            raise RuntimeError("The predictions differ.")
        functions = {"two workers": on_cluster, "one process": in_this_process}
        times = time_interleaved(functions, args.rounds, warm_up=0)
        peaks = client.run(peak_megabytes)
    print(
        f"# peaks of the workers: {max(peaks.values()):.0f} MB; X would take "
        f"{X.nbytes / 1e6:.0f} MB, a chunk {X.nbytes * CHUNK / args.n / 1e6:.1f} MB"
    )
    rows = [
        {
            "where": name,
            "seconds": round(times[name], 1),
            "sequences_per_s": round(args.n / times[name]),
            "ratio": round(times.get(("one process", name), 1.0), 2),
        }
        for name in functions
    ]
    report(rows, args.out)


def peak_megabytes():
    """Return the largest resident memory that this process has had."""
    with open("/proc/self/status") as file:
        lines = file.read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


if __name__ == "__main__":
    main()
