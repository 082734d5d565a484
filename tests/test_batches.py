import numpy as np
import pytest
import torch

from sklearn_cls._data.batches import (
    Batches,
    SequenceDataset,
    groups_of_similar_length,
    length_bucketed_batches,
    padded_batch,
    prediction_batch,
    round_up,
    shuffled_by_length,
)
from sklearn_cls._data.readers import ListReader
from sklearn_cls._data.sequences import Sequences
from sklearn_cls._data.validation import read_sequences

CPU = torch.device("cpu")
UNEQUAL = [3, 5, 2, 7, 1, 4, 6, 8, 9, 2, 3]


def dataset(lengths):
    """Return sequences that repeat their own index, which is also their class."""
    values = [np.full((t, 1), i, dtype=np.float32) for i, t in enumerate(lengths)]
    sequences = Sequences(ListReader(values), np.array(lengths), np.zeros(len(lengths), bool))
    n = len(lengths)
    return SequenceDataset(sequences, np.arange(n), np.arange(n), np.ones(n, np.float32))


def free_memory(monkeypatch, n_bytes):
    monkeypatch.setattr("sklearn_cls._data.batches.free_memory", lambda device: n_bytes)


def test_every_sequence_occurs_once_with_its_own_label_and_weight():
    data = dataset(UNEQUAL)
    data.weights = data.y.astype(np.float32)
    seen = []
    for inputs, y in Batches(data, 4, CPU, np.random.default_rng(0)):
        assert torch.equal(inputs["x"][:, 0, 0].long(), y)
        assert torch.equal(inputs["sample_weight"].long(), y)
        seen += y.tolist()
    assert sorted(seen) == list(range(11))


def test_batches_have_nearly_equal_sizes():
    sizes = [len(y) for _, y in Batches(dataset([2] * 101), 50, CPU, np.random.default_rng(0))]
    assert sorted(sizes) == [33, 34, 34]
    assert len(Batches(dataset([2] * 101), 50, CPU)) == 3
    assert len(Batches(dataset([2] * 100), 50, CPU)) == 2


def test_epochs_differ_and_are_reproducible_with_a_seed():
    def epochs(seed):
        batches = Batches(dataset([2] * 20), 4, CPU, np.random.default_rng(seed))
        return [torch.cat([y for _, y in batches]).tolist() for _ in range(2)]

    assert epochs(0) == epochs(0)
    assert epochs(0)[0] != epochs(0)[1]
    assert epochs(0) != epochs(1)


def test_batches_of_unequal_lengths_come_in_random_order():
    batches = Batches(dataset(range(1, 101)), 10, CPU, np.random.default_rng(0))
    lengths = [inputs["x"].shape[1] for inputs, _ in batches]
    assert lengths != sorted(lengths)


def test_without_a_random_generator_the_order_is_kept():
    batches = Batches(dataset([5, 1, 3, 2]), 2, CPU)
    y = torch.cat([y for _, y in batches])
    assert y.tolist() == [0, 1, 2, 3]
    batches.load_state_dict(batches.state_dict())


def test_augmentation_gets_inputs_labels_and_generator():
    def add_noise(inputs, y, generator):
        return {**inputs, "target": y + torch.rand(len(y), generator=generator)}

    generator = torch.Generator().manual_seed(0)
    batches = Batches(dataset([2] * 6), 3, CPU, augmentation=add_noise, generator=generator)
    target = torch.cat([inputs["target"] for inputs, _ in batches])
    again = torch.Generator().manual_seed(0)
    noise = torch.cat([torch.rand(3, generator=again) for _ in range(2)])
    torch.testing.assert_close(target, torch.arange(6) + noise)


def test_loading_a_state_reproduces_order_and_augmentation():
    def draw(inputs, y, generator):
        return {**inputs, "noise": torch.rand(len(y), generator=generator)}

    def batches(seed):
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        return Batches(dataset(UNEQUAL), 4, CPU, rng, draw, generator)

    def epoch(batches):
        return [(y.tolist(), inputs["noise"].tolist()) for inputs, y in batches]

    first, second = batches(0), batches(1)
    epoch(first)
    second.load_state_dict(first.state_dict())
    assert epoch(second) == epoch(first)


def test_neighbors_have_similar_lengths_so_that_there_is_little_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 500, size=1000)
    order = shuffled_by_length(lengths, rng)
    assert sorted(order) == list(range(1000))
    assert not np.array_equal(order, shuffled_by_length(lengths, rng))
    assert (np.diff(lengths[order]) < 0).any()  # Lengths are sorted only approximately.

    def padded_steps(order):
        batches = lengths[order].reshape(-1, 20)
        return (batches.max(1, keepdims=True) - batches).sum() / lengths.sum()

    assert padded_steps(order) < 0.15
    assert padded_steps(rng.permutation(1000)) > 0.8


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([5, 3, 5, 9], [[0, 1, 2, 3]]),  # 14 of 36 steps are padding
        ([9, 1, 1], [[1, 2], [0]]),
        ([2, 90, 2, 10, 2, 11], [[0, 2, 4], [3, 5], [1]]),
        ([90, 1], [[0, 1]]),  # just under half
        ([7], [[0]]),
    ],
)
def test_sequences_of_a_batch_that_is_mostly_padding_are_grouped_by_length(lengths, groups):
    assert [i.tolist() for i in groups_of_similar_length(np.array(lengths), 0)] == groups


def test_a_batch_with_little_padding_is_not_divided_into_groups():
    lengths = np.array([9, 1, 1])
    assert len(groups_of_similar_length(lengths, 16)) == 2
    assert len(groups_of_similar_length(lengths, 17)) == 1


@pytest.mark.parametrize("size", [2, 16, 300])
def test_at_most_half_of_the_steps_of_a_group_are_padding(size):
    rng = np.random.default_rng(0)
    for sigma in (0.5, 2, 4):
        lengths = np.ceil(rng.lognormal(3, sigma, size)).astype(int)
        groups = groups_of_similar_length(lengths, 0)
        assert sorted(np.concatenate(groups)) == list(range(size))
        for group in groups:
            assert len(group) * lengths[group].max() <= 2 * lengths[group].sum()


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_a_batch_of_groups_has_the_inputs_of_each_group_and_all_class_codes(rng):
    data = dataset([3, 4000, 3, 500, 4, 520, 3, 5])
    data.weights = data.y.astype(np.float32)

    def mark(inputs, y, generator):
        return {**inputs, "target": y + 0.5}

    ((groups, y),) = Batches(data, 8, CPU, rng, augmentation=mark)
    assert sorted(y.tolist()) == list(range(8))
    assert [group["x"].shape[1] for group in groups] == [5, 520, 4000]
    assert torch.equal(torch.cat([group["x"][:, 0, 0] for group in groups]).long(), y)
    assert torch.equal(torch.cat([group["sample_weight"] for group in groups]).long(), y)
    assert torch.equal(torch.cat([group["target"] for group in groups]), y + 0.5)


def test_less_than_1024_tokens_of_padding_do_not_make_groups():
    def n_groups(longest, patch_size):
        ((inputs, _),) = Batches(dataset([1, 1, 1, longest]), 4, CPU, patch_size=patch_size)
        return len(inputs) if isinstance(inputs, list) else 1

    assert n_groups(342, 1) == 1
    assert n_groups(343, 1) == 2
    assert n_groups(1365, 4) == 1
    assert n_groups(1367, 4) == 2


def test_padding_mask_is_true_after_the_end_and_none_for_equal_lengths():
    data = dataset([4, 4, 2])
    assert padded_batch(data.sequences, np.array([0, 1]), CPU)["is_padding"] is None
    mask = padded_batch(data.sequences, np.array([0, 2]), CPU)["is_padding"]
    assert mask.tolist() == [[False] * 4, [False, False, True, True]]


def test_length_bucketed_batches_are_bounded_and_contain_each_sequence_once():
    sequences = dataset([3, 50, *UNEQUAL[2:]]).sequences
    batches = length_bucketed_batches(sequences.lengths, 20)
    for indices in batches:
        x = padded_batch(sequences, indices, CPU)["x"]
        assert x.shape[:2].numel() <= 20 or len(indices) == 1
        assert x[:, 0, 0].tolist() == indices.tolist()
    assert sorted(np.concatenate(batches)) == list(range(11))


def test_length_bucketed_batches_are_as_large_as_the_bound_allows():
    batches = length_bucketed_batches(np.array([2, 9, 2, 1, 1, 4, 3]), 6)
    assert [indices.tolist() for indices in batches] == [[3, 4, 0], [2, 6], [5], [1]]
    assert [len(i) for i in length_bucketed_batches(np.ones(20, int), 10)] == [10, 10]


def test_take_selects_items_lengths_and_weights():
    data = dataset([3, 5, 2])
    data.weights = np.float32([1, 2, 3])
    data = data.take(np.array([2, 1]))
    inputs, y = data[0]
    assert (inputs["x"].tolist(), y) == ([[2], [2]], 2)
    assert data.lengths.tolist() == [2, 5]
    assert data.weights.tolist() == [3, 2]
    assert len(data) == 2


def test_unlabeled_data_have_class_0_and_weight_1():
    data = SequenceDataset.unlabeled(dataset([3, 5, 2]).sequences)
    assert data.indices.tolist() == [0, 1, 2]
    assert data.y.tolist() == [0, 0, 0]
    assert data.weights.tolist() == [1, 1, 1]
    assert data.weights.dtype == np.float32


def test_fewer_than_4_short_sequences_are_repeated():
    sequences = dataset([3, 5, 50, 16, 17, 1, 1]).sequences

    def batch(*indices):
        return prediction_batch(sequences, np.array(indices), CPU)["x"][:, 0, 0].tolist()

    assert batch(0, 1) == [0, 1, 0, 1]
    assert batch(0, 1, 3) == [0, 1, 3, 0]
    assert batch(0, 1, 3, 5, 6) == [0, 1, 3, 5, 6]
    assert batch(2) == [2]
    assert batch(4) == [4]


@pytest.mark.parametrize("lengths", [[4] * 9, [3, 5, 2, 4, 9, 1, 2, 3, 8]])
def test_batches_from_the_device_cache_equal_those_padded_one_at_a_time(lengths, monkeypatch):
    data = dataset(lengths).take(np.array([8, 0, 1, 2, 5, 4, 7]))

    def batches():
        return list(Batches(data, 3, CPU, np.random.default_rng(0)))

    one_at_a_time = batches()
    free_memory(monkeypatch, 4 * 4 * 7 * max(lengths))
    cache = Batches(data, 3, CPU).device_cache
    monkeypatch.setattr(Batches, "device_cache", cache)
    monkeypatch.setattr(Sequences, "pad", lambda *args: pytest.fail("padded"))
    for (inputs, y), (cached, y_cached) in zip(one_at_a_time, batches(), strict=True):
        assert y.tolist() == y_cached.tolist()
        assert inputs.keys() == cached.keys()
        for name, value in inputs.items():
            torch.testing.assert_close(cached[name], value, equal_nan=True)


def test_batches_from_the_device_cache_are_padded_to_a_few_different_lengths(monkeypatch):
    data = dataset(list(range(1, 101)))
    free_memory(monkeypatch, 2**30)
    n_steps = set()
    for inputs, _ in Batches(data, 3, CPU, np.random.default_rng(0)):
        x, is_padding = inputs["x"], inputs["is_padding"]
        lengths = (~is_padding).sum(1)
        assert (x.isnan().all(-1) == is_padding).all()
        assert x.shape[1] <= max(1.25 * lengths.max(), lengths.max())
        n_steps.add(x.shape[1])
    assert len(n_steps) <= 20
    assert max(n_steps) == 100  # never beyond the longest sequence


def test_a_single_sequence_from_the_device_cache_is_not_padded(monkeypatch):
    free_memory(monkeypatch, 2**30)
    batches = list(Batches(dataset([9, 11, 13]), 1, CPU))
    assert [inputs["x"].shape[1] for inputs, _ in batches] == [9, 11, 13]
    assert [inputs["is_padding"] for inputs, _ in batches] == [None] * 3


@pytest.mark.parametrize(
    ("n", "rounded"), [(1, 1), (7, 7), (8, 8), (9, 10), (100, 112), (112, 112), (113, 128)]
)
def test_numbers_of_steps_are_rounded_up_to_three_significant_bits(n, rounded):
    assert round_up(n) == rounded


def test_the_device_cache_takes_at_most_a_quarter_of_the_free_memory(monkeypatch):
    sequences = read_sequences([np.ones((n, 2)) for n in (5, 5, 2)])
    data = SequenceDataset.unlabeled(sequences)
    n_bytes = 4 * 12 * 2  # float32, 12 steps, 2 features
    free_memory(monkeypatch, 4 * n_bytes)
    batches = Batches(data, 2, CPU)
    assert batches.device_cache.steps.shape == (12, 2)
    assert batches.device_cache is batches.device_cache  # The cache is filled only once.
    free_memory(monkeypatch, 4 * n_bytes - 1)
    assert Batches(data, 2, CPU).device_cache is None


def test_the_lengths_of_all_sequences_are_read_as_often_with_many_batches_as_with_few(monkeypatch):
    free_memory(monkeypatch, 10**6)
    lengths, n_reads = SequenceDataset.lengths, []
    counted = property(lambda data: n_reads.append(1) or lengths.fget(data))
    monkeypatch.setattr(SequenceDataset, "lengths", counted)

    def count(n):
        n_reads.clear()
        assert len(list(Batches(dataset([4] * n), 3, CPU, np.random.default_rng(0)))) == n // 3
        return len(n_reads)

    assert count(30) == count(300)
