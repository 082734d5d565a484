import sys

import pytest

from tests.fuzz_files import Worker, fuzz


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_300_mutated_files_are_refused_or_work():
    results = fuzz(300)
    assert [result for result in results if not result[3]] == []
    kinds = {kind for _, kind, *_ in results}
    assert len(kinds) == 12
    happened = [what for _, _, what, _ in results]
    assert happened.count("refused") > 100
    assert happened.count("works") > 20


class DyingWorker(Worker):
    def command(self):
        line = f'["start", {self.next}, "kind"]'
        return [sys.executable, "-c", f"import os; print('{line}', flush=True); os.abort()"]


def test_a_file_that_kills_a_process_is_reported_and_the_next_file_is_used(tmp_path):
    worker = DyingWorker(0, 6, 3, str(tmp_path))
    while worker.process:
        worker.read()
    what = "ends the process with code -6"
    assert worker.results == [(0, "kind", what, False), (3, "kind", what, False)]
