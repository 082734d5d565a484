"""Training and inference through skorch, the only package that imports it (besides checkpoints)."""
