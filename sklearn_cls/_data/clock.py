"""The clock of a sequence: what the network gets from the times of its steps.

Only differences of times are used, so that a shift of all times of a sequence changes nothing. Each
difference enters in seconds and as its logarithm, because gaps of one sequence may span
microseconds to years. Each number has its rate of change as a further input, because a network has
to learn a division from many examples.

Shapes: n sequences, S steps of several sequences.
"""

import numpy as np

from sklearn_cls._data.scaler import exact_parts

CLOCK_INPUTS = (
    "time since the previous step",
    "logarithm of the time since the previous step",
    "time since the start",
    "logarithm of the time since the start",
)
RESOLUTION = 1e-6  # seconds; shorter differences have nearly the same logarithm


def clock_inputs(times, lengths):
    """Return the inputs `CLOCK_INPUTS` of all steps, float64 (S, 4), NaN where a time is missing.

    The first step has the gap of the second one, as it has no previous step. A gap begins at the
    last step before it whose time is known.

    Parameters
    ----------
    times : ndarray of datetime64 or timedelta64, (S,)
        The times of the sequences, one sequence after the other. They must not decrease.
    lengths : ndarray of int, (n,)
        Number of steps of each sequence, at least 1.
    """
    ticks, seconds_per_tick, is_known = _ticks(times)
    first = np.cumsum(lengths) - lengths  # (n,)
    first_of_step = np.repeat(first, lengths)
    previous = _previous_known(is_known)
    start = np.where(is_known, ticks, np.iinfo(np.int64).max)
    start = np.repeat(np.minimum.reduceat(start, first), lengths)  # (S,)
    gap = np.where(previous >= first_of_step, ticks - ticks[previous], 0) * seconds_per_tick
    # The gap of the first known step of a sequence.
    is_first = is_known & (previous < first_of_step)
    following = _following_known(is_known)
    has_following = following < np.repeat(first + lengths, lengths)
    following = np.minimum(following, len(ticks) - 1)
    gap = np.where(is_first & has_following, gap[following], gap)
    since_start = (ticks - start) * seconds_per_tick
    inputs = np.stack(
        [gap, np.log(gap + RESOLUTION), since_start, np.log(since_start + RESOLUTION)], 1
    )
    inputs[~is_known] = np.nan
    return inputs


def rate_of_change(values, times, lengths):
    """Return the square root, with its sign, of the rate of change of a number, float64 (S,).

    The rate at a step is the change since the last step before it whose number and time are known,
    per second. A step without such a rate, such as the first one, has the rate of the next step
    that has one. Where there is none, and where no time has passed, it is 0. The square root is
    taken because short gaps have huge rates.

    Parameters
    ----------
    values : ndarray (S,) of any real dtype
        The numbers, one sequence after the other, NaN if missing.
    times, lengths
        As those of `clock_inputs`.
    """
    ticks, seconds_per_tick, is_known = _ticks(times)
    with np.errstate(invalid="ignore"):  # of infinity, which is an error of X, not of its rate
        values, rest = exact_parts(values)
    values = values.astype(np.float64, copy=False)
    is_known = is_known & ~np.isnan(values)
    previous, end = _previous_known(is_known), np.cumsum(lengths)
    has_previous = is_known & (previous >= np.repeat(end - lengths, lengths))
    with np.errstate(over="ignore", invalid="ignore"):
        change = values - values[previous]
        if np.ndim(rest):  # of large integers
            change += rest - rest[previous]
        gap = (ticks - ticks[previous]) * seconds_per_tick
        rate = np.divide(change, gap, out=np.zeros(len(values)), where=has_previous & (gap > 0))
    rate = np.nan_to_num(rate)
    following = _following_known(has_previous)
    has_following = following < np.repeat(end, lengths)
    following = np.minimum(following, len(values) - 1)
    rate = np.where(~has_previous & has_following, rate[following], rate)
    return np.sign(rate) * np.sqrt(np.abs(rate))


def check_clock(times, lengths, name):
    """Raise ValueError if the times of a sequence decrease; `name` is what it calls the clock."""
    ticks, _, is_known = _ticks(times)
    first_of_step = np.repeat(np.cumsum(lengths) - lengths, lengths)
    previous = _previous_known(is_known)
    is_earlier = is_known & (previous >= first_of_step) & (ticks < ticks[previous])
    if is_earlier.any():
        step = int(is_earlier.argmax())
        i = int(np.searchsorted(np.cumsum(lengths), step, side="right"))
        raise ValueError(
            f"The times of X[{i}] in {name} decrease: step {step - first_of_step[step]} is at "
            f"{times[step]}, after {times[previous[step]]}. Sort the steps of each sequence."
        )


def _ticks(times):
    """Return times as int64 (S,), the seconds of one unit, and which of them are known."""
    unit, _ = np.datetime_data(times.dtype)
    if unit in ("Y", "M"):  # Their lengths differ.
        times = times.astype("datetime64[D]" if times.dtype.kind == "M" else "timedelta64[D]")
    seconds = np.ones(1, times.dtype.str.replace("M8", "m8")) / np.timedelta64(1, "s")
    return times.view(np.int64), float(seconds[0]), ~np.isnat(times)


def _previous_known(is_known):
    """Return the index of the last known time before each step, (S,), below 0 if there is none.

    It may belong to an earlier sequence.
    """
    known = np.where(is_known, np.arange(len(is_known)), -1)
    return np.concatenate([[-1], np.maximum.accumulate(known)[:-1]])


def _following_known(is_known):
    """Return the index of the first known time after each step, (S,), or S if there is none."""
    n = len(is_known)
    known = np.where(is_known, np.arange(n), n)
    return np.concatenate([np.minimum.accumulate(known[::-1])[::-1][1:], [n]])
