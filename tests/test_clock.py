import numpy as np
import pandas as pd
import pytest

from sklearn_cls._data.clock import (
    CLOCK_INPUTS,
    RESOLUTION,
    check_clock,
    clock_inputs,
    rate_of_change,
)
from sklearn_cls._data.stored_sequences import stored_sequences
from sklearn_cls._data.validation import check_sequences
from tests.helpers import small

TIMES = np.array(["2024-01-01T00:00:00", "2024-01-01T00:00:02", "2024-01-01T00:00:07"], "M8[s]")
GAP, LOG_GAP, ELAPSED, LOG_ELAPSED = range(len(CLOCK_INPUTS))


def inputs(times):
    return clock_inputs(times, np.array([len(times)]))


def test_inputs_are_gaps_and_elapsed_times_in_seconds_and_their_logarithms():
    x = inputs(TIMES)
    assert x[:, GAP].tolist() == [2, 2, 5]  # The first step has the gap of the second.
    assert x[:, ELAPSED].tolist() == [0, 2, 7]
    assert np.allclose(x[:, LOG_GAP], np.log(x[:, GAP] + RESOLUTION))
    assert np.allclose(x[:, LOG_ELAPSED], np.log(x[:, ELAPSED] + RESOLUTION))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["datetime64", "timedelta64"])
def test_the_unit_and_the_start_of_the_clock_do_not_matter(unit, kind):
    times = (TIMES - TIMES[0]).astype(f"timedelta64[{unit}]")
    if kind == "datetime64":
        times = np.datetime64("1815-12-10", unit) + times
    assert np.array_equal(inputs(times), inputs(TIMES))


@pytest.mark.parametrize(("unit", "expected"), [("D", 86400), ("h", 3600), ("Y", 366 * 86400)])
def test_coarse_units_are_converted_to_seconds(unit, expected):
    times = np.array(["1972", "1973"], "M8[Y]") if unit == "Y" else np.array([0, 1], f"M8[{unit}]")
    assert inputs(times)[1, ELAPSED] == expected


def test_sequences_are_independent():
    times = np.concatenate([TIMES, TIMES[:1], TIMES[:2] + 10])
    x = clock_inputs(times, np.array([3, 1, 2]))
    assert np.array_equal(x, np.concatenate([inputs(TIMES), inputs(TIMES[:1]), inputs(TIMES[:2])]))
    assert x[3, GAP] == 0


def test_a_missing_time_gives_missing_inputs_and_the_next_gap_begins_before_it():
    times = np.append(TIMES, TIMES[2] + np.timedelta64(3, "s"))
    times[2] = "NaT"
    x = inputs(times)
    assert np.isnan(x[2]).all()
    assert x[[0, 1, 3], GAP].tolist() == [2, 2, 8]
    times[0] = "NaT"
    assert inputs(times)[[1, 3], ELAPSED].tolist() == [0, 8]
    assert np.isnan(inputs(np.full(3, "NaT", "M8[s]"))).all()


def test_nanoseconds_to_centuries_are_told_apart():
    gaps = np.array([0, 10**3, 10**9, 10**12, 10**16, 10**18])  # nanoseconds
    x = inputs(np.cumsum(gaps).astype("timedelta64[ns]"))
    assert (np.diff(x[1:, LOG_GAP]) > 0.6).all()


def rates(values, times=TIMES, lengths=None):
    """Return the rates of change of numbers per second, without the square root."""
    lengths = np.array([len(times)] if lengths is None else lengths)
    roots = rate_of_change(np.asarray(values), times, lengths)
    return (np.sign(roots) * roots**2).round(6).tolist()


def test_the_rate_of_change_is_the_change_per_second_since_the_previous_step():
    assert rates([1.0, 5, 0]) == [2, 2, -1]  # The first step has the rate of the second.
    assert rates([1.0, 5, 0] * 2, np.tile(TIMES, 2), [3, 3]) == [2, 2, -1] * 2
    assert rates([1.0, 5, 0], np.tile(TIMES, 1), [1, 2]) == [0, -1, -1]


def test_the_rate_at_a_step_without_a_number_or_a_time_is_that_of_the_next_one_that_has_both():
    assert rates([1.0, np.nan, 8]) == [1, 1, 1]
    assert rates([np.nan, 5, 0]) == [-1, -1, -1]
    assert rates([1.0, 5, np.nan]) == [2, 2, 0]
    assert rates([np.nan, 5, np.nan]) == rates([np.nan] * 3) == [0, 0, 0]
    times = TIMES.copy()
    times[1] = "NaT"
    assert rates([1.0, 100, 8], times) == [1, 1, 1]


def test_the_rate_of_change_is_finite_and_zero_if_no_time_has_passed():
    assert rates([1.0, 2, 5], TIMES[[0, 0, 1]]) == [0, 0, 1.5]
    assert np.isfinite(rate_of_change(np.array([-1e308, 1e308, 0]), TIMES, np.array([3]))).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "int64", "uint64", "bool"])
def test_the_rate_of_change_of_numbers_of_any_dtype(dtype):
    values = np.array([1, 0, 1] if dtype == "bool" else [5, 1, 6]).astype(dtype)
    assert rates(values) == ([-0.5, -0.5, 0.2] if dtype == "bool" else [-2, -2, 1])
    if dtype.endswith("int64"):
        assert rates(values + np.array(2**60, dtype)) == [-2, -2, 1]


def test_a_clock_that_runs_backwards_is_refused_by_sequence_and_step():
    times = np.concatenate([TIMES, TIMES[[0, 2, 1]]])
    message = r"X\[1\] in feature 't' decrease: step 2 is at .*:02, after .*:07. Sort the steps"
    with pytest.raises(ValueError, match=message):
        check_clock(times, np.array([3, 3]), "feature 't'")
    check_clock(times, np.array([3, 2, 1]), "feature 't'")
    times[4] = "NaT"
    check_clock(times, np.array([3, 3]), "feature 't'")


def frames(seed):
    """Return frames in which only the gaps differ between the classes, and the classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 2
    X = [
        pd.DataFrame(
            {
                "when": pd.Timestamp("2024-05-05", tz="Europe/Berlin")
                + pd.to_timedelta(np.cumsum(rng.exponential(1 + 4 * label, 12)), unit="s"),
                "value": rng.normal(size=12),
            }
        )
        for label in y
    ]
    return X, y


def test_gaps_alone_can_decide_the_class_and_a_shift_of_the_clock_changes_nothing():
    (X, y), (X_test, y_test) = frames(0), frames(1)
    clf = small(max_epochs=30).fit(X, y)
    assert clf.score(X_test, y_test) > 0.9
    shifted = [x.assign(when=x.when + pd.Timedelta(days=1000)) for x in X_test]
    utc = [x.assign(when=x.when.dt.tz_convert("UTC")) for x in X_test]
    for form in (shifted, utc):
        assert np.array_equal(clf.predict_proba(form), clf.predict_proba(X_test))
    values = [x[["value"]] for x in X]
    assert small(max_epochs=30).fit(values, y).score([x[["value"]] for x in X_test], y_test) < 0.7


def test_each_number_has_its_rate_of_change_as_a_further_input():
    table = pd.DataFrame({"age": [63, 41], "when": [TIMES, TIMES[:2]], "x": [[1, 5, 0], [2, 2]]})
    sequences, features = check_sequences(table, "Classifier", None)
    x = np.concatenate([*sequences.steps(np.arange(2))])
    assert x.shape == (5, 2 + len(CLOCK_INPUTS) + 2)
    assert np.array_equal(x[:, -2], np.zeros(5))
    assert np.allclose(x[:, -1], [2**0.5, 2**0.5, -1, 0, 0])
    assert features.input_names[-1] == "the rate of change of feature 'x'"


@pytest.mark.parametrize("dtype", ["float32", "longdouble"])
def test_infinity_beside_a_clock_is_an_error_without_a_warning(dtype):
    x = np.array([np.inf, np.inf, 0], dtype)
    X = pd.DataFrame({"when": [TIMES, TIMES], "x": [np.zeros(3, dtype), x]})
    with pytest.raises(ValueError, match=r"X\[1\] .*infinity"):
        small().fit(X, [0, 1])


def test_rates_of_change_can_decide_the_class():
    def sample(n, rng):
        y, gaps = np.arange(n) % 2, rng.lognormal(0, 1, (n, 12))
        speed = rng.choice([-1, 1], (n, 12)) * (1 + 2 * y[:, None])
        X = {"when": list(gaps.cumsum(1) * 1e9), "x": list((speed * gaps).cumsum(1))}
        X["when"] = [t.astype("m8[ns]") for t in X["when"]]
        return pd.DataFrame(X), y

    (X, y), (X_test, y_test) = (sample(n, np.random.default_rng(n)) for n in (100, 101))
    assert small(max_epochs=30).fit(X, y).score(X_test, y_test) > 0.95


def test_sequences_in_a_temporary_file_have_the_clock_of_their_parts():
    X, _ = frames(0)
    parts = [check_sequences(X[i : i + 20], "Classifier", None)[0] for i in (0, 20, 40)]
    stored = stored_sequences(parts)
    assert stored.has_clock
    assert np.array_equal(stored.lengths, [12] * 60)
    assert np.array_equal(stored.pad(np.arange(20)), parts[0].pad(np.arange(20)))


def test_errors_name_the_column_of_the_clock():
    X, y = frames(0)
    X[7] = X[7][::-1]
    with pytest.raises(ValueError, match=r"X\[7\] in feature 'when' decrease"):
        small().fit(X, y)
    with pytest.raises(ValueError, match=r"feature 'when' and feature 'then', .* one clock"):
        small().fit([x.assign(then=x.when) for x in frames(0)[0]], y)


def test_gaps_of_seconds_and_of_years_need_no_warning():
    gaps = [[1, 2, 1], [2, 1, 2], [1, 3, 1], [10**9, 10**8, 10**9]] * 5
    start = np.datetime64("1970-01-01", "s")
    X = pd.DataFrame({"x": [[1.0, 2.0, 4.0]] * 20, "t": [start + np.cumsum(g) for g in gaps]})
    assert small(max_epochs=1).fit(X, [0, 1] * 10).predict(X).shape == (20,)
