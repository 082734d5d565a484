import sys

import pytest

from tests.fuzz_files import fuzz


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
