"""Export of fitted models to ONNX and to `torch.export`, for use without this library."""
