"""The classifier for pipelines and benchmarks of aeon, which must be installed."""

try:
    from aeon.classification import BaseClassifier
except ImportError as error:
    raise ImportError("sklearn_cls.aeon needs aeon: pip install 'sklearn_cls[aeon]'") from error

from sklearn_cls._delegation import SMALL, DelegatingMixin, classifier_signature

__all__ = ["CLSTransformerClassifier"]


class CLSTransformerClassifier(DelegatingMixin, BaseClassifier):
    """:class:`sklearn_cls.CLSTransformerClassifier` as a classifier of aeon.

    It takes collections of aeon, which have channels before steps, and can be used wherever aeon
    expects a classifier.

    Parameters
    ----------
    **params
        Those of :class:`sklearn_cls.CLSTransformerClassifier`, except that `n_jobs` is 1 by
        default, as in all classifiers of aeon.

    Attributes
    ----------
    classifier_ : sklearn_cls.CLSTransformerClassifier
        The fitted classifier. Its methods take sequences with steps before channels, see
        :func:`~sklearn_cls.datasets.from_channels_first`.

    classes_ : ndarray of shape (n_classes,)
        Class labels.

    n_classes_ : int
        Number of classes.

    See Also
    --------
    sklearn_cls.sktime.CLSTransformerClassifier : The same for sktime.

    Examples
    --------
    >>> from aeon.testing.data_generation import make_example_3d_numpy
    >>> from sklearn_cls.aeon import CLSTransformerClassifier
    >>> X, y = make_example_3d_numpy(n_cases=10, n_channels=2, n_timepoints=12, random_state=0)
    >>> clf = CLSTransformerClassifier(max_epochs=2, random_state=0).fit(X, y)
    >>> clf.predict_proba(X).shape
    (10, 2)
    """

    _tags = {  # noqa: RUF012
        "X_inner_type": ["numpy3D", "np-list"],
        "algorithm_type": "deeplearning",
        "capability:missing_values": True,
        "capability:multithreading": True,
        "capability:multivariate": True,
        "capability:unequal_length": True,
    }

    def __init__(self, **params):
        self._assign(params)
        super().__init__()

    __init__.__signature__ = classifier_signature(n_jobs=1)

    @classmethod
    def _get_test_params(cls, parameter_set="default"):
        return SMALL
