"""Figures, drawn from what the public methods of a fitted classifier return."""
