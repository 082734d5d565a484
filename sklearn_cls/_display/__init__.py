"""Figures of fitted classifiers, drawn with matplotlib."""
