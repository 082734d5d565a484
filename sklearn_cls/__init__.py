"""A scikit-learn transformer classifier of sequences that reads each into one [CLS] vector."""

from sklearn_cls._classifier import CLSTransformerClassifier
from sklearn_cls._version import __version__

__all__ = ["CLSTransformerClassifier", "__version__"]
