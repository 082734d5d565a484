"""The network: embedding, [CLS] token, encoder blocks and readout. It imports torch only."""
