"""Package version, which the build reads without importing torch, and the documentation URL."""

__version__ = "0.1.0.dev0"

DOCUMENTATION = "https://sklearn-cls.readthedocs.io/en/stable/"
