"""Random input: each call works and is consistent, or raises an error that names the argument.

By default, the same 200 examples are drawn each time; FUZZ_EXAMPLES=2000 draws 2000 new ones.
"""

import copy
import os
import random
import re
import tempfile
import threading
import warnings
from datetime import timedelta
from fractions import Fraction
from pickle import PicklingError

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.utils._param_validation import InvalidParameterError
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._training.divergence import DivergenceError
from tests.helpers import bumps

N_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 200))
fuzz = settings(
    max_examples=N_EXAMPLES // 2,  # Each of the two tests draws half of them.
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    deadline=timedelta(seconds=20),  # Examples take about 0.1 s; one that takes this long hangs.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# When Hypothesis prints a data frame of huge values, pandas issues a RuntimeWarning. Warnings of
# the library are checked in `call`.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:pandas")

TINY = {"d_model": 8, "n_heads": 2, "dim_feedforward": 8, "depth": 1, "max_epochs": 1}
WARNINGS = re.compile(
    "A column-vector y was passed|X does not have valid feature names|X has feature names, but"
    "|The number of unique classes is greater than 50%|X varies (by rounding only )?in feature"
    "|X has another unit or offset|X may be impossible to learn from with standardize=False"
    # NumPy gives these for huge sample weights and labels, before they are rejected.
    "|overflow encountered in multiply|invalid value encountered in (divide|cast|reduce)"
)
ERRORS = (ValueError, TypeError, InvalidParameterError, DivergenceError)
MAX_INPUT = float(np.finfo(np.float32).max)
NAN, INF = np.nan, np.inf


# Values of X.

DTYPES = [
    np.float32, np.float64, np.float16, np.longdouble, np.int8, np.int64, np.uint64, np.bool_,
]  # fmt: skip


@st.composite
def arrays(draw, shape, is_invalid):
    """Draw an array (n, T, F) of any real dtype, with missing values, and invalid ones if asked.

    Valid values can be converted to float32 and back, because some forms of X do so.
    """
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    bounds = {}
    if dtype.kind == "f":
        largest = min(MAX_INPUT, float(np.finfo(dtype).max))
        bounds = {"min_value": -largest, "max_value": largest}
    elif dtype.itemsize == 8:
        bounds = {"min_value": -(2**62) if dtype.kind == "i" else 0, "max_value": 2**62}
    if draw(st.booleans()):
        X = draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **bounds)))
    else:  # Typical data have an offset, a scale and no equal values.
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        X = rng.normal(draw(st.sampled_from([0, 9])), size=shape)
        if dtype.kind == "f" and dtype.itemsize > 2:
            X *= draw(st.sampled_from([1, 1e-45, 1e-3, 1e4, 1e37]))
        X = (X if dtype.kind == "f" else np.abs(X)).astype(dtype)
    X = X.astype(np.float32).astype(dtype)
    if dtype.kind != "f" or not X.size:
        return X
    n, n_steps, _ = shape
    match draw(st.sampled_from(["", "constant", "gaps", "padding", "feature"])):
        case "constant":
            X[:] = X[0, 0, 0]
        case "gaps":
            is_gap = draw(hnp.arrays(bool, shape))
            is_gap[:, -1, -1] = False
            X[is_gap] = NAN
        case "padding":
            for x in X:
                x[draw(st.integers(1, n_steps)) :] = NAN
        case "feature" if shape[2] > 1:
            X[:, :, 0] = NAN
    if is_invalid:
        i = draw(st.integers(0, n - 1))
        where, value = draw(
            st.sampled_from([
                ((i, -1, -1), INF), ((i, 0, 0), -INF), (i, NAN), (slice(None), NAN),
                (i, 1e308), ((i, 0, 0), 1.01 * MAX_INPUT),
            ])
        )  # fmt: skip
        with np.errstate(over="ignore"):
            X[where] = value
    return X


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def on_disk(X):
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, X.dtype, "w+", shape=X.shape)
    mapped[:] = X
    return mapped


def objects(sequences):
    X = np.empty(len(sequences), dtype=object)
    X[:] = sequences
    return X


ARRAYS = {
    "array": lambda X: X,
    "Fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "backwards": lambda X: X[::-1].copy()[::-1],
    "read-only": read_only,
    "swapped": lambda X: X.astype(X.dtype.newbyteorder()),
    "on disk": on_disk,
    "objects": lambda X: X.astype(object),
    "nested": lambda X: X.tolist(),
    "masked": np.ma.MaskedArray,
    "tensor": lambda X: torch.tensor(X.astype(np.float32)),
}
ARRAYS_2D = ARRAYS | {
    "pandas": lambda X: pd.DataFrame(X).add_prefix("t"),
    "numbered": pd.DataFrame,
    "nullable": lambda X: pd.DataFrame(X.astype(np.float32)).astype("Float32"),
    "polars": lambda X: pl.DataFrame(X.astype(np.float32), [f"t{i}" for i in range(X.shape[1])]),
}
LISTS = {
    "list": list,
    "tuple": tuple,
    "array of arrays": objects,
    "series of arrays": lambda X: pd.Series(list(X), index=range(7, 7 + len(X))),
    "lists of lists": lambda X: [x.tolist() for x in X],
    "frames": lambda X: [pd.DataFrame(x) for x in X],
    "memory maps": lambda X: [on_disk(x) for x in X],
    "tensors": lambda X: [torch.tensor(x.astype(np.float32)) for x in X],
    "mixed": lambda X: [X[0].tolist(), *X[1:]],
}
FORMS = {  # functions of an array (n, T, F) or a list of arrays (T_i, F)
    **{("3-D", name): form for name, form in ARRAYS.items()},
    **{("2-D", name): lambda X, form=form: form(X[:, :, 0]) for name, form in ARRAYS_2D.items()},
    **{("list", name): form for name, form in LISTS.items()},
    **{
        ("univariate", name): lambda X, form=form: form([x[:, 0] for x in X])
        for name, form in LISTS.items()
    },
}


@st.composite
def sequences(draw, sizes, *, is_invalid=False, n_features=None):
    """Draw X in any form, and the same sequences as a list of float32 arrays (T_i, F)."""
    kind, form = draw(st.sampled_from(sorted(FORMS)))
    event(f"{kind}: {form}")
    n_features = 1 if kind in ("2-D", "univariate") else n_features or draw(st.integers(1, 3))
    shape = [draw(sizes), draw(st.integers(1, 6)), n_features]
    if is_invalid and draw(st.booleans()) and form not in ("on disk", "memory maps", "mixed"):
        shape[draw(st.integers(0, 2 if kind in ("3-D", "list") else 1))] = 0
    X = draw(arrays(tuple(shape), is_invalid))
    if kind in ("list", "univariate"):
        X = [x[: draw(st.integers(1, max(1, len(x))))] for x in X]
        if not is_invalid:  # Shortening may have removed all values.
            X = [x if np.isfinite(x).any() else np.ones_like(x) for x in X]
    with np.errstate(over="ignore"):
        return FORMS[kind, form](X), [np.asarray(x, dtype=np.float32) for x in X]


def no_array():
    class NoArray:
        def __array__(self, *args, **kwargs):
            raise RuntimeError("not now")

    return NoArray()


UNUSUAL_X = [  # mostly invalid; functions, so that examples share no object
    lambda: None, lambda: "x", lambda: b"x", lambda: 3.0, lambda: True, lambda: object(),
    lambda: {}, lambda: {"a": [1, 2]}, lambda: {1, 2}, lambda: iter([[1.0], [2.0]]),
    lambda: range(4), lambda: [], lambda: (), lambda: [[]], lambda: [[], []], lambda: [[[]]],
    lambda: [None] * 4, lambda: [1.0, [2.0]] * 2, lambda: [[1.0], [[2.0]]] * 2,
    lambda: [np.ones((2, 2)), "x"] * 2, lambda: [np.ones((2, 2)), None] * 2,
    lambda: [np.ones((2, 2)), 3.0] * 2, lambda: [np.ones((2, 2)), np.ones((2, 3))] * 2,
    lambda: [np.ones((2, 2)), np.ones(2)] * 2, lambda: [np.ones((2, 2, 2))] * 4,
    lambda: [np.array(1.0)] * 4, lambda: [{"a": 1}] * 4, lambda: [{1, 2}] * 4,
    lambda: ["abc", "de"] * 2, lambda: [["1", "2"], ["3", "4"]] * 2, lambda: [b"ab", b"c"] * 2,
    lambda: [[10**400, 1.0]] * 4, lambda: [[10**400], [1.0, 2.0]] * 2, lambda: [[1j, 2.0]] * 4,
    lambda: np.ones(4), lambda: np.ones((4, 2, 2, 2)), lambda: np.array(1.0),
    lambda: np.ones((4, 2), complex), lambda: np.full((4, 2), "a"), lambda: np.full((4, 2), b"a"),
    lambda: np.zeros((4, 2, 1), "datetime64[s]"), lambda: np.zeros((4, 2), "timedelta64[s]"),
    lambda: np.zeros((4, 2), [("a", float)]), lambda: np.zeros(4, "V8"),
    lambda: np.full((4, 2), None), lambda: np.full((4, 2), "1.5", dtype=object),
    lambda: np.full((4, 2, 1), 10**400, dtype=object), lambda: np.full((4, 2), object()),
    lambda: np.full((4, 2), 1j, dtype=object), lambda: np.full((4, 2), pd.NA),
    lambda: np.array(["a", 1, None, 2.0], dtype=object), lambda: objects([[1.0], None, "x", 2]),
    lambda: objects([1.0, np.ones(1)] * 2),
    lambda: sp.csr_array(np.eye(4)), lambda: sp.csr_matrix(np.eye(4)),
    lambda: sp.coo_array(np.ones(4)), lambda: [sp.csr_array(np.eye(2))] * 4,
    lambda: pd.Series(np.ones(4)), lambda: pd.Series(["a"] * 4), lambda: pd.DataFrame(),
    lambda: pd.DataFrame({"a": list("abcd")}), lambda: pd.DataFrame({"a": [1j] * 4}),
    lambda: pd.DataFrame({"a": pd.to_datetime(["2020"] * 4)}),
    lambda: pd.DataFrame({"a": pd.Categorical(list("abab"))}),
    lambda: pd.DataFrame({"a": [1.0] * 4, 2: [1.0] * 4}), lambda: pd.DataFrame({"a": [None] * 4}),
    lambda: pd.DataFrame({"a": [[1.0]] * 4}), lambda: [pd.DataFrame({"a": ["b"]})] * 4,
    lambda: pl.DataFrame({"a": list("abcd")}), lambda: pl.Series([[1.0], [2.0, 3.0]] * 2),
    lambda: torch.ones(4, 2, requires_grad=True), lambda: [torch.ones(2, requires_grad=True)] * 4,
    lambda: torch.ones(4, 2, dtype=torch.bfloat16), lambda: torch.ones(4, 2, dtype=torch.cfloat),
    lambda: torch.ones(4, 2, device="meta"), lambda: torch.eye(4).to_sparse(),
    lambda: np.ma.masked_equal(np.eye(4), 1), lambda: np.array([[NAN, 1e308]] * 4), no_array,
    lambda: [no_array()] * 4, lambda: np.ones, lambda: np.float64, lambda: Fraction(1, 2),
]  # fmt: skip
unusual_X = st.sampled_from(UNUSUAL_X).map(lambda make: make())


# Values of y and sample_weight.

LABELS = [
    np.array([0, 1, 2]), np.array([-7, 3, 10**12]), np.array(["a", "b", "c"]),
    np.array(["", " ", "\u00e9"]), np.array([False, True, True]), np.array([-1.0, 0.0, 5.0]),
    np.array([1, 2, 255], np.uint8), np.array([0, 1, 2**40], np.uint64),
    np.array([0, 1, 2], np.float32), np.array(["a", "b", "c"], dtype=object),
    np.array([0, 1, 2], np.int8), np.array([0, 1, 2], ">i8"),
]  # fmt: skip
COLUMNS = [
    lambda y: y, list, tuple, lambda y: y.tolist(), pd.Series, lambda y: y[:, np.newaxis],
    lambda y: pd.Series(y, index=range(9, 9 + len(y))), read_only, pd.Index,
    lambda y: pd.Series(y.tolist()).astype("category"),
    lambda y: np.repeat(y, 2)[::2], lambda y: pd.DataFrame({"y": y}),
    lambda y: pl.Series(y.tolist()),
]  # fmt: skip
UNUSUAL_Y = [  # mostly invalid; functions of the number of sequences
    lambda n: None, lambda n: "x" * n, lambda n: 1, lambda n: {}, lambda n: dict.fromkeys(range(n)),
    lambda n: set(range(n)), lambda n: iter(range(n)), lambda n: [], lambda n: object(),
    lambda n: [0, 1] * n, lambda n: [0, 1], lambda n: np.zeros(n), lambda n: np.eye(n),
    lambda n: np.arange(n) / n, lambda n: [NAN, *range(1, n)], lambda n: [INF, *range(1, n)],
    lambda n: [None, *range(1, n)], lambda n: [None] * n, lambda n: ["a", *range(1, n)],
    lambda n: [None, *"b" * (n - 1)], lambda n: [NAN, *"b" * (n - 1)], lambda n: [b"a", b"b"] * n,
    lambda n: np.array([b"a", b"b"] * n)[:n], lambda n: np.arange(n) * 1j,
    lambda n: np.arange(n).astype("datetime64[s]"), lambda n: np.arange(n).astype("m8[s]"),
    lambda n: [[0], [0, 1]] * n, lambda n: [(0, 1), (1, 2)] * n, lambda n: [object()] * n,
    lambda n: np.arange(n).astype(object), lambda n: [10**30, *range(1, n)],
    lambda n: [10**400, *range(1, n)],
    lambda n: np.ma.masked_equal(np.arange(n) % 3, 1), lambda n: sp.csr_array(np.eye(n)),
    lambda n: pd.DataFrame({"a": range(n), "b": range(n)}), lambda n: pd.Series([pd.NA] * n),
    lambda n: pd.Series([pd.NA, *range(1, n)], dtype="Int64"), lambda n: pd.Series([pd.NaT] * n),
    lambda n: pd.Categorical([None, *"ab" * n][:n]), lambda n: np.zeros((n, 2), int),
    lambda n: np.zeros((n, 1, 1)), lambda n: torch.arange(n), lambda n: torch.ones(n).cfloat(),
    lambda n: torch.ones(n, requires_grad=True), lambda n: [{1}, {2}] * n, lambda n: no_array(),
    lambda n: np.zeros(n, [("a", int)]), lambda n: pl.Series(["a", None] * n)[:n],
    lambda n: np.array([1e308, -1e308] * n)[:n], lambda n: [Fraction(1, i + 1) for i in range(n)],
]  # fmt: skip
UNUSUAL_WEIGHT = [
    lambda n: np.zeros(n), lambda n: -np.ones(n), lambda n: [NAN] + [1.0] * (n - 1),
    lambda n: [INF] + [1.0] * (n - 1), lambda n: np.ones(n + 1), lambda n: np.ones((n, 1)),
    lambda n: np.ones((n, n)), lambda n: ["a"] * n, lambda n: "a", lambda n: [], lambda n: {},
    lambda n: [None] * n, lambda n: 2.0, lambda n: -1, lambda n: NAN, lambda n: True,
    lambda n: object(), lambda n: [1] + [0] * (n - 1), lambda n: np.full(n, 1e308),
    lambda n: np.full(n, 5e-324), lambda n: [1e-308, 1e308] * n, lambda n: np.ones(n) * 1j,
    lambda n: [1e-300] * (n - 1) + [1e300], lambda n: [10**400] * n, lambda n: np.array(1.0),
    lambda n: iter(range(n)), lambda n: sp.csr_array(np.eye(n)), lambda n: [[1], [1, 2]] * n,
    lambda n: np.ones(n, "datetime64[s]"), lambda n: pd.Series([pd.NA] * n), lambda n: no_array(),
    lambda n: np.full(n, "1"), lambda n: [1e-30] + [1.0] * (n - 1), lambda n: torch.ones(n),
]  # fmt: skip


@st.composite
def targets(draw, n):
    """Draw y and the sample weights of n sequences."""
    codes = [0, 1, 0, 1, *draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))][:n]
    y = draw(st.sampled_from(LABELS))[codes]
    weight = [1.0, 2.0, *draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))][:n]
    as_weight = draw(st.sampled_from([lambda w: None, list, np.array, np.float32, pd.Series]))
    return draw(st.sampled_from(COLUMNS))(y), as_weight(weight)


# Values of parameters: those of small networks, and invalid ones.

fraction = st.floats(0, 0.99)
PARAMETERS = {
    "cls_strategy": st.sampled_from(["learned", "zeros", "fixed", "random"]),
    "pooling": st.sampled_from(["cls", "mean", "max", "attention"]),
    "depth": st.sampled_from([1, 2, np.int64(1), True]),
    "d_model": st.sampled_from([4, 8, np.int32(16)]),
    "n_heads": st.sampled_from([1, 2, np.uint8(2)]),
    "dim_feedforward": st.integers(1, 9),
    "dropout": fraction | st.sampled_from([0, np.float32(0.3)]),
    "embedding": st.sampled_from(["linear", "conv"]),
    "patch_size": st.integers(1, 9) | st.just("auto"),
    "positions": st.sampled_from(["sinusoidal", "learned", "rope", None]),
    "standardize": st.booleans(),
    "max_epochs": st.integers(1, 2),
    "batch_size": st.sampled_from([1, 2, 3, 2**40, np.int16(5), "auto"]),
    "lr": st.floats(1e-5, 1e-1) | st.sampled_from(["auto", np.float16(1e-3)]),
    "weight_decay": st.floats(0, 1),
    "label_smoothing": fraction,
    "augment": st.booleans(),
    "class_weight": st.sampled_from([None, {}, "balanced"]),
    "early_stopping": st.booleans(),
    "validation_fraction": st.floats(0.01, 0.5),
    "n_iter_no_change": st.sampled_from([1, 10**9]),
    "warm_start": st.booleans(),
    "device": st.sampled_from(["auto", "cpu", torch.device("cpu")]),
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "n_jobs": st.sampled_from([None, 1, 1, np.int64(1), 2, -99]),
    "callbacks": st.sampled_from([None, [], (), [Callback], [("a", Callback())]]),
    "random_state": st.sampled_from([None, 0, 2**32 - 1]) | st.builds(np.random.RandomState),
    "verbose": st.sampled_from([0, False, 1]),
}
UNUSUAL_VALUES = [
    None, -1, 0, 1.5, NAN, INF, -INF, 1e4, 1e5, 1e10, 1e30, 1e300, 5e-324, 1 - 1e-16, "x", "",
    b"cpu", "auto", [], {}, (), {0: NAN}, {"x": 1}, {0: 0}, [None], ["x"], [np.float64], object(),
    np.float64, True, False, np.True_, 1j, np.uint8(3), np.array(2), range(3),
    np.array([1, 2]), np.array([]), [(1, 2)], [("a", Callback())] * 2, "cuda:99", "cpu:7", "meta",
    pd.NA, np.float64(0.3), np.str_("cpu"), torch.tensor(1),
]  # fmt: skip
TOO_SLOW = {"max_epochs": "auto"}


@st.composite
def fits(draw):
    """Draw the arguments of a fit, of which at most one may be invalid, and the name of that one.

    Returns parameters, X, its sequences as a list, y, sample weights, classes and the name.
    """
    unusual = draw(st.sampled_from([None] * 8 + ["X", "y", "sample_weight", "classes", "params"]))
    X, as_list = draw(sequences(st.integers(4, 8), is_invalid=unusual == "X"))
    if unusual == "X" and draw(st.booleans()):
        X, as_list = draw(unusual_X), [None] * 4
    n = len(as_list)
    y, weight = draw(targets(n))
    if unusual == "y":
        y = draw(st.sampled_from(UNUSUAL_Y))(n)
    elif unusual == "sample_weight":
        weight = draw(st.sampled_from(UNUSUAL_WEIGHT))(n)
    names = draw(st.sets(st.sampled_from(sorted(PARAMETERS)), max_size=6))
    params = {name: draw(PARAMETERS[name]) for name in sorted(names)}
    if unusual == "params":
        unusual = draw(st.sampled_from(sorted(PARAMETERS)))
        value = draw(st.sampled_from(UNUSUAL_VALUES))
        assume(TOO_SLOW.get(unusual, object()) is not value)
        params[unusual] = value
    classes = draw(st.sampled_from(UNUSUAL_Y))(n) if unusual == "classes" else None
    return params, X, as_list, y, weight, classes, unusual


# Checks of each call.


def fingerprint(thing):
    """Return a hash of an argument, or its representation if it cannot be pickled."""
    if isinstance(thing, np.ma.MaskedArray):
        thing = (thing.data, thing.mask)
    elif isinstance(thing, pd.DataFrame | pd.Series):  # Reading them changes their pickle.
        frame = pd.DataFrame(thing)
        thing = (list(frame), list(frame.index), list(map(str, frame.dtypes)), frame.to_numpy())
    try:
        return joblib.hash(thing)
    except (PicklingError, TypeError, RuntimeError, NotImplementedError):
        return repr(thing)


def state(estimator, arguments):
    """Return everything that a call must leave unchanged, whether it works or raises."""
    params = estimator.get_params(deep=False)
    for name in ("random_state", "callbacks"):  # A fit may change their state.
        params[name] = id(params[name])
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    # The progress bar of tqdm leaves a thread running.
    threads = threading.enumerate() if str(estimator.verbose) in ("0", "False") else []
    return {
        "arguments": [fingerprint(thing) for thing in arguments],
        "parameters": (
            fingerprint(params),
            {name: id(value) for name, value in vars(estimator).items() if name in params},
        ),
        "seeds": (random.getstate(), numpy_state[1].tobytes(), torch_state.numpy().tobytes()),
        "threads": (torch.get_num_threads(), threads),
        "modes": (torch.is_grad_enabled(), torch.get_default_dtype(), np.geterr()),
    }


def call(estimator, method, *arguments, may_name=("X",)):
    """Return the result of a method, or None if it raises an error that names one of `may_name`."""
    before, attributes, result = state(estimator, arguments), dict(vars(estimator)), None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = getattr(estimator, method)(*arguments)
        except (ValueError, TypeError) as error:
            is_named = any(re.search(rf"\b{name}\b", str(error)) for name in may_name)
            if not is_named or type(error) not in ERRORS:
                raise AssertionError(f"{error!r} names none of {may_name}") from error
            assert vars(estimator).keys() == attributes.keys()
            assert all(value is attributes[name] for name, value in vars(estimator).items())
    after = state(estimator, arguments)
    assert after == before, [name for name in before if before[name] != after[name]]
    messages = [str(warning.message) for warning in caught]
    assert len(messages) <= 2, messages
    assert all(map(WARNINGS.match, messages)), messages
    return result


def check_predictions(estimator, X, as_list):
    """Check that predictions depend on neither the form of X, nor order, padding or batches."""
    atol, rtol = (0.05, 0.05) if estimator.precision == "bfloat16" else (1e-4, 0)
    n = len(as_list)
    order = np.random.default_rng(n).permutation(n)
    padded = np.full((n, max(map(len, as_list)) + 2, as_list[0].shape[1]), NAN, np.float32)
    for row, x in zip(padded, as_list, strict=True):
        row[: len(x)] = x

    def predict(method, X):
        return call(estimator, method, X, may_name=())  # Training data must not raise.

    for method in ("predict_proba", "transform"):
        result = predict(method, X)
        assert result.dtype == np.float32
        assert np.isfinite(result).all(), method
        for other in (
            predict(method, [as_list[i] for i in order])[np.argsort(order)],
            predict(method, padded),
        ):
            assert np.allclose(other, result, atol=atol, rtol=rtol), method
        alone = np.concatenate([predict(method, [x]) for x in as_list[:3]])
        assert np.allclose(alone, result[:3], atol=atol, rtol=rtol), method
    assert result.shape == (n, estimator.d_model)
    p = predict("predict_proba", X)
    assert p.shape == (n, len(estimator.classes_))
    assert (p >= 0).all()
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    assert np.array_equal(predict("predict", X), estimator.classes_[p.argmax(1)])
    if estimator.pooling in ("cls", "attention"):
        attention = predict("cls_attention", X)
        assert np.allclose(attention.sum(-1), 1, atol=max(1e-4, atol / 5))


@fuzz
@given(fits(), st.sampled_from(["fit", "fit", "partial_fit"]), st.booleans())
def test_a_fit_is_consistent_or_its_error_names_the_argument(drawn, method, is_refit):
    params, X, as_list, y, weight, classes, unusual = drawn
    clf = CLSTransformerClassifier(**TINY)
    if is_refit and "warm_start" not in params and method == "fit":
        clf.fit(*bumps(n=4, n_steps=4))
    clf.set_params(**params)
    # Sequences that are drawn may all be equal, or not fit into float32.
    may_name = {"X has nothing to learn from", "X cannot be used with standardize=False"}
    may_name |= {unusual} - {None}
    if unusual == "X":  # X may be a single sequence, and then y has a single class.
        may_name.add("y")
    if unusual == "classes":  # It may be of a type that cannot be compared with y.
        may_name.add("y")
    if "early_stopping" in params:  # A class may be too small for the split.
        may_name.add("early_stopping")
    if "class_weight" in params and method == "partial_fit":  # It does not support "balanced".
        may_name.add("class_weight")
    arguments = (X, y, weight) if method == "fit" else (X, y, classes, weight)
    is_fitted = call(clf, method, *arguments, may_name=may_name) is clf
    event(f"{method} {'works' if is_fitted else 'raises'}")
    if is_fitted:
        assert (np.sort(clf.classes_) == clf.classes_).all()
        known = y if method == "fit" or classes is None else classes
        assert set(clf.classes_.tolist()) <= set(np.ravel(known).tolist())
        # Learned positions cover the longest sequence of positive weight, perhaps not all of X.
        if unusual != "X" and (weight is None or clf.positions != "learned"):
            check_predictions(clf, X, as_list)


@pytest.fixture(scope="module")
def fitted():
    X, y = bumps(n=8, n_steps=5)
    small = CLSTransformerClassifier(**TINY, random_state=0)
    frame = pd.DataFrame(X[:, :, 0]).add_prefix("t")

    def variant(X, **params):
        return copy.deepcopy(small).set_params(**params).fit(X, y)

    return [
        variant(X), variant(frame), variant(frame.to_numpy(), pooling="attention", patch_size=2),
        variant(X[:, :, :1], positions="learned"), variant(list(X[:, :, :1]), positions="rope"),
        variant(X, pooling="max", precision="bfloat16", standardize=False),
    ]  # fmt: skip


@fuzz
@given(st.data())
def test_a_prediction_is_consistent_or_its_error_names_x(fitted, data):
    clf = data.draw(st.sampled_from(fitted))
    is_invalid = data.draw(st.sampled_from([False, False, True]))
    n_features = len(clf.net_.scaler.mean)
    X, as_list = data.draw(
        sequences(st.integers(1, 5), is_invalid=is_invalid, n_features=n_features)
    )
    if is_invalid and data.draw(st.booleans()):
        X = data.draw(unusual_X)
    method = data.draw(st.sampled_from(["predict", "predict_proba", "transform", "cls_attention"]))
    result = call(clf, method, X, may_name=("X", "pooling"))
    event(f"{method} {'raises' if result is None else 'works'}")
    if result is not None and not is_invalid:
        check_predictions(clf, X, as_list)
