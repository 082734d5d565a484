"""Sequences in the format of aeon and sktime, which put channels before steps."""

import numpy as np


def from_channels_first(X):
    """Convert sequences with channels before steps, the format of aeon and sktime.

    Parameters
    ----------
    X : array-like of shape (n_sequences, n_channels, n_steps), or list of arrays of shape \
            (n_channels, n_steps_i)
        Sequences of aeon's type "numpy3D" or "np-list".

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_channels), or list of arrays of shape \
            (n_steps_i, n_channels)
        Views of the input, without a copy.

    Raises
    ------
    ValueError
        If X is neither 3-D nor a list of 2-D arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_cls.datasets import from_channels_first
    >>> from_channels_first(np.zeros((10, 3, 50))).shape
    (10, 50, 3)
    >>> [x.shape for x in from_channels_first([np.zeros((3, 50)), np.zeros((3, 40))])]
    [(50, 3), (40, 3)]
    """
    if isinstance(X, list | tuple):
        X = [np.asarray(x) for x in X]
        for i, x in enumerate(X):
            if x.ndim != 2:
                raise ValueError(
                    f"X[{i}] has shape {x.shape}, but every sequence of a list must have shape "
                    "(n_channels, n_steps); for one channel, pass x[np.newaxis]."
                )
        return [x.T for x in X]
    X = np.asarray(X)
    if X.ndim != 3:
        raise ValueError(
            f"X has shape {X.shape}, but must be (n_sequences, n_channels, n_steps), or a list of "
            "(n_channels, n_steps). An X of shape (n_sequences, n_steps) needs no conversion."
        )
    return X.transpose(0, 2, 1)
