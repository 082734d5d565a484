"""A scikit-learn transformer classifier of sequences that reads each into one [CLS] vector."""

from sklearn_cls._classifier import CLSTransformerClassifier
from sklearn_cls._display.attention import CLSAttentionDisplay
from sklearn_cls._display.embedding import EmbeddingDisplay
from sklearn_cls._display.strategy import StrategyDisplay
from sklearn_cls._display.training import TrainingDisplay
from sklearn_cls._version import __version__

__all__ = [
    "CLSAttentionDisplay",
    "CLSTransformerClassifier",
    "EmbeddingDisplay",
    "StrategyDisplay",
    "TrainingDisplay",
    "__version__",
]
