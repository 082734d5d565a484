"""The file of a checkpoint: its format, and the lock that gives it to one fit at a time.

The file consists of a line that names the format, the SHA-256 digest of everything else, a line of
JSON with the versions of the packages that wrote it, and a state written by `torch.save`. Reading
it runs no code, and the digest is verified before anything else is looked at.
"""

import hashlib
import io
import json
import os
import platform
import re
from contextlib import suppress

import numpy as np
import sklearn
import torch

from sklearn_cls._persistence.files import (
    PRIVATE,
    FileError,
    close_unless_locked,
    errors_name,
    is_at,
    lock,
    open_regular,
    remove_temporary_files,
    replace_file,
    unlock,
)
from sklearn_cls._training.state import SKORCH_VERSION
from sklearn_cls._version import __version__

MAGIC = b"sklearn_cls checkpoint, format 4\n"
DIGEST_SIZE = hashlib.sha256().digest_size
MAX_WRONG_BYTES = 4  # in the first line of a damaged checkpoint
ARRAY = "sklearn_cls.ndarray"  # key of a dict that represents an array


class CheckpointFile:
    """A checkpoint that one fit at a time may read, replace and remove.

    The fit has a lock on the file at the path, if there is one. A new file is locked before it gets
    this name, so there is no moment without a lock. Where the system or the file system has no
    locks, other fits are not noticed.

    Parameters
    ----------
    path : str
        Absolute path without a symbolic link as its last part.
    """

    def __init__(self, path):
        self.path = path
        self.file = self.status = None  # of the file at the path, if it is the one of this fit

    def open(self):
        """Lock the file; return whether there is one.

        Temporary files that killed fits have left are removed.

        Raises
        ------
        BlockingIOError
            If another fit has locked it.
        """
        remove_temporary_files(self.path)
        while self.file is None:
            try:
                file = open_regular(self.path, "r+b")
            except FileNotFoundError:
                return False
            try:
                with errors_name(self.path):
                    lock(file)
                    self.status = os.fstat(file.fileno())
                    if is_at(self.path, self.status):  # it has not been replaced in between
                        self.file = file
                        close_unless_locked(file)
            except BlockingIOError:
                raise self.in_use_error() from None
            finally:
                if self.file is None:
                    file.close()
        return True

    def read(self):
        """Return the state in the file, see `read_state`."""
        with errors_name(self.path), open_regular(self.path) as file:
            return read_state(file, self.path)

    def write(self, state):
        """Replace the file by one with a new `state`.

        Raises
        ------
        BlockingIOError
            If another fit has put its own file at the path.
        """
        data = to_bytes(state)
        with errors_name(self.path):
            if not self.is_present():
                self.close()
                self.open()
            try:
                file = replace_file(self.path, data, PRIVATE, must_be_new=self.file is None)
            except FileExistsError:
                raise self.in_use_error() from None
            self.close()
            self.file = file
            self.status = os.stat(self.path)

    def remove(self):
        """Remove the file, unless another one has taken its place."""
        if self.is_present():
            os.remove(self.path)

    def is_present(self):
        """Return whether the file at the path belongs to this fit."""
        return self.file is not None and is_at(self.path, self.status)

    def close(self):
        """Give the file to other fits."""
        file, self.file = self.file, None
        if file is not None:
            unlock(file)

    def in_use_error(self):
        """Return the error to raise if another fit has locked the file."""
        return BlockingIOError(
            f"checkpoint={self.path!r} is in use by another fit that is still running; choose "
            "another path, or wait until that fit has ended."
        )


def to_bytes(state):
    """Return the content of a checkpoint with this `state`."""
    buffer = io.BytesIO()
    buffer.write(json.dumps(current_versions()).encode() + b"\n")
    torch.save(state, buffer)
    return b"".join([MAGIC, digest_of(buffer.getbuffer()), buffer.getbuffer()])


def read_state(file, path):
    """Return the state in a checkpoint that is open, without running any code in the file.

    Raises
    ------
    FileError
        If the file is not a checkpoint, is damaged, or was written with other versions.
    """
    content = check_content(file, path)
    versions, _, payload = content.partition(b"\n")
    try:
        check_versions(path, json.loads(versions))
        state = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
        return from_storable(state)
    except (FileError, MemoryError):
        raise
    except Exception:
        # The message of torch is left out: it advises running the code in the file.
        raise FileError(
            f"checkpoint={path!r} cannot be read as a checkpoint; delete it to start a new fit."
        ) from None


def check_content(file, path):
    """Return what follows the digest, after verifying the digest."""
    magic = file.read(len(MAGIC))
    n_wrong = sum(a != b for a, b in zip(magic, MAGIC, strict=False))
    if n_wrong > (MAX_WRONG_BYTES if len(magic) == len(MAGIC) else 0):
        raise FileError(
            f"checkpoint={path!r} is not a checkpoint; delete the file, or choose another path."
        )
    digest, content = file.read(DIGEST_SIZE), file.read()
    is_intact = digest_of(content) == digest
    number = re.fullmatch(MAGIC.replace(b"4", b"([0-9]+)"), magic)
    if magic != MAGIC and number and not is_intact:
        raise FileError(
            f"checkpoint={path!r} has format {number[1].decode()}, but sklearn_cls {__version__} "
            "reads only format 4; resume that fit with the version that wrote it, or delete the "
            "file to start a new one."
        )
    if magic != MAGIC or not is_intact:
        raise FileError(
            f"checkpoint={path!r} is damaged: its SHA-256 digest does not match its content; "
            "delete it to start a new fit."
        )
    return content


def digest_of(content):
    """Return the SHA-256 digest of a checkpoint, of its first line and of everything else."""
    digest = hashlib.sha256(MAGIC)
    digest.update(content)
    return digest.digest()


def current_versions():
    """Return the versions of the packages that a resumed fit depends on, and that of Python.

    They are those of the imported modules; the installed packages may have been upgraded since.
    """
    return {
        "sklearn_cls": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "skorch": SKORCH_VERSION,
        "python": platform.python_version(),
    }


def check_versions(path, versions):
    """Raise FileError if a checkpoint was written with other versions.

    The results of torch and NumPy may differ in the last bits, scikit-learn splits off the
    validation set, and skorch's callbacks store attributes of their own. The version of Python may
    differ, because Python computes nothing that a fit depends on.
    """
    for name, here in current_versions().items():
        if name != "python" and versions.get(name) != here:
            raise FileError(
                f"checkpoint={path!r} was written with {name} {versions.get(name)}, but this is "
                f"{name} {here}, with which the results may differ. Install {name}=="
                f"{versions.get(name)} to resume that fit, or delete the file to start a new one."
            )


def storable_items(mapping):
    """Return the items of `mapping` that `to_storable` accepts."""
    items = {}
    for key, value in mapping.items():
        with suppress(TypeError):
            items[key] = to_storable(value)
    return items


def to_storable(value):
    """Return `value` in types that `torch.load(weights_only=True)` accepts.

    Subclasses, such as NumPy scalars and members of enumerations, become the plain Python type;
    arrays become tensors that `from_storable` recognizes.

    Raises
    ------
    TypeError
        For any type except None, numbers, text, tensors, numeric arrays, and dicts, lists and
        tuples of them.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) is torch.Tensor:
        return value
    for plain in (bool, int, float, str):  # bool first, because it is a subclass of int
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor)
    if isinstance(value, np.ndarray):
        return {ARRAY: torch.from_numpy(value.copy())}
    if isinstance(value, dict):
        return {to_storable(k): to_storable(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(to_storable, value))
    raise TypeError(f"{type(value).__name__} cannot be stored in a checkpoint.")


def from_storable(value):
    """Return the inverse of `to_storable`."""
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return value[ARRAY].numpy()
        return {k: from_storable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(from_storable, value))
    return value
