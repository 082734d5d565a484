"""The classifier for pipelines and benchmarks of sktime, which must be installed."""

try:
    from sktime.classification import BaseClassifier
except ImportError as error:
    raise ImportError(
        "sklearn_cls.sktime needs sktime: pip install 'sklearn_cls[sktime]'"
    ) from error

from sklearn_cls._delegation import SMALL, DelegatingMixin, classifier_signature

__all__ = ["CLSTransformerClassifier"]


class CLSTransformerClassifier(DelegatingMixin, BaseClassifier):
    """:class:`sklearn_cls.CLSTransformerClassifier` as a classifier of sktime.

    It takes panels of sktime, and can be used wherever sktime expects a classifier. If the index of
    the series has dates, they are the clock of the sequences.

    Parameters
    ----------
    **params
        Those of :class:`sklearn_cls.CLSTransformerClassifier`.

    Attributes
    ----------
    classifier_ : sklearn_cls.CLSTransformerClassifier
        The fitted classifier. Its methods take what
        :func:`~sklearn_cls.datasets.from_channels_first` makes of a panel.

    classes_ : ndarray of shape (n_classes,)
        Class labels.

    n_classes_ : int
        Number of classes.

    See Also
    --------
    sklearn_cls.aeon.CLSTransformerClassifier : The same for aeon.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_cls.sktime import CLSTransformerClassifier
    >>> X = np.random.default_rng(0).normal(size=(10, 2, 12))
    >>> clf = CLSTransformerClassifier(max_epochs=2, random_state=0).fit(X, np.arange(10) % 2)
    >>> clf.predict_proba(X).shape
    (10, 2)
    """

    _tags = {  # noqa: RUF012
        "X_inner_mtype": ["pd-multiindex", "numpy3D"],
        "capability:missing_values": True,
        "capability:multithreading": True,
        "capability:multivariate": True,
        "capability:predict_proba": True,
        "capability:random_state": True,
        "capability:unequal_length": True,
        "property:randomness": "derandomized",
        "python_dependencies": ["torch", "skorch"],
    }

    def __init__(self, **params):
        self._assign(params)
        super().__init__()

    __init__.__signature__ = classifier_signature()

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Return parameters for the tests of sktime.

        Parameters
        ----------
        parameter_set : str, default="default"
            Ignored.

        Returns
        -------
        params : list of dict
            Parameters of small classifiers.
        """
        return [SMALL, {**SMALL, "pooling": "mean", "augment": False}]
