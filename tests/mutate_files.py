"""Mutations of model files: documents, tensors, headers and bytes that no fit has left.

Each mutation is a function of a random generator and of a `File`, which it changes. The `File` is
then written with a valid checksum. A mutation that returns bytes has written them itself.
"""

import hashlib
import json
import os
import random
import warnings

import numpy as np

from sklearn_cls._persistence.model_file import network_layout, scaler_layout

# The file format, written down a second time, so that mutations can be signed.

DOCUMENT, CHECKSUM = "sklearn_cls", "sha256"
TORCH_DTYPES = {
    "F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "I64": "torch.int64",
    "BF16": "torch.bfloat16", "I32": "torch.int32", "U8": "torch.uint8", "BOOL": "torch.bool",
}  # fmt: skip
NUMPY_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "U8": "u1", "BOOL": "?"}


class File:
    """The parts of a model file: a JSON document, and tensors as [dtype, shape, bytes]."""

    def __init__(self, content):
        n = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + n]), content[8 + n :]
        self.document = json.loads(header.pop("__metadata__")[DOCUMENT])
        self.tensors = {
            name: [value["dtype"], value["shape"], data[slice(*value["data_offsets"])]]
            for name, value in header.items()
        }

    def header_and_data(self):
        """Return the header, with a valid checksum, and the bytes of the tensors."""
        text, header, data = json.dumps(self.document), {}, b""
        # The tensors with the largest items come first, as safetensors writes them.
        for name in sorted(self.tensors, key=lambda name: -item_size(self.tensors[name][0])):
            dtype, shape, content = self.tensors[name]
            offsets = [len(data), len(data) + len(content)]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
            data += content
        header["__metadata__"] = {DOCUMENT: text, CHECKSUM: self.checksum(text)}
        return header, data

    def checksum(self, text):
        """Return the SHA-256 of a document and of the tensors."""
        digest = hashlib.sha256(text.encode("utf-8", "replace"))
        for name in sorted(self.tensors):
            dtype, shape, content = self.tensors[name]
            signed = f"{name} {TORCH_DTYPES.get(dtype, dtype)} {tuple(shape)}"
            digest.update(signed.encode("utf-8", "replace") + content)
        return digest.hexdigest()

    def content(self):
        """Return the file as bytes."""
        return join(*self.header_and_data())


def item_size(dtype):
    return np.dtype(NUMPY_DTYPES.get(dtype, "u1")).itemsize


def join(header, data):
    text = header if isinstance(header, str) else json.dumps(header)
    text = text.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


MIXED_LABELS = ["a", 1, None, 2.5, True, "a"]
ODD_NUMBERS = [
    0, 1, -1, 2, 3, 5, 7, 64, 255, 1000, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63,
    2**64, -(2**31), -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1.0, 1.5, 1e-300, 5e-324, 1e300,
    float("nan"), float("inf"), -float("inf"),
]  # fmt: skip
ODD_TEXT = [
    "", "x", "auto", "cls", "mean", "rope", "learned", "random", "zeros", "linear", "conv", "cpu",
    "cuda", "meta", "pandas", "polars", "\x00", "\ud800", "é" * 50, "x" * 10_000, "<i8", "<U9",
    "|O", "|V8", "|S3", "<M8[ns]", "<f8", "|b1", "<U999999", "MT19937", "PCG64", "bfloat16",
]  # fmt: skip


def odd_value(rng, depth=0):
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(ODD_NUMBERS)
    if kind < 5:
        return rng.choice(ODD_TEXT)
    if kind == 5 or depth > 2:
        return rng.choice([None, True, False, [], {}, [None], {"": 0}])
    if kind == 6:
        values = [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return rng.choice([values, values * 100, {"dict": [values]}, {"random_state": values}])
    return {rng.choice(ODD_TEXT): odd_value(rng, depth + 1)}


def places(value):
    """Yield all (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list) and len(item) < 200:
            yield from places(item)


def replace_value(rng, file):
    container, key = rng.choice(list(places(file.document)))
    container[key] = odd_value(rng)


def change_number(rng, file):
    found = [(c, k) for c, k in places(file.document) if type(c[k]) in (int, float, bool)]
    container, key = rng.choice(found)
    value = container[key]
    container[key] = rng.choice(
        [value + 1, value - 1, -value, value * 2, float(value), int(value), str(value), bool(value)]
    )


def change_key(rng, file):
    found = [(c, k) for c, k in places(file.document) if isinstance(c, dict)]
    container, key = rng.choice(found)
    kind = rng.randrange(4)
    if kind == 0:
        del container[key]
    elif kind == 1:
        container[rng.choice(ODD_TEXT)] = container.pop(key)
    elif kind == 2:
        container[rng.choice([*ODD_TEXT, "callbacks", "device", "n_jobs"])] = odd_value(rng)
    else:
        other, name = rng.choice(found)
        container[key], other[name] = other[name], container[key]


def change_list(rng, file):
    found = [c[k] for c, k in places(file.document) if isinstance(c[k], list) and c[k]]
    if not found:
        return replace_value(rng, file)
    values = rng.choice(found)
    kind = rng.randrange(6)
    if kind == 0:
        values.reverse()
    elif kind == 1:
        values[:] = values * rng.choice([0, 2, 1000])
    elif kind == 2:
        values.pop(rng.randrange(len(values)))
    elif kind == 3:
        values.insert(rng.randrange(len(values)), rng.choice(values))
    elif kind == 4:
        values.append(odd_value(rng))
    else:
        values[:] = [odd_value(rng) for _ in values]


def change_classes(rng, file):
    classes = file.document["classes"]
    classes["dtype"] = rng.choice([*ODD_TEXT[20:], "<U3", "|S1", "<M8[D]", "<m8[h]", "<f4", "|u1"])
    n = len(classes["labels"])
    pools = [range(n), "abcdef", MIXED_LABELS, [{"bytes": "a"}, {"bytes": "b"}], [0.5, 1.0], [1, 1]]
    pool = list(rng.choice(pools))
    classes["labels"] = [rng.choice(pool) for _ in range(n)] if rng.random() < 0.5 else pool[:n]


def change_tensor(rng, file):
    """Change values of a tensor."""
    name = rng.choice(list(file.tensors))
    dtype, _, content = file.tensors[name]
    if dtype not in NUMPY_DTYPES or not content:
        return
    values = np.frombuffer(content, NUMPY_DTYPES[dtype]).copy()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = np.array(
            rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e3, 1.01e3, 1e20, 3e38, 1e-45, -2e9])
        ).astype(values.dtype)
        if rng.random() < 0.5:
            values[:] = odd
        else:
            values[rng.randrange(len(values))] = odd
    file.tensors[name][2] = values.tobytes()


def change_layout(rng, file):
    """Change name, shape or dtype of a tensor, or add, remove or swap some."""
    names = list(file.tensors)
    name, other = rng.choice(names), rng.choice(names)
    tensor = file.tensors[name]
    kind = rng.randrange(8)
    if kind == 0:
        del file.tensors[name]
    elif kind == 1:
        file.tensors[rng.choice(["", "x", "history.x", "__x", "network.x", "é"])] = tensor
    elif kind == 2:
        tensor[1] = rng.choice([tensor[1][::-1], [*tensor[1], 1], [1, *tensor[1]], tensor[1][1:]])
    elif kind == 3:
        tensor[0] = rng.choice(["F64", "F32", "F16", "I64", "I32", "U8", "BOOL", "BF16", "F8_E4M3"])
    elif kind == 4:
        file.tensors[name], file.tensors[other] = file.tensors[other], tensor
    elif kind == 5:
        tensor[1:] = [[0, *tensor[1][1:]], b""]
    elif kind == 6:
        tensor[1:] = [[2 * n for n in tensor[1]], tensor[2] * 2 ** len(tensor[1])]
    else:
        dtype = rng.choice(["F64", "F16", "U8", "BOOL", "I64"])
        if tensor[0] in NUMPY_DTYPES:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = np.frombuffer(tensor[2], NUMPY_DTYPES[tensor[0]])
                tensor[0], tensor[2] = dtype, values.astype(NUMPY_DTYPES[dtype]).tobytes()


def change_network(rng, file):
    """Change the architecture coherently: in document and parameters, with tensors to match."""
    document = file.document
    network, parameters = document["network"], document["parameters"]
    choices = {
        "n_heads": [1, 2, 3, 4, 5, 8, 16, 17], "d_model": [1, 2, 15, 16, 24, 32], "depth": [0, 3],
        "positions": ["rope", "learned", None, "sinusoidal"], "patch_size": [0, 1, 2, 50, 10**6],
        "embedding": ["linear", "conv"], "pooling": ["cls", "mean", "max", "attention"],
        "cls_strategy": ["learned", "zeros", "fixed", "random"], "dim_feedforward": [0, 1, 7],
        "n_features": [0, 1, 2, 3, 20], "n_classes": [0, 1, 2, 3], "max_tokens": [0, 1, 5, 10**9],
        "has_missing": [True, False], "use_instance_norm": [True, False], "dropout": [0, 0.5, 1],
        "token_seed": [-1, 0, 2**31, 2**63, 2**64],
    }  # fmt: skip
    for name in rng.sample(list(choices), rng.randrange(1, 4)):
        network[name] = rng.choice(choices[name])
        if name in parameters and rng.random() < 0.8:
            parameters[name] = network[name]
    if rng.random() < 0.8:
        n = network["n_classes"]
        document["classes"] = {"dtype": "<i8", "labels": list(range(n))}
        document["n_features_in"] = network["n_features"]
        document["fitted_on_2d"], document["feature_names_in"] = False, None
    layout = {"network." + name: value for name, value in network_layout(network).items()}
    layout.update(scaler_layout(document["format"], network["n_features"]))
    known = {name: t for name, t in file.tensors.items() if name.startswith("history.")}
    numbers = np.random.default_rng(rng.randrange(2**32))
    for name, (shape, dtype) in layout.items():
        if np.prod(shape) > 10**7:
            raise ValueError(f"{name} of shape {shape} is too large")
        values = np.zeros(shape) if dtype == "I64" else numbers.normal(size=shape)
        if name.endswith((".std", ".scale", ".running_var")):
            values = np.abs(values) + 0.1
        known[name] = [dtype, list(shape), values.astype(NUMPY_DTYPES[dtype]).tobytes()]
    file.tensors = known


def change_header(rng, file):
    """Change the header of safetensors: shapes, dtypes, offsets, metadata, and its text."""
    header, data = file.header_and_data()
    name = rng.choice(list(file.tensors))
    entry, kind = header[name], rng.randrange(12)
    begin, end = entry["data_offsets"]
    if kind == 0:
        entry["data_offsets"] = rng.choice(
            [[0, end - begin], [begin + 1, end + 1], [end, begin], [-1, end], [begin, 2**63],
             [begin, end + 8], [0, 0], [begin], [2**64, 2**64], None, [float(begin), float(end)]]
        )  # fmt: skip
    elif kind == 1:
        entry["shape"] = rng.choice(
            [[2**62], [2**32, 2**32], [0, 2**62], [-1], [1.0], [True], "2", None, [[]],
             [2**63, 0], [0] * 100, [1] * 1000]
        )  # fmt: skip
    elif kind == 2:
        entry["dtype"] = rng.choice(
            ["F4", "F6_E2M3", "F8_E8M0", "C64", "U64", "U16", "F33", "", None, 4, ["F32"], "f32"]
        )
    elif kind == 3:
        entry[rng.choice(["x", "", "dtype ", "shape2"])] = odd_value(rng)
    elif kind == 4:
        header["__metadata__"][rng.choice(["x", "format", ""])] = rng.choice(["", "x" * 10**5])
    elif kind == 5:
        header["__metadata__"] = rng.choice(
            [None, [], [DOCUMENT, CHECKSUM], {}, "x", {"x": 1}, {DOCUMENT: {}}]
        )
    elif kind == 6:
        header["__metadata__"][CHECKSUM] = rng.choice(["", None, 0, "0" * 64, "\ud800"])
    elif kind == 7:
        items = list(header.items())
        rng.shuffle(items)
        header = dict(items)
    elif kind == 8:  # a second entry of the same name
        text = json.dumps(header)
        twice = rng.choice([name, "__metadata__"])
        value = json.dumps(rng.choice([header[twice], {}, {"x": "y"}]))
        header = f"{text[:-1]}, {json.dumps(twice)}: {value}}}"
    elif kind == 9:
        text = json.dumps(header)
        header = rng.choice(
            [text + " " * 1000, text + "x", " " + text, text[:-1], text.replace('"F32"', "NaN", 1),
             text.replace('"shape"', '"\\ud800"', 1), "[" * 10**5, '{"x":' * 10**5, "", "null"]
        )  # fmt: skip
    elif kind == 10:
        content = join(header, data)
        n = rng.choice([0, 1, 2**20, 2**40, 2**63, 2**64 - 1, len(content), len(content) - 8])
        return n.to_bytes(8, "little") + content[8:]
    else:
        data = rng.choice([data + b"x", data[:-1], data + data, b"", bytes(len(data))])
    return join(header, data)


def change_text(rng, file):
    """Change the text of the document: numbers, names that occur twice, and nesting."""
    header, data = file.header_and_data()
    text = header["__metadata__"][DOCUMENT]
    key = rng.choice(list(file.document))
    value = json.dumps(file.document[key])
    kind = rng.randrange(7)
    if kind == 0:
        text = f"{text[:-1]}, {json.dumps(key)}: {rng.choice([value, '0', 'null'])}}}"
    elif kind == 1:
        numbers = ["1e400", "-1e400", "1" * 5000, "NaN", "Infinity", "01", "1e-400", "-0"]
        text = text.replace(f": {value}", f": {rng.choice(numbers)}", 1)
    elif kind == 2:
        n = rng.choice([100, 900, 5000, 100_000])
        text = text.replace(f": {value}", f": {'[' * n}{']' * n}", 1)
    elif kind == 3:
        n = rng.choice([100, 900, 5000])
        bulk = '{"a":' * n + "0" + "}" * n
        text = text.replace(f": {value}", f": {bulk}", 1)
    elif kind == 4:
        text = text.replace(f": {value}", f": [{','.join(['{}'] * 100_000)}]", 1)
    elif kind == 5:
        text = rng.choice([text + "x", text[:-1], "", "[]", "null", "\ufeff" + text, text * 2])
    else:
        text = text.replace('"', rng.choice(["'", "\ud800", "\x00"]), 1)
    header["__metadata__"][DOCUMENT] = text
    header["__metadata__"][CHECKSUM] = file.checksum(text)
    return join(header, data)


def change_bytes(rng, file):
    content = bytearray(file.content())
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(content[: rng.randrange(len(content))])
    if kind == 1:
        for _ in range(rng.choice([1, 1, 10])):
            i = rng.randrange(8 * len(content))
            content[i // 8] ^= 1 << i % 8
    elif kind == 2:
        i, j = sorted(rng.randrange(len(content)) for _ in range(2))
        content[i:j] = rng.choice([b"", content[:100], os.urandom(5), content[i:j] * 2])
    else:
        content += rng.choice([b"\0", bytes(content), bytes(10_000)])
    return bytes(content)


def change_twice(rng, file):
    for _ in range(2):
        rng.choice([replace_value, change_number, change_key, change_list, change_classes,
                    change_tensor])(rng, file)  # fmt: skip


MUTATIONS = {
    "document value": replace_value, "document number": change_number, "document key": change_key,
    "document list": change_list, "document text": change_text, "classes": change_classes,
    "tensor values": change_tensor, "tensor layout": change_layout, "network": change_network,
    "header": change_header, "bytes": change_bytes, "two at once": change_twice,
}  # fmt: skip


def mutated(seed, originals):
    """Return the kind of mutation number `seed`, and its bytes."""
    rng = random.Random(seed)
    while True:
        file, kind = File(rng.choice(originals)), rng.choice(list(MUTATIONS))
        try:
            content = MUTATIONS[kind](rng, file)
            return kind, file.content() if content is None else content
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            continue  # It does not apply to this file.
