import numpy as np
import pytest
import torch

from sklearn_cls._data.batches import (
    Batches,
    SequenceDataset,
    length_bucketed_batches,
    padded_batch,
    prediction_batch,
    shuffled_by_length,
)
from sklearn_cls._data.sequences import Sequences

CPU = torch.device("cpu")


def dataset(lengths):
    values = [np.full((t, 1), i, dtype=np.float32) for i, t in enumerate(lengths)]
    sequences = Sequences(values, np.array(lengths), np.zeros(len(lengths), bool))
    n = len(lengths)
    return SequenceDataset(sequences, np.arange(n), np.arange(n), np.ones(n, np.float32))


def test_every_sequence_comes_once_with_its_own_label_and_weight():
    data = dataset([3, 5, 2, 7, 1, 4, 6, 8, 9, 2, 3])
    data.weights = data.y.astype(np.float32)
    seen = []
    for inputs, y in Batches(data, 4, CPU, np.random.default_rng(0)):
        assert torch.equal(inputs["x"][:, 0, 0].long(), y)
        assert torch.equal(inputs["sample_weight"].long(), y)
        seen += y.tolist()
    assert sorted(seen) == list(range(11))


def test_batches_are_of_nearly_equal_size():
    sizes = [len(y) for _, y in Batches(dataset([2] * 101), 50, CPU, np.random.default_rng(0))]
    assert sorted(sizes) == [33, 34, 34]
    assert len(Batches(dataset([2] * 101), 50, CPU)) == 3


def test_passes_differ_and_seeds_repeat():
    def passes(seed):
        batches = Batches(dataset([2] * 20), 4, CPU, np.random.default_rng(seed))
        return [torch.cat([y for _, y in batches]).tolist() for _ in range(2)]

    assert passes(0) == passes(0)
    assert passes(0)[0] != passes(0)[1]
    assert passes(0) != passes(1)


def test_without_a_generator_the_order_is_kept():
    y = torch.cat([y for _, y in Batches(dataset([5, 1, 3, 2]), 2, CPU)])
    assert y.tolist() == [0, 1, 2, 3]


def test_grouping_by_length_makes_padding_rare():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 500, size=1000)
    order = shuffled_by_length(lengths, rng)
    assert sorted(order) == list(range(1000))
    assert not np.array_equal(order, shuffled_by_length(lengths, rng))

    def padded_steps(order):
        batches = lengths[order].reshape(-1, 20)
        return (batches.max(1, keepdims=True) - batches).sum() / lengths.sum()

    assert padded_steps(order) < 0.25
    assert padded_steps(rng.permutation(1000)) > 0.8


def test_a_batch_without_padding_has_no_mask():
    data = dataset([4, 4, 2])
    assert padded_batch(data.sequences, np.array([0, 1]), CPU)["is_padding"] is None
    mask = padded_batch(data.sequences, np.array([0, 2]), CPU)["is_padding"]
    assert mask.tolist() == [[False] * 4, [False, False, True, True]]


def test_prediction_batches_are_bounded_and_complete():
    sequences = dataset([3, 50, 2, 7, 1, 4, 6, 8, 9, 2, 3]).sequences
    batches = length_bucketed_batches(sequences.lengths, 20)
    for rows in batches:
        x = padded_batch(sequences, rows, CPU)["x"]
        assert x.shape[:2].numel() <= 20 or len(rows) == 1
        assert x[:, 0, 0].tolist() == rows.tolist()
    assert sorted(np.concatenate(batches)) == list(range(11))


def test_items_and_parts_are_those_of_the_rows():
    data = dataset([3, 5, 2]).take(np.array([2, 1]))
    inputs, y = data[0]
    assert (inputs["x"].shape, y) == ((2, 1), 2)
    assert data.lengths.tolist() == [2, 5]


def test_a_few_short_sequences_are_filled_up_to_4():
    sequences = dataset([3, 5, 50]).sequences
    short = prediction_batch(sequences, np.array([0, 1]), CPU)["x"]
    assert short[:, 0, 0].tolist() == [0, 1, 0, 1]
    assert len(prediction_batch(sequences, np.array([2]), CPU)["x"]) == 1


@pytest.mark.parametrize("lengths", [[4] * 9, [3, 5, 2, 4, 9, 1, 2, 3, 8]])
def test_batches_of_data_kept_on_the_device_are_those_padded_one_by_one(lengths, monkeypatch):
    data = dataset(lengths).take(np.array([8, 0, 1, 2, 5, 4, 7]))

    def batches():
        return list(Batches(data, 3, CPU, np.random.default_rng(0)))

    one_by_one = batches()
    monkeypatch.setattr(
        "sklearn_cls._data.batches.free_memory", lambda device: 4 * 4 * 7 * max(lengths)
    )
    monkeypatch.setattr(
        "sklearn_cls._data.batches.padded_batch", lambda *args: pytest.fail("padded")
    )
    for (inputs, y), (kept, y_kept) in zip(one_by_one, batches(), strict=True):
        assert y.tolist() == y_kept.tolist()
        for name, value in inputs.items():
            torch.testing.assert_close(kept[name], value, equal_nan=True)


def test_data_larger_than_a_quarter_of_the_free_memory_are_not_kept(monkeypatch):
    monkeypatch.setattr("sklearn_cls._data.batches.free_memory", lambda device: 4 * 4 * 3 * 5 - 1)
    assert Batches(dataset([5, 5, 2]), 2, CPU).kept is None
