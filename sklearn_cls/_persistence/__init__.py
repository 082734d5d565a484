"""Files: saved estimators, and checkpoints of running fits."""
