"""Parameters, class labels and histories as JSON, and back.

JSON has fewer types than Python: the others are objects with one key, which names the type.
"""

import json
import re

import numpy as np
import torch

LABEL_DTYPES = r"[<>|=]([biuf]\d+|[SU]\d+|O|[mM]8\[\w+\])"
# An array gives every text as many bytes as the longest. These are limits of the bytes of a label
# beyond those of the longest, and of the bytes of all labels, of which the second is per byte of
# JSON.
MAX_PADDING = 2**12
MAX_LABEL_BYTES, MAX_LABEL_FACTOR = 2**23, 8
MT19937_WORDS = 624  # in the state of the generator of a RandomState
NUMBERS = {bool: "b", int: "i", float: "f"}  # kinds of NumPy's dtypes
COLUMN_DTYPES = ("F64", "I64", "BOOL")  # of a column that holds numbers
JSON_DTYPE = "U8"  # of a column that holds anything else, as the bytes of JSON
MAX_NESTING = 20  # of lists and dicts in a history; JSON that is nested much deeper is not read
MAX_INT_BITS = 10_000  # Python converts no longer integers from text


def parse_json(text):
    """Return JSON as Python objects; a name that occurs twice in an object raises ValueError."""

    def unique(pairs):
        items = dict(pairs)
        if len(items) < len(pairs):
            raise ValueError("a name occurs twice")
        return items

    return json.loads(text, object_pairs_hook=unique)


def to_json(value):
    """Return a parameter or a label as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.bool_ | np.integer | np.floating):
        kind = {"b": bool, "f": float}.get(value.dtype.kind, int)
        return kind(value)
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value) == 1:
        return {"list": [to_json(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[to_json(label), to_json(weight)] for label, weight in value.items()]}
    if isinstance(value, np.random.RandomState):
        state = value.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            words, position = state["state"]["key"].tolist(), state["state"]["pos"]
            content = ["MT19937", words, position, state["has_gauss"], state["gauss"]]
            return {"random_state": content}
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be saved without pickle; use joblib.dump."
    )


def from_json(value):
    """Return the inverse of `to_json`; NumPy scalars become Python scalars, arrays lists."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "bytes":
        return content.encode("latin-1")
    if kind == "list":
        return [from_json(item) for item in content]
    if kind == "dict":
        return {from_json(label): from_json(weight) for label, weight in content}
    if kind == "random_state":
        name, words, position, *gauss = content
        # NumPy does not check the position, and would read memory beyond the words.
        if len(words) != MT19937_WORDS or not 0 <= position <= MT19937_WORDS:
            raise ValueError("random_state is not a state of MT19937.")
        state = np.random.RandomState()
        state.set_state((name, words, position, *gauss))
        return state
    raise ValueError(f"{kind!r} is not a known type tag.")


def classes_to_json(classes):
    """Return an array of labels as JSON."""
    labels = classes.astype(np.int64) if classes.dtype.kind in "mM" else classes
    document = {
        "dtype": classes.dtype.str,
        "labels": [to_json(label) for label in labels.tolist()],
    }
    if not np.array_equal(classes_from_json(document), classes):
        raise TypeError(f"classes_ of dtype {classes.dtype} cannot be saved; use joblib.dump.")
    return document


def classes_from_json(document):
    """Return the inverse of `classes_to_json`."""
    if not re.fullmatch(LABEL_DTYPES, document["dtype"]):
        raise ValueError(f"classes of dtype {document['dtype']!r} are not supported.")
    dtype, labels = np.dtype(document["dtype"]), [from_json(x) for x in document["labels"]]
    longest = max((len(label) for label in labels if isinstance(label, str | bytes)), default=0)
    limit = MAX_LABEL_BYTES + MAX_LABEL_FACTOR * len(json.dumps(document["labels"]))
    if dtype.itemsize > 4 * longest + MAX_PADDING or dtype.itemsize * len(labels) > limit:
        raise ValueError(
            f"{len(labels)} classes of dtype {dtype.str} take too much memory; fit with y of dtype "
            "object, or use joblib.dump."
        )
    if dtype.kind in "iu":  # NumPy 1 wraps larger integers around
        bounds = np.iinfo(dtype)
        if not all(bounds.min <= label <= bounds.max for label in labels):
            raise ValueError(f"a class is out of bounds for dtype {dtype.str}.")
    return np.array(labels, dtype=dtype)


def column_to_tensor(values, can_be_stored):
    """Return a column of a history as a tensor, and whether it holds all of the values.

    A value for which `can_be_stored` returns False becomes None.
    """
    types = {type(value) for value in values}
    # Mixed types would be converted, and integers beyond 64 bits are objects to NumPy.
    array = np.array(values) if len(types) == 1 and types <= NUMBERS.keys() else None
    if array is not None and array.dtype.kind == NUMBERS[types.pop()]:
        return torch.from_numpy(array), True
    kept = [value if can_be_stored(value) else None for value in values]
    text = json.dumps(kept).encode()
    is_whole = all(a is b for a, b in zip(values, kept, strict=True))
    return torch.frombuffer(bytearray(text), dtype=torch.uint8), is_whole


def column_from_tensor(tensor):
    """Return the inverse of `column_to_tensor`."""
    if tensor.dtype != torch.uint8:
        return tensor.tolist()
    return parse_json(tensor.numpy().tobytes().decode())


def is_json(value, depth=MAX_NESTING):
    """Return whether `value` can be written as JSON and read again."""
    if isinstance(value, int):
        return int(value).bit_length() <= MAX_INT_BITS
    if isinstance(value, dict):
        is_text = all(isinstance(key, str) for key in value)
        return depth > 0 and is_text and all(is_json(item, depth - 1) for item in value.values())
    if isinstance(value, list | tuple):
        return depth > 0 and all(is_json(item, depth - 1) for item in value)
    return value is None or isinstance(value, str | float)
