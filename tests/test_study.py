import numpy as np
import pandas as pd
import pytest

from tests.helpers import DOCS, benchmark

study = benchmark("study_cls_value")
report = benchmark("study_report")
SMALL = "--problems marked --seeds 2 --again 1 --updates 4 --train 40 --jobs 1".split()


def runs_of(accuracy, n_problems=8, n_seeds=5):
    """Return rows of a study in which accuracy is `accuracy(setting, problem, arm, seed)`."""
    from study_report import ARMS, MADE, SETTINGS

    problems = (*MADE, *(f"real {i}" for i in range(n_problems)))
    again = range(1000, 1000 + 2 * n_seeds)
    rows = [
        {
            "stage": stage, "problem": problem, "setting": setting, "arm": arm, "seed": seed,
            "lr": 6e-3, "accuracy": accuracy(setting, problem, arm, seed), "fit_s": 1.0,
            "first_gradient": 0.1, "token_norm": 0.1, "token_moved": 0.2,
            "flipped": 0.05, "redrawn_sd": 0.01,
        }
        for stages in ({"tune": range(1), "test": range(n_seeds)}, {"again": again})
        for setting in SETTINGS
        for problem in problems
        for arm in ARMS
        for stage, seeds in stages.items()
        for seed in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_study_writes_a_row_for_each_fit_and_its_tables(study, tmp_path):
    out = tmp_path / "rows.csv"
    setting = "linear, depth 1"
    study.main([*SMALL, "--settings", setting, "--out", str(out), "--tables", str(tmp_path / "t")])
    rows = pd.read_csv(out)
    assert rows["stage"].value_counts().drop("again").to_dict() == {"test": 7 * 2, "tune": 7}
    tests = rows[rows["stage"] == "test"].set_index(["arm", "seed"])
    lr = rows[rows["stage"] == "tune"].set_index("arm")["lr"]
    assert (tests["lr"].unstack().eq(lr, axis=0)).all(axis=None)  # its own, the same for all seeds
    assert tests.loc["random", "flipped"].notna().all()
    assert tests.loc["zeros", "first_gradient"].eq(0).all()  # as its query is 0
    assert tests.loc["fixed", "first_gradient"].gt(0).all()
    assert tests.loc["learned", "token_moved"].gt(0).all()
    np.testing.assert_array_equal(  # at depth 1 they are the same network
        tests.loc["learned", "accuracy"], tests.loc["attention", "accuracy"]
    )
    made = pd.read_csv(tmp_path / "t" / "made.csv").set_index("problem")
    assert made.loc["marked", "mean"] == pytest.approx(
        100 * tests.loc["mean", "accuracy"].mean(), rel=0.01
    )


def test_a_study_goes_on_where_it_stopped(study, tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    study.main([*SMALL, "--settings", "linear, depth 1", "--out", str(out)])
    rows = pd.read_csv(out)
    rows.drop(rows.index[rows["stage"] == "test"][-2:]).to_csv(out, index=False)
    keys = []
    test_row = study.test_row
    monkeypatch.setattr(
        study, "test_row", lambda key, *args: keys.append(key) or test_row(key, *args)
    )
    monkeypatch.setattr(study, "tune_row", None)
    study.main([*SMALL, "--settings", "linear, depth 1", "--out", str(out)])
    assert len(keys) == 2
    first, second = (
        table.drop(columns="fit_s").sort_values(study.KEY, ignore_index=True)
        for table in (rows, pd.read_csv(out))
    )
    pd.testing.assert_frame_equal(second, first)


def test_what_is_farthest_behind_is_measured_again(study, tmp_path):
    out = tmp_path / "rows.csv"
    study.main([*SMALL, "--again", "3", "--settings", "linear, depth 1", "--out", str(out)])
    rows = pd.read_csv(out).set_index("stage")
    seeds = rows.loc["again"].groupby("arm")["seed"].apply(set)
    assert set(seeds.index) == set(study.ARMS) - {"attention"}  # which is "learned" at depth 1
    assert all(of_arm == {1000, 1001, 1002} for of_arm in seeds)
    assert (rows.loc["again", "n_tried"] >= 3).all()  # its step size is its own
    assert rows.loc["again"].groupby("arm")["lr"].nunique().max() > 1


def test_what_is_measured_again_is_split_and_tuned_anew(study, monkeypatch):
    splits = [study.load("digits", None, 100, seed=seed) for seed in (0, 1000, 1001)]
    assert len({X_train.tobytes() for X_train, *_ in splits}) == 3
    assert len({X_test.tobytes() for _, _, X_test, _ in splits}) == 3
    for X_train, _, X_test, _ in splits:
        assert not {x.tobytes() for x in X_train} & {x.tobytes() for x in X_test}
    seen = {}

    def score(setting, arm, X, y, train, valid, n_updates, lr, seed):
        seen.setdefault(seed, train.tobytes())
        return 0.5

    monkeypatch.setattr(study, "score", score)
    for first_seed in (0, 1000):
        study.tune("linear, depth 1", "learned", splits[0], 4, 2, first_seed)
    assert set(seen) == {0, 1, 1000, 1001}
    assert len(set(seen.values())) == 4


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.09, [0.00333, 0.01, 0.03, 0.09, 0.27]),
        (0.01, [0.00333, 0.01, 0.03]),
        (1e-9, [0.00037, 0.00111, 0.00333, 0.01, 0.03]),  # the search has an end
    ],
)
def test_the_best_step_size_is_between_two_that_are_not_better(study, monkeypatch, best, tried):
    calls = []

    def score(setting, arm, X, y, train, valid, n_updates, lr, seed):
        calls.append(lr)
        return -abs(np.log(lr / best))

    monkeypatch.setattr(study, "score", score)
    split = np.zeros((40, 8, 1)), np.arange(40) % 2, None, None
    lr, _, n_tried = study.tune("linear, depth 1", "learned", split, 4, 2)
    assert lr == max(best, min(tried))
    assert sorted(set(calls)) == tried
    assert n_tried == len(tried)
    assert len(calls) == 2 * n_tried  # folds


def test_of_step_sizes_that_are_equal_the_middle_one_is_taken(study, monkeypatch):
    monkeypatch.setattr(study, "score", lambda *args: 0.5)
    split = np.zeros((40, 8, 1)), np.arange(40) % 2, None, None
    assert study.tune("linear, depth 1", "learned", split, 4, 2)[0] == study.MIDDLE_LR


def test_step_sizes_are_tuned_on_training_sequences_for_as_many_updates(study, monkeypatch):
    fits, scored = [], []
    kind = study.CLSTransformerClassifier

    class Spy(kind):
        def fit(self, X, y):
            fits.append((self.random_state, X, self.max_epochs * -(-len(X) // self.batch_size)))
            return super().fit(X, y)

        def score(self, X, y):
            scored.append(X)
            return super().score(X, y)

    monkeypatch.setattr(study, "CLSTransformerClassifier", Spy)
    X = np.arange(80.0).reshape(80, 1, 1).repeat(8, axis=1)
    y = np.arange(80) % 2
    study.tune("linear, depth 1", "learned", (X, y, None, None), 8, 2)
    for (seed, X_train, n_updates), X_valid in zip(fits, scored, strict=True):
        rows = X_train[:, 0, 0], X_valid[:, 0, 0]
        assert sorted(np.concatenate(rows)) == list(range(80))
        assert n_updates == 8
        assert seed in (0, 1)
    assert {seed for seed, *_ in fits} == {0, 1}


def test_all_arms_learn_from_the_same_sequences_and_none_is_tested_on_them(study):
    split = study.load("digits", None, 100, seed=0)
    for a, b in zip(split, study.load("digits", None, 100, seed=1), strict=True):
        np.testing.assert_array_equal(a, b)
    X_train, y_train, X_test, _ = split
    assert len(X_train) == 100
    assert np.bincount(y_train).min() >= 9
    seen = {x.tobytes() for x in X_train}
    assert not any(x.tobytes() in seen for x in X_test)


def test_of_a_training_half_a_third_is_held_out(study, tmp_path):
    lines = [f"{i},{i + 0.5}:{'ab'[i % 2]}" for i in range(90)]
    path = tmp_path / "Libras_TRAIN.ts"
    path.write_text("@classLabel true a b\n@data\n" + "\n".join(lines))
    for n_train, n_test in ((60, 30), (20, 70)):
        X_train, y_train, X_test, y_test = study.load("Libras", tmp_path, n_train, seed=0)
        assert (len(X_train), len(X_test)) == (n_train, n_test)
        values = np.concatenate([X_train[:, 0, 0], X_test[:, 0, 0]])
        assert sorted(values) == list(range(90))
        assert np.mean(y_train == "a") == np.mean(y_test == "a") == 0.5


def test_made_problems_are_made_anew_for_each_seed(study):
    X, *_ = study.load("order", None, 50, seed=0)
    X_other, *_ = study.load("order", None, 50, seed=1)
    assert not np.array_equal(X, X_other)


def test_arms_that_are_measured_again_are_compared_with_learned(report):
    runs = runs_of(
        lambda setting, problem, arm, seed: 0.8 - 0.1 * (arm == "zeros") + 1e-4 * (seed % 3)
    )
    again = report.again(runs[(runs["arm"] != "mean") & (runs["problem"] == "order")])
    assert set(again["against learned"]) == set(report.ARMS) - {"learned", "mean"}
    points = again.set_index(["setting", "problem", "against learned"])["points"]
    assert points["default", "order", "zeros"] == pytest.approx(-10)
    assert points["default", "order", "fixed"] == pytest.approx(0)


def test_arms_behind_elsewhere_than_where_it_was_measured_again_are_not_judged(report):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        if (setting, problem, arm) == ("default", "real 0", "max") and seed < 1000:
            return 0.5  # by chance, the farthest
        behind = 0.05 * ((setting, problem, arm) == ("linear, depth 2", "order", "max"))
        return 0.8 - behind - 0.1 * (arm != "max") + rng.normal(0, 0.005)

    expectations = report.expectations(runs_of(accuracy)).set_index("expectation")
    verdict, number = expectations.loc["nothing wins everywhere", ["verdict", "number"]]
    assert verdict == "undecided"
    assert number.startswith(
        "6 of 7 arms are behind another where they were the farthest; the least max"
    )


@pytest.mark.parametrize("place", [("linear, depth 2", "real"), ("default", "marked")])
def test_zeros_that_trail_elsewhere_too_refute_that_it_is_at_depth_1_only(report, place):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        places = [("linear, depth 1", "marked"), place]
        trails = arm == "zeros" and (setting, problem.split()[0]) in places
        return 0.8 - 0.1 * trails + rng.normal(0, 0.005)

    expectations = report.expectations(runs_of(accuracy)).set_index("expectation")
    verdict, number = expectations.loc[
        "zeros trail at depth 1 on selection tasks only", ["verdict", "number"]
    ]
    assert verdict == "refuted"
    assert f"; {place[0]}, {place[1]} -" in number


def test_whether_zeros_catch_up_is_a_difference_between_settings(report):
    def accuracy(setting, problem, arm, seed):
        trail = {"linear, depth 1": 0.1, "linear, depth 4": 0.04}.get(setting, 0)
        return 0.8 + 0.01 * (seed % 2) - trail * (arm == "zeros")

    gaps = report.zeros(runs_of(accuracy)).set_index("setting")
    for name in ("real", *report.MADE):
        assert gaps.loc["depth 4 - depth 1", name] == pytest.approx((6, 6, 6))
        assert gaps.loc["default - depth 1", name] == pytest.approx((10, 10, 10))


@pytest.mark.parametrize("setting", ["linear, depth 2", "default"])
def test_tables_are_made_of_one_setting_too(report, setting, tmp_path):
    runs = runs_of(lambda *_: 0.8)
    report.write_report(runs[runs["setting"] == setting], tmp_path)
    accuracy = pd.read_csv(tmp_path / "accuracy.csv")
    assert accuracy["setting"].tolist() == [setting]
    assert not len(pd.read_csv(tmp_path / "expectations.csv"))


def test_the_place_where_an_arm_is_farthest_behind_is_named(report):
    places = {
        "learned": ("linear, depth 2", "order"),
        "zeros": ("linear, depth 1", "marked"),
        "fixed": ("default", "real 3"),
    }

    def accuracy(setting, problem, arm, seed):
        # "attention" at depth 1 is not compared.
        at_depth_1 = arm == "attention" and setting == "linear, depth 1"
        return 0.8 - 0.1 * (places.get(arm) == (setting, problem)) + 0.2 * at_depth_1

    found = {arm: place for arm, _, *place in report.farthest(runs_of(accuracy))}
    assert {arm: tuple(found[arm]) for arm in places} == places
    assert set(found) == set(report.ARMS)


def test_how_far_behind_an_arm_is_was_not_chosen_by_chance(report):
    rng = np.random.default_rng(0)
    runs = runs_of(lambda *_: 0.7 + rng.normal(0, 0.05))  # no arm is worse than another
    behind = report.behind(runs)
    assert (behind["found"] < -5).all()  # the least of hundreds of differences
    assert abs(behind["again"].mean()) < 2
    assert ((behind["low"] < 0) & (behind["high"] > 0)).sum() >= 5  # of 7


def test_a_csv_of_another_grid_is_refused(study, tmp_path):
    command = [*SMALL, "--settings", "linear, depth 1", "--out", str(tmp_path / "rows.csv")]
    study.main(command)
    with pytest.raises(SystemExit, match=r"fits of 4 updates.* not 8 and 2; choose another --out"):
        study.main([*command, "--updates", "8"])


def test_a_csv_of_other_training_sequences_is_refused(study, tmp_path):
    command = [*SMALL, "--settings", "linear, depth 1", "--out", str(tmp_path / "rows.csv")]
    study.main(command)
    message = r"on \{40\} training sequences of marked, not 50; choose another --out"
    with pytest.raises(SystemExit, match=message):
        study.main([*command, "--train", "50"])


def test_arms_differ_in_the_token_and_the_pooling_only(study):
    X = np.zeros((40, 8, 1))
    first, *others = (
        study.classifier("default", arm, X, 4, 0.006, seed=1).get_params() for arm in study.ARMS
    )
    for params in others:
        assert {name for name in params if params[name] != first[name]} <= {
            "cls_strategy",
            "pooling",
        }


def test_a_random_token_that_is_drawn_anew_flips_predictions_and_others_none(study, data):
    X, y = data
    clf = study.classifier("linear, depth 1", "random", X, 20, 0.006, seed=0).fit(X, y)
    before = clf.predict_proba(X)
    flipped, deviation = study.redraw(clf, X, y)
    assert 0 < flipped < 0.6
    assert deviation > 0
    np.testing.assert_array_equal(clf.predict_proba(X), before)  # the token is put back
    clf.module_.head.weight.data[:, :] = 0  # predicts one class, whatever the token is
    assert study.redraw(clf, X, y) == (0, 0)


def test_the_statistics_are_those_worked_out_by_hand(report):
    # t of 4 degrees of freedom at 97.5 % is 2.776; the standard error is sqrt(2.5 / 5).
    assert report.interval(np.arange(1, 6)) == pytest.approx((3, 1.0368, 4.9632), abs=1e-4)
    # All 10 signs alike: 2 of 2 ** 10 ways, whatever the sizes, of which a t test would know.
    assert report.wilcoxon(np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 100])) == 2 / 2**10
    # Smallest first: times 3, 2 and 1, and none below the one before it.
    np.testing.assert_allclose(report.holm([0.03, 0.01, 0.04]), [0.06, 0.03, 0.06])


def test_a_true_difference_is_found_and_its_interval_covers_it(report):
    rng = np.random.default_rng(0)
    level = {f"real {i}": rng.uniform(0.6, 0.9) for i in range(12)}

    def accuracy(setting, problem, arm, seed):
        return level.get(problem, 0.8) - 0.05 * (arm == "zeros") + rng.normal(0, 0.01)

    runs = runs_of(accuracy, n_problems=12)
    gaps = report.differences(runs).set_index(["setting", "against learned"])
    for setting in (report.ALL, *report.SETTINGS):
        zeros, fixed = gaps.loc[(setting, "zeros")], gaps.loc[(setting, "fixed")]
        assert zeros["low"] < -5 < zeros["high"]
        assert zeros["p"] == 2 / 2**12
        n_compared = len(report.compared(setting)) - 1
        assert zeros["p (Holm)"] == pytest.approx(n_compared * zeros["p"])
        assert zeros["better / equal / worse"] == "0 / 0 / 12"
        assert abs(fixed["points"]) < 1
    assert (gaps["p (Holm)"] >= gaps["p"]).all()
    pairs = report.pairs(runs)
    assert len(pairs) == 15 + 3 * 21  # at depth 1 "attention" is "learned"
    of_zeros = (pairs[["first", "second"]] == "zeros").any(axis=1)
    assert (pairs["p (Holm)"] < 0.05)[of_zeros].all()
    assert (pairs["p (Holm)"] < 0.05)[~of_zeros].mean() < 0.05


def test_arms_that_are_equal_everywhere_do_not_differ(report):
    runs = runs_of(lambda setting, problem, arm, seed: 0.8)
    assert report.differences(runs)["p (Holm)"].eq(1).all()
    verdicts = report.expectations(runs).set_index("expectation")["verdict"]
    assert verdicts["learned about equals mean at tuned rates"] == "confirmed"
    assert verdicts["fixed about equals learned"] == "confirmed"
    assert verdicts["zeros trail at depth 1 on selection tasks only"] == "refuted"
    assert verdicts["random acts as noise"] == "refuted"
    assert verdicts["nothing wins everywhere"] == "undecided"


def test_arms_that_differ_by_chance_alone_are_not_told_apart(report):
    rng = np.random.default_rng(0)
    level = {"order": 0.1}  # deviation over seeds, much more than on the other problems

    def accuracy(setting, problem, arm, seed):
        return 0.7 + rng.normal(0, level.get(problem, 0.02))

    expectations = report.expectations(runs_of(accuracy)).set_index("expectation")
    assert expectations.loc["nothing wins everywhere", "verdict"] == "undecided"


def test_an_expectation_that_one_setting_does_not_show_is_confirmed_on_average(report):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        noise = rng.normal(0, 0.1 if setting == "default" and arm == "mean" else 0.005)
        return 0.7 + noise - 0.08 * (arm == "random" and setting != "default")

    expectations = report.expectations(runs_of(accuracy, n_seeds=20)).set_index("expectation")
    verdicts, numbers = expectations["verdict"], expectations["number"]
    assert verdicts["learned about equals mean at tuned rates"] == "confirmed on average"
    assert verdicts["fixed about equals learned"] == "confirmed"
    assert verdicts["random acts as noise"] == "confirmed on average"
    assert "depth 4 worse, default equal" in numbers["random acts as noise"]


def test_expectations_that_hold_are_confirmed(report):
    rng = np.random.default_rng(0)
    weak = dict(zip(report.ARMS, ("spread", "none", "order", *["spread"] * 4), strict=True))

    def accuracy(setting, problem, arm, seed):
        last = setting == "default" and problem == weak[arm]
        trails = setting == "linear, depth 1" and problem == "marked" and arm == "zeros"
        return 0.8 + rng.normal(0, 0.005) - 0.2 * trails - 0.06 * (arm == "random") - 0.1 * last

    expectations = report.expectations(runs_of(accuracy)).set_index("expectation")
    assert expectations["verdict"].eq("confirmed").all()
    number = expectations["number"]
    assert "5.0 to 5.0 % of predictions flip" in number["random acts as noise"]
    assert "-6." in number["random acts as noise"]
    assert "marked -20." in number["zeros trail at depth 1 on selection tasks only"]
    assert "7 of 7 arms are behind another" in number["nothing wins everywhere"]


def test_expectations_that_do_not_hold_are_refuted(report):
    rng = np.random.default_rng(0)

    def accuracy(setting, problem, arm, seed):
        return 0.7 + rng.normal(0, 0.005) + 0.05 * (arm in ("learned", "random"))

    expectations = report.expectations(runs_of(accuracy)).set_index("expectation")
    verdicts = expectations["verdict"]
    assert verdicts.drop("nothing wins everywhere").eq("refuted").all()
    assert verdicts["nothing wins everywhere"] == "undecided"  # one place cannot refute it
    assert "mean - learned = -5." in expectations["number"].iloc[0]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ((-0.5, -1.5, 0.5), "equal"),
        ((-1.5, -1.9, -1.1), "equal"),  # certain, but of no size that matters
        ((-3.0, -5.0, -1.0), "worse"),
        ((3.0, 1.0, 5.0), "better"),
        ((-3.0, -7.0, 1.0), "open"),
        ((-1.5, -2.5, -0.5), "open"),
    ],
)
def test_a_difference_matters_if_it_is_certain_and_of_two_points(report, gap, expected):
    assert report.compare(gap) == expected


def test_one_problem_is_too_few_to_say_anything(report):
    rng = np.random.default_rng(0)
    runs = runs_of(lambda *_: 0.8 + rng.normal(0, 0.01), n_problems=1)
    verdicts = report.expectations(runs).set_index("expectation")["verdict"]
    assert verdicts["learned about equals mean at tuned rates"] == "undecided"


def test_the_tables_of_the_docs_are_those_of_the_committed_rows(report, tmp_path):
    report.write_report(pd.read_csv(DOCS / "cls_value_runs.csv"), tmp_path)
    committed = {path.name: path.read_text() for path in (DOCS / "cls_value").iterdir()}
    assert committed == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_the_committed_rows_are_of_the_whole_grid(study):
    rows = pd.read_csv(DOCS / "cls_value_runs.csv")
    tests = rows[rows["stage"] == "test"]
    cells = tests.groupby(["problem", "setting", "arm"])["seed"].nunique()
    assert len(cells) == (len(study.MADE) + len(study.REAL)) * len(study.SETTINGS) * len(study.ARMS)
    assert (cells >= 5).all()
    again = rows[rows["stage"] == "again"].groupby(["problem", "setting", "arm"])["seed"]
    asked = study.keys_again(rows, n_seeds=10)
    assert again.apply(sorted).to_dict() == {
        key[1:4]: list(range(study.FRESH, study.FRESH + 10)) for key in asked
    }
    assert (rows["n_train"] <= 500).all()
