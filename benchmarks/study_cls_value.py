"""What value should the [CLS] token have? Seven ways to one vector, on real and on made problems.

The arms are the four strategies and the poolings "mean", "max" and "attention"; the settings are
depth 1, 2 and 4 under a plain linear embedding, without augmentation, and the default depth,
embedding and augmentation. All arms see the same training and test sequences, and per seed the
same other initial weights and batches. The step size of each arm is tuned on each problem and in
each setting by cross-validation on the training sequences, and each is then trained with several
seeds and scored on the test sequences. At the end, where an arm was the farthest behind another
one, both are measured again, from the split and the step size on, as that place may have been found
by chance.

Problems come with packages (digits, and those of aeon and mnist1d where installed), from
`NAME_TRAIN.ts` in `--data DIR`, of which at least a third is held out to test on, and from
`sklearn_cls.datasets.make_sequences`, where what decides the class is known; these are made anew
for each seed.

Each training that is tested, and each step size that was chosen, is a row of the CSV `--out`; what
is in it is not run again, so a run that was stopped goes on by the same command. `--tables FOLDER`
writes what `study_report.py` makes of it.
"""

import argparse
import functools
import itertools
import math

import joblib
import numpy as np
import pandas as pd
import torch
from bench_accuracy import add, half, problems, read, take
from harness import print_versions
from sklearn.model_selection import StratifiedKFold, train_test_split
from skorch.callbacks import Callback
from study_report import ARMS, MADE, SETTINGS, farthest, write_report
from tqdm import tqdm

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls.datasets import make_sequences

POOLINGS = ("mean", "max", "attention")
EMBEDDINGS = {  # of each setting
    "linear, depth 1": {"embedding": "linear", "augment": False, "depth": 1},
    "linear, depth 2": {"embedding": "linear", "augment": False, "depth": 2},
    "linear, depth 4": {"embedding": "linear", "augment": False, "depth": 4},
    "default": {},
}
NETWORK = {"d_model": 32, "n_heads": 2, "dim_feedforward": 64, "batch_size": 32}
REAL = (
    "digits", "JapaneseVowels", "ItalyPowerDemand", "MNIST-1D", "PenDigits",
    "MelbournePedestrian", "SwedishLeaf", "DistalPhalanxTW", "NATOPS", "Libras",
)  # fmt: skip
N_TEST = 1000  # at most
MAX_TOKENS = 32  # half the default, for time
MIDDLE_LR, LR_FACTOR, FARTHEST = 0.01, 3, 3  # 3.7e-4 to 0.27
N_DRAWS = 5  # of a random token, at prediction
FRESH = 1000  # the first seed of what is measured again
KEY = ["stage", "problem", "setting", "arm", "seed"]


def load(problem, folder, n_train, seed):
    """Return X_train, y_train, X_test, y_test of a problem, with at most `n_train` to learn from.

    Made problems are made from the seed; of the others, the split is the same for all seeds below
    `FRESH`, so that what differs is the training, and another for each seed from there on.
    """
    if problem in MADE:
        X, y = make_sequences(problem, n_train + N_TEST, random_state=seed)
        return X[:n_train], y[:n_train], X[n_train:], y[n_train:]
    of_split = seed if seed >= FRESH else 0
    if problem in problems(None, "test"):
        X, y = half(problem, None, "TRAIN")
        X_test, y_test = half(problem, None, "TEST")
        if seed >= FRESH:
            X_all = [*X, *X_test] if isinstance(X, list) else np.concatenate([X, X_test])
            X, y, X_test, y_test = parted(X_all, np.concatenate([y, y_test]), len(y), of_split)
    else:
        X, y = half(problem, folder, "TRAIN")
        X, y, X_test, y_test = parted(X, y, min(n_train, len(y) * 2 // 3), of_split)
    return *some(X, y, n_train, of_split), *some(X_test, y_test, N_TEST, of_split)


def parted(X, y, n, seed):
    """Return n sequences with their classes, and the others with theirs, of all classes alike."""
    rows = train_test_split(np.arange(len(y)), train_size=n, stratify=y, random_state=seed)
    return [part for of in rows for part in (take(X, of), y[of])]


def some(X, y, n, seed):
    """Return at most n sequences, of all classes alike."""
    return (X, y) if len(y) <= n else parted(X, y, n, seed)[:2]


def classifier(setting, arm, X, n_updates, lr, seed):
    """Return the unfitted classifier of an arm, for the training sequences X."""
    n_steps = int(np.median([len(x) for x in X]))
    n_batches = math.ceil(len(X) / NETWORK["batch_size"])
    return CLSTransformerClassifier(
        **NETWORK,
        **EMBEDDINGS[setting],
        **({"pooling": arm} if arm in POOLINGS else {"cls_strategy": arm}),
        patch_size=math.ceil(n_steps / MAX_TOKENS),
        max_epochs=math.ceil(n_updates / n_batches),
        lr=lr,
        random_state=seed,
        n_jobs=1,
        device="cpu",
    )


def tune(setting, arm, split, n_updates, n_folds, first_seed=0):
    """Return the best step size in cross-validation, its accuracy, and how many were tried.

    From the middle one, by a factor up or down while that is better, so that the best is between
    two that are not better; among equals the one nearest to the middle. A fold has a seed of its
    own, and as many updates as the training that is tested, or a step size that is good for a
    shorter training, or for one seed, would be chosen.
    """
    X, y, *_ = split
    folds = list(StratifiedKFold(n_folds, shuffle=True, random_state=first_seed).split(y, y))
    scores, best = {}, 0
    while True:
        for power in range(max(best - 1, -FARTHEST), min(best + 1, FARTHEST) + 1):
            if power not in scores:
                scores[power] = np.mean([
                    score(setting, arm, X, y, train, valid, n_updates, step_size(power), seed)
                    for seed, (train, valid) in enumerate(folds, first_seed)
                ])  # fmt: skip
        top = max(scores, key=lambda power: (scores[power], -abs(power)))
        if top == best:
            return step_size(best), scores[best], len(scores)
        best = top


def score(setting, arm, X, y, train, valid, n_updates, lr, seed):
    """Return the accuracy on some of the training sequences after learning from others."""
    X_train = take(X, train)
    clf = classifier(setting, arm, X_train, n_updates, lr, seed).fit(X_train, y[train])
    return clf.score(take(X, valid), y[valid])


def step_size(power):
    """Return the step size so many factors from the middle."""
    return float(f"{MIDDLE_LR * LR_FACTOR**power:.3g}")


class WatchFirstQuery(Callback):
    """Keeps the first gradient to W_q of the first block, its norm, and the token at the start."""

    def on_train_begin(self, net, **kwargs):
        """Keep the token."""
        token = getattr(net.module_, "token", None)
        self.start = None if token is None else token.value.detach().clone()
        self.norm = None

    def on_grad_computed(self, net, **kwargs):
        """Keep the norm of the gradient at the first update."""
        if self.norm is None:
            self.norm = net.module_.blocks[0].qkv.weight.grad.chunk(3)[0].norm().item()


def tune_row(key, split, options):
    """Return the row of a step size that was chosen."""
    _, _, setting, arm, seed = key
    torch.set_num_threads(1)
    lr, accuracy, n_tried = tune(setting, arm, split, options.updates, options.folds, seed)
    return {**row_of(key, lr, accuracy, split, options), "n_tried": n_tried}


def test_row(key, lr, split, options):
    """Return the row of a training that is scored on the test sequences."""
    _, _, setting, arm, seed = key
    torch.set_num_threads(1)
    X, y, X_test, y_test = split
    clf = classifier(setting, arm, X, options.updates, lr, seed)
    watch = WatchFirstQuery()
    clf.set_params(callbacks=[watch]).fit(X, y)
    row = row_of(key, lr, clf.score(X_test, y_test), split, options)
    row["fit_s"] = round(sum(epoch["dur"] for epoch in clf.history_), 3)
    row["first_gradient"] = watch.norm
    if arm == "learned":
        row["token_norm"] = watch.start.norm().item()
        row["token_moved"] = (clf.module_.token.value.detach() - watch.start).norm().item()
    if arm == "random":
        row["flipped"], row["redrawn_sd"] = redraw(clf, X_test, y_test)
    return row


def again_row(key, split, options):
    """Return the row of a training that is scored after its step size was chosen anew."""
    tuned = tune_row(key, split, options)
    return {**test_row(key, tuned["lr"], split, options), "n_tried": tuned["n_tried"]}


def redraw(clf, X, y):
    """Draw the token anew at prediction, many times.

    Returns the share of predictions that differ between two draws, the mean over all pairs of
    draws, and the deviation of the accuracy over draws.
    """
    token, generator = clf.module_.token, torch.Generator().manual_seed(0)
    fitted = token.value
    predictions = []
    for _ in range(N_DRAWS):
        token.value = torch.randn(fitted.shape, generator=generator)
        predictions.append(clf.predict(X))
    token.value = fitted
    flips = [np.mean(a != b) for a, b in itertools.combinations(predictions, 2)]
    return np.mean(flips), np.std([np.mean(p == y) for p in predictions], ddof=1)


def row_of(key, lr, accuracy, split, options):
    """Return what every row of the CSV has."""
    _, y, _, y_test = split
    return {
        **dict(zip(KEY, key, strict=True)),
        "updates": options.updates,
        "folds": options.folds,
        "n_train": len(y),
        "n_test": len(y_test),
        "lr": lr,
        "accuracy": round(float(accuracy), 5),
        **dict.fromkeys(("fit_s", "n_tried", "first_gradient", "token_norm",
                         "token_moved", "flipped", "redrawn_sd"), np.nan),
    }  # fmt: skip


def run(options):
    """Run what the CSV lacks."""
    done = {tuple(row[name] for name in KEY): row for row in read(options.out)}
    for row in done.values():
        if (row["updates"], row["folds"]) != (options.updates, options.folds):
            raise SystemExit(
                f"{options.out} holds fits of {row['updates']} updates, tuned in {row['folds']} "
                f"folds, not {options.updates} and {options.folds}; choose another --out."
            )
    arms = [(setting, arm) for setting in options.settings for arm in ARMS]
    n_rows = len(options.problems) * len(arms) * (1 + options.seeds)

    @functools.cache
    def split(problem, seed):
        return load(problem, options.data, options.train, seed)

    def task(key):
        stage, problem, setting, arm, seed = key
        if stage == "test":
            lr = done["tune", problem, setting, arm, 0]["lr"]
            return joblib.delayed(test_row)(key, lr, split(problem, seed), options)
        row = {"tune": tune_row, "again": again_row}[stage]
        return joblib.delayed(row)(key, split(problem, seed), options)

    with (
        joblib.Parallel(options.jobs, return_as="generator_unordered") as parallel,
        tqdm(total=n_rows, unit="row", smoothing=0) as bar,
    ):

        def finish(keys):
            missing = [key for key in keys if key not in done]
            bar.update(len(keys) - len(missing))
            for row in parallel(task(key) for key in missing):
                done[tuple(row[name] for name in KEY)] = row
                add(row, options.out)
                bar.set_postfix_str(row["problem"])
                bar.update()

        for problem in options.problems:
            n_train = {row["n_train"] for row in done.values() if row["problem"] == problem}
            n_wanted = len(split(problem, 0)[1])
            if n_train - {n_wanted}:
                raise SystemExit(
                    f"{options.out} holds fits on {n_train} training sequences of {problem}, not "
                    f"{n_wanted}; choose another --out."
                )
            finish([("tune", problem, *arm, 0) for arm in arms])
            # All arms of a seed one after the other, so that their times compare.
            finish([("test", problem, *arm, seed) for seed in range(options.seeds) for arm in arms])
        again = keys_again(of_grid(pd.DataFrame(done.values()), options), options.again)
        bar.total += len(again)
        finish(again)


def keys_again(runs, n_seeds):
    """Return the keys of what is measured again: each arm, and what it is the farthest behind."""
    keys = [
        ("again", problem, setting, arm, FRESH + i)
        for *both, setting, problem in farthest(runs)
        for arm in both
        for i in range(n_seeds)
    ]
    return list(dict.fromkeys(keys))


def of_grid(runs, options):
    """Return the rows that are asked for, of those that a CSV may hold."""
    return runs[
        runs["problem"].isin(options.problems)
        & runs["setting"].isin(options.settings)
        & ((runs["seed"] < options.seeds) | (runs["stage"] == "again"))
    ]


def parse(args):
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of NAME_TRAIN.ts")
    parser.add_argument("--quick", action="store_true", help="a small grid, in 5 minutes")
    parser.add_argument("--problems", nargs="+", help="default: all there are of the study's")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="default: all")
    parser.add_argument("--seeds", type=int, help="default 5, quick 2")
    parser.add_argument("--again", type=int, help="splits to measure again on; default 10, quick 1")
    parser.add_argument("--updates", type=int, help="of each fit; default 300, quick 60")
    parser.add_argument("--train", type=int, help="sequences at most; default 500, quick 200")
    parser.add_argument("--folds", type=int, default=2, help="of cross-validation; default 2")
    parser.add_argument("--jobs", type=int, default=2, help="fits side by side; default 2")
    parser.add_argument("--out", help="CSV to add to; default cls_value.csv, quick ..._quick.csv")
    parser.add_argument("--tables", help="folder to write the report's tables to")
    options = parser.parse_args(args)
    there = (*MADE, *(name for name in REAL if name in problems(None, "test")))
    if options.data is not None:
        there = (*there, *(p for p in REAL if p in set(problems(options.data, "cv")) - set(there)))
    small = (*MADE, "digits")
    defaults = {
        "problems": small if options.quick else there,
        "settings": SETTINGS[:2] if options.quick else SETTINGS,
        "seeds": 2 if options.quick else 5,
        "again": 1 if options.quick else 10,
        "updates": 60 if options.quick else 300,
        "train": 200 if options.quick else 500,
        "out": "cls_value_quick.csv" if options.quick else "cls_value.csv",
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if set(options.problems) - set(there):
        parser.error(f"problems {options.problems}: there are {', '.join(there)}")
    return options


def main(args=None):
    """Run what the command line asks for."""
    options = parse(args)
    torch.set_num_threads(1)
    print_versions("aeon", "scipy", "pandas")
    print(
        f"# {len(options.problems)} problems: {', '.join(options.problems)}\n# {options.updates} "
        f"updates, at most {options.train} training sequences, {options.seeds} seeds, "
        f"{options.jobs} fits side by side",
        flush=True,
    )
    run(options)
    runs = of_grid(pd.read_csv(options.out), options)
    write_report(runs, options.tables)


if __name__ == "__main__":
    main()
