import json
import os
import signal
import stat
import sys

import pytest
import torch

from sklearn_cls._persistence.tensor_file import (
    MAX_HEADER,
    open_file,
    remove_temporary_files,
    write_atomically,
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


def test_document_and_tensors_are_restored(path):
    document, tensors = read(path)
    assert document == DOCUMENT
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_shapes_and_dtypes_are_known_before_tensors_are_read(path):
    with open_file(path) as file:
        assert file.layout == {"a": ((2, 3), "F32"), "b": ((2,), "BOOL")}


def test_tensors_that_are_not_contiguous_or_need_gradients_are_written(tmp_path):
    tensors = {"transposed": TENSORS["a"].T, "weight": torch.ones(2, requires_grad=True)}
    write_file(tmp_path / "file", {}, tensors)
    _, read_tensors = read(tmp_path / "file")
    assert torch.equal(read_tensors["transposed"], TENSORS["a"].T)
    assert torch.equal(read_tensors["weight"], torch.ones(2))


def test_permissions_match_a_new_file_and_no_temporary_file_is_left(path):
    (path.parent / "other").write_bytes(b"")
    mode = stat.S_IMODE(os.stat(path).st_mode)
    assert mode == stat.S_IMODE(os.stat(path.parent / "other").st_mode)
    assert sorted(os.listdir(path.parent)) == ["file", "other"]


def test_a_symbolic_link_is_followed(path):
    link = path.parent / "link"
    link.symlink_to(path)
    write_file(link, {"format": 2}, TENSORS)
    assert link.is_symlink()
    assert read(path)[0] == {"format": 2}


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_afterwards(path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def record_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def record_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr("sklearn_cls._persistence.tensor_file.os.fsync", record_fsync)
    monkeypatch.setattr("sklearn_cls._persistence.tensor_file.os.replace", record_replace)
    write_atomically(path, b"new")
    assert calls == ["file", "rename", "folder"]


def test_files_are_written_where_folders_cannot_be_opened(path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")  # as on Windows
    write_file(path, {"format": 2}, TENSORS)
    assert read(path)[0] == {"format": 2}


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_the_old_file_and_no_temporary_file(
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


@pytest.mark.skipif(sys.platform != "linux", reason="needs a POSIX resource limit")
def test_a_full_disk_leaves_the_old_file_and_no_temporary_file(path):
    import resource

    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, limits[1]))  # bytes in a file
    try:
        with pytest.raises(OSError, match="File too large"):
            write_file(path, {}, {"large": torch.zeros(2**16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert read(path)[0] == DOCUMENT
    assert os.listdir(path.parent) == ["file"]


def test_a_truncated_file_raises(path):
    whole = path.read_bytes()
    for n in range(0, len(whole), 7):
        path.write_bytes(whole[:n])
        with pytest.raises(ValueError, match="truncated"):
            read(path)


def test_a_file_with_any_flipped_bit_raises(path):
    whole = path.read_bytes()
    for i in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"file (is|has|was)"):
            read(path)


def with_header(header, data=b""):
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated, or not a safetensors file: it has 0 bytes"),
        (b"PK\x03\x04" * 100, "truncated, or not a safetensors file: it has 400 bytes"),
        (with_header(b" " * (MAX_HEADER + 1)), "a header of 524289 bytes; the limit is 524288"),
        (with_header(b"[" * 100_000), "damaged: its header is invalid"),
        (
            with_header({"x": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}),
            "truncated",
        ),
        (
            with_header({"x": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}, b"1234"),
            "its header is invalid",
        ),
        (with_header({"__metadata__": {"format": "pt"}}), "not written by sklearn_cls.*'format'"),
        (with_header({"__metadata__": {"sklearn_cls": "{"}}), "its document is not JSON"),
        (with_header({"__metadata__": {"sklearn_cls": "[" * 10**5}}), "its document is not JSON"),
        (with_header({"__metadata__": {"sklearn_cls": "[1]"}}), "not a JSON object"),
        (with_header({"__metadata__": {"sklearn_cls": "{}"}}), "SHA-256"),
    ],
)  # fmt: skip
def test_a_file_that_write_file_did_not_write_raises(content, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_header_of_the_maximum_size_can_be_written_and_read(tmp_path):
    path = tmp_path / "file"
    write_file(path, {"text": ""}, {})
    n_bytes = int.from_bytes(path.read_bytes()[:8], "little")
    document = {"text": "x" * (MAX_HEADER - n_bytes)}
    write_file(path, document, {})
    assert read(path)[0] == document
    with pytest.raises(ValueError, match=r"header of .*file would take more than 524288 bytes"):
        write_file(path, {"text": document["text"] + 8 * "x"}, {})  # headers are padded to 8 bytes
    assert read(path)[0] == document


def test_only_temporary_files_of_the_same_path_are_removed(path):
    kept = {".file.part.txt", ".other.01234567.part", "file.part", ".file.st.01234567.part"}
    for name in (".file.01234567.part", *kept):
        (path.parent / name).write_bytes(b"")
    remove_temporary_files(path)
    assert set(os.listdir(path.parent)) == {"file", *kept}


def test_remove_temporary_files_finds_what_write_atomically_leaves(path, monkeypatch):
    def fail(*paths):
        raise OSError("The disk is gone")

    monkeypatch.setattr("sklearn_cls._persistence.tensor_file.os.replace", fail)
    monkeypatch.setattr("sklearn_cls._persistence.tensor_file.os.remove", fail)
    with pytest.raises(OSError, match="gone"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert len(os.listdir(path.parent)) == 2
    remove_temporary_files(path)
    assert os.listdir(path.parent) == ["file"]
