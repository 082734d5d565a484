"""Dask collections, and fits and predictions on the workers of a Dask cluster."""
