"""What a fit has learned, as one object, and the attributes by which users read it.

Shapes: B sequences, K classes.
"""

from copy import copy
from dataclasses import dataclass
from functools import wraps

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_cls._data.features import Features


@dataclass(frozen=True)
class FittedModel:
    """Everything that a fit has learned.

    The estimator holds one such object, and each of its methods reads it once. A fit builds a new
    one and assigns it at its end, so a call in another thread uses either the old model or the new
    one, and a fit that fails changes nothing. Neither the object nor its net is changed afterwards.

    Attributes
    ----------
    net : sklearn_cls._training.net.Net
        The trained net, without training data, callbacks and history.
    classes : ndarray (K,)
        The sorted class labels.
    features : Features
        The features of X.
    history : dict of list
        One value per epoch.
    """

    net: object
    classes: np.ndarray
    features: Features
    history: dict

    @property
    def module(self):
        """The network."""
        return self.net.module_

    @property
    def n_epochs(self):
        """Number of epochs."""
        return len(self.history["epoch"])

    def check_has_token(self):
        """Raise an error if the network has no [CLS] token."""
        if self.module.pooling in ("mean", "max"):
            raise ValueError(
                f"cls_attention needs a [CLS] token, which pooling={self.module.pooling!r} does "
                "not have; fit with pooling='cls' or 'attention'."
            )

    def probabilities(self, **batch):
        """Return the probabilities of the classes for a padded batch, (B, K)."""
        return self.module(**batch).float().softmax(-1)

    def log_probabilities(self, **batch):
        """Return the logarithms of the probabilities for a padded batch, (B, K)."""
        return self.module(**batch).float().log_softmax(-1)

    def class_codes(self, **batch):
        """Return the most probable class of each sequence of a padded batch, (B, 1), or NaN.

        With many classes, the probabilities of all batches would take far more memory than X.
        """
        largest, codes = self.probabilities(**batch).max(-1, keepdim=True)
        return codes.float().masked_fill(largest.isnan(), torch.nan)


def finished_model(net, classes, features, *, keep_optimizer=False):
    """Return the model of a net that has been trained, from which the training state is removed."""
    from sklearn_cls._training.history import history_columns
    from sklearn_cls._training.state import strip_training_state

    history = history_columns(net.history)
    net = strip_training_state(net, keep_optimizer=keep_optimizer)
    return FittedModel(net, classes, features, history)


def current_model(net, classes, features):
    """Return the model that a net would be if its training ended now, with a copy of the net."""
    from sklearn_cls._training.history import history_columns

    return FittedModel(copy(net), classes, features, history_columns(net.history))


def on_copy(method):
    """Run `method` on a shallow copy of the estimator, which no other thread can refit.

    Methods of scikit-learn read several fitted attributes, which must be of the same fit.
    """

    @wraps(method)
    def wrapper(self, *args, **kwargs):
        return method(copy(self), *args, **kwargs)

    return wrapper


class FittedAttributesMixin:
    """The fitted attributes of an estimator: each is read from its `FittedModel`.

    Before the fit they raise NotFittedError, which is also an AttributeError.
    """

    _fitted = None  # the FittedModel, once there is one

    @on_copy
    def get_feature_names_out(self, input_features=None):
        """Return the names of the outputs of `transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Only used to check that a 2-D X had as many columns. Other forms of X may be a single
            column, such as one that a `ColumnTransformer` selects.

        Returns
        -------
        names : ndarray of str
            The name of the class in lower case, followed by the number of the output.
        """
        if not self._fitted_model().features.fitted_on_2d:
            input_features = None
        return ClassNamePrefixFeaturesOutMixin.get_feature_names_out(self, input_features)

    _repr_html_ = property(on_copy(BaseEstimator._repr_html_.fget))
    _repr_mimebundle_ = on_copy(BaseEstimator._repr_mimebundle_)

    def __sklearn_is_fitted__(self):
        """Return whether the estimator is fitted."""
        return self._fitted is not None

    def _fitted_model(self):
        """Return what was learned; a method calls this once, as another thread may refit."""
        check_is_fitted(self)
        return self._fitted

    @property
    def classes_(self):
        """Class labels."""
        return self._fitted_model().classes

    @property
    def n_features_in_(self):
        """Number of features."""
        return self._fitted_model().features.n_features_in

    @property
    def feature_names_in_(self):
        """Column names."""
        names = self._fitted_model().features.feature_names_in
        if names is None:
            raise AttributeError(
                f"This {type(self).__name__} has no feature_names_in_: X had no column names."
            )
        return names

    @property
    def net_(self):
        """The skorch net."""
        return self._fitted_model().net

    @property
    def module_(self):
        """The network."""
        return self._fitted_model().module

    @property
    def device_(self):
        """Device of the network."""
        return torch.device(self._fitted_model().net.device)

    @property
    def history_(self):
        """Values of each epoch."""
        return self._fitted_model().history

    @property
    def loss_curve_(self):
        """Training loss of each epoch."""
        return self.history_["train_loss"]

    @property
    def n_iter_(self):
        """Number of epochs."""
        return self._fitted_model().n_epochs
