"""What the rows of `study_cls_value.py` say: tables, tests, and what became of each expectation.

The unit of all statistics over problems is a problem: its accuracy is the mean over seeds. Only
real problems count there; the made ones, where the answer is known, are reported one by one, over
seeds, each of which makes them anew. Differences are in points of accuracy.

At depth 1 the query of "attention" joins in the first block, so that it is the same network as
"learned", with the same results bit by bit: there it is left out of all comparisons.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sklearn_cls.datasets import RULES as MADE

ARMS = ("learned", "zeros", "fixed", "random", "mean", "max", "attention")
SETTINGS = ("linear, depth 1", "linear, depth 2", "linear, depth 4", "default")
MARGIN = 2.0  # points: "about equal" if the whole confidence interval is within, see `compare`


def by_problem(runs):
    """Return accuracy in percent, mean over seeds: a row a setting and problem, a column an arm."""
    tests = runs[runs["stage"] == "test"]
    values = 100 * tests.pivot_table("accuracy", ["setting", "problem"], "arm", sort=False)
    return values[list(ARMS)].sort_index(level="setting", key=in_order, sort_remaining=False)


def in_order(settings):
    """Return places of settings in the study's order."""
    return settings.map(SETTINGS.index)


def compared(setting):
    """Return the arms that are networks of their own in a setting."""
    return [arm for arm in ARMS if arm != "attention" or setting != SETTINGS[0]]


def real(values):
    """Return the rows of real problems."""
    return values[~values.index.get_level_values("problem").isin(MADE)]


def interval(differences):
    """Return mean and 95 % confidence interval (t) of differences."""
    n = len(differences)
    mean = np.mean(differences) if n else np.nan
    half = np.inf if n < 2 else stats.t.ppf(0.975, n - 1) * stats.sem(differences)
    return mean, mean - half, mean + half


def wilcoxon(differences):
    """Return p of the two-sided signed-rank test, 1 if nothing differs."""
    differences = np.round(differences, 6)  # equal is equal
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def holm(p):
    """Return p values after Holm's correction."""
    return multipletests(p, method="holm")[1]


def accuracy(runs):
    """Return the mean accuracy over real problems: a row a setting, a column an arm."""
    return real(by_problem(runs)).groupby("setting", sort=False).mean().reset_index()


def differences(runs):
    """Return each arm against "learned" in each setting, over real problems.

    Holm's correction is over the comparisons of a setting.
    """
    rows = []
    for setting, values in real(by_problem(runs)).groupby("setting", sort=False):
        others = [arm for arm in compared(setting) if arm != "learned"]
        gaps = {arm: values[arm] - values["learned"] for arm in others}
        p = {arm: wilcoxon(gap) for arm, gap in gaps.items()}
        corrected = dict(zip(others, holm(list(p.values())), strict=True))
        for arm, gap in gaps.items():
            mean, low, high = interval(gap)
            rows.append({
                "setting": setting,
                "against learned": arm,
                "points": mean,
                "low": low,
                "high": high,
                "better / equal / worse": " / ".join(
                    str(n) for n in ((gap > 0).sum(), (gap == 0).sum(), (gap < 0).sum())
                ),
                "p": p[arm],
                "p (Holm)": corrected[arm],
            })  # fmt: skip
    return pd.DataFrame(rows)


def pairs(runs):
    """Return all pairs of arms in each setting, over real problems, with p of their difference.

    Holm's correction is over the pairs of a setting.
    """
    rows = []
    for setting, values in real(by_problem(runs)).groupby("setting", sort=False):
        gaps = {(a, b): values[a] - values[b] for a, b in combinations(compared(setting), 2)}
        p = [wilcoxon(gap) for gap in gaps.values()]
        for ((a, b), gap), raw, corrected in zip(gaps.items(), p, holm(p), strict=True):
            rows.append((setting, a, b, gap.mean(), raw, corrected))
    return pd.DataFrame(rows, columns=["setting", "first", "second", "points", "p", "p (Holm)"])


def made(runs):
    """Return accuracy on the made problems: a row a problem and setting, a column an arm."""
    values = by_problem(runs)
    values = values[values.index.get_level_values("problem").isin(MADE)].reset_index()
    return values.sort_values("problem", key=lambda p: p.map(MADE.index), kind="stable")[
        ["problem", "setting", *ARMS]
    ]


def redrawn(runs):
    """Return what drawing a random token anew at prediction does, in percent of predictions."""
    tests = runs[(runs["stage"] == "test") & (runs["arm"] == "random")]
    means = 100 * tests.groupby(["setting", "problem"])[["flipped", "redrawn_sd"]].mean()
    groups = real(means).groupby("setting")
    table = pd.DataFrame({
        "flipped, mean": groups["flipped"].mean(),
        "flipped, least": groups["flipped"].min(),
        "flipped, most": groups["flipped"].max(),
        "deviation of accuracy": groups["redrawn_sd"].mean(),
    })  # fmt: skip
    return table.reset_index().sort_values("setting", key=in_order)


def zeros(runs):
    """Return how far zeros trail "learned": over real problems, and on each made one over seeds."""
    rows = []
    values = real(by_problem(runs))
    for setting, problems in values.groupby("setting", sort=False):
        row = {"setting": setting, "real": interval(problems["zeros"] - problems["learned"])}
        for problem in MADE:
            seeds = of_seeds(runs, setting, problem)
            row[problem] = interval(seeds["zeros"] - seeds["learned"])
        rows.append(row)
    return pd.DataFrame(rows)


def of_seeds(runs, setting, problem):
    """Return accuracy in percent in one setting on one problem: a row a seed, a column an arm."""
    rows = runs.query("stage == 'test' and setting == @setting and problem == @problem")
    return 100 * rows.pivot_table("accuracy", "seed", "arm").reindex(columns=ARMS)


def cost(runs):
    """Return the time of a fit as a share of that of "learned" of the same problem and seed."""
    tests = runs[runs["stage"] == "test"]
    seconds = tests.pivot_table("fit_s", ["setting", "problem", "seed"], "arm")[list(ARMS)]
    ratios = seconds.div(seconds["learned"], axis=0).groupby("setting").median()
    ratios.insert(0, "learned, s", seconds["learned"].groupby("setting").median())
    return ratios.reset_index().sort_values("setting", key=in_order)


def gradients(runs):
    """Return the norm of the gradient to W_q of the first block at the first update, at depth 1.

    Medians over problems and seeds. Later ones depend on the step size, which each arm has its own.
    """
    tests = runs.query("stage == 'test' and setting == @SETTINGS[0]")
    medians = tests.groupby("arm")["first_gradient"].median().loc[list(ARMS)]
    return medians.rename("norm at the first update").reset_index()


def distance(runs):
    """Return how far "learned" travels: medians over problems and seeds."""
    tests = runs[(runs["stage"] == "test") & (runs["arm"] == "learned")]
    medians = tests.groupby("setting")[["token_norm", "token_moved"]].median()
    names = {"token_norm": "norm at the start", "token_moved": "distance at the end"}
    return medians.rename(columns=names).reset_index().sort_values("setting", key=in_order)


def step_sizes(runs):
    """Return the step size chosen, geometric mean over problems: a row a setting."""
    tunes = runs[runs["stage"] == "tune"].assign(log_lr=lambda rows: np.log(rows["lr"]))
    means = np.exp(tunes.pivot_table("log_lr", "setting", "arm")[list(ARMS)])
    return means.reset_index().sort_values("setting", key=in_order)


def expectations(runs):
    """Return what was expected before the study, and what came of it.

    Nothing, without depth 1, a real problem and all made ones.
    """
    columns = ["expectation", "verdict", "number"]
    everywhere = by_problem(runs)
    values = real(everywhere)
    if SETTINGS[0] not in values.index or not set(MADE) <= set(runs["problem"]):
        return pd.DataFrame(columns=columns)
    means = values.groupby("problem").mean()
    mean = interval(means["learned"] - means["mean"])
    fixed = interval(means["fixed"] - means["learned"])
    random = interval(means["random"] - means["learned"])
    flips = redrawn(runs)["flipped, mean"]
    gaps = {name: gap for name, gap in zeros(runs).iloc[0].items() if name != "setting"}
    found = {name: compare(gap) for name, gap in gaps.items()}
    elsewhere = [verdict for name, verdict in found.items() if name != "marked"]
    loss = everywhere.max(axis=1).to_numpy()[:, None] - everywhere
    safest = loss.max().idxmin()
    where = " of ".join(loss[safest].idxmax()[::-1])
    rows = [
        (
            "learned about equals mean at tuned rates",
            verdict(compare(mean) == "equal", compare(mean) in ("worse", "better")),
            f"learned - mean = {say(mean)} points, mean of all settings",
        ),
        (
            "fixed about equals learned",
            verdict(compare(fixed) == "equal", compare(fixed) in ("worse", "better")),
            f"fixed - learned = {say(fixed)} points, mean of all settings",
        ),
        (
            "zeros trail at depth 1 on selection tasks only",
            verdict(
                found["marked"] == "worse" and "worse" not in elsewhere,
                found["marked"] in ("equal", "better") or "worse" in elsewhere,
            ),
            "zeros - learned at depth 1: "
            + ", ".join(f"{name} {say(gap)}" for name, gap in gaps.items()),
        ),
        (
            "random acts as noise",
            verdict(compare(random) == "worse", compare(random) in ("equal", "better")),
            f"random - learned = {say(random)} points, mean of all settings; {flips.min():.1f} to "
            f"{flips.max():.1f} % of predictions flip with the draw",
        ),
        (
            "nothing wins everywhere",
            verdict((loss.max() > MARGIN).all(), (loss.max() <= MARGIN).any()),
            f"every arm is behind the best somewhere, the least {safest}, by "
            f"{loss.max().min():.1f} points on {where}",
        ),
    ]
    return pd.DataFrame(rows, columns=columns)


def compare(gap):
    """Return whether a difference is of any size that matters, by its 95 % interval."""
    mean, low, high = gap
    if -MARGIN < low and high < MARGIN:
        return "equal"
    if high < 0 and mean <= -MARGIN:
        return "worse"
    if low > 0 and mean >= MARGIN:
        return "better"
    return "open"


def verdict(confirmed, refuted):
    """Return what the data say; nothing, if they are too few to say either."""
    return "confirmed" if confirmed else "refuted" if refuted else "undecided"


def say(gap):
    """Return mean and interval as text."""
    mean, low, high = gap
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


REPORT = {
    "accuracy": accuracy,
    "differences": differences,
    "pairs": pairs,
    "problems": lambda runs: by_problem(runs).reset_index(),
    "made": made,
    "zeros": lambda runs: zeros(runs).map(
        lambda cell: cell if isinstance(cell, str) else say(cell)
    ),
    "redrawn": redrawn,
    "cost": cost,
    "gradients": gradients,
    "distance": distance,
    "step_sizes": step_sizes,
    "expectations": expectations,
}


def print_report(runs):
    """Print all tables."""
    for name, table in REPORT.items():
        rows = table(runs)
        if len(rows):
            text = rows.to_string(index=False, float_format="{:.3g}".format, na_rep="")
            print(f"\n# {name}\n{text}")


def write_report(runs, folder):
    """Write all tables as CSV."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, table in REPORT.items():
        table(runs).to_csv(Path(folder) / f"{name}.csv", index=False, float_format="%.3g")
