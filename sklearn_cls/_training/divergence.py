"""The error of a training that diverged."""


class DivergenceError(ValueError):
    """Training diverged (non-finite loss or weight); retrying would diverge again."""
