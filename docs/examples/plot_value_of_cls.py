"""
The value of [CLS]
==================

Which value should the [CLS] token have: learned, zeros, drawn once and kept, or redrawn for every
training sequence? Is a token needed at all, or is the mean over the steps equally good? This
example draws the figures of the :doc:`study of [CLS] </the_answer>` from the results of
``benchmarks/study_cls_value.py``, which compares 7 variants ("arms") on 10 real problems in 4
settings, with 5 seeds and a tuned learning rate for each arm.
"""

# %%
# Each row of the file whose stage is "test" is one fit. The accuracy is averaged over seeds, so
# that each problem counts once. The table shows the mean over the real problems in each setting.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scikit_posthocs as sp

docs = Path.cwd().parent
runs = pd.read_csv(docs / "cls_value_runs.csv").query("stage == 'test'")
synthetic = ["marked", "spread", "order"]
accuracy = 100 * runs.pivot_table("accuracy", ["setting", "problem"], "arm", sort=False)
real = accuracy.drop(synthetic, level="problem")
colors = {
    "learned": "#0072B2", "zeros": "#E69F00", "fixed": "#009E73", "random": "#CC79A7",
    "mean": "#666666", "max": "#D55E00", "attention": "#56B4E9",
}  # fmt: skip
real.groupby("setting", sort=False).mean().round(1)

# %%
# Average ranks over the real problems; 1 is best. Arms with a dot on the same bar do not differ
# significantly at the 5 % level (Wilcoxon signed-rank tests, with Holm's correction over all pairs
# of a setting). This does not mean that they are equal: with ten problems, the smallest possible p
# value is 0.002, and 0.04 after the correction, even if one arm is better on all ten.

tests = pd.read_csv(docs / "cls_value" / "pairs.csv")
settings = list(dict.fromkeys(tests["setting"]))
figure, axes = plt.subplots(len(settings), 1, figsize=(8, 7.5), layout="constrained")
for ax, setting in zip(axes, settings, strict=True):
    p = tests[tests["setting"] == setting].pivot(index="first", columns="second", values="p (Holm)")
    arms = [*p.index.union(p.columns)]
    p = p.reindex(index=arms, columns=arms).combine_first(p.T).fillna(1.0)
    ranks = real.loc[setting][arms].rank(axis=1, ascending=False).mean()
    looks = {"label_fmt_left": "{label} ({rank:.1f})", "label_fmt_right": "({rank:.1f}) {label}"}
    sp.critical_difference_diagram(
        ranks, p, ax=ax, color_palette=colors, crossbar_props={"marker": "o"}, **looks
    )
    ax.set_title(setting)

# %%
# Differences in accuracy between each arm and "learned", with 95 % confidence intervals.

gaps = pd.read_csv(docs / "cls_value" / "differences.csv")
others = list(dict.fromkeys(gaps["arm"]))


def forest(ax, setting):
    """Draw the difference between each arm and "learned" in a setting."""
    rows = gaps[gaps["setting"] == setting].set_index("arm").reindex(others[::-1])
    for i, (arm, row) in enumerate(rows.iterrows()):
        error = [[row["points"] - row["low"]], [row["high"] - row["points"]]]
        ax.errorbar(row["points"], i, xerr=error, fmt="o", color=colors[arm], capsize=3)
    ax.axvline(0, color="k", linestyle=":")
    ax.set(xlabel="percentage points")
    ax.set_yticks(range(len(others)), others[::-1])


figure, axes = plt.subplots(
    1, len(settings), figsize=(10, 3.4), sharex=True, sharey=True, layout="constrained"
)
for ax, setting in zip(axes, settings, strict=True):
    forest(ax, setting)
    ax.set_title(setting)
figure.suptitle('Accuracy minus that of "learned", 10 real problems')

# %%
# Accuracy by depth, with the range over seeds, on synthetic problems in which it is known what
# decides the class: one marked step, the mean over all steps, or the order of events.

markers = dict(zip(colors, "os^DvPX", strict=True))
plain = runs[runs["setting"].str.startswith("linear")]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, problem in zip(axes, synthetic, strict=True):
    for i, (arm, marker) in enumerate(markers.items()):
        values = plain.query("problem == @problem and arm == @arm").groupby("setting")["accuracy"]
        x = np.arange(3) + 0.07 * (i - 3)
        spread = [values.mean() - values.min(), values.max() - values.mean()]
        ax.errorbar(
            x, values.mean(), spread, capsize=2, label=arm, color=colors[arm], marker=marker
        )
    ax.set_xticks(range(3), [1, 2, 4])
    ax.set(title=problem, xlabel="depth", ylim=(0.2, 1.02))
axes[0].set_ylabel("test accuracy")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
figure.suptitle("Synthetic problems: one marked step, the mean over all steps, the order of events")

# %%
# Summary: the mean of the four settings.

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
forest(ax, "mean of all settings")
ax.set_title('Accuracy minus that of "learned", mean of four settings')
plt.show()
# sphinx_gallery_thumbnail_number = 4
