"""Position encodings: added to the tokens (sinusoidal, learned) or applied in attention (rotary).

Shapes: B sequences, N tokens, D `d_model`, E head size.

Design choices: sinusoids [1] are halved, so that position and content have equal magnitude at
initialization; learned positions start with standard deviation 0.02; rotary positions [2] pair
element i of a head with element i + E / 2. [CLS] has no position: nothing is added to it, and its
rotary angle is 0, so that the steps start at rotary position 1.

[1] Vaswani et al., Attention Is All You Need, NeurIPS 2017.
[2] Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
"""

import torch

POSITIONS = ("sinusoidal", "learned", "rope")
POSITION_SCALE = 0.5
MAX_CACHED_POSITIONS = 2**14  # computing a longer table is fast compared with the attention


def sinusoidal_table(n_tokens, d_model, device=None):
    """Return the scaled sines and cosines of positions 0 to N - 1, interleaved: (N, D)."""
    angle = angles(torch.arange(n_tokens, device=device), d_model)
    return POSITION_SCALE * torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :d_model]


def add_positions(tokens, table, positions):
    """Add `positions`, "sinusoidal" or "learned", to tokens (B, N, D).

    `table` holds the first positions, (M, D). Sinusoids beyond it are computed; learned positions
    cannot be extended.
    """
    n_tokens, d_model = tokens.shape[1:]
    # The shape of the table would limit the number of tokens of an exported graph.
    if positions == "sinusoidal" and (torch.compiler.is_exporting() or n_tokens > len(table)):
        table = sinusoidal_table(n_tokens, d_model, tokens.device)
    return tokens + table[:n_tokens]


def rotary_tables(n_tokens, head_size, *, first=0, device=None):
    """Return cosines and sines of N rotary positions from `first` on: two (N, E / 2)."""
    angle = angles(torch.arange(first, first + n_tokens, device=device), head_size)
    return angle.cos(), angle.sin()


def rotate(x, rotary):
    """Rotate queries or keys x (..., N, E) by the angles of `rotary_tables`."""
    cos, sin = rotary
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def angles(positions, size):
    """Return positions (N,) times frequencies that fall from 1 to 1 / 10000: (N, size / 2)."""
    # Dividing integers would give the default dtype, which the caller may have changed.
    index = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device)
    frequency = 10000 ** (-index / size)
    return positions.unsqueeze(1) * frequency
