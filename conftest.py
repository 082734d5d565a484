import pytest
import torch

# These scripts run when Sphinx builds the documentation; importing them here would start them.
collect_ignore_glob = ["docs/*.py", "docs/auto_examples/*", "docs/generated/*"]


@pytest.fixture(autouse=True)
def _one_torch_thread():
    # The tests run in several processes at once, where more torch threads than cores are very slow.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _run_examples_in_a_temporary_folder(request, tmp_path, monkeypatch):
    # Examples in docstrings and in the documentation write files to the working directory.
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
