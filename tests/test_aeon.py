import importlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_cls import CLSTransformerClassifier
from tests.helpers import bumps, small

pytest.importorskip("aeon")
from aeon.pipeline import make_pipeline
from aeon.testing.estimator_checking import parametrize_with_checks
from aeon.transformations.collection import Normalizer

from sklearn_cls import aeon


@parametrize_with_checks([aeon.CLSTransformerClassifier])
@pytest.mark.filterwarnings("default")  # some checks cause warnings
def test_the_classifier_passes_the_checks_of_aeon(check):
    check()


@pytest.fixture(scope="module")
def channels_first():
    X, y = bumps()
    return X.transpose(0, 2, 1), y


def small_aeon(**params):
    return aeon.CLSTransformerClassifier(**(small().get_params() | {"n_jobs": 1} | params))


def test_predictions_equal_those_of_our_classifier(channels_first):
    X, y = channels_first
    ours = small(n_jobs=1).fit(X.transpose(0, 2, 1), y)
    theirs = small_aeon().fit(X, y)
    assert np.array_equal(theirs.predict_proba(X), ours.predict_proba(X.transpose(0, 2, 1)))
    assert np.array_equal(theirs.predict(X), ours.predict(X.transpose(0, 2, 1)))
    assert isinstance(theirs.classifier_, CLSTransformerClassifier)
    lists = [x[:, : 15 + i % 6] for i, x in enumerate(X)]
    assert small_aeon().fit(lists, y).score(lists, y) > 0.8


def test_parameters_are_those_of_our_classifier_with_one_thread_by_default():
    params = aeon.CLSTransformerClassifier(depth=3).get_params()
    assert params == CLSTransformerClassifier(depth=3, n_jobs=1).get_params()
    assert clone(aeon.CLSTransformerClassifier(d_model=32)).d_model == 32
    with pytest.raises(TypeError, match="unexpected keyword argument 'dmodel'"):
        aeon.CLSTransformerClassifier(dmodel=32)


def test_pipelines_and_searches_take_the_classifier(channels_first):
    X, y = channels_first
    assert make_pipeline(Normalizer(), small_aeon()).fit(X, y).score(X, y) > 0.8
    search = GridSearchCV(small_aeon(max_epochs=1), {"depth": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_["depth"] in (1, 2)


@pytest.mark.parametrize("library", ["aeon", "sktime"])
def test_a_missing_library_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, f"{library}.classification", None)
    monkeypatch.delitem(sys.modules, f"sklearn_cls.{library}", raising=False)
    with pytest.raises(
        ImportError, match=rf"needs {library}: pip install 'sklearn_cls\[{library}\]'"
    ):
        importlib.import_module(f"sklearn_cls.{library}")


def test_importing_the_package_imports_neither_library():
    code = "import sys, sklearn_cls; assert not {'aeon', 'sktime'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
