"""What scikit-learn keeps private or has only in newer versions: imported nowhere else."""

from sklearn.base import _fit_context as fit_context
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import Interval as SklearnInterval
from sklearn.utils._param_validation import (
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import (
    _check_feature_names as check_feature_names,
)
from sklearn.utils.validation import (
    _check_sample_weight as check_sample_weight,
)

try:
    from sklearn.callback import CallbackSupportMixin, ScoringMonitor, with_callbacks
except ImportError:  # scikit-learn < 1.9: estimators have no callbacks, so nobody is told
    ScoringMonitor = None

    class _NoContext:
        def subcontext(self, **kwargs):
            return self

        def call_on_fit_task_begin(self, **kwargs):
            return self

        def call_on_fit_task_end(self, **kwargs):
            return False

    class CallbackSupportMixin:
        """Stand-in that tells nobody."""

        def _init_callback_context(self, **kwargs):
            return _NoContext()

    def with_callbacks(method):
        """Return `method` as it is."""
        return method


class Interval(SklearnInterval):
    """Scikit-learn's, which asks numbers that NumPy doesn't know, as fractions, whether NaN."""

    def is_satisfied_by(self, val):
        """Return whether it is a number of the interval."""
        try:
            return super().is_satisfied_by(val)
        except TypeError:
            return False


__all__ = [
    "CallbackSupportMixin",
    "Interval",
    "ScoringMonitor",
    "StrOptions",
    "check_feature_names",
    "check_matplotlib_support",
    "check_sample_weight",
    "fit_context",
    "validate_parameter_constraints",
    "with_callbacks",
]
