import time

import numpy as np
import pandas as pd
import pytest

from tests.helpers import benchmark, small

bench_accuracy = benchmark("bench_accuracy")
bench_clock = benchmark("bench_clock")
bench_codes = benchmark("bench_codes")
bench_from_long = benchmark("bench_from_long")
bench_growth = benchmark("bench_growth")
bench_large_batches = benchmark("bench_large_batches")
bench_speed = benchmark("bench_speed")
cluster_model = benchmark("cluster_model")


@pytest.fixture
def folder(tmp_path):
    """Write two small classification problems, one of them with test data."""
    rng = np.random.default_rng(0)

    def write(name, n):
        lines = [
            f"{','.join(f'{v:.2f}' for v in rng.normal(4 * (i % 2), 1, 6 + i % 3))}:{'ab'[i % 2]}"
            for i in range(n)
        ]
        (tmp_path / name).write_text("@classLabel true a b\n@data\n" + "\n".join(lines))

    write("One_TRAIN.ts", 12)
    write("One_TEST.ts", 8)
    write("Two_TRAIN.ts", 12)
    return tmp_path


METHODS = ["max_epochs=8,lr=0.01,d_model=16,n_heads=1", "max_epochs=1,lr=1e-9,d_model=16"]


def test_accuracy_is_cross_validated_and_methods_are_compared(bench_accuracy, folder):
    out = folder / "rows.csv"
    command = f"--data {folder} --seeds 2 --folds 2 --out {out} --tables {folder / 'table'}"
    bench_accuracy.main([*command.split(), "--methods", *METHODS])
    rows = pd.read_csv(out)
    assert len(rows) == 2 * 2 * 2 * 2  # problems, seeds, folds, methods
    assert set(rows["problem"]) == {"One", "Two"}
    problems = pd.read_csv(folder / "table_problems.csv").set_index("problem")
    assert problems.loc["mean", METHODS[0]] == pytest.approx(
        rows.query("method == @METHODS[0]")["accuracy"].mean(), abs=1e-4
    )
    methods = pd.read_csv(folder / "table_methods.csv").set_index("method")
    assert methods.loc[METHODS[0], "accuracy"] > methods.loc[METHODS[1], "accuracy"]
    assert methods.loc[METHODS[0], "wins"] == 2


def test_results_in_the_csv_are_not_measured_again(bench_accuracy, folder, monkeypatch):
    command = f"--data {folder} --problems One --folds 1 --out {folder / 'rows.csv'} --methods"
    bench_accuracy.main([*command.split(), METHODS[1]])
    monkeypatch.setattr(bench_accuracy, "measure", None)
    bench_accuracy.main([*command.split(), METHODS[1]])
    assert len(pd.read_csv(folder / "rows.csv")) == 1


def test_the_test_protocol_scores_on_the_test_data(bench_accuracy, folder):
    _, X_train, y_train, X_test, y_test = next(
        bench_accuracy.splits("One", folder, "test", seed=0, folds=5)
    )
    assert (len(X_train), len(y_train), len(X_test), len(y_test)) == (12, 12, 8, 8)


def test_cross_validation_never_reads_the_test_data(bench_accuracy, folder):
    (folder / "One_TEST.ts").unlink()
    folds = list(bench_accuracy.splits("One", folder, "cv", seed=0, folds=5))
    assert sum(len(fold[4]) for fold in folds) == 12


def test_rectangular_interpolates_missing_values_and_resamples_to_equal_lengths(bench_accuracy):
    class Keep:
        def fit(self, X, y):
            self.X = X

    X = [np.array([[0.0], [np.nan], [2.0]]), np.arange(17.0)[:, None]]
    keep = Keep()
    bench_accuracy.Rectangular(keep).fit(X, [0, 1])
    assert keep.X.shape == (2, 1, 17)
    np.testing.assert_allclose(keep.X[0, 0], np.linspace(0, 2, 17))
    np.testing.assert_allclose(keep.X[1, 0], np.arange(17))


def test_a_budget_is_a_fraction_of_the_default_epochs(bench_accuracy):
    whole, half = (
        bench_accuracy.classifier(f"budget={budget}", 100, 0, 1).max_epochs for budget in (1, 0.5)
    )
    assert whole > 10
    assert half == pytest.approx(whole / 2, abs=1)


def test_the_speed_benchmark_prints_and_writes_one_row_per_comparison(
    bench_speed, tmp_path, monkeypatch, capsys
):
    def run(script):
        time.sleep(0.02 if "sklearn_cls" in script else 0.06)

    monkeypatch.setattr(bench_speed, "run", run)
    options = ["--rounds", "1", "--lines", "imports", "--out", str(tmp_path / "speed.csv")]
    monkeypatch.setattr("sys.argv", ["bench_speed.py", *options])
    bench_speed.main()
    out = capsys.readouterr().out
    assert "torch" in out.splitlines()[0]
    assert "ratio" in out
    (row,) = pd.read_csv(tmp_path / "speed.csv").to_dict("records")
    assert row["ratio"] == pytest.approx(3, rel=0.5)
    assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"], rel=0.5)


def test_only_half_of_the_sequences_have_the_motif_and_no_count_of_codes_tells_which(bench_codes):
    rng = np.random.default_rng(0)
    for n_codes in (4, 8, 20):
        X, y = bench_codes.make_motif(n_codes, 100, rng)
        codes = bench_codes.AMINO_ACIDS[:n_codes]
        motif = "".join(codes[i] for i in (0, 2, 1, 3, 1))
        assert [motif in x for x in X] == y.astype(bool).tolist()
        assert {len(x) for x in X} == {60}
        assert set("".join(X)) == set(codes)
        assert any(sorted(motif) == sorted(X[0][i : i + 5]) for i in range(56))


@pytest.mark.parametrize("kind", ["uniform", "zipf"])
def test_one_event_tells_the_classes_apart(bench_codes, kind):
    X, y = bench_codes.make_event(kind, 100, np.random.default_rng(0))
    assert X.shape == (100, 30)
    assert ((X == "event 5000").sum(1) == y).all()
    n_distinct = len(np.unique(X))
    assert n_distinct > 2000 if kind == "uniform" else n_distinct < 1500


def test_the_benchmark_of_codes_measures_the_problems_that_its_table_lacks(
    bench_codes, tmp_path, monkeypatch
):
    command = ["--problems", "motif-4", "--out", str(tmp_path / "codes.csv")]
    monkeypatch.setattr(bench_codes, "N_TRAIN", 20)
    monkeypatch.setattr(bench_codes, "N_TEST", 10)
    monkeypatch.setattr(bench_codes, "CLSTransformerClassifier", small)
    bench_codes.main(command)
    monkeypatch.setattr(bench_codes, "measure", None)
    bench_codes.main(command)
    (row,) = pd.read_csv(tmp_path / "codes.csv").to_dict("records")
    assert (row["problem"], row["n_train"], row["splits"]) == ("motif-4", 20, 1)
    assert 0 <= min(row["default"], row["regression"])


def test_the_rule_for_large_batches_changes_nothing_for_batches_of_128(bench_large_batches):
    rule_params = bench_large_batches.rule_params
    lr = bench_large_batches.LR
    assert rule_params("default", 128) == rule_params("unchanged", 128) == (lr, 0.999, 0.1)
    assert rule_params("default", 512) == pytest.approx((2 * lr, 0.996, 0.2))
    assert rule_params("default", 2048) == pytest.approx((4 * lr, 0.984, 0.3))
    assert rule_params("linear", 2048) == pytest.approx((16 * lr, 0.999, 0.1))


def test_the_callback_of_the_rules_sets_the_optimizer_and_its_schedule(bench_large_batches):
    X, y = bench_large_batches.make_order(48, np.random.default_rng(0))
    params = {"max_epochs": 2, "batch_size": 12, "lr": 0.01}

    def fit(**kwargs):
        return small(**params, **kwargs).fit(X, y).predict_proba(X)

    same = fit(callbacks=[bench_large_batches.Optimizer(0.999, 0.1)])
    np.testing.assert_array_equal(same, fit())
    assert (fit(callbacks=[bench_large_batches.Optimizer(0.9, 0.1)]) != same).any()
    assert (fit(callbacks=[bench_large_batches.Optimizer(0.999, 0.5)]) != same).any()


@pytest.mark.parametrize("make", ["make_order", "make_waves"])
def test_the_problems_for_large_batches_have_balanced_classes(bench_large_batches, make):
    X, y = getattr(bench_large_batches, make)(120, np.random.default_rng(0))
    assert len(X) == 120
    assert len(set(np.bincount(y))) == 1
    assert len({len(x) for x in X}) == 1 if make == "make_waves" else min(map(len, X)) >= 14


def test_the_benchmark_of_large_batches_measures_the_fits_that_its_table_lacks(
    bench_large_batches, tmp_path, monkeypatch
):
    command = ["--problems", "order", "--seeds", "0", "1", "--table", str(tmp_path / "table.csv")]
    command += ["--out", str(tmp_path / "rows.csv")]
    monkeypatch.setattr(bench_large_batches, "MAX_TRAIN", 24)
    monkeypatch.setattr(bench_large_batches, "N_TEST", 12)
    monkeypatch.setattr(bench_large_batches, "FITS", {"order": ((24, 8, 1), (24, 24, 2))})
    bench_large_batches.load.cache_clear()
    bench_large_batches.main(command)
    bench_large_batches.load.cache_clear()
    monkeypatch.setattr(bench_large_batches, "measure", None)
    bench_large_batches.main(command)
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 2 * 2 + 4
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["updates"].tolist() == [3, 2, 2, 2, 2, 2]
    assert table["seeds"].tolist() == [2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_the_benchmark_of_long_tables_measures_each_library(bench_from_long, library):
    for kind in bench_from_long.TABLES:
        row = bench_from_long.measure(library, kind, 5000)
        assert row["seconds"] > 0
        assert row["table_MB"] > 0.2
        table = bench_from_long.convert(bench_from_long.long_table(kind, 3000), library)
        assert bench_from_long.from_long(table, id="id", time="time").data.shape[0] == 3


def test_the_growth_benchmark_has_data_of_each_size(bench_growth):
    for axis, (size, *_) in bench_growth.SIZES.items():
        X, y = bench_growth.data(axis, size)
        sizes = {
            "sequences": len(X), "sequences in a list": len(X), "steps": len(X[0]),
            "steps of 2 sequences": len(X[0]), "features": X[0].shape[-1],
            "classes": len(set(y)), "longest sequence": max(map(len, X)),
        }  # fmt: skip
        assert sizes[axis] == size
        assert isinstance(X, list) == (axis in ("sequences in a list", "longest sequence"))


@pytest.mark.slow
def test_the_growth_benchmark_measures_seconds_and_memory(bench_growth, monkeypatch):
    monkeypatch.setitem(bench_growth.SIZES, "sequences", [64, 256])
    first, second = bench_growth.measure_axis("sequences", rounds=1, n_threads=1)
    assert (first["size"], second["size"]) == (64, 256)
    ratio = second["fit_s"] / first["fit_s"]
    assert second["fit_exponent"] == pytest.approx(np.log(ratio) / np.log(4))
    assert first["predict_s"] > 0
    assert second["fit_MB"] > 0


def test_the_benchmark_of_clocks_has_a_time_for_each_number(bench_clock):
    for gaps in bench_clock.GAPS.values():
        X, y = bench_clock.gap_problem(gaps, 50, np.random.default_rng(0))
        assert set(y) == {0, 1}
        for times, values in zip(X["time"], X["value"], strict=True):
            assert times.shape == values.shape == (bench_clock.N_STEPS,)
            assert (np.diff(times) > np.timedelta64(0)).all()


def test_pendulums_are_observed_about_thirty_times_with_a_tenth_missing(bench_clock):
    X, y = bench_clock.pendulum(500, np.random.default_rng(0))
    assert set(y) == set(range(10))
    assert abs(X["time"].map(len).mean() - bench_clock.HAWKES_MEAN) < 3
    x, z = (np.concatenate(list(X[name])) for name in ("x", "y"))
    assert abs(np.isnan(x).mean() - bench_clock.MISSING_FRACTION) < 0.02
    is_known = ~np.isnan(x + z)
    assert np.allclose((x**2 + z**2)[is_known], 1)


def test_damping_slows_pendulums_down(bench_clock):
    damping = np.repeat([1.0, 3.0], 100)
    angles = bench_clock.pendulum_angles(damping, np.random.default_rng(0))
    speed = np.abs(np.diff(angles[-50:], axis=0)).mean(0)
    assert speed[100:].mean() < speed[:100].mean() / 2


def test_the_model_of_clusters_is_exact_where_the_result_is_known(cluster_model, monkeypatch):
    ring = cluster_model.LINKS["10 Gbit/s Ethernet"]
    monkeypatch.setitem(cluster_model.LINKS, "ring", (8e6, 0.0, ring[2]))
    # Two workers exchange each of 4 MB once, in half a second.
    assert cluster_model.seconds_of_sums(1, 2, "ring") == pytest.approx(0.5)
    assert cluster_model.seconds_of_sums(1, 2, "ring", n_bytes=2) == pytest.approx(0.25)
    assert cluster_model.seconds_of_sums(1, 2, "ring", hidden=0.4) == pytest.approx(0.1)
    monkeypatch.setitem(cluster_model.LINKS, "ring", (np.inf, 0.5, ring[2]))
    # Each of 8 workers has 7 neighbors after it, twice; 4 sums of batch norm have 3 steps, twice.
    assert cluster_model.seconds_of_sums(1, 8, "ring") == pytest.approx(0.5 * (2 * 7 + 4 * 2 * 3))
    rng = np.random.default_rng(0)
    monkeypatch.setattr(cluster_model, "LOSSES_PER_HOUR", 1e-9)
    writes = cluster_model.HOURS * cluster_model.WRITE / 3600
    assert cluster_model.simulated_hours(60, rng) == pytest.approx(cluster_model.HOURS + writes)
    monkeypatch.setattr(cluster_model, "LOSSES_PER_HOUR", 1.0)
    hours = [np.mean([cluster_model.simulated_hours(i, rng) for _ in range(300)]) for i in (5, 60)]
    assert 1.05 < hours[0] / cluster_model.HOURS < 1.1
    # A period without a loss takes about exp(1) - 1 of its length on average.
    assert hours[1] / cluster_model.HOURS == pytest.approx(np.e - 1, rel=0.1)
