"""Report of `study_cls_value.py`: all tables, and whether each expectation was confirmed.

The tables are defined in `study_tables.py`.
"""

from pathlib import Path

import pandas as pd
from study_tables import (
    ALL,
    INTERVAL,
    SETTINGS,
    SYNTHETIC,
    accuracy,
    accuracy_by_problem,
    cost,
    differences,
    distance,
    gradients,
    learning_rates,
    only_real,
    pairs,
    redrawn,
    replications,
    significant_pairs,
    synthetic,
    worst_differences,
    zeros,
)

# Arms are equal if the confidence interval of their difference is within ±2 percentage points.
MARGIN = 2.0


def expectations(runs):
    """Return what was expected before the study, the verdict, and the evidence for it.

    The table is empty if `runs` lacks depth 1, real problems or one of the synthetic problems.
    """
    columns = ["expectation", "verdict", "evidence"]
    values = only_real(accuracy_by_problem(runs))
    if SETTINGS[0] not in values.index or not set(SYNTHETIC) <= set(runs["problem"]):
        return pd.DataFrame(columns=columns)
    gaps = differences(runs)
    rows = [
        (
            "learned and mean are about equal at tuned learning rates",
            *judge_average(gaps, "mean", {"equal"}, {"worse", "better"}),
        ),
        (
            "fixed and learned are about equal",
            *judge_average(gaps, "fixed", {"equal"}, {"worse", "better"}),
        ),
        (
            "zeros are worse than learned only at depth 1 on the marked-step problem",
            *judge_zeros(runs),
        ),
        ("random is worse than learned", *judge_random(runs, gaps)),
        ("no arm is best everywhere", *judge_worst_cases(runs)),
    ]
    return pd.DataFrame(rows, columns=columns)


def judge_average(gaps, arm, confirming, refuting):
    """Return the verdict on an arm in a table of `differences`, and the evidence.

    The verdict is about the mean of all settings, and ends in "on average" if they disagree.
    """
    rows = gaps[gaps["arm"] == arm].set_index("setting")[INTERVAL]
    intervals = {setting: tuple(row) for setting, row in rows.iterrows()}
    classes = {setting: classify(gap) for setting, gap in intervals.items()}
    result = verdict(classes[ALL] in confirming, classes[ALL] in refuting)
    if result != "undecided" and len(set(classes.values())) > 1:
        result += " on average"
    by_setting = ", ".join(
        f"{setting.removeprefix('linear, ')} {word}"
        for setting, word in classes.items()
        if setting != ALL
    )
    gap = format_interval(intervals[ALL])
    return result, f"{arm} - learned = {gap} points, mean of all settings ({by_setting})"


def judge_random(runs, gaps):
    """Return the verdict on whether "random" is worse than "learned", and the evidence."""
    result, evidence = judge_average(gaps, "random", {"worse"}, {"equal", "better"})
    changed = redrawn(runs)["changed, mean"]
    evidence += (
        f"; {changed.min():.1f} to {changed.max():.1f} % of predictions change with the draw"
    )
    return result, evidence


def judge_zeros(runs):
    """Return the verdict on "zeros" being worse only on "marked" at depth 1, and the evidence."""
    table = zeros(runs).set_index("setting")
    gaps = {
        (setting, name): gap
        for setting, row in table[table.index.isin(SETTINGS)].iterrows()
        for name, gap in row.items()
    }
    classes = {case: classify(gap) for case, gap in gaps.items()}
    on_marked = classes.pop((SETTINGS[0], "marked"))
    others = [case for case, word in classes.items() if word == "worse"]

    at_depth_1 = ", ".join(
        f"{name} {format_interval(gap)}"
        for (setting, name), gap in gaps.items()
        if setting == SETTINGS[0]
    )
    evidence = f"zeros - learned at depth 1: {at_depth_1}"
    for setting, name in others:
        if setting != SETTINGS[0]:
            evidence += f"; {setting}, {name} {format_interval(gaps[setting, name])}"
    confirmed = on_marked == "worse" and not others
    return verdict(confirmed, on_marked in ("equal", "better") or bool(others)), evidence


def judge_worst_cases(runs):
    """Return the verdict on whether each arm is worse than some other arm in some case.

    The evidence is returned, too. The expectation is confirmed if the replications of all worst
    cases show it. It is never refuted: the replicated cases cannot rule out that an arm is worse in
    some other case.
    """
    table = worst_differences(runs)
    replicated = table.dropna(subset="replication")
    if not len(replicated):
        return "undecided", "not replicated"
    gaps = replicated[["replication", "low", "high"]]
    n_worse = sum(classify(gap) == "worse" for gap in gaps.itertuples(index=False))
    highest = gaps["replication"].idxmax()
    arm, other, setting, problem = table.loc[
        highest, ["arm", "compared with", "setting", "problem"]
    ]
    return verdict(n_worse == len(table), False), (
        f"in the replications, {n_worse} of {len(replicated)} arms are behind another arm; the "
        f"highest difference is {arm} - {other} = {format_interval(gaps.loc[highest])} points on "
        f"{problem}, {setting}"
    )


def classify(gap):
    """Classify a difference (mean, low, high) as "equal", "worse", "better" or "inconclusive"."""
    mean, low, high = gap
    if -MARGIN < low and high < MARGIN:
        return "equal"
    if high < 0 and mean <= -MARGIN:
        return "worse"
    if low > 0 and mean >= MARGIN:
        return "better"
    return "inconclusive"


def verdict(confirmed, refuted):
    """Return the verdict as text, which is "undecided" if the data show neither."""
    return "confirmed" if confirmed else "refuted" if refuted else "undecided"


def format_interval(gap):
    """Return a mean and its interval as text."""
    mean, low, high = gap
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def zeros_as_text(runs):
    """Return the table `zeros` with its intervals as text."""
    return zeros(runs).map(lambda cell: cell if isinstance(cell, str) else format_interval(cell))


def round_points(table):
    """Return a table in which points, but not p values, are rounded to one decimal."""
    return table.round(dict.fromkeys(INTERVAL, 1))


REPORT = {  # for each CSV file, the function that makes its table and the format of its numbers
    "accuracy": (accuracy, "%.1f"),
    "differences": (lambda runs: round_points(differences(runs)), "%.3g"),
    "pairs": (lambda runs: round_points(pairs(runs)), "%.3g"),
    "problems": (lambda runs: accuracy_by_problem(runs).reset_index(), "%.1f"),
    "synthetic": (synthetic, "%.1f"),
    "zeros": (zeros_as_text, None),
    "worst_cases": (worst_differences, "%.1f"),
    "replications": (replications, "%.1f"),
    "significant_pairs": (lambda runs: round_points(significant_pairs(runs)), "%.3g"),
    "redrawn": (redrawn, "%.1f"),
    "cost": (cost, "%.2f"),
    "gradients": (gradients, "%.3g"),
    "distance": (distance, "%.2f"),
    "learning_rates": (learning_rates, "%.2g"),
    "expectations": (expectations, None),
}


def write_report(runs, folder=None):
    """Print all tables, and write them to CSV files unless `folder` is None."""
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for name, (make_table, number_format) in REPORT.items():
        table = make_table(runs)
        if len(table):
            to_text = number_format and number_format.__mod__
            text = table.to_string(index=False, float_format=to_text, na_rep="")
            print(f"\n# {name}\n{text}")
        if folder is not None:
            table.to_csv(Path(folder) / f"{name}.csv", index=False, float_format=number_format)
