"""Classifiers with the interface of another library that pass sequences on to our classifier."""

from inspect import signature

from sklearn_cls._classifier import CLSTransformerClassifier
from sklearn_cls.datasets import from_channels_first


def classifier_signature(**defaults):
    """Return the signature of `CLSTransformerClassifier.__init__` with some other defaults."""
    ours = signature(CLSTransformerClassifier.__init__)
    parameters = [
        parameter.replace(default=defaults.get(name, parameter.default))
        for name, parameter in ours.parameters.items()
    ]
    return ours.replace(parameters=parameters)


class DelegatingMixin:
    """The methods with an underscore that the base classes of aeon and sktime call."""

    def _assign(self, params):
        """Assign all parameters of `__init__`, with the defaults of its signature."""
        bound = signature(type(self).__init__).bind(self, **params)
        bound.apply_defaults()
        for name, value in list(bound.arguments.items())[1:]:  # The first is `self`.
            setattr(self, name, value)

    def _fit(self, X, y):
        classifier = CLSTransformerClassifier(**self.get_params(deep=False))
        self.classifier_ = classifier.fit(from_channels_first(X), y)
        return self

    def _predict(self, X):
        return self.classifier_.predict(from_channels_first(X))

    def _predict_proba(self, X):
        return self.classifier_.predict_proba(from_channels_first(X))


# Parameters of a classifier that trains in a fraction of a second, for tests of the libraries.
SMALL = {"d_model": 16, "n_heads": 2, "dim_feedforward": 16, "depth": 1, "max_epochs": 2}
