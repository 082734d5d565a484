"""The study of the value of [CLS]: its protocol, its statistics, and the tables of the docs."""

from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from tests.helpers import BENCHMARKS, DOCS, benchmark

pytestmark = pytest.mark.slow  # the statistics of many simulated studies

study = benchmark("study_cls_value")
tables = benchmark("study_tables")
report = benchmark("study_report")
FIRST = "linear, depth 1"
SMALL = [
    *"--problems marked --seeds 2 --replications 3 --updates 4 --train 40 --jobs 1".split(),
    *("--settings", FIRST),
]  # fmt: skip


@pytest.fixture(scope="module")
def small_study(tmp_path_factory):
    """Return the CSV file and the folder of tables of a small study."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        command = ["--out", str(folder / "rows.csv"), "--tables", str(folder / "tables")]
        import_module("study_cls_value").main([*SMALL, *command])
    return folder / "rows.csv", folder / "tables"


@pytest.fixture
def out(small_study, tmp_path):
    """Return a copy of the CSV file of the small study."""
    path = tmp_path / "rows.csv"
    path.write_text(small_study[0].read_text())
    return path


def runs_of(accuracy, n_problems=8, n_seeds=5):
    """Return rows of a study in which accuracy is `accuracy(setting, problem, arm, seed)`."""
    from study_tables import ARMS, SETTINGS, SYNTHETIC

    problems = (*SYNTHETIC, *(f"real {i}" for i in range(n_problems)))
    again = range(1000, 1000 + 2 * n_seeds)
    rows = [
        {
            "stage": stage, "problem": problem, "setting": setting, "arm": arm, "seed": seed,
            "lr": 6e-3, "accuracy": accuracy(setting, problem, arm, seed), "fit_s": 1.0,
            "first_gradient": 0.1, "token_norm": 0.1, "token_moved": 0.2,
            "flipped": 0.05, "redrawn_sd": 0.01,
        }
        for stages in ({"tune": range(1), "test": range(n_seeds)}, {"replication": again})
        for setting in SETTINGS
        for problem in problems
        for arm in ARMS
        for stage, seeds in stages.items()
        for seed in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def expectations_of(report):
    """Return a function that makes the table of expectations for rows as in `runs_of`."""

    def make(accuracy, **kwargs):
        return report.expectations(runs_of(accuracy, **kwargs)).set_index("expectation")

    return make


# The protocol


def test_study_writes_one_row_for_each_fit(small_study):
    rows = pd.read_csv(small_study[0])
    assert rows["stage"].value_counts().drop("replication").to_dict() == {"test": 7 * 2, "tune": 7}
    tests = rows[rows["stage"] == "test"].set_index(["arm", "seed"])
    tuned = rows[rows["stage"] == "tune"].set_index("arm")["lr"]
    assert (tests["lr"].unstack().eq(tuned, axis=0)).all(axis=None)
    assert tests.loc["random", "flipped"].notna().all()
    assert tests.loc["learned", "token_moved"].gt(0).all()


def test_the_first_gradient_of_w_q_is_0_for_zeros(small_study):
    tests = pd.read_csv(small_study[0]).query("stage == 'test'").set_index("arm")
    assert tests.loc["zeros", "first_gradient"].eq(0).all()
    assert tests.loc["fixed", "first_gradient"].gt(0).all()


def test_attention_pooling_at_depth_1_equals_a_learned_token(small_study):
    tests = pd.read_csv(small_study[0]).query("stage == 'test'").set_index("arm")["accuracy"]
    np.testing.assert_array_equal(tests["learned"], tests["attention"])


def test_study_writes_the_tables_of_its_rows(small_study):
    path, folder = small_study
    tests = pd.read_csv(path).query("stage == 'test' and arm == 'mean'")
    synthetic = pd.read_csv(folder / "synthetic.csv").set_index("problem")
    mean = 100 * tests["accuracy"].mean()
    assert synthetic.loc["marked", "mean"] == pytest.approx(mean, abs=0.1)


def test_study_resumes_with_the_missing_rows_only(study, out, monkeypatch):
    rows = pd.read_csv(out)
    rows.drop(rows.index[rows["stage"] == "test"][-2:]).to_csv(out, index=False)
    keys = []
    test_row = study.test_row
    monkeypatch.setattr(
        study, "test_row", lambda key, *args: keys.append(key) or test_row(key, *args)
    )
    monkeypatch.setattr(study, "tune_row", None)
    study.main([*SMALL, "--out", str(out)])
    assert len(keys) == 2
    first, second = (
        table.drop(columns="fit_s").sort_values(study.KEY, ignore_index=True)
        for table in (rows, pd.read_csv(out))
    )
    pd.testing.assert_frame_equal(second, first)


def test_replications_have_their_own_seeds_and_learning_rates(study, small_study):
    rows = pd.read_csv(small_study[0]).set_index("stage")
    seeds = rows.loc["replication"].groupby("arm")["seed"].apply(set)
    assert set(seeds.index) == set(study.ARMS) - {"attention"}  # equals "learned" at depth 1
    assert all(seeds_of_arm == {1000, 1001, 1002} for seeds_of_arm in seeds)
    assert (rows.loc["replication", "n_tried"] >= 3).all()
    assert rows.loc["replication"].groupby("arm")["lr"].nunique().max() > 1


def test_replications_have_new_splits_and_folds(study, monkeypatch):
    splits = [study.load("digits", None, 100, seed=seed) for seed in (0, 1000, 1001)]
    assert len({X_train.tobytes() for X_train, *_ in splits}) == 3
    assert len({X_test.tobytes() for _, _, X_test, _ in splits}) == 3
    for X_train, _, X_test, _ in splits:
        assert not {x.tobytes() for x in X_train} & {x.tobytes() for x in X_test}
    folds = {}

    def score(setting, arm, X, y, train, valid, n_updates, lr, seed):
        folds.setdefault(seed, train.tobytes())
        return 0.5

    monkeypatch.setattr(study, "score", score)
    for first_seed in (0, 1000):
        study.tune(FIRST, "learned", splits[0], 4, 2, first_seed)
    assert set(folds) == {0, 1, 1000, 1001}
    assert len(set(folds.values())) == 4


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.09, [0.00333, 0.01, 0.03, 0.09, 0.27]),
        (0.01, [0.00333, 0.01, 0.03]),
        (1e-9, [0.00037, 0.00111, 0.00333, 0.01, 0.03]),  # below the lowest
    ],
)
def test_tuning_returns_a_learning_rate_between_two_that_are_not_better(
    study, monkeypatch, best, tried
):
    calls = []

    def score(setting, arm, X, y, train, valid, n_updates, lr, seed):
        calls.append(lr)
        return -abs(np.log(lr / best))

    monkeypatch.setattr(study, "score", score)
    split = np.zeros((40, 8, 1)), np.arange(40) % 2, None, None
    lr, _, n_tried = study.tune(FIRST, "learned", split, 4, 2)
    assert lr == max(best, min(tried))
    assert sorted(set(calls)) == tried
    assert n_tried == len(tried)
    assert len(calls) == 2 * n_tried  # folds


def test_tuning_returns_the_middle_learning_rate_if_all_are_equal(study, monkeypatch):
    monkeypatch.setattr(study, "score", lambda *args: 0.5)
    split = np.zeros((40, 8, 1)), np.arange(40) % 2, None, None
    assert study.tune(FIRST, "learned", split, 4, 2)[0] == study.MIDDLE_LR


def test_tuning_fits_training_sequences_for_as_many_updates_as_the_test(study, monkeypatch):
    fits, scored = [], []

    class Spy(study.CLSTransformerClassifier):
        def fit(self, X, y):
            fits.append((self.random_state, X, self.max_epochs * -(-len(X) // self.batch_size)))
            return super().fit(X, y)

        def score(self, X, y):
            scored.append(X)
            return super().score(X, y)

    monkeypatch.setattr(study, "CLSTransformerClassifier", Spy)
    X = np.arange(80.0).reshape(80, 1, 1).repeat(8, axis=1)
    y = np.arange(80) % 2
    study.tune(FIRST, "learned", (X, y, None, None), 8, 2)
    for (seed, X_train, n_updates), X_valid in zip(fits, scored, strict=True):
        values = X_train[:, 0, 0], X_valid[:, 0, 0]
        assert sorted(np.concatenate(values)) == list(range(80))
        assert n_updates == 8
        assert seed in (0, 1)
    assert {seed for seed, *_ in fits} == {0, 1}


def test_all_seeds_have_the_same_split_of_a_real_problem(study):
    split = study.load("digits", None, 100, seed=0)
    for a, b in zip(split, study.load("digits", None, 100, seed=1), strict=True):
        np.testing.assert_array_equal(a, b)
    X_train, y_train, X_test, _ = split
    assert len(X_train) == 100
    assert np.bincount(y_train).min() >= 9
    assert not {x.tobytes() for x in X_train} & {x.tobytes() for x in X_test}


def test_a_third_of_a_file_is_held_out_for_testing(study, tmp_path):
    lines = [f"{i},{i + 0.5}:{'ab'[i % 2]}" for i in range(90)]
    path = tmp_path / "Libras_TRAIN.ts"
    path.write_text("@classLabel true a b\n@data\n" + "\n".join(lines))
    for n_train, n_test in ((60, 30), (20, 70)):
        X_train, y_train, X_test, y_test = study.load("Libras", tmp_path, n_train, seed=0)
        assert (len(X_train), len(X_test)) == (n_train, n_test)
        values = np.concatenate([X_train[:, 0, 0], X_test[:, 0, 0]])
        assert sorted(values) == list(range(90))
        assert np.mean(y_train == "a") == np.mean(y_test == "a") == 0.5


def test_synthetic_problems_differ_between_seeds(study):
    X, *_ = study.load("order", None, 50, seed=0)
    X_other, *_ = study.load("order", None, 50, seed=1)
    assert not np.array_equal(X, X_other)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--updates", "8"), r"fits of 4 updates .* not 8 and 2; choose another --out"),
        (("--train", "50"), r"40 training sequences of marked, not 50; choose another --out"),
    ],
)
def test_resuming_with_other_options_raises(study, out, option, message):
    with pytest.raises(SystemExit, match=message):
        study.main([*SMALL, "--out", str(out), *option])


def test_arms_differ_in_token_and_pooling_only(study):
    X = np.zeros((40, 8, 1))
    first, *others = (
        study.classifier("default", arm, X, 4, 0.006, seed=1).get_params() for arm in study.ARMS
    )
    for params in others:
        assert {name for name in params if params[name] != first[name]} <= {
            "cls_strategy",
            "pooling",
        }


def test_redrawing_a_random_token_changes_predictions_and_restores_the_token(study, data):
    X, y = data
    clf = study.classifier(FIRST, "random", X, 20, 0.006, seed=0).fit(X, y)
    before = clf.predict_proba(X)
    flipped, std = study.redraw_token(clf, X, y)
    assert 0 < flipped < 0.6
    assert std > 0
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    clf.module_.head.weight.data[:, :] = 0  # always predicts the same class
    assert study.redraw_token(clf, X, y) == (0, 0)


# The statistics


def test_statistics_equal_values_computed_by_hand(tables):
    # t of 4 degrees of freedom at 97.5 % is 2.776; the standard error is sqrt(2.5 / 5).
    assert tables.interval(np.arange(1, 6)) == pytest.approx((3, 1.0368, 4.9632), abs=1e-4)
    # All 10 signs agree in 2 of 2 ** 10 cases, whatever the sizes.
    assert tables.wilcoxon(np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 100])) == 2 / 2**10
    # Sorted p values times 3, 2 and 1, each at least as large as the one before and at most 1.
    np.testing.assert_allclose(tables.holm([0.03, 0.01, 0.04]), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(tables.holm([0.9, 0.8, 0.1]), [1, 1, 0.3])


def test_replications_are_compared_with_learned(tables):
    runs = runs_of(
        lambda setting, problem, arm, seed: 0.8 - 0.1 * (arm == "zeros") + 1e-4 * (seed % 3)
    )
    table = tables.replications(runs[(runs["arm"] != "mean") & (runs["problem"] == "order")])
    assert set(table["arm"]) == set(tables.ARMS) - {"learned", "mean"}
    points = table.set_index(["setting", "problem", "arm"])["points"]
    assert points["default", "order", "zeros"] == pytest.approx(-10)
    assert points["default", "order", "fixed"] == pytest.approx(0)


def test_last_rows_of_the_zeros_table_are_differences_between_settings(tables):
    def accuracy(setting, problem, arm, seed):
        gap = {FIRST: 0.1, "linear, depth 4": 0.04}.get(setting, 0)
        return 0.8 + 0.01 * (seed % 2) - gap * (arm == "zeros")

    gaps = tables.zeros(runs_of(accuracy)).set_index("setting")
    for name in ("real", *tables.SYNTHETIC):
        assert gaps.loc["depth 4 - depth 1", name] == pytest.approx((6, 6, 6))
        assert gaps.loc["default - depth 1", name] == pytest.approx((10, 10, 10))


def test_worst_cases_are_where_each_arm_is_the_farthest_behind(tables):
    cases = {
        "learned": ("linear, depth 2", "order"),
        "zeros": (FIRST, "marked"),
        "fixed": ("default", "real 3"),
    }

    def accuracy(setting, problem, arm, seed):
        # "attention" at depth 1 is left out of the comparison.
        is_left_out = arm == "attention" and setting == FIRST
        return 0.8 - 0.1 * (cases.get(arm) == (setting, problem)) + 0.2 * is_left_out

    found = {arm: tuple(case) for arm, _, *case in tables.worst_cases(runs_of(accuracy))}
    assert {arm: found[arm] for arm in cases} == cases
    assert set(found) == set(tables.ARMS)


def test_replicated_differences_are_not_biased_by_the_choice_of_the_worst_case(tables):
    rng = np.random.default_rng(0)
    table = tables.worst_differences(runs_of(lambda *_: 0.7 + rng.normal(0, 0.05)))
    assert (table["original"] < -5).all()  # the minimum of hundreds of differences
    assert abs(table["replication"].mean()) < 2
    assert ((table["low"] < 0) & (table["high"] > 0)).sum() >= 5  # of 7


@pytest.mark.slow
def test_a_true_difference_is_significant_and_inside_its_interval(tables):
    rng = np.random.default_rng(0)
    level = {f"real {i}": rng.uniform(0.6, 0.9) for i in range(12)}

    def accuracy(setting, problem, arm, seed):
        return level.get(problem, 0.8) - 0.05 * (arm == "zeros") + rng.normal(0, 0.01)

    runs = runs_of(accuracy, n_problems=12)
    gaps = tables.differences(runs).set_index(["setting", "arm"])
    for setting in (tables.ALL, *tables.SETTINGS):
        zeros, fixed = gaps.loc[(setting, "zeros")], gaps.loc[(setting, "fixed")]
        assert zeros["low"] < -5 < zeros["high"]
        assert zeros["p"] == 2 / 2**12
        n_compared = len(tables.distinct_arms(setting)) - 1
        assert zeros["p (Holm)"] == pytest.approx(n_compared * zeros["p"])
        assert zeros["wins / ties / losses"] == "0 / 0 / 12"
        assert abs(fixed["points"]) < 1
    assert (gaps["p (Holm)"] >= gaps["p"]).all()
    pairs = tables.pairs(runs)
    assert len(pairs) == 15 + 3 * 21  # at depth 1 "attention" is left out
    has_zeros = (pairs[["first", "second"]] == "zeros").any(axis=1)
    assert (pairs["p (Holm)"] < 0.05)[has_zeros].all()
    assert (pairs["p (Holm)"] < 0.05)[~has_zeros].mean() < 0.05


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ((-0.5, -1.5, 0.5), "equal"),
        ((-1.5, -1.9, -1.1), "equal"),  # significant, but smaller than two points
        ((-3.0, -5.0, -1.0), "worse"),
        ((3.0, 1.0, 5.0), "better"),
        ((-3.0, -7.0, 1.0), "inconclusive"),
        ((-1.5, -2.5, -0.5), "inconclusive"),
    ],
)
def test_intervals_are_classified_by_significance_and_size(report, gap, expected):
    assert report.classify(gap) == expected


# The verdicts on the expectations

ZEROS = "zeros are worse than learned only at depth 1 on the marked-step problem"


def test_worst_cases_without_a_replicated_difference_leave_the_verdict_undecided(expectations_of):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        if (setting, problem, arm) == ("default", "real 0", "max") and seed < 1000:
            return 0.5  # an outlier that is not replicated
        gap = 0.05 * ((setting, problem, arm) == ("linear, depth 2", "order", "max"))
        return 0.8 - gap - 0.1 * (arm != "max") + rng.normal(0, 0.005)

    row = expectations_of(accuracy).loc["no arm is best everywhere"]
    assert row["verdict"] == "undecided"
    assert row["evidence"].startswith(
        "in the replications, 6 of 7 arms are behind another arm; the highest difference is max"
    )


@pytest.mark.parametrize("case", [("linear, depth 2", "real"), ("default", "marked")])
def test_expectation_on_zeros_is_refuted_if_zeros_are_worse_in_another_case(case, expectations_of):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        is_behind = (setting, problem.split()[0]) in [(FIRST, "marked"), case]
        return 0.8 - 0.1 * (arm == "zeros" and is_behind) + rng.normal(0, 0.005)

    row = expectations_of(accuracy).loc[ZEROS]
    assert row["verdict"] == "refuted"
    assert f"; {case[0]}, {case[1]} -" in row["evidence"]


@pytest.mark.slow
def test_equal_arms_do_not_differ_significantly(tables, expectations_of):
    assert tables.differences(runs_of(lambda *_: 0.8))["p (Holm)"].eq(1).all()
    verdicts = expectations_of(lambda *_: 0.8)["verdict"]
    assert verdicts["learned and mean are about equal at tuned learning rates"] == "confirmed"
    assert verdicts["fixed and learned are about equal"] == "confirmed"
    assert verdicts[ZEROS] == "refuted"
    assert verdicts["random is worse than learned"] == "refuted"
    assert verdicts["no arm is best everywhere"] == "undecided"


def test_noise_alone_leaves_worst_cases_undecided(expectations_of):
    rng = np.random.default_rng(0)
    noise = {"order": 0.1}  # standard deviation over seeds, much larger than on other problems

    def accuracy(setting, problem, arm, seed):
        return 0.7 + rng.normal(0, noise.get(problem, 0.02))

    assert expectations_of(accuracy).loc["no arm is best everywhere", "verdict"] == "undecided"


def test_verdict_says_on_average_if_one_setting_disagrees(expectations_of):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        noise = rng.normal(0, 0.1 if setting == "default" and arm == "mean" else 0.005)
        return 0.7 + noise - 0.08 * (arm == "random" and setting != "default")

    table = expectations_of(accuracy, n_seeds=20)
    verdicts = table["verdict"]
    assert (
        verdicts["learned and mean are about equal at tuned learning rates"]
        == "confirmed on average"
    )
    assert verdicts["fixed and learned are about equal"] == "confirmed"
    assert verdicts["random is worse than learned"] == "confirmed on average"
    assert "depth 4 worse, default equal" in table["evidence"]["random is worse than learned"]


def test_true_expectations_are_confirmed(tables, expectations_of):
    rng = np.random.default_rng(0)
    worst = dict(zip(tables.ARMS, ("spread", "none", "order", *["spread"] * 4), strict=True))

    def accuracy(setting, problem, arm, seed):
        is_worst = setting == "default" and problem == worst[arm]
        zeros_are_behind = setting == FIRST and problem == "marked" and arm == "zeros"
        gap = 0.2 * zeros_are_behind + 0.06 * (arm == "random") + 0.1 * is_worst
        return 0.8 + rng.normal(0, 0.005) - gap

    table = expectations_of(accuracy)
    assert table["verdict"].eq("confirmed").all()
    number = table["evidence"]
    assert "5.0 to 5.0 % of predictions change" in number["random is worse than learned"]
    assert "-6." in number["random is worse than learned"]
    assert "marked -20." in number[ZEROS]
    assert "7 of 7 arms are behind another" in number["no arm is best everywhere"]


def test_false_expectations_are_refuted(expectations_of):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        return 0.7 + rng.normal(0, 0.005) + 0.05 * (arm in ("learned", "random"))

    table = expectations_of(accuracy)
    verdicts = table["verdict"]
    assert verdicts.drop("no arm is best everywhere").eq("refuted").all()
    assert verdicts["no arm is best everywhere"] == "undecided"  # a single case cannot refute it
    assert "mean - learned = -5." in table["evidence"].iloc[0]


def test_one_problem_leaves_the_verdict_undecided(expectations_of):
    rng = np.random.default_rng(0)
    table = expectations_of(lambda *_: 0.8 + rng.normal(0, 0.01), n_problems=1)
    assert (
        table.loc["learned and mean are about equal at tuned learning rates", "verdict"]
        == "undecided"
    )


@pytest.mark.parametrize("setting", ["linear, depth 2", "default"])
def test_report_of_a_single_setting_has_no_expectations(report, setting, tmp_path):
    runs = runs_of(lambda *_: 0.8)
    report.write_report(runs[runs["setting"] == setting], tmp_path)
    accuracy = pd.read_csv(tmp_path / "accuracy.csv")
    assert accuracy["setting"].tolist() == [setting]
    assert not len(pd.read_csv(tmp_path / "expectations.csv"))


# The documentation


@pytest.mark.slow
def test_tables_of_the_docs_equal_the_report_of_the_committed_rows(report, tmp_path):
    report.write_report(pd.read_csv(DOCS / "cls_value_runs.csv"), tmp_path)
    committed = {path.name: path.read_text() for path in (DOCS / "cls_value").iterdir()}
    assert committed == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_committed_rows_cover_the_whole_study(study):
    rows = pd.read_csv(DOCS / "cls_value_runs.csv")
    tests = rows[rows["stage"] == "test"]
    cells = tests.groupby(["problem", "setting", "arm"])["seed"].nunique()
    n_problems = len(study.SYNTHETIC) + len(study.REAL)
    assert len(cells) == n_problems * len(study.SETTINGS) * len(study.ARMS)
    assert (cells >= 5).all()
    replicated = rows[rows["stage"] == "replication"].groupby(["problem", "setting", "arm"])["seed"]
    first = study.FIRST_REPLICATION_SEED
    assert replicated.apply(sorted).to_dict() == {
        key[1:4]: list(range(first, first + 10)) for key in study.replication_keys(rows, n_seeds=10)
    }
    assert (rows["n_train"] <= 500).all()
