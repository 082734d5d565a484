"""What the rows of `study_cls_value.py` say: tables, tests, and what became of each expectation.

The unit of all statistics over problems is a problem: its accuracy is the mean over seeds. Only
real problems count there; the made ones, where the answer is known, are reported one by one, over
seeds, each of which makes them anew. Differences are in points of accuracy.

Where an arm is the farthest behind another one is found among all problems and settings, so that
much of the distance there is chance. How far it really is there is told by measuring again, from
the split and the step size on, with the two arms, the problem and the setting given.

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
ALL = "mean of all"  # settings
LEVEL = 0.05
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
    """Return each arm against "learned", in each setting and in the mean of all, on real problems.

    Holm's correction is over the comparisons of a setting. In the mean of all settings "attention"
    counts as "learned" at depth 1.
    """
    values, rows = real(by_problem(runs)), []
    for setting, of_setting in [
        (ALL, values.groupby("problem").mean()),
        *values.groupby("setting", sort=False),
    ]:
        others = [arm for arm in compared(setting) if arm != "learned"]
        gaps = {arm: of_setting[arm] - of_setting["learned"] for arm in others}
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
    """Return how far zeros trail "learned": over real problems, and on each made one over seeds.

    Whether they catch up is the difference of that between two settings.
    """
    gaps = {}
    for setting, problems in real(by_problem(runs)).groupby("setting", sort=False):
        tables = {"real": problems.droplevel("setting")}
        tables |= {problem: of_seeds(runs, setting, problem) for problem in MADE}
        gaps[setting] = {name: table["zeros"] - table["learned"] for name, table in tables.items()}
    first, _, deepest, default = SETTINGS
    for name, last in (("depth 4 - depth 1", deepest), ("default - depth 1", default)):
        if {first, last} <= set(gaps):
            gaps[name] = {of: gap - gaps[first][of] for of, gap in gaps[last].items()}
    return pd.DataFrame([
        {"setting": setting, **{name: interval(gap) for name, gap in of_setting.items()}}
        for setting, of_setting in gaps.items()
    ])  # fmt: skip


def of_seeds(runs, setting, problem, stage="test"):
    """Return accuracy in percent in one setting on one problem: a row a seed, a column an arm."""
    rows = runs.query("stage == @stage and setting == @setting and problem == @problem")
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
    medians = tests.groupby("arm")["first_gradient"].median().reindex(ARMS).dropna()
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
    values = real(by_problem(runs))
    if SETTINGS[0] not in values.index or not set(MADE) <= set(runs["problem"]):
        return pd.DataFrame(columns=columns)
    flips = redrawn(runs)["flipped, mean"]
    gaps = differences(runs)
    rows = [
        (
            "learned about equals mean at tuned rates",
            *on_average(gaps, "mean", {"equal"}, {"worse", "better"}),
        ),
        ("fixed about equals learned", *on_average(gaps, "fixed", {"equal"}, {"worse", "better"})),
        ("zeros trail at depth 1 on selection tasks only", *where_zeros_trail(runs)),
        ("random acts as noise", *on_average(gaps, "random", {"worse"}, {"equal", "better"})),
        ("nothing wins everywhere", *what_is_behind(runs)),
    ]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[3, "number"] += (
        f"; {flips.min():.1f} to {flips.max():.1f} % of predictions flip with the draw"
    )
    return table


def on_average(table, arm, confirming, refuting):
    """Return what came of an expectation of an arm in a table of `differences`, and the number.

    It is of the mean of all settings, and says so if some setting does not show the same.
    """
    rows = table.query("`against learned` == @arm").set_index("setting")
    gaps = {setting: tuple(row) for setting, row in rows[["points", "low", "high"]].iterrows()}
    found = {setting: compare(gap) for setting, gap in gaps.items()}
    came_of_it = verdict(found[ALL] in confirming, found[ALL] in refuting)
    if came_of_it != "undecided" and len(set(found.values())) > 1:
        came_of_it += " on average"
    by_setting = ", ".join(
        f"{setting.removeprefix('linear, ')} {word}"
        for setting, word in found.items()
        if setting != ALL
    )
    number = f"{arm} - learned = {say(gaps[ALL])} points, mean of all settings ({by_setting})"
    return came_of_it, number


def where_zeros_trail(runs):
    """Return whether it is on the marked problem at depth 1 and nowhere else, and the numbers."""
    gaps = zeros(runs).set_index("setting")
    gaps = {
        (setting, name): gap
        for setting, row in gaps[gaps.index.isin(SETTINGS)].iterrows()
        for name, gap in row.items()
    }
    found = {place: compare(gap) for place, gap in gaps.items()}
    of_marked = found.pop((SETTINGS[0], "marked"))
    trailing = [place for place, word in found.items() if word == "worse"]
    at_first = [f"{name} {say(gap)}" for (at, name), gap in gaps.items() if at == SETTINGS[0]]
    number = f"zeros - learned at depth 1: {', '.join(at_first)}"
    later = [f"{at}, {name} {say(gaps[at, name])}" for at, name in trailing if at != SETTINGS[0]]
    number += "".join(f"; {place}" for place in later)
    confirmed = of_marked == "worse" and not trailing
    return verdict(confirmed, of_marked in ("equal", "better") or bool(trailing)), number


def what_is_behind(runs):
    """Return whether each arm is behind another where it was the farthest, and the least number.

    One place cannot show that an arm is behind nowhere: this is never refuted.
    """
    every = behind(runs)
    places = every.dropna(subset="again")
    if not len(places):
        return "undecided", "not measured again"
    gaps = places[["again", "low", "high"]]
    n_worse = sum(compare(gap) == "worse" for gap in gaps.itertuples(index=False))
    least = gaps["again"].idxmax()
    arm, other, setting, problem = places.loc[least, ["arm", "other", "setting", "problem"]]
    return verdict(n_worse == len(every), False), (
        f"{n_worse} of {len(places)} arms are behind another where they were the farthest; the "
        f"least {arm} - {other} = {say(gaps.loc[least])} points on {problem}, {setting}"
    )


def again(runs):
    """Return each arm against "learned" where both were measured again, over splits."""
    rows = []
    places = runs.query("stage == 'again'").groupby(["setting", "problem"], sort=False).groups
    for setting, problem in places:
        values = of_seeds(runs, setting, problem, "again").dropna(axis=1, how="all")
        if "learned" in values:
            gaps = values.drop(columns="learned").sub(values["learned"], axis=0)
            rows += [(setting, problem, arm, *interval(gap)) for arm, gap in gaps.items()]
    return pd.DataFrame(
        rows, columns=["setting", "problem", "against learned", "points", "low", "high"]
    )


def shown(runs):
    """Return the pairs of arms that differ on real problems, p below 5 % after Holm's."""
    table = pairs(runs)
    return table[table["p (Holm)"] < LEVEL]


def farthest(runs):
    """Return where each arm is the farthest behind another: arm, other, setting and problem."""
    values = by_problem(runs)
    values.loc[values.index.get_level_values("setting") == SETTINGS[0], "attention"] = np.nan
    places = []
    for arm in ARMS:
        gaps = values.drop(columns=arm).rsub(values[arm], axis=0)
        if gaps.notna().any(axis=None):
            other = gaps.min().idxmin()
            places.append((arm, other, *gaps[other].idxmin()))
    return places


def behind(runs):
    """Return how far each arm is behind another where it is the farthest.

    First as it was found, then, with its interval over splits, as it came out when measured again.
    """
    rows = []
    for arm, other, setting, problem in farthest(runs):
        found, again = (of_seeds(runs, setting, problem, stage) for stage in ("test", "again"))
        rows.append({
            "arm": arm, "other": other, "setting": setting, "problem": problem,
            "found": (found[arm] - found[other]).mean(),
            **dict(zip(("again", "low", "high"), interval(again[arm] - again[other]), strict=True)),
        })  # fmt: skip
    return pd.DataFrame(rows)


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


def by_setting(runs):
    """Return what `zeros` does, as text."""
    return zeros(runs).map(lambda cell: cell if isinstance(cell, str) else say(cell))


def in_tenths(table):
    """Return a table with its points to one decimal; its p values keep their digits."""
    return table.round(dict.fromkeys(("points", "low", "high"), 1))


REPORT = {  # tables, and the format of their numbers
    "accuracy": (accuracy, "%.1f"),
    "differences": (lambda runs: in_tenths(differences(runs)), "%.3g"),
    "pairs": (lambda runs: in_tenths(pairs(runs)), "%.3g"),
    "problems": (lambda runs: by_problem(runs).reset_index(), "%.1f"),
    "made": (made, "%.1f"),
    "zeros": (by_setting, None),
    "behind": (behind, "%.1f"),
    "again": (again, "%.1f"),
    "shown": (lambda runs: in_tenths(shown(runs)), "%.3g"),
    "redrawn": (redrawn, "%.1f"),
    "cost": (cost, "%.2f"),
    "gradients": (gradients, "%.3g"),
    "distance": (distance, "%.2f"),
    "step_sizes": (step_sizes, "%.2g"),
    "expectations": (expectations, None),
}


def write_report(runs, folder=None):
    """Print all tables, and write them as CSV if there is a folder."""
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for name, (table, number) in REPORT.items():
        rows = table(runs)
        if len(rows):
            text = rows.to_string(index=False, float_format=number and number.__mod__, na_rep="")
            print(f"\n# {name}\n{text}")
        if folder is not None:
            rows.to_csv(Path(folder) / f"{name}.csv", index=False, float_format=number)
