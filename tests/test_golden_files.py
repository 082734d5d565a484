import json
import re

import numpy as np
import pandas as pd
import pytest

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._persistence.model_file import FORMAT
from tests.golden_files import FOLDER, write

FILES = sorted(FOLDER.glob("*.safetensors"))


def check(clf, expected):
    columns = expected["columns"]
    if columns and "time" in columns:
        X = pd.DataFrame(expected["X"], columns=columns)
        X["time"] = [np.array(cell).view("datetime64[ms]") for cell in X["time"]]
    else:
        X = np.array(expected["X"], dtype=np.float32)
        X = pd.DataFrame(X, columns=columns) if columns else X
    classes = [x.decode() if isinstance(x, bytes) else x for x in clf.predict(X).tolist()]
    assert classes == expected["classes"]
    assert np.allclose(clf.predict_proba(X), expected["probabilities"], atol=1e-4)
    assert clf.net_.n_epochs_trained == expected["n_epochs_trained"]
    # Comparing reprs distinguishes 1 from True and from 1.0, and treats NaN as equal to NaN.
    assert repr({name: clf.history_[name] for name in expected["history"]}) == repr(
        expected["history"]
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_every_format_predicts_as_recorded_and_is_saved_in_the_current_format(
    path, tmp_path
):
    expected = json.loads(path.with_suffix(".json").read_text())
    clf = CLSTransformerClassifier.load(path)
    check(clf, expected)
    clf.save(tmp_path / "model")
    again = CLSTransformerClassifier.load(tmp_path / "model")
    check(again, expected)
    assert again.get_params().keys() == clf.get_params().keys()


def test_there_are_two_files_of_every_format():
    numbers = [int(re.match(r"format_(\d+)_", path.name)[1]) for path in FILES]
    for number in range(1, FORMAT + 1):
        assert numbers.count(number) >= 2, (
            f"Run `python -m tests.golden_files tests/golden` with the code that wrote {number}."
        )


def test_golden_files_of_the_current_format_can_be_written(tmp_path):
    write(tmp_path)
    paths = sorted(tmp_path.glob("*.safetensors"))
    names = ["events", "sequences", "table"]
    assert [path.stem for path in paths] == [f"format_{FORMAT}_{name}" for name in names]
    for path in paths:
        expected = json.loads(path.with_suffix(".json").read_text())
        check(CLSTransformerClassifier.load(path), expected)
