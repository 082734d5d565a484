"""Training and inference with skorch, which no other subpackage imports directly."""
