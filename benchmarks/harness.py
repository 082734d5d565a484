"""What the benchmarks share: options, the lines above a table, timing in turn, the CSV."""

import argparse
import csv
import itertools
import platform
import statistics
import time
from importlib.metadata import version
from importlib.util import find_spec

import torch


def parser(description, *, rounds):
    """Return a parser of the options all benchmarks have; `rounds` is the default."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--out", help="CSV to write")
    return options


def begin(options, *packages):
    """Set the threads and print the lines above the table; return what the command line asks."""
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    print_versions(*packages)
    print(f"# {args.rounds} rounds in turn, medians, seed 0", flush=True)
    return args


def print_versions(*more):
    """Print the versions of what is measured, and of packages `more` that are there; threads."""
    names = ["sklearn_cls", "torch", "scikit-learn", "skorch", "numpy"]
    names += [name for name in more if find_spec(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    cuda = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    print(
        f"# {versions}, Python {platform.python_version()}\n# {platform.machine()} cpu, "
        f"{torch.get_num_threads()} threads{cuda}"
    )


def in_turn(functions, rounds, warm_up=1):
    """Return {name: median seconds} of functions called one after the other, round by round.

    And under ("name", "other") the median of the ratios of the rounds, which drift together.
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


def report(rows, out):
    """Print rows (a list of dict with the same keys) as a table and write them to a CSV."""
    names = list(rows[0])
    cells = [names, *([f"{value:.4g}" if isinstance(value, float) else str(value)
                       for value in row.values()] for row in rows)]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if out:
        with open(out, "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
