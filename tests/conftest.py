import pytest

from tests.helpers import bumps, small


@pytest.fixture(scope="session")
def data():
    return bumps()


@pytest.fixture(scope="session")
def fitted(data):
    return small().fit(*data)
