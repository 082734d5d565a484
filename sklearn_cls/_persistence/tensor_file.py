"""Files of tensors that are whole or not there: safetensors with a JSON document, no pickle.

The document is a string in the metadata of the file, beside the SHA-256 of it and of every tensor.
Whatever a file says, reading it runs nothing and takes no more memory than the file is long.
"""

import hashlib
import json
import os
import re
from contextlib import contextmanager, suppress
from secrets import token_hex

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

DOCUMENT, CHECKSUM = "sklearn_cls", "sha256"
MAX_HEADER = 2**19  # bytes: the names of 5,000 tensors; whatever they say, read within a second


def write_file(path, document, tensors, max_header=MAX_HEADER):
    """Replace `path` by a file of a JSON `document` and `tensors`, all of it or nothing.

    It is written beside `path`, flushed to the disk and renamed: whatever happens meanwhile,
    `path` is the old file or the new one. A link is followed.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(document)
    data = save(tensors, {DOCUMENT: text, CHECKSUM: checksum(text, tensors)})
    if int.from_bytes(data[:8], "little") > max_header:
        raise ValueError(
            f"The header of {path} would take more than {max_header} bytes; joblib.dump has no "
            "such limit."
        )
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.{token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.remove(part)
        raise
    with suppress(OSError, AttributeError):  # not every system opens folders
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(path):
    """Remove what processes that were killed while writing `path` have left beside it."""
    folder, name = os.path.split(os.path.realpath(path))
    for other in os.listdir(folder):
        if re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.part", other):
            with suppress(OSError):
                os.remove(os.path.join(folder, other))


class FileError(ValueError):
    """What is wrong with a file, which it names."""


class TensorFile:
    """An open file of `write_file`.

    Attributes
    ----------
    document : dict
    layout : dict of str to (shape, dtype)
        What the file says of each tensor, before any is read.
    """

    def __init__(self, path, file):
        self.path, self.file = path, file
        metadata = file.metadata() or {}
        if DOCUMENT not in metadata:
            raise FileError(
                f"{path} is not of sklearn_cls: its metadata have {sorted(metadata)[:5]}, not "
                f"{DOCUMENT!r}."
            )
        self.text, self.expected = metadata[DOCUMENT], metadata.get(CHECKSUM)
        try:
            self.document = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"its document is not JSON ({error})") from error
        if not isinstance(self.document, dict):
            raise damaged(path, "its document is no JSON object")
        slices = {name: file.get_slice(name) for name in file.keys()}
        self.layout = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}

    def tensors(self):
        """Return the tensors by name, if they and the document are what was written."""
        with torch.device("cpu"):  # whatever the caller's default is
            tensors = {name: self.file.get_tensor(name) for name in self.layout}
        if checksum(self.text, tensors) != self.expected:
            raise damaged(self.path, "its SHA-256 is not what was written")
        return tensors


@contextmanager
def open_file(path, max_header=MAX_HEADER):
    """Open a file of `write_file`; FileError says what is wrong with another."""
    path = os.fspath(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
    if header > size - 8:
        raise FileError(
            f"{path} is truncated, or no safetensors file: its {size} bytes have no room for a "
            f"header of {header}."
        )
    if header > max_header:
        raise FileError(f"{path} has a header of {header} bytes; at most {max_header} are read.")
    try:
        with safe_open(path, framework="pt") as file:
            yield TensorFile(path, file)
    except SafetensorError as error:
        is_cut = re.search("IncompleteBuffer|not fully covered", str(error))
        why = "it is truncated, or too long" if is_cut else "its header is wrong"
        raise damaged(path, f"{why} ({error})") from error


def damaged(path, why):
    """Return the error of a file that is not what was written."""
    return FileError(f"{path} is damaged: {why}. Copy it anew from where it came.")


def checksum(text, tensors):
    """Return the SHA-256 of a document, and of the tensors in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def flatten(tree, tensors, name):
    """Return `tree` as JSON, with its tensors and arrays put into `tensors` under `name`.

    TypeError if it holds anything but dicts, lists and tuples of text, numbers, arrays and
    tensors.
    """
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, np.number | np.bool_) and not isinstance(tree.item(), np.generic):
        return flatten(tree.item(), tensors, name)
    if isinstance(tree, torch.Tensor):
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "biuf":
        tensors[name] = torch.from_numpy(tree.copy())
        return {"array": name}
    if isinstance(tree, dict):
        if not all(isinstance(key, str | int) for key in tree):
            raise TypeError(f"{name} has keys that are neither text nor whole numbers.")
        items = enumerate(tree.items())
        return {"dict": [[key, flatten(v, tensors, f"{name}.{i}")] for i, (key, v) in items]}
    if type(tree) in (list, tuple):
        items = [flatten(item, tensors, f"{name}.{i}") for i, item in enumerate(tree)]
        return {type(tree).__name__: items}
    raise TypeError(f"{name} has {type(tree).__name__}, which is neither JSON nor a tensor.")


def unflatten(document, tensors):
    """Return the tree that `flatten` was given."""
    if not isinstance(document, dict):
        return document
    ((kind, content),) = document.items()
    if kind in ("tensor", "array"):
        return tensors[content] if kind == "tensor" else tensors[content].numpy()
    if kind == "dict":
        return {key: unflatten(value, tensors) for key, value in content}
    items = [unflatten(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)


def can_be_written(tree):
    """Whether `flatten` takes `tree`."""
    try:
        json.dumps(flatten(tree, {}, ""))
    except (TypeError, ValueError):
        return False
    return True
