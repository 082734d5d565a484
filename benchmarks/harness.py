"""Shared code of the benchmarks: command-line options, test data, timing and result tables."""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def parser(description, *, rounds):
    """Return an argument parser with the common options; `rounds` is the default of `--rounds`."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--rounds", type=int, default=rounds, help="number of timing rounds (default: %(default)s)"
    )
    options.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="number of torch threads"
    )
    options.add_argument("--out", help="CSV file to write the table to")
    return options


def begin(options, *packages):
    """Parse the command line, set the number of threads, print a header and return the options."""
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    print_versions(*packages)
    print(f"# medians of {args.rounds} interleaved rounds, seed 0", flush=True)
    return args


def print_versions(*packages):
    """Print the versions of the main packages, and of those in `packages` that are installed."""
    names = ["sklearn_cls", "torch", "scikit-learn", "skorch", "numpy"]
    names += [name for name in packages if find_spec(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    gpu = f", {torch.cuda.get_device_name()}" if DEVICE == "cuda" else ""
    print(
        f"# {versions}, Python {platform.python_version()}\n# {platform.machine()} CPU, "
        f"{torch.get_num_threads()} threads{gpu}"
    )


def noise(shape, n_classes=10):
    """Return sequences of Gaussian noise, float32, and labels that cycle through the classes."""
    X = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return X, np.arange(len(X)) % n_classes


def time_interleaved(functions, rounds, warm_up=1):
    """Time functions in interleaved rounds, each of which calls every function once.

    Returns a dict of the median seconds of each name and, for each pair (name, other), the median
    of the ratios within a round. Load from other processes affects both sides of such a ratio
    equally.
    """
    seconds = {name: [] for name in functions}
    for i in range(warm_up + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if i >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for a, b in itertools.permutations(functions, 2):
        ratios = (x / y for x, y in zip(seconds[a], seconds[b], strict=True))
        medians[a, b] = statistics.median(ratios)
    return medians


def run_in_processes(script, n_processes, *arguments):
    """Run a script by torchrun, with one thread per process; return what each process has measured.

    The processes get the option `--worker`, the path of a folder and the `arguments`, and call
    `write_measured` with the folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={n_processes}", script, "--worker", folder, *map(str, arguments),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]


def write_measured(measured, folder):
    """Write what this process of torchrun has measured."""
    Path(folder, os.environ["RANK"]).write_text(json.dumps(measured))


def report(rows, path):
    """Print a table of `rows`, a list of dicts; write it to a CSV file unless `path` is None."""
    table = pd.DataFrame(rows)
    print_table(table)
    if path:
        table.to_csv(path, index=False)


def print_table(table):
    """Print a data frame with four significant digits and without its index."""
    print(table.to_string(index=False, float_format="{:.4g}".format, na_rep=""))


def read_rows(path):
    """Return the rows of a CSV file as a list of dicts, which is empty if it does not exist."""
    return pd.read_csv(path).to_dict("records") if path and Path(path).exists() else []


def append_row(row, path):
    """Append a row to a CSV file, with a header if it is new; do nothing if `path` is None."""
    if path:
        pd.DataFrame([row]).to_csv(path, mode="a", header=not Path(path).exists(), index=False)
