import pytest
import torch

# Sphinx runs these.
collect_ignore_glob = ["docs/*.py", "docs/auto_examples/*", "docs/generated/*"]


@pytest.fixture(autouse=True)
def _one_thread():
    # Two threads on a core that another worker uses wait for each other most of the time.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _examples_write_elsewhere(request, tmp_path, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
