"""What several processes of a fit find out about each other's data and parameters."""

import threading

import numpy as np
import pytest

from sklearn_cls._data.batches import SequenceDataset
from sklearn_cls._data.partitions import Partitions
from sklearn_cls._data.validation import check_sequences
from sklearn_cls._persistence.fingerprint import check_same_fit, digests
from sklearn_cls._torch.processes import Processes
from tests.helpers import bumps, small


class Threads(Processes):
    """Processes of a fit that are threads of this process."""

    def __init__(self, rank, size, shared, barrier):
        self.rank, self.size, self.shared, self.barrier = rank, size, shared, barrier

    def gather(self, value):
        self.shared[self.rank] = value
        self.barrier.wait(20)
        values = [self.shared[rank] for rank in range(self.size)]
        self.barrier.wait(20)
        return values


def in_threads(function, *arguments):
    """Call a function with the processes and an argument in one thread for each argument."""
    shared, barrier, results = {}, threading.Barrier(len(arguments)), {}

    def call(rank):
        processes = Threads(rank, len(arguments), shared, barrier)
        try:
            results[rank] = function(processes, arguments[rank])
        except ValueError as error:
            results[rank] = str(error)

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(len(arguments))]


def digests_of(processes, partitions):
    sequences, _ = check_sequences(Partitions(partitions, processes), "Classifier")
    return [array.tolist() for array in digests(SequenceDataset.unlabeled(sequences))]


def test_digests_depend_on_the_partitions_but_not_on_who_holds_them():
    X, _ = bumps(30)
    first, second, third = np.split(X, [10, 15])
    expected = in_threads(digests_of, {0: first, 1: second}, {2: third})
    assert expected[0] == expected[1]
    assert in_threads(digests_of, {2: third, 0: first}, {1: second}) == expected
    assert in_threads(digests_of, {0: first}, {1: second}, {2: third})[:2] == expected
    assert in_threads(digests_of, {0: second, 1: first}, {2: third}) != expected
    third = third + 1e-3
    assert in_threads(digests_of, {0: first, 1: second}, {2: third}) != expected


def check(processes, case):
    params, X = case
    sequences, _ = check_sequences(X, "Classifier")
    data = SequenceDataset.unlabeled(sequences)
    return check_same_fit(small(**params), data, np.arange(2), processes)


@pytest.mark.parametrize(
    ("params", "change", "name"),
    [
        ({}, lambda X: X, None),
        ({"depth": 3}, lambda X: X, "depth"),
        ({}, lambda X: X[:-1], "n_sequences"),
        ({}, lambda X: X + 1, "X"),
    ],
)
def test_processes_with_other_data_or_parameters_are_an_error_in_all(params, change, name):
    X, _ = bumps(30)
    results = in_threads(check, ({}, X), ({}, X), (params, change(X)))
    if name is None:
        assert results == [None] * 3
    else:
        expected = f"{name} is different in the processes with the ranks 0 and 2. Pass the same"
        assert all(result.startswith(expected) for result in results)
