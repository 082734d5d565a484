import pytest

from tests.reference_fits import TOLERANCE, compare


@pytest.mark.slow
def test_reference_fits_have_the_recorded_probabilities():
    assert {name: gap for name, gap, _ in compare() if gap > TOLERANCE} == {}
