"""Fits in several processes of torchrun, which are real ones, and of Ray Train."""

import os
import re

import numpy as np
import pytest

import sklearn_cls
from tests.helpers import small
from tests.in_processes import FITS, result_of, run, unequal


@pytest.mark.parametrize("n_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_fit_in_several_processes_has_the_losses_of_one_in_a_single_process(
    n_processes, tmp_path
):
    first, *others = run("fit_all", tmp_path, n_processes).values()
    assert all(other == first for other in others)  # bit by bit
    for name, (data, params) in FITS.items():
        expected = result_of(small(**params).fit(*data()))
        for key in ("losses", "valid_losses"):
            np.testing.assert_allclose(first[name][key], expected[key], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_fit_with_random_numbers_is_repeatable_and_as_accurate(tmp_path):
    results = run("fit_with_defaults", tmp_path)
    assert results[0] == results[1]
    first, second, by_parts = results[0]
    assert first == second
    assert first["accuracy"] > 0.9
    assert np.isfinite(by_parts["losses"]).all()


def test_processes_stop_diverge_and_run_out_of_memory_together(tmp_path):
    first, second = run("decide_together", tmp_path).values()
    assert first == second
    assert len(first["stopped"]["losses"]) == 3
    assert len(first["interrupted"]["losses"]) == 2
    assert re.search("interrupted in epoch 3 of 8", first["warnings"][0])
    np.testing.assert_allclose(
        first["out of memory"]["losses"], first["enough memory"]["losses"], atol=1e-5
    )
    assert "diverged" in first
    assert "d_model is different in the processes" in first["different"]


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_others_at_once(tmp_path):
    (first, seconds), (second, _) = run("fail_in_one", tmp_path).values()
    assert second == "ZeroDivisionError()"
    assert first.startswith("LostProcessError('Process 0 of 2 has lost another one")
    assert seconds < 15


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_noticed_within_the_timeout(tmp_path):
    results = run("stop_answering", tmp_path, may_fail=True, timeout=60)
    error, seconds = results[0]
    assert "has not answered for 3 seconds" in error
    assert seconds < 5


@pytest.mark.slow
def test_a_fit_that_is_killed_resumes_with_the_same_weights(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "expected").mkdir()
    environment = {"CHECKPOINT": str(tmp_path / "checkpoint"), "KILL_SEED": "0"}
    expected = run("fit_with_kills", tmp_path / "expected", **environment, N_KILLS="0")
    results = run("fit_with_kills", tmp_path / "results", n_restarts=8, **environment, N_KILLS="2")
    assert results[0]["n_restarts"] == 2
    for rank in (0, 1):
        assert results[rank]["digest"] == expected[0]["digest"]
    assert not os.path.exists(tmp_path / "checkpoint")


@pytest.mark.slow
def test_processes_that_do_not_know_each_other_are_warned(tmp_path):
    for (warning,) in run("fit_without_context", tmp_path).values():
        assert "one of 2 processes, each of which trains a model of its own" in warning


def test_data_parallel_needs_a_launcher():
    with pytest.raises(RuntimeError, match="no launcher has started this one; run the script by"):
        with sklearn_cls.data_parallel():
            pass


@pytest.mark.parametrize("timeout", [0, -1.0, np.nan])
def test_the_timeout_must_be_positive(timeout):
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
        with sklearn_cls.data_parallel(timeout):
            pass


def test_a_single_process_of_a_launcher_fits_as_without_one(monkeypatch):
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with sklearn_cls.data_parallel(20):
        clf = small().fit(*unequal())
    assert clf.loss_curve_ == small().fit(*unequal()).loss_curve_
