"""The version, where installing can read it without importing the rest."""

__version__ = "0.1.0"
