import numpy as np
import pytest
import torch

from sklearn_cls._network.positions import (
    add_positions,
    rotary_tables,
    rotate,
    sinusoidal_table,
)


@pytest.mark.parametrize("d_model", [1, 6, 7])
def test_sinusoidal_table_is_half_that_of_the_paper(d_model):
    i = np.arange(d_model)
    angle = np.arange(50)[:, np.newaxis] / 10000 ** (i // 2 * 2 / d_model)
    expected = 0.5 * np.where(i % 2 == 0, np.sin(angle), np.cos(angle))
    np.testing.assert_allclose(sinusoidal_table(50, d_model), expected, atol=1e-5)


@pytest.mark.parametrize("n_tokens", [1, 4, 9])
def test_sinusoids_are_added_at_any_length(n_tokens):
    tokens = torch.randn(2, n_tokens, 6)
    added = add_positions(tokens, sinusoidal_table(4, 6), "sinusoidal")
    assert torch.equal(added, tokens + sinusoidal_table(n_tokens, 6))


def test_learned_positions_cannot_be_added_beyond_the_length_of_their_table():
    tokens, table = torch.randn(2, 3, 6), torch.randn(4, 6)
    assert torch.equal(add_positions(tokens, table, "learned"), tokens + table[:3])
    with pytest.raises(RuntimeError, match="must match the size"):
        add_positions(torch.randn(2, 5, 6), table, "learned")


def test_a_cached_table_is_used_rather_than_computed(monkeypatch):
    monkeypatch.setattr("sklearn_cls._network.positions.sinusoidal_table", None)
    table = torch.randn(4, 6)
    assert torch.equal(add_positions(torch.zeros(1, 4, 6), table, "sinusoidal")[0], table)


def test_rotary_positions_rotate_pairs_by_their_angles():
    x = torch.zeros(5, 6)
    x[:, 1] = 1.0  # paired with element 4, at frequency 10000 ** (-2 / 6)
    angle = np.arange(5) * 10000 ** (-2 / 6)
    expected = np.zeros((5, 6))
    expected[:, 1], expected[:, 4] = np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(rotate(x, rotary_tables(5, 6)), expected, atol=1e-6)
    x = torch.zeros(5, 6)
    x[:, 4] = 1.0
    expected[:, 1], expected[:, 4] = -np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(rotate(x, rotary_tables(5, 6)), expected, atol=1e-6)


def test_rotary_tables_can_start_at_any_position():
    for late, table in zip(rotary_tables(4, 8, first=3), rotary_tables(7, 8), strict=True):
        assert torch.equal(late, table[3:])


def test_rotary_scores_depend_on_the_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 6, 8)
    rotary = rotary_tables(6, 8)
    scores = (rotate(q, rotary) @ rotate(k, rotary).mT).squeeze()
    for distance in range(-5, 6):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5)


def test_rotation_keeps_the_dtype():
    assert rotate(torch.randn(3, 4).bfloat16(), rotary_tables(3, 4)).dtype == torch.bfloat16


def test_tables_are_created_on_the_requested_device():
    tokens = torch.empty(1, 5, 4, device="meta")
    assert sinusoidal_table(3, 4, "meta").is_meta
    assert all(table.is_meta for table in rotary_tables(3, 4, device="meta"))
    assert add_positions(tokens, sinusoidal_table(3, 4, "meta"), "sinusoidal").is_meta
