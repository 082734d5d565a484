"""Kill workers of running fits at random moments, and check that each fit ends as if undisturbed.

`python -m tests.kill_cluster_fits --kills 50` prints counts. Half of the fits run on a Dask
cluster, the others under torchrun; all have two processes, of which one is killed by SIGKILL. It
fails if a fit ends with weights other than those of an undisturbed one, or takes longer than
`MAX_SECONDS`.
"""

import argparse
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.helpers import LOST_WORKERS_RETURN, small
from tests.in_processes import result_of, run
from tests.test_dask_fit import collections, padded, write_checkpoints_often

MAX_SECONDS = 180


def kill_fits_on_dask(n_kills, rng, folder):
    """Return how many of `n_kills` fits on Dask ended with the result of an undisturbed one."""
    import dask
    from distributed import Client, LocalCluster

    dask.config.set(LOST_WORKERS_RETURN)
    n_identical = 0
    dX, dy = collections(*padded())
    clf = small(max_epochs=30)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        expected = result_of(clf.fit(dX, dy))  # imports the library in the workers
        for _ in range(n_kills):
            client.wait_for_workers(2, timeout=60)
            client.run(write_checkpoints_often)
            start = time.monotonic()
            clf.fit(dX, dy)
            seconds = time.monotonic() - start
            processes = sorted(client.run(os.getpid).values())
            timer = threading.Timer(
                rng.uniform(0, seconds), os.kill, (rng.choice(processes), signal.SIGKILL)
            )
            timer.start()
            start = time.monotonic()
            result = result_of(clf.fit(dX, dy, checkpoint=folder / "checkpoint"))
            seconds = time.monotonic() - start
            timer.join()
            n_identical += result == expected and seconds < MAX_SECONDS
            sys.stdout.write(f"Dask: {n_identical} identical, {seconds:.0f} s\n")
            sys.stdout.flush()
    return n_identical


def kill_fits_of_torchrun(n_kills, rng, folder):
    """Return how many of `n_kills` fits under torchrun ended as an undisturbed one."""
    n_identical, expected = 0, None
    for i in range(n_kills + 1):
        results = folder / f"results {i}"
        results.mkdir()
        result = run(
            "fit_with_kills", results, n_restarts=3, timeout=MAX_SECONDS,
            CHECKPOINT=str(folder / f"checkpoint {i}"), KILL_SEED=str(rng.randrange(2**31)),
            N_KILLS=str(min(i, 1)),
        )  # fmt: skip
        expected = expected or result[0]["digest"]
        n_identical += i > 0 and all(each["digest"] == expected for each in result.values())
        sys.stdout.write(f"torchrun: {n_identical} identical\n")
        sys.stdout.flush()
    return n_identical


def main():
    """Kill as many workers as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    args = parser.parse_args()
    rng = random.Random(args.seed)
    n_dask = args.kills // 2
    with TemporaryDirectory() as folder:
        n_identical = kill_fits_on_dask(n_dask, rng, Path(folder))
        n_identical += kill_fits_of_torchrun(args.kills - n_dask, rng, Path(folder))
    sys.stdout.write(f"{args.kills} kills, {n_identical} identical results, {args}\n")
    return 0 if n_identical == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
