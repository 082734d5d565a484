"""Arrays in temporary files that are mapped into memory, for data that may not fit into it.

Data that are compressed or computed are decoded once. If batches were read from them directly, the
sequences of a shuffled batch would be in as many chunks, each of which would be decoded whole.
"""

import os
import tempfile

import numpy as np

BLOCK_BYTES = 2**24  # of data that are decoded at the same time
ITEMS_PER_COPY = 2**16


class TemporaryArray:
    """An array that grows in a temporary file, which is deleted together with the array.

    Parameters
    ----------
    dtype : dtype
    shape : tuple of int
        Shape of an item.
    """

    def __init__(self, dtype, shape=()):
        self.dtype, self.shape, self.n_items = np.dtype(dtype), tuple(shape), 0
        self.folder = temporary_folder()
        self.file = tempfile.TemporaryFile(dir=self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Delete the file, unless `close` has returned an array, which keeps it."""
        self.file.close()

    def append(self, items):
        """Append an array (n, ...) of items; the dtype becomes wider if they need it."""
        if items.shape[1:] != self.shape:
            raise ValueError(f"an item has shape {items.shape[1:]}, but others {self.shape}.")
        dtype = np.result_type(self.dtype, items.dtype)
        if dtype != self.dtype:
            self._promote(dtype)
        items = np.ascontiguousarray(items, dtype=dtype)
        try:
            self.file.write(items.reshape(-1).view(np.uint8))
            self.file.flush()
        except OSError as error:
            raise disk_error(self.folder, error.strerror) from error
        self.n_items += len(items)

    def _promote(self, dtype):
        """Write the items to a new file, as `dtype`."""
        values = self.close()
        self.__init__(dtype, self.shape)
        for start in range(0, len(values), ITEMS_PER_COPY):
            self.append(values[start : start + ITEMS_PER_COPY].astype(dtype))

    def close(self):
        """Return the array, which is read only; nothing can be appended any more."""
        shape = (self.n_items, *self.shape)
        with self.file as file:
            if 0 in shape:
                return np.empty(shape, dtype=self.dtype)
            return np.asarray(np.memmap(file, dtype=self.dtype, mode="r", shape=shape))


def disk_error(folder, reason):
    """Return the error that a temporary file cannot be written."""
    return ValueError(
        f"X is decoded into a temporary file, but {folder} cannot hold it: {reason}. Set the "
        "environment variable TMPDIR to a folder with more space."
    )


def temporary_folder():
    """Return the folder of large temporary files, which is on a disk: /tmp may be in memory."""
    folder = tempfile.gettempdir()
    return "/var/tmp" if folder == "/tmp" and os.access("/var/tmp", os.W_OK) else folder
