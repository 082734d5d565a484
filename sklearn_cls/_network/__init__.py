"""The network in plain PyTorch: embedding, [CLS] token, transformer blocks and readout."""
