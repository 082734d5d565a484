"""Random sequences of calls: each gives the expected model, or an error that names its cause.

By default, the same calls are made each time, at least 200; FUZZ_STEPS=10000 makes at least 10,000
new ones.
"""

import copy
import os
import pickle
import re
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._persistence import checkpoint
from sklearn_cls._training.auto import ARCHITECTURE
from tests.helpers import Hook, bumps, small

N_STEPS = int(os.environ.get("FUZZ_STEPS", 200))
MAX_CLASSIFIERS = 6  # older ones are no longer compared after every call

X, Y = bumps(12, n_steps=6)
LETTERS = np.array(["a", "b"])[Y]
DATA = {
    "array": (X, LETTERS),
    "list": ([x[: 3 + i % 4] for i, x in enumerate(X[::-1])], LETTERS[::-1]),
    "univariate": (X[:, :, :1], Y > 0),
    "frame": (pd.DataFrame(X[:, :, 0]).add_prefix("t"), np.arange(12) % 3),
}
VALID = {
    "cls_strategy": ["learned", "random"], "pooling": ["cls", "mean", "attention"],
    "depth": [1, 2], "d_model": [8, 12], "embedding": ["conv", "linear"], "patch_size": ["auto", 2],
    "positions": ["sinusoidal", "learned", "rope", None], "standardize": [True, False],
    "max_epochs": [1, 3], "lr": [1e-2, "auto"], "augment": [True, False], "n_jobs": [None, 1],
    "class_weight": [None, "balanced"], "early_stopping": [False, True], "n_iter_no_change": [1, 9],
    "warm_start": [True, False], "precision": ["float32", "bfloat16"], "random_state": [0, 1],
    "dropout": [0.1, 0.0],
}  # fmt: skip
INVALID = {
    "depth": [0, "2"], "n_heads": [3, 5], "lr": [-1.0, 1e30], "max_epochs": [0], "dropout": [1.0],
    "class_weight": [{"unknown": 1.0}], "device": ["nowhere"], "n_jobs": [0], "pooling": ["sum"],
    "validation_fraction": [2.0], "positions": [7], "patch_size": [1.5],
}  # fmt: skip
PARAMS = [{k: v} for params in (VALID, INVALID) for k, values in params.items() for v in values]
COPIES = {
    "pickle": lambda clf: pickle.loads(pickle.dumps(clf)), "copy": copy.copy, "clone": clone,
    "deepcopy": copy.deepcopy,
}  # fmt: skip
# Parameters that do not change the model; the classes of `DATA` are balanced.
IRRELEVANT = {"callbacks", "class_weight", "n_jobs", "verbose", "warm_start"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
    pytest.mark.filterwarnings("ignore:X has feature names"),
    pytest.mark.filterwarnings("ignore:Training was interrupted"),
]


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)


@dataclass(frozen=True)
class Model:
    """The calls that led to a fitted model: the same calls give the same probabilities.

    Attributes
    ----------
    calls : tuple
        The last training call, and the `calls` and `has_optimizer` of the model that it continued.
    data : str
        Key of the data of the first of these calls, which determine the features and classes.
    has_optimizer : bool
        Whether the state of the optimizer is kept, as `partial_fit` does.
    """

    calls: tuple
    data: str
    has_optimizer: bool = False


@dataclass(eq=False)
class Tracked:
    """A classifier and what it should be fitted to; None before the fit."""

    clf: CLSTransformerClassifier
    model: Model | None = None

    def state(self):
        """Return everything that a call which fails must leave unchanged."""
        names = {name for name in vars(self.clf) if name != "_skl_callbacks"}
        return id(self.clf._fitted), names, list(map(repr, self.params().items()))

    def data(self, name):
        """Return the name of a dataset; "the same" is that of the fitted model."""
        if name != "the same":
            return name
        return "array" if self.model is None else self.model.data

    def params(self):
        """Return the parameters."""
        return self.clf.get_params(deep=False)

    def after(self, method, data):
        """Return the model after a training call."""
        params = tuple((k, repr(v)) for k, v in self.params().items() if k not in IRRELEVANT)
        call = (method, data, params)
        if self.continues(method):
            calls = (call, self.model.calls, self.model.has_optimizer)
            return Model(calls, self.model.data, method == "partial_fit")
        return Model((call,), data, method == "partial_fit")

    def continues(self, method):
        """Return whether a training call continues from the current model."""
        return self.model is not None and (method == "partial_fit" or self.clf.warm_start)

    def invalid_params(self):
        """Return the names of parameters with a value of `INVALID`."""
        params = {name: repr(value) for name, value in self.params().items()}
        return [name for name in INVALID if params[name] in map(repr, INVALID[name])]


class Calls(RuleBasedStateMachine):
    """Classifiers, files and checkpoints."""

    probabilities = {}  # noqa: RUF012  of all examples, by calls and data
    numbers = count()  # of models that no other calls lead to

    classifiers = Bundle("classifiers")
    data = st.sampled_from(["the same"] * 4 + sorted(DATA))
    slots = st.sampled_from(["1", "2"])

    def __init__(self):
        super().__init__()
        self.tracked, self.files, self.checkpoints = [], {}, {}
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self):
        self.folder.cleanup()

    def add(self, clf, model=None):
        self.tracked = [*self.tracked[1 - MAX_CLASSIFIERS :], Tracked(clf, model)]
        return self.tracked[-1]

    @contextmanager
    def errors_name(self, tracked, *causes):
        """Check that an error names an invalid parameter or a cause and leaves no change.

        Whether the call works or not, the model of before must be unchanged.
        """
        before, self.error = tracked.state(), ""
        self.earlier = Tracked(copy.copy(tracked.clf), tracked.model)
        try:
            yield
        except (TypeError, ValueError) as error:
            self.error = str(error)
            causes = [*causes, *tracked.invalid_params()]
            if isinstance(error, NotFittedError):
                assert tracked.model is None
            elif not any(re.search(rf"\b{cause}\b", self.error) for cause in causes):
                raise
            assert tracked.state() == before
            valid = {**CLSTransformerClassifier().get_params(), "n_heads": 2, "max_epochs": 2}
            tracked.clf.set_params(**{name: valid[name] for name in tracked.invalid_params()})
        if self.earlier.model is not None:
            self.check(self.earlier, self.earlier.model.data)

    def check(self, tracked, data):
        """Check that the probabilities are those that the same calls have given before."""
        clf = copy.copy(tracked.clf).set_params(n_jobs=1)
        probabilities = clf.predict_proba(DATA[data][0])
        known = self.probabilities.setdefault((tracked.model.calls, data), probabilities)
        assert np.array_equal(probabilities, known)
        return clf.classes_[probabilities.argmax(1)]

    @invariant()
    def every_classifier_has_its_own_model(self):
        for tracked in self.tracked:
            if tracked.model is None:
                assert not hasattr(tracked.clf, "classes_")
            else:
                known = np.unique(DATA[tracked.model.data][1])
                assert np.array_equal(tracked.clf.classes_, known)
                self.check(tracked, tracked.model.data)

    # Parameters.

    @initialize(target=classifiers)
    def first(self):
        return self.add(small(d_model=8, dim_feedforward=8, depth=1, batch_size=6, max_epochs=2))

    @rule(tracked=classifiers, params=st.sampled_from(PARAMS))
    def set_params(self, tracked, params):
        tracked.clf.set_params(**params)

    # Training.

    def causes(self, tracked, method):
        """Return what an error of a training call may name, besides invalid parameters."""
        causes = ["class_weight"] if method == "partial_fit" else []  # It must not be "balanced".
        return [*causes, *ARCHITECTURE, "patch_size", "X", "y"] * tracked.continues(method) + causes

    @rule(
        tracked=classifiers, data=data, is_repeated=st.booleans(),
        method=st.sampled_from(["fit", "partial_fit", "partial_fit"]),
    )  # fmt: skip
    def train(self, tracked, data, method, is_repeated):
        data = tracked.data(data)
        model = tracked.after(method, data)
        with self.errors_name(tracked, *self.causes(tracked, method)):
            getattr(tracked.clf, method)(*DATA[data])
            tracked.model = model
        if is_repeated and not self.error:
            getattr(self.earlier.clf, method)(*DATA[data])
            self.check(Tracked(self.earlier.clf, model), data)
            self.check(tracked, data)

    @rule(
        tracked=classifiers, data=data, slot=slots, is_new=st.booleans(), is_resumed=st.booleans(),
        end=st.sampled_from(["finish", "crash", "Ctrl-C"]),
        when=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    )  # fmt: skip
    def train_with_checkpoint(self, tracked, data, slot, is_new, is_resumed, end, when):
        """Start or resume a fit, which may end in a batch of an epoch, and perhaps resume it."""
        if is_new:
            self.checkpoint(slot).unlink(missing_ok=True)
        data = tracked.data(data)
        self.fit_with_checkpoint(tracked, data, slot, end, when)
        if end != "finish" and is_resumed:
            self.fit_with_checkpoint(tracked, data, slot, "finish", when)

    def checkpoint(self, slot):
        return Path(self.folder.name) / f"checkpoint {slot}"

    def fit_with_checkpoint(self, tracked, data, slot, end, when):
        model, stopped, path = tracked.after("fit", data), [], self.checkpoint(slot)
        content = path.read_bytes() if path.exists() else None

        def stop(net, training, **kwargs):
            is_now = (len(net.history), len(net.history[-1]["batches"])) == when
            if training and is_now and end != "finish":
                stopped.append(end)
                if end == "Ctrl-C":
                    signal.raise_signal(signal.SIGINT)
                raise ZeroDivisionError

        callbacks = tracked.clf.callbacks
        tracked.clf.set_params(callbacks=[Hook(on_batch_end=stop)])
        causes = [*self.causes(tracked, "fit"), *(["checkpoint"] if content else [])]
        with self.errors_name(tracked, *causes):
            before = tracked.state()
            try:
                tracked.clf.fit(*DATA[data], checkpoint=path)
            except (ZeroDivisionError, KeyboardInterrupt):
                assert stopped
                assert tracked.state() == before
            else:
                tracked.model = self.finished(tracked, model, content and slot, stopped)
        if "belongs to another fit" in self.error:
            assert path.read_bytes() == content
        elif content is None and path.exists():
            self.checkpoints[slot] = model
        tracked.clf.set_params(callbacks=callbacks)

    def finished(self, tracked, model, slot, stopped):
        """Return the model after a fit that was resumed from the checkpoint `slot`, if any."""
        saved = self.checkpoints[slot] if slot else model
        assert saved.calls[0] == model.calls[0]  # A checkpoint of another fit is refused.
        if stopped or saved.calls != model.calls:  # with equal weights after other calls
            return replace(model, calls=(next(self.numbers),))
        return model

    # Copies and files.

    @rule(target=classifiers, tracked=classifiers, kind=st.sampled_from(sorted(COPIES)))
    def copy(self, tracked, kind):
        clf, model = COPIES[kind](tracked.clf), tracked.model
        if kind == "clone":
            return self.add(clf)
        if kind != "copy":
            model = model and replace(model, has_optimizer=False)
        return self.add(clf, model)

    @rule(tracked=classifiers, slot=slots)
    def save(self, tracked, slot):
        path = Path(self.folder.name) / slot
        content = path.read_bytes() if path.exists() else None
        with self.errors_name(tracked):
            tracked.clf.save(path)
            self.files[slot] = tracked.params(), tracked.model
        if self.error:
            assert (path.read_bytes() if path.exists() else None) == content

    @precondition(lambda self: self.files)
    @rule(target=classifiers, data=st.data())
    def load(self, data):
        slot = data.draw(st.sampled_from(sorted(self.files)))
        params, model = self.files[slot]
        clf = CLSTransformerClassifier.load(Path(self.folder.name) / slot)
        assert clf.get_params() == {**params, "device": "auto", "n_jobs": None}
        return self.add(clf, replace(model, has_optimizer=False))

    # Prediction.

    @rule(tracked=classifiers, data=data)
    def predict(self, tracked, data):
        data = tracked.data(data)
        with self.errors_name(tracked, "X"):
            labels = tracked.clf.predict(DATA[data][0])
            assert np.array_equal(labels, self.check(tracked, data))


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=N_STEPS // 20,  # Some examples have fewer than 25 steps.
    stateful_step_count=25,
    derandomize="FUZZ_STEPS" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
