"""Context managers that complete errors about an argument: which one, and which part of it."""

import re
from contextlib import contextmanager, nullcontext

from sklearn_cls._torch.processes import LostProcessError


@contextmanager
def errors_name_argument(argument):
    """Turn every error about `argument` into a ValueError or TypeError that names it.

    The messages of scikit-learn and NumPy do not always say which argument is wrong.
    """
    try:
        yield
    except (MemoryError, LostProcessError):
        raise
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        if type(error) is kind and re.search(rf"\b{argument}\b", str(error)):
            raise
        raise kind(f"{argument}: {error}") from error


@contextmanager
def errors_name_validation_data():
    """Turn the names of training data in errors into those of validation data: X into X_val."""
    try:
        yield
    except (TypeError, ValueError) as error:
        message = re.sub(r"\b(X|y|sample_weight)\b", r"\1_val", str(error))
        raise type(error)(message) from error


@contextmanager
def errors_name_part(where):
    """Add to errors which part of X they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} This is about {where}.") from error


def errors_name_partition(number):
    """Add to errors the number of the partition of X that they are about."""
    return errors_name_part(
        f"partition {number} of X, whose sequences are counted from its first one"
    )


def errors_name_batch(first, n):
    """Add to errors which sequences of X are in the batch, whose first one they call X[0]."""
    if first == 0:
        return nullcontext()
    return errors_name_part(f"X[{first}:{first + n}], whose sequences are counted from {first}")
