"""Private and recent parts of scikit-learn.

No other module of the package imports them, except that `__main__` imports the public progress bar
of `sklearn.callback`.
"""

import functools
import sys

from sklearn.base import _fit_context as fit_context
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import (
    _check_feature_names as check_feature_names,
)
from sklearn.utils.validation import (
    _check_sample_weight as check_sample_weight,
)
from sklearn.utils.validation import (
    _get_feature_names as get_feature_names,
)

try:
    from sklearn.callback import (
        AutoPropagatedCallback,
        CallbackSupportMixin,
        FitCallback,
        with_callbacks,
    )
except ImportError:  # scikit-learn < 1.9 has no callbacks

    class FitCallback:
        """Placeholder: no object is an instance of it."""

    class _NoContext:
        def subcontext(self, **kwargs):
            return self

        def call_on_fit_task_begin(self, **kwargs):
            return self

        def call_on_fit_task_end(self, **kwargs):
            return False

    class CallbackSupportMixin:
        """Placeholder without `set_callbacks`."""

    def with_callbacks(method):
        """Wrap `method` in one function, as scikit-learn does, so that `stacklevel` is the same."""

        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            return method(*args, **kwargs)

        return wrapper

    def init_callback_context(estimator, callbacks, max_subtasks):
        """Return a context that does nothing."""
        return _NoContext()

else:

    def init_callback_context(estimator, callbacks, max_subtasks):
        """Return the callback context of a fit.

        It holds the callbacks that the user or a meta-estimator has registered by `set_callbacks`,
        and `callbacks`, which are added to them for this fit only.
        """
        if hasattr(estimator, "_parent_callback_ctx"):
            for callback in callbacks:
                if isinstance(callback, AutoPropagatedCallback):
                    raise TypeError(
                        f"callbacks contains a {type(callback).__name__}, which must be set on the "
                        "outermost meta-estimator; call its set_callbacks(...) instead."
                    )
        registered = getattr(estimator, "_skl_callbacks", [])
        estimator.set_callbacks(*registered, *callbacks)
        try:
            return estimator._init_callback_context(max_subtasks=max_subtasks)
        finally:
            estimator.set_callbacks(*registered)


CROSS_VALIDATION = ("_fit_and_score", "_fit_and_predict")  # functions that fit to one split


def is_in_cross_validation():
    """Return whether the caller is fitted by a search or a cross-validation of scikit-learn.

    These pass the same arguments to all of their fits, and do not tell them that there are others.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name in CROSS_VALIDATION:
            return frame.f_globals.get("__name__", "").startswith("sklearn.model_selection.")
        frame = frame.f_back
    return False


__all__ = [
    "CallbackSupportMixin",
    "FitCallback",
    "Interval",
    "StrOptions",
    "check_feature_names",
    "check_matplotlib_support",
    "check_sample_weight",
    "fit_context",
    "get_feature_names",
    "init_callback_context",
    "is_in_cross_validation",
    "validate_parameter_constraints",
    "with_callbacks",
]
