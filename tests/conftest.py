import logging

import pytest

from tests.helpers import LOST_WORKERS_RETURN, bumps, small


@pytest.fixture(scope="session")
def data():
    return bumps()


@pytest.fixture(scope="session")
def fitted(data):
    return small().fit(*data)


@pytest.fixture(scope="session")
def cluster():
    """A Dask cluster of two processes, which the tests of a session share."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set(LOST_WORKERS_RETURN),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):  # fmt: skip
        # Its callback would swallow the interrupts of other tests, which come at any moment.
        distributed.gc.disable_gc_diagnosis(force=True)
        yield cluster


@pytest.fixture
def client(cluster):
    """The current client of the cluster, with two workers."""
    import distributed

    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        yield client
