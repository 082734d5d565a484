"""Accuracy of the default parameters on sequences of codes, and of logistic regression.

The problems are

- ACPvsRandom, ACPvsTM, AMPvsTM, AMPvsUniProt: the sets of peptides of the package modlamp with
  these names. Anticancer or antimicrobial peptides are told apart from random sequences, parts of
  transmembrane proteins, or proteins of UniProt; five random splits, a fifth for testing;
- motif-4, motif-8 and motif-20: 60 random codes of an alphabet of this size. The class is whether
  a motif of 5 codes occurs anywhere; if not, the same codes occur in another order;
- event-uniform and event-zipf: 30 of 10,000 events, which are equally frequent or of which event k
  occurs in proportion to 1 / k. The class is whether event 5,000 occurs;
- DNA, with `--dna DNA.rda` of the R package mlbench, which `pip install rdata` reads: 60
  nucleotides around splice junctions, cross-validation on the first 2,000 sequences.

The problems that are made have 1,000 training and 1,000 test sequences. Sequences are passed as
text, those of events as an array of text. Logistic regression counts n-grams of up to three codes;
its C is chosen by cross-validation in the training set. For events, it counts events, and for DNA,
whose positions matter, its features are the nucleotides at each position.
"""

import argparse
import time
from importlib import import_module, resources

import numpy as np
import pandas as pd
import torch
from harness import append_row, print_table, print_versions, read_rows
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline

from sklearn_cls import CLSTransformerClassifier

PEPTIDES = {  # files of modlamp
    "ACPvsRandom": "ACP_CancPPD_vs_Random.csv",
    "ACPvsTM": "ACP_CancPPD_vs_TM.csv",
    "AMPvsTM": "AMPvsTMset.csv",
    "AMPvsUniProt": "AMPvsUniProt.csv",
}
MADE = ("motif-4", "motif-8", "motif-20", "event-uniform", "event-zipf")
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
N_TRAIN, N_TEST = 1000, 1000  # sequences of the problems that are made
N_EVENTS = 10_000


def load_peptides(problem):
    """Return peptides as text, and their classes."""
    path = resources.files("modlamp") / "data" / PEPTIDES[problem]
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return np.array([peptide.strip() for peptide, _ in rows]), np.array([int(y) for _, y in rows])


def load_dna(path):
    """Return the first 2,000 splice junctions as text of 60 letters, and their classes."""
    frame = import_module("rdata").read_rda(path)["DNA"][:2000]
    bits = frame.drop(columns="Class").to_numpy().astype(int).reshape(len(frame), 60, 3)
    letters = np.array(list("TGC?A"))[bits @ [4, 2, 1]]
    return np.array(["".join(row) for row in letters]), frame["Class"].to_numpy(dtype=str)


def make_motif(n_codes, n, rng):
    """Return text of 60 codes in which a motif occurs, or its codes in another order."""
    codes = np.array(list(AMINO_ACIDS[:n_codes]))
    motif = codes[[0, 2, 1, 3, 1]]
    X, y = [], np.arange(n) % 2
    for has_motif in y:
        while True:
            x, start = rng.choice(codes, 60), rng.integers(56)
            x[start : start + 5] = motif if has_motif else rng.permutation(motif)
            if ("".join(motif) in "".join(x)) == has_motif:
                break
        X.append("".join(x))
    return np.array(X), y


def make_event(kind, n, rng):
    """Return 30 events of each sequence, (n, 30), as text; event 5,000 occurs in every second."""
    frequency = np.ones(N_EVENTS) if kind == "uniform" else 1 / np.arange(1, N_EVENTS + 1)
    events = rng.choice(N_EVENTS, (n, 30), p=frequency / frequency.sum())
    y = np.arange(n) % 2
    events[events == N_EVENTS // 2] = 0
    events[np.flatnonzero(y), rng.integers(30, size=y.sum())] = N_EVENTS // 2
    return np.char.add("event ", events.astype(str)), y


def splits(problem, dna=None):
    """Yield X_train, y_train, X_test, y_test of each split."""
    kind, _, variant = problem.partition("-")
    if problem in PEPTIDES:
        X, y = load_peptides(problem)
        parts = StratifiedShuffleSplit(5, test_size=0.2, random_state=0).split(y, y)
    elif problem == "DNA":
        X, y = load_dna(dna)
        parts = StratifiedKFold(5, shuffle=True, random_state=0).split(y, y)
    else:
        rng = np.random.default_rng(0)
        n = N_TRAIN + N_TEST
        X, y = make_motif(int(variant), n, rng) if kind == "motif" else make_event(variant, n, rng)
        parts = [np.split(np.arange(n), [N_TRAIN])]
    for train, test in parts:
        yield X[train], y[train], X[test], y[test]


def regression(problem):
    """Return a search for the C of logistic regression of counts of codes."""
    if problem.startswith("event"):
        counts = CountVectorizer(analyzer=list)
    elif problem == "DNA":
        counts = CountVectorizer(analyzer=lambda x: [f"{i} {code}" for i, code in enumerate(x)])
    else:
        counts = CountVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False)
    classifier = make_pipeline(counts, LogisticRegression(max_iter=3000))
    return GridSearchCV(classifier, {"logisticregression__C": np.logspace(-3, 2, 6)})


def measure(problem, dna, n_threads):
    """Return the row of a problem: the mean accuracies over its splits."""
    default, other, seconds = [], [], []
    for X_train, y_train, X_test, y_test in splits(problem, dna):
        start = time.perf_counter()
        clf = CLSTransformerClassifier(random_state=0, n_jobs=n_threads).fit(X_train, y_train)
        seconds.append(time.perf_counter() - start)
        default.append(clf.score(X_test, y_test))
        other.append(regression(problem).fit(X_train, y_train).score(X_test, y_test))
    return {
        "problem": problem,
        "n_train": len(X_train),
        "splits": len(default),
        "default": round(np.mean(default), 4),
        "regression": round(np.mean(other), 4),
        "fit_s": round(np.mean(seconds), 1),
    }


def main(args=None):
    """Measure the problems that the CSV file does not contain yet, and print all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", default=[*PEPTIDES, *MADE])
    parser.add_argument("--dna", help="DNA.rda of mlbench, for the problem DNA")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", help="CSV file to which the rows are appended")
    args = parser.parse_args(args)
    torch.set_num_threads(args.threads)
    print_versions("modlamp", "pandas")
    rows = read_rows(args.out)
    problems = args.problems + ["DNA"] * (args.dna is not None)
    for problem in problems:
        if problem not in [row["problem"] for row in rows]:
            rows.append(measure(problem, args.dna, args.threads))
            append_row(rows[-1], args.out)
    print_table(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
