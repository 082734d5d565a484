"""Tables and statistics of the results that `study_cls_value.py` writes.

Accuracy is averaged over seeds for each problem. Statistics over problems treat each problem as one
observation. They use the real problems only. The synthetic ones, which are generated anew for each
seed, are reported individually, with intervals over seeds. Differences are in percentage points.

The worst case of an arm (the setting and problem in which it is farthest behind another arm) is a
minimum over many cases, so part of the difference is due to chance. Replications of that case, each
with a new split and a newly tuned learning rate, estimate the difference without this bias.

At depth 1, "attention" prepends its token before the only block, so the network is the same as that
of "learned" and gives equal results. It is therefore left out of all comparisons at depth 1.
"""

import functools
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sklearn_cls.datasets.examples import RULES as SYNTHETIC

ARMS = ("learned", "zeros", "fixed", "random", "mean", "max", "attention")
SETTINGS = ("linear, depth 1", "linear, depth 2", "linear, depth 4", "default")
ALL = "mean of all settings"
LEVEL = 0.05  # significance level
INTERVAL = ["points", "low", "high"]


def accuracy_by_problem(runs):
    """Return the accuracy in percent, averaged over seeds, by (setting, problem) and arm."""
    tests = runs[runs["stage"] == "test"]
    values = 100 * tests.pivot_table("accuracy", ["setting", "problem"], "arm", sort=False)
    return values[list(ARMS)].sort_index(level="setting", key=_order, sort_remaining=False)


def accuracy_by_seed(runs, setting, problem, stage="test"):
    """Return the accuracy in percent on one problem in one setting, by seed and arm."""
    rows = runs[
        (runs["stage"] == stage) & (runs["setting"] == setting) & (runs["problem"] == problem)
    ]
    return 100 * rows.pivot_table("accuracy", "seed", "arm").reindex(columns=ARMS)


def _order(settings):
    """Return the position of each setting in the study."""
    return settings.map(SETTINGS.index)


def _by_setting(table):
    """Return a table indexed by setting with settings as a column, in the order of the study."""
    return table.reset_index().sort_values("setting", key=_order)


def distinct_arms(setting):
    """Return the arms whose networks differ from each other in a setting."""
    return [arm for arm in ARMS if arm != "attention" or setting != SETTINGS[0]]


def only_real(values):
    """Return the rows of real problems."""
    return values[~values.index.get_level_values("problem").isin(SYNTHETIC)]


def interval(differences):
    """Return mean and 95 % confidence interval (Student's t) of differences."""
    n = len(differences)
    mean = np.mean(differences) if n else np.nan
    half_width = np.inf if n < 2 else stats.t.ppf(0.975, n - 1) * stats.sem(differences)
    return mean, mean - half_width, mean + half_width


def wilcoxon(differences):
    """Return the p value of the two-sided signed-rank test, 1 if all differences are 0."""
    # Rounding removes floating-point errors, which would break ties.
    return _signed_rank_test(tuple(np.round(differences, 6)))


@functools.lru_cache
def _signed_rank_test(differences):
    if not any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def holm(p):
    """Return p values after Holm's correction for multiple comparisons."""
    return multipletests(p, method="holm")[1]


def accuracy(runs):
    """Return the mean accuracy over real problems by setting and arm."""
    return only_real(accuracy_by_problem(runs)).groupby("setting", sort=False).mean().reset_index()


def differences(runs):
    """Return each arm minus "learned" on real problems, by setting and for the mean of settings.

    Holm's correction is over the comparisons of a setting. In the mean of settings, the results of
    "attention" at depth 1 are those of "learned".
    """
    values = only_real(accuracy_by_problem(runs))
    groups = [
        (ALL, values.groupby("problem").mean()), *values.groupby("setting", sort=False)
    ]  # fmt: skip
    return pd.concat([_minus_learned(*group) for group in groups], ignore_index=True)


def _minus_learned(setting, values):
    """Return the rows of one setting in `differences`."""
    arms = [arm for arm in distinct_arms(setting) if arm != "learned"]
    gaps = [values[arm] - values["learned"] for arm in arms]
    p = [wilcoxon(gap) for gap in gaps]
    counts = [[(gap > 0).sum(), (gap == 0).sum(), (gap < 0).sum()] for gap in gaps]
    table = pd.DataFrame([interval(gap) for gap in gaps], columns=INTERVAL)
    table.insert(0, "setting", setting)
    table.insert(1, "arm", arms)
    table["wins / ties / losses"] = [" / ".join(map(str, count)) for count in counts]
    return table.assign(**{"p": p, "p (Holm)": holm(p)})


def pairs(runs):
    """Return the differences between all pairs of arms on real problems, by setting.

    Holm's correction is over the pairs of a setting.
    """
    rows = []
    for setting, values in only_real(accuracy_by_problem(runs)).groupby("setting", sort=False):
        gaps = {(a, b): values[a] - values[b] for a, b in combinations(distinct_arms(setting), 2)}
        p = [wilcoxon(gap) for gap in gaps.values()]
        for ((a, b), gap), raw, corrected in zip(gaps.items(), p, holm(p), strict=True):
            rows.append((setting, a, b, gap.mean(), raw, corrected))
    return pd.DataFrame(rows, columns=["setting", "first", "second", "points", "p", "p (Holm)"])


def significant_pairs(runs):
    """Return the rows of `pairs` with a corrected p below 5 %."""
    table = pairs(runs)
    return table[table["p (Holm)"] < LEVEL]


def synthetic(runs):
    """Return the accuracy on the synthetic problems by (problem, setting) and arm."""
    values = accuracy_by_problem(runs)
    values = values[values.index.get_level_values("problem").isin(SYNTHETIC)].reset_index()
    return values.sort_values("problem", key=lambda p: p.map(SYNTHETIC.index), kind="stable")[
        ["problem", "setting", *ARMS]
    ]


def redrawn(runs):
    """Return the effect of redrawing a random token at prediction, in percent."""
    tests = runs[(runs["stage"] == "test") & (runs["arm"] == "random")]
    means = 100 * tests.groupby(["setting", "problem"])[["flipped", "redrawn_sd"]].mean()
    groups = only_real(means).groupby("setting")
    table = pd.DataFrame({
        "changed, mean": groups["flipped"].mean(),
        "changed, lowest": groups["flipped"].min(),
        "changed, highest": groups["flipped"].max(),
        "standard deviation of accuracy": groups["redrawn_sd"].mean(),
    })  # fmt: skip
    return _by_setting(table)


def zeros(runs):
    """Return "zeros" minus "learned" with its interval, by setting and problem.

    Intervals in the column "real" are over real problems, those of synthetic problems over seeds.
    The last rows are differences between two settings.
    """
    gaps = {}
    for setting, problems in only_real(accuracy_by_problem(runs)).groupby("setting", sort=False):
        tables = {"real": problems.droplevel("setting")}
        tables |= {problem: accuracy_by_seed(runs, setting, problem) for problem in SYNTHETIC}
        gaps[setting] = {name: table["zeros"] - table["learned"] for name, table in tables.items()}
    first, _, deepest, default = SETTINGS
    for name, last in (("depth 4 - depth 1", deepest), ("default - depth 1", default)):
        if {first, last} <= set(gaps):
            gaps[name] = {column: gap - gaps[first][column] for column, gap in gaps[last].items()}
    return pd.DataFrame([
        {"setting": setting, **{column: interval(gap) for column, gap in columns.items()}}
        for setting, columns in gaps.items()
    ])  # fmt: skip


def cost(runs):
    """Return the median fit time relative to "learned" with the same problem and seed."""
    tests = runs[runs["stage"] == "test"]
    seconds = tests.pivot_table("fit_s", ["setting", "problem", "seed"], "arm")[list(ARMS)]
    ratios = seconds.div(seconds["learned"], axis=0).groupby("setting").median()
    ratios.insert(0, "learned (s)", seconds["learned"].groupby("setting").median())
    return _by_setting(ratios)


def gradients(runs):
    """Return the norm of the gradient of W_q in the first block at the first update, at depth 1.

    It is the median over problems and seeds. Later gradients would depend on the learning rates,
    which differ between arms.
    """
    tests = runs[(runs["stage"] == "test") & (runs["setting"] == SETTINGS[0])]
    medians = tests.groupby("arm")["first_gradient"].median().reindex(ARMS).dropna()
    return medians.rename("gradient norm at the first update").reset_index()


def distance(runs):
    """Return how far training moves the learned token, as medians over problems and seeds."""
    tests = runs[(runs["stage"] == "test") & (runs["arm"] == "learned")]
    medians = tests.groupby("setting")[["token_norm", "token_moved"]].median()
    names = {"token_norm": "initial norm", "token_moved": "distance moved"}
    return _by_setting(medians.rename(columns=names))


def learning_rates(runs):
    """Return the geometric mean of tuned learning rates over problems, by setting and arm."""
    tunes = runs[runs["stage"] == "tune"].assign(log_lr=lambda rows: np.log(rows["lr"]))
    return _by_setting(np.exp(tunes.pivot_table("log_lr", "setting", "arm")[list(ARMS)]))


def worst_cases(runs):
    """Return (arm, other, setting, problem) where each arm is farthest behind another arm."""
    values = accuracy_by_problem(runs)
    values.loc[values.index.get_level_values("setting") == SETTINGS[0], "attention"] = np.nan
    cases = []
    for arm in ARMS:
        gaps = values.drop(columns=arm).rsub(values[arm], axis=0)
        if gaps.notna().any(axis=None):
            other = gaps.min().idxmin()
            cases.append((arm, other, *gaps[other].idxmin()))
    return cases


def worst_differences(runs):
    """Return the differences of `worst_cases`: the original, and the replication with interval."""
    rows = []
    for arm, other, setting, problem in worst_cases(runs):
        original, again = (
            accuracy_by_seed(runs, setting, problem, stage) for stage in ("test", "replication")
        )
        mean, low, high = interval(again[arm] - again[other])
        rows.append({
            "arm": arm, "compared with": other, "setting": setting, "problem": problem,
            "original": (original[arm] - original[other]).mean(),
            "replication": mean, "low": low, "high": high,
        })  # fmt: skip
    return pd.DataFrame(rows)


def replications(runs):
    """Return each arm minus "learned", over splits, in cases in which both were replicated."""
    rows = []
    again = runs[runs["stage"] == "replication"]
    for setting, problem in again.groupby(["setting", "problem"], sort=False).groups:
        values = accuracy_by_seed(runs, setting, problem, "replication").dropna(axis=1, how="all")
        if "learned" in values:
            gaps = values.drop(columns="learned").sub(values["learned"], axis=0)
            rows += [(setting, problem, arm, *interval(gap)) for arm, gap in gaps.items()]
    return pd.DataFrame(rows, columns=["setting", "problem", "arm", *INTERVAL])
