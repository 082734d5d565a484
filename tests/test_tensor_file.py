import json

import pytest
import torch

from sklearn_cls._persistence.tensor_file import MAX_HEADER, open_file, write_file

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
        with pytest.raises(ValueError, match=r"file' (is|has|was)"):
            read(path)


def with_header(header, data=b""):
    header = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated, or not a safetensors file: it has 0 bytes"),
        (b"PK\x03\x04" * 100, "truncated, or not a safetensors file: it has 400 bytes"),
        (with_header(b" " * (MAX_HEADER + 1)), "a header of 16777217 bytes; the limit is 16777216"),
        (with_header(b"[" * 100_000), "damaged: its header is invalid"),
        (
            with_header({"x": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}),
            "truncated",
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
    with pytest.raises(ValueError, match=r"of .*file' would take more than 16777216 bytes"):
        write_file(path, {"text": document["text"] + 8 * "x"}, {})  # headers are padded to 8 bytes
    assert read(path)[0] == document
