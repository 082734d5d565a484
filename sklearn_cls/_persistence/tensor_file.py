"""Safetensors files that hold a JSON document in addition to tensors, written atomically.

The document is a string in the metadata of the file, next to the SHA-256 of the document and of
every tensor. Reading a file runs no code, and takes memory in proportion to the size of the file.
"""

import hashlib
import json
import os
import re
from contextlib import contextmanager

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sklearn_cls._persistence.files import check_path, open_regular, write_atomically

DOCUMENT, CHECKSUM = "sklearn_cls", "sha256"
MAX_HEADER = 2**19  # bytes; enough for the names of 5,000 tensors, and parsed within a second


def write_file(path, document, tensors, max_header=MAX_HEADER):
    """Write a JSON `document` and `tensors` to the file `path`, see `files.replace_file`."""
    path = check_path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(document)
    data = save(tensors, {DOCUMENT: text, CHECKSUM: checksum(text, tensors)})
    if int.from_bytes(data[:8], "little") > max_header:
        raise ValueError(
            f"The header of {path!r} would take more than {max_header} bytes; joblib.dump has no "
            "such limit."
        )
    write_atomically(path, data)


class FileError(ValueError):
    """Raised if a file cannot be read; the message names the file and what is wrong."""


class TensorFile:
    """A file that `write_file` wrote, open for reading.

    Attributes
    ----------
    document : dict
    layout : dict of str to (shape, dtype)
        Shape and dtype of each tensor, known before any is read.
    """

    def __init__(self, path, file):
        self.path, self.file = path, file
        metadata = file.metadata() or {}
        if DOCUMENT not in metadata:
            raise FileError(
                f"{path} was not written by sklearn_cls: its metadata have the keys "
                f"{sorted(metadata)[:5]}, but not {DOCUMENT!r}."
            )
        self.text, self.expected = metadata[DOCUMENT], metadata.get(CHECKSUM)
        try:
            self.document = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise damage_error(path, f"its document is not JSON ({error})") from error
        if not isinstance(self.document, dict):
            raise damage_error(path, "its document is not a JSON object")
        slices = {name: file.get_slice(name) for name in file.keys()}
        self.layout = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}

    def tensors(self):
        """Return the tensors by name, after verifying the checksum."""
        with torch.device("cpu"):  # the caller's default device may be different
            tensors = {name: self.file.get_tensor(name) for name in self.layout}
        if checksum(self.text, tensors) != self.expected:
            raise damage_error(self.path, "its SHA-256 differs from the one it was written with")
        return tensors


@contextmanager
def open_file(path, max_header=MAX_HEADER):
    """Open a file that `write_file` wrote; raise FileError if it is not one."""
    path = check_path(path)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
    if header > size - 8:
        raise FileError(
            f"{path} is truncated, or not a safetensors file: it has {size} bytes, but its first "
            f"8 bytes declare a header of {header} bytes."
        )
    if header > max_header:
        raise FileError(f"{path} has a header of {header} bytes; the limit is {max_header}.")
    try:
        with safe_open(path, framework="pt") as file:
            yield TensorFile(path, file)
    except SafetensorError as error:
        is_cut = re.search("IncompleteBuffer|not fully covered", str(error))
        why = "it is truncated, or too long" if is_cut else "its header is invalid"
        raise damage_error(path, f"{why} ({error})") from error


def damage_error(path, why):
    """Return the error to raise for a damaged file."""
    return FileError(f"{path} is damaged: {why}. Copy it again from its source.")


def checksum(text, tensors):
    """Return the SHA-256 of a document and of the tensors, in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
