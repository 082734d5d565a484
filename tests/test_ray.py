"""Searches and fits on Ray, in real processes."""

import signal

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.model_selection import cross_val_score

from tests.helpers import bumps, small

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,  # it takes more than 10 seconds to start
    pytest.mark.filterwarnings("ignore"),  # Ray's own, in its threads
]


@pytest.fixture(scope="module")
def cluster():
    # Ray Train replaces signal handlers and does not restore them.
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        # On a busy machine, the workers take longer to start than Ray allows by default.
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_scores_of_a_search_are_those_in_this_process(cluster):
    from ray.util.joblib import register_ray

    register_ray()
    expected = cross_val_score(small(), *bumps(), cv=3)
    with joblib.parallel_config("ray"):
        scores = cross_val_score(small(), *bumps(), cv=3)
    np.testing.assert_array_equal(scores, expected)


def train(config):
    """Fit in a worker of Ray Train, and write the losses."""
    import sklearn_cls

    with sklearn_cls.data_parallel(60):
        clf = small(augment=False, dropout=0.0).fit(*bumps())
    rank = ray.train.get_context().get_world_rank()
    np.save(f"{config['folder']}/{rank}.npy", clf.loss_curve_)


def test_the_workers_of_ray_train_fit_together(cluster, tmp_path):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        train,
        train_loop_config={"folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=str(tmp_path / "storage")),
    ).fit()
    expected = small(augment=False, dropout=0.0).fit(*bumps()).loss_curve_
    for rank in (0, 1):
        assert_allclose(np.load(tmp_path / f"{rank}.npy"), expected, atol=1e-5)
