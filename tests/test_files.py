import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from sklearn_cls._persistence.tensor_file import (
    MAX_HEADER,
    flatten,
    open_file,
    remove_parts,
    unflatten,
    write_file,
)

DOCUMENT = {"format": 1, "name": "a model"}
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True, False])}


@pytest.fixture
def path(tmp_path):
    write_file(tmp_path / "file", DOCUMENT, TENSORS)
    return tmp_path / "file"


def read(path):
    with open_file(path) as file:
        return file.document, file.tensors()


def test_what_was_written_is_read(path):
    document, tensors = read(path)
    assert document == DOCUMENT
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_the_shapes_are_known_before_a_tensor_is_read(path):
    with open_file(path) as file:
        assert file.layout == {"a": ((2, 3), "F32"), "b": ((2,), "BOOL")}


def test_a_file_has_the_mode_of_any_other_and_nothing_is_left_beside_it(path):
    (path.parent / "other").write_bytes(b"")
    mode = stat.S_IMODE(os.stat(path).st_mode)
    assert mode == stat.S_IMODE(os.stat(path.parent / "other").st_mode)
    assert sorted(p.name for p in path.parent.iterdir()) == ["file", "other"]


def test_a_link_stays_a_link(path):
    link = path.parent / "link"
    link.symlink_to(path)
    write_file(link, {"format": 2}, TENSORS)
    assert link.is_symlink()
    assert read(path)[0] == {"format": 2}


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_whatever_fails_while_writing_the_old_file_is_there_and_nothing_beside_it(
    call, error, path, monkeypatch
):
    def fail(*args, **kwargs):
        raise error

    if call == "open":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(f"sklearn_cls._persistence.tensor_file.os.{call}", fail)
    with pytest.raises(type(error)):
        write_file(path, {"format": 2}, TENSORS)
    monkeypatch.undo()
    assert read(path)[0] == DOCUMENT
    assert os.listdir(path.parent) == ["file"]


FULL_DISK = """
import errno, resource, sys, torch
from sklearn_cls._persistence.tensor_file import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))  # bytes a file may have
try:
    write_file(sys.argv[1], {}, {"large": torch.zeros(2**16)})
except OSError as error:
    sys.exit(0 if error.errno == errno.EFBIG else 1)
sys.exit(2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of POSIX")
def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(path):
    subprocess.run([sys.executable, "-c", FULL_DISK, path], check=True)
    assert read(path)[0] == DOCUMENT
    assert os.listdir(path.parent) == ["file"]


def test_a_file_that_is_cut_anywhere_is_refused(path):
    whole = path.read_bytes()
    for n in range(0, len(whole), 7):
        path.write_bytes(whole[:n])
        with pytest.raises(ValueError, match="truncated"):
            read(path)


def test_a_file_with_any_bit_flipped_is_refused(path):
    whole = path.read_bytes()
    for i in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"file (is|has)"):
            read(path)


def with_header(header, data=b""):
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated, or no safetensors"),
        (b"PK\x03\x04" * 100, "truncated, or no safetensors"),
        (with_header(b" " * (MAX_HEADER + 1)), "a header of 524289 bytes; at most"),
        (with_header(b"[" * 100_000), "its header is wrong"),
        (
            with_header({"x": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}),
            "truncated",
        ),
        (
            with_header({"x": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}, b"1234"),
            "its header is wrong",
        ),
        (with_header({"__metadata__": {"format": "pt"}}), "not of sklearn_cls.*'format'"),
        (with_header({"__metadata__": {"sklearn_cls": "{"}}), "its document is not JSON"),
        (with_header({"__metadata__": {"sklearn_cls": "[" * 10**5}}), "its document is not JSON"),
        (with_header({"__metadata__": {"sklearn_cls": "[1]"}}), "no JSON object"),
        (with_header({"__metadata__": {"sklearn_cls": "{}"}}), "SHA-256"),
    ],
)  # fmt: skip
def test_a_file_that_is_another_is_refused_by_what_is_wrong_with_it(content, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_header_that_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"header of .*file would take more than"):
        write_file(tmp_path / "file", {"long": "x" * MAX_HEADER}, {})
    assert os.listdir(tmp_path) == []


def test_what_killed_processes_left_is_removed_and_nothing_else(path):
    left = {".file.part.txt", ".other.01234567.part", "file.part", ".file.st.01234567.part"}
    for name in (".file.01234567.part", *left):
        (path.parent / name).write_bytes(b"")
    remove_parts(path)
    left.add("file")
    assert set(os.listdir(path.parent)) == left


def test_trees_of_tensors_come_back_as_they_were():
    tree = {
        "a": [1, 2.5, None, True, "text", np.inf], "b": (torch.ones(2), np.arange(3)),
        3: {"tensor": "no tensor"}, "d": np.float64(0.1), "e": [], "f": 2**127,
    }  # fmt: skip
    tensors = {}
    document = json.loads(json.dumps(flatten(tree, tensors, "tree")))
    back = unflatten(document, tensors)
    assert list(back) == list(tree)
    assert back["a"] == tree["a"]
    assert torch.equal(back["b"][0], tree["b"][0])
    assert np.array_equal(back["b"][1], tree["b"][1])
    assert isinstance(back["b"], tuple)
    assert [back[key] for key in (3, "d", "e", "f")] == [tree[key] for key in (3, "d", "e", "f")]


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, {(1, 2): 3}, np.array(["a"]), np.longdouble(1), len]
)
def test_what_is_neither_json_nor_a_tensor_is_refused(value):
    with pytest.raises(TypeError, match="tree"):
        flatten({"x": value}, {}, "tree")
