"""The version, where installing can read it without importing the rest, and its documentation."""

__version__ = "0.1.0"

DOCUMENTATION = "https://sklearn-cls.readthedocs.io/en/stable/"
