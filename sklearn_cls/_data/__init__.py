"""Validation of sequences and labels, and the padded batches made from them."""
