"""A scikit-learn classifier that encodes each sequence as a [CLS] vector with a transformer."""

from sklearn_cls._classifier import CLSTransformerClassifier
from sklearn_cls._display.attention import CLSAttentionDisplay
from sklearn_cls._display.embedding import EmbeddingDisplay
from sklearn_cls._display.strategy import StrategyDisplay
from sklearn_cls._display.training import TrainingDisplay
from sklearn_cls._training.data_parallel import data_parallel
from sklearn_cls._version import __version__

__all__ = [
    "CLSAttentionDisplay",
    "CLSTransformerClassifier",
    "EmbeddingDisplay",
    "StrategyDisplay",
    "TrainingDisplay",
    "__version__",
    "data_parallel",
]
