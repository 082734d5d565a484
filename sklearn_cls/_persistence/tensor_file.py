"""Safetensors files that hold a JSON document in addition to tensors, written atomically.

The document is a string in the metadata of the file, next to the SHA-256 of the document and of
every tensor. Reading a file runs no code. It takes time and memory in proportion to the size of the
file: at most 60 bytes per byte of JSON, and 4 bytes per byte of tensors.
"""

import hashlib
import json
import os
from contextlib import contextmanager

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sklearn_cls._persistence.files import (
    FileError,
    check_path,
    errors_name,
    open_regular,
    write_atomically,
)
from sklearn_cls._persistence.json_values import parse_json

DOCUMENT, CHECKSUM = "sklearn_cls", "sha256"
MAX_HEADER = 2**24  # bytes; enough for half a million names of features or classes
INVALID_HEADER = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def write_file(path, document, tensors):
    """Write a JSON `document` and `tensors` to the file `path`, see `files.replace_file`."""
    path = check_path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(document)
    data = save(tensors, {DOCUMENT: text, CHECKSUM: checksum(text, tensors)})
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise ValueError(
            f"The header of {path!r} would take more than {MAX_HEADER} bytes, because there are so "
            "many or such long names of classes or features; use joblib.dump, which has no such "
            "limit."
        )
    write_atomically(path, data)


class TensorFile:
    """A file that `write_file` wrote, open for reading.

    The file is read and not mapped: a map of a file that another process cuts would end this
    process. The tensors are read after the header has been compared with what is expected.

    Attributes
    ----------
    document : dict
    layout : dict of str to (shape, dtype)
        Shape and dtype of each tensor, known before any is read.
    """

    def __init__(self, path, file):
        self.path, self.file = path, file
        self.header = read_header(path, file)
        try:
            header = parse_json(self.header[8:].decode())
            metadata = header.pop("__metadata__", {})
            self.layout = {
                name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in header.items()
            }
            self.n_bytes = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            is_complete = os.fstat(file.fileno()).st_size == len(self.header) + self.n_bytes
            names = sorted(metadata.keys())  # A list has none and raises an error, too.
        except INVALID_HEADER as error:
            raise damage_error(path, f"its header is invalid ({error!r})") from error
        if not is_complete:
            raise damage_error(path, "it is truncated, or too long")
        if DOCUMENT not in names:
            raise FileError(
                f"{path!r} was not written by sklearn_cls: its metadata have the keys "
                f"{names[:5]}, but not {DOCUMENT!r}."
            )
        self.text, self.expected = metadata[DOCUMENT], metadata.get(CHECKSUM)
        try:
            self.document = parse_json(self.text)
        except INVALID_HEADER as error:
            raise damage_error(path, f"its document is not JSON ({error!r})") from error
        if not isinstance(self.document, dict):
            raise damage_error(path, "its document is not a JSON object")

    def tensors(self):
        """Return the tensors by name, after verifying the checksum."""
        data = self.header + self.file.read(self.n_bytes)
        try:
            with torch.device("cpu"):  # the caller's default device may be different
                tensors = load(data)
        except (AssertionError, KeyError, RuntimeError, SafetensorError) as error:
            raise damage_error(self.path, f"its tensors cannot be read ({error!r})") from error
        if checksum(self.text, tensors) != self.expected:
            raise damage_error(self.path, "its SHA-256 differs from the one it was written with")
        return tensors


@contextmanager
def open_file(path):
    """Open a file that `write_file` wrote; raise FileError if it is not one."""
    path = check_path(path)
    with errors_name(path), open_regular(path) as file:
        yield TensorFile(path, file)


def read_header(path, file):
    """Return the header of an open safetensors file, with the 8 bytes that hold its size."""
    size, start = os.fstat(file.fileno()).st_size, file.read(8)
    n_bytes = int.from_bytes(start, "little")
    if n_bytes > size - 8:
        raise FileError(
            f"{path!r} is truncated, or not a safetensors file: it has {size} bytes, but its first "
            f"8 bytes declare a header of {n_bytes} bytes."
        )
    if n_bytes > MAX_HEADER:
        raise FileError(f"{path!r} has a header of {n_bytes} bytes; the limit is {MAX_HEADER}.")
    return start + file.read(n_bytes)


def damage_error(path, why):
    """Return the error to raise for a damaged file."""
    return FileError(f"{path!r} is damaged: {why}. Copy it again from its source.")


def checksum(text, tensors):
    """Return the SHA-256 of a document and of the tensors, in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
