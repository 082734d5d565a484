"""Speed and memory of this package compared with alternatives.

Each row compares this package ("ours") with a baseline ("theirs"). Both are medians over
interleaved rounds, in seconds or, where the row says so, in MB. "ratio" is the median of theirs /
ours within a round, above 1 if this package is faster or needs less memory, and "target" is the
ratio to reach. Alternatives that are not installed are skipped; install them with `pip install
transformers x-transformers sktime tsai`. Fits and predictions run on the GPU if there is one. The
fit on PLAID is skipped unless `--data` names a folder that contains PLAID_TRAIN.ts.
"""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import peers
import torch
import torch.nn.functional as F
from harness import DEVICE, begin, noise, parser, report, time_interleaved
from sklearn.model_selection import GridSearchCV
from torch.utils.flop_counter import FlopCounterMode

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._network.cls_token import CLS_STRATEGIES
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._training.auto import auto_patch_size
from sklearn_cls.datasets import load_digit_sequences, load_ts

SHAPES = {  # the shape of X, the batch size and the number of epochs
    "2000x100x8": ((2000, 100, 8), 64, 1),
    "120x315x3": ((120, 315, 3), 32, 2),
}


def textbook_classifier(**params):
    """Return the estimator with the architecture of the alternatives: one token per step."""
    return CLSTransformerClassifier(
        embedding="linear", patch_size=1, augment=False, random_state=0, **params
    )


def comparison(benchmark, baseline, seconds, target, ours="ours", theirs="theirs"):
    """Return one row of the table."""
    return {
        "benchmark": benchmark,
        "baseline": baseline,
        "ours": seconds[ours],
        "theirs": seconds[theirs],
        "ratio": seconds[theirs, ours],
        "target": target,
    }


def fits(args):
    """Fits of the same architecture in skorch, BERT and x-transformers."""
    for dropout in (0.0, 0.1):
        for shape, (size, batch_size, max_epochs) in SHAPES.items():
            X, y = noise(size)
            params = {"max_epochs": max_epochs, "batch_size": batch_size, "dropout": dropout}
            functions = {
                name: partial(peers.fit, name, X, y, **params)
                for name in peers.NETWORKS
                if peers.is_installed(name) and (dropout or name == "skorch")
            }
            functions["ours"] = partial(textbook_classifier(**params).fit, X, y)
            seconds = time_interleaved(functions, args.rounds)
            target = 8.0 if shape == "120x315x3" else 3.0 if dropout else 2.2
            for name in functions:
                if name != "ours" and (dropout or shape == "2000x100x8"):
                    benchmark = f"fit {shape}, dropout {dropout}"
                    yield comparison(benchmark, name, seconds, target, theirs=name)


def default_fits(args):
    """Fits with the default settings of each classifier, but equal epochs and batch sizes."""
    for shape, (size, batch_size, max_epochs) in SHAPES.items():
        X, y = noise(size)
        params = {"max_epochs": max_epochs, "batch_size": batch_size}
        functions = {
            name: partial(peers.fit_default, name, X, y, **params)
            for name in peers.CLASSIFIERS
            if peers.is_installed(name)
        }
        functions["ours"] = partial(CLSTransformerClassifier(**params).fit, X, y)
        seconds = time_interleaved(functions, args.rounds)
        for name in functions:
            if name != "ours":
                target = 8.0 if shape == "120x315x3" else 2.0
                yield comparison(f"fit {shape}, defaults", name, seconds, target, theirs=name)


def search(args):
    """A grid search over the [CLS] strategy and the depth in two processes."""
    X, y = load_digit_sequences()
    params = {"max_epochs": 4, "batch_size": 64}
    grid = {"cls_strategy": list(CLS_STRATEGIES), "depth": [1, 2, 4]}
    ours = GridSearchCV(textbook_classifier(**params), grid, cv=3, n_jobs=2, refit=False)
    theirs = GridSearchCV(
        peers.skorch_classifier(X, y, dropout=0.1, **params),
        {f"module__{name}": values for name, values in grid.items()},
        cv=3,
        n_jobs=2,
        refit=False,
    )
    functions = {"ours": lambda: ours.fit(X, y), "theirs": lambda: theirs.fit(X, y)}
    seconds = time_interleaved(functions, args.rounds)
    yield comparison("grid search, digits", "skorch", seconds, 3.0)


def predictions(args):
    """Prediction of probabilities for 10,000 sequences, and for a single one."""
    X, y = noise((10_000, 100, 8))
    clf = textbook_classifier(max_epochs=1).fit(X[:500], y[:500])
    textbook = peers.TransformerEncoder(*peers.sizes(X, y)).to(DEVICE).eval()

    def predict_in_batches(batch_size):
        with torch.inference_mode():
            batches = torch.from_numpy(X).split(batch_size)
            return torch.cat([textbook(x.to(DEVICE)).softmax(-1).cpu() for x in batches]).numpy()

    functions = {f"batch {size}": partial(predict_in_batches, size) for size in (32, 128, 512)}
    functions["ours"] = lambda: clf.predict_proba(X)
    seconds = time_interleaved(functions, args.rounds)
    best = min((name for name in functions if name != "ours"), key=seconds.get)
    baseline = f"nn.TransformerEncoder, {best}"
    yield comparison("predict_proba 10000x100x8", baseline, seconds, 2.0, theirs=best)

    single, network = X[:1], clf.module_
    x = torch.from_numpy(single).to(DEVICE)

    def forward():
        with torch.inference_mode():
            network(x)

    functions = {"ours": lambda: clf.predict_proba(single), "theirs": forward}
    seconds = time_interleaved(functions, 300 * args.rounds, warm_up=50)
    yield comparison("predict_proba 1x100x8", "forward pass of the network", seconds, 1 / 1.5)


def unequal_lengths(args):
    """A fit on sequences of 100 to 1,344 steps, compared with zero-padding all to one length."""
    path = Path(args.data or ".") / "PLAID_TRAIN.ts"
    if not path.exists():
        return
    X, y = load_ts(path)
    padded = np.zeros((len(X), max(map(len, X)), 1), dtype=np.float32)
    for values, x in zip(padded, X, strict=True):
        values[: len(x)] = x.reshape(-1, 1)
    # "auto" would choose longer patches for the padded sequences.
    patch_size = auto_patch_size([len(x) for x in X])
    clf = CLSTransformerClassifier(max_epochs=1, patch_size=patch_size, random_state=0)
    functions = {"ours": lambda: clf.fit(X, y), "theirs": lambda: clf.fit(padded, y)}
    seconds = time_interleaved(functions, args.rounds)
    yield comparison("fit PLAID", "zero-padded to the longest sequence", seconds, 2.0)


def cuda_graphs(args):
    """Fits with the default settings, with CUDA graphs and without them."""
    if DEVICE != "cuda":
        return
    data, path = {"digits": load_digit_sequences()}, Path(args.data or ".") / "PLAID_TRAIN.ts"
    if path.exists():
        data["PLAID"] = load_ts(path)
    clf = CLSTransformerClassifier(random_state=0)

    def fit_without_graphs(X, y):
        with torch.cuda.stream(torch.cuda.Stream()):  # on other streams, graphs are not used
            clf.fit(X, y)

    for name, (X, y) in data.items():
        functions = {"ours": partial(clf.fit, X, y), "theirs": partial(fit_without_graphs, X, y)}
        seconds = time_interleaved(functions, args.rounds)
        yield comparison(f"fit {name}, defaults", "without CUDA graphs", seconds, 3.0)


def training_step(args):
    """Compare a training step with its matrix products alone.

    "theirs" is the time of a loop of equal matrix products with the same total number of
    floating-point operations as the step. Their shape is that of the feed-forward layer, which has
    the highest throughput.
    """
    batch_size, d_model, n_steps = 32, 128, 400
    torch.manual_seed(0)
    network = CLSEncoder(
        n_features=8, n_classes=10, depth=3, d_model=d_model, dim_feedforward=2 * d_model,
        dropout=0.0, embedding="linear",
    ).to(DEVICE)  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x = torch.randn(batch_size, n_steps, 8, device=DEVICE)
    y = torch.arange(batch_size, device=DEVICE) % 10
    a = torch.randn(batch_size * n_steps, d_model, device=DEVICE)
    b = torch.randn(d_model, 2 * d_model, device=DEVICE)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        synchronize()

    n_products = max(1, round(count_flops(step) / (2 * a.numel() * b.shape[1])))

    def matrix_products():
        for _ in range(n_products):
            a @ b
        synchronize()

    seconds = time_interleaved({"ours": step, "theirs": matrix_products}, 5 * args.rounds)
    benchmark = f"training step {batch_size}x{n_steps}x8, d_model {d_model}, depth 3"
    yield comparison(benchmark, "its matrix products", seconds, 0.6)


def count_flops(function):
    """Return the number of floating-point operations of the matrix products in a function.

    The recomputation in the backward pass of fused attention is not counted.
    """

    def attention_flops(q, k, v, *args, **kwargs):
        return 4 * math.prod(q) * k[-2]  # the arguments are shapes (B, H, N, E)

    def attention_backward_flops(grad, q, k, v, *args, **kwargs):
        return 2 * attention_flops(q, k, v)

    # PyTorch does not count the fused attention of the CPU.
    aten = torch.ops.aten
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
        },
    )
    with counter:
        function()
    return counter.get_total_flops()


def scaling(args):
    """How the time of an epoch grows with the number of sequences, and with their length."""
    for small, large, target in (
        ((1000, 30, 4), (64_000, 30, 4), 1 / 1.15),
        ((64, 100, 4), (64, 6400, 4), 64**-0.3),
    ):
        data = {"theirs": noise(small), "ours": noise(large)}
        factor = (large[0] * large[1]) / (small[0] * small[1])
        n_epochs = {"theirs": round(factor), "ours": 1}  # the same total number of steps

        def fit(name, data=data, n_epochs=n_epochs):
            clf = CLSTransformerClassifier(max_epochs=n_epochs[name], batch_size=64)
            clf.fit(*data[name])

        functions = {name: partial(fit, name) for name in data}
        large_name, small_name = ("x".join(map(str, shape)) for shape in (large, small))
        seconds = time_interleaved(functions, 1)
        benchmark = f"1 epoch of {large_name}"
        yield comparison(benchmark, f"{factor:.0f} epochs of {small_name}", seconds, target)


def memory(args):
    """Increase of the peak resident memory by a training step, in MB, on Linux."""
    if not Path("/proc/self/status").exists():
        return
    script = """
import re, sys, torch, numpy as np, peers
from sklearn_cls._network.dropout import seed_generators
from sklearn_cls._network.encoder import CLSEncoder
torch.set_num_threads(1)
if sys.argv[1] == "ours":
    network = CLSEncoder(n_features=8, n_classes=10, depth=4, embedding="linear")
    seed_generators(network, 0)
else:
    network = peers.TransformerEncoder(8, 10, 1000, depth=4)
optimizer = torch.optim.AdamW(network.parameters(), fused=True)
x, y = torch.randn(64, 1000, 8), torch.arange(64) % 10
def peak():  # `ru_maxrss` would include the peak of the parent process
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
before = peak()
torch.nn.functional.cross_entropy(network(x), y).backward()
optimizer.step()
print(peak() - before)
"""
    added = {name: float(run(script, name)) for name in ("ours", "theirs")}
    megabytes = {**added, ("theirs", "ours"): added["theirs"] / added["ours"]}
    benchmark = "memory (MB) of a training step 64x1000x8, depth 4"
    yield comparison(benchmark, "nn.TransformerEncoder", megabytes, 1 / 0.6)


def imports(args):
    """Importing this package, compared with importing only torch and scikit-learn."""
    scripts = {"ours": "import sklearn_cls", "theirs": "import torch, sklearn"}
    functions = {name: partial(run, script) for name, script in scripts.items()}
    seconds = time_interleaved(functions, 2 * args.rounds)
    yield comparison("import sklearn_cls", "import torch, sklearn", seconds, 0.95)


def concurrent_fits(args):
    """Two concurrent fits with default threads, compared with two fits of one thread each."""
    script = """
import sys, numpy as np
from sklearn_cls import CLSTransformerClassifier
n_jobs, n, patch_size, batch_size = map(int, sys.argv[1:])
X = np.random.default_rng(0).normal(size=(n, 100, 8)).astype(np.float32)
clf = CLSTransformerClassifier(
    max_epochs=4, patch_size=patch_size, batch_size=batch_size, n_jobs=n_jobs or None
)
clf.fit(X, np.arange(n) % 4)
"""

    def fit_two(n_jobs, *size):
        command = [sys.executable, "-c", script, str(n_jobs), *map(str, size)]
        processes = [subprocess.Popen(command) for _ in range(2)]
        if any([process.wait() for process in processes]):
            raise RuntimeError("A concurrent fit failed; its error is printed above.")

    for size in ((1000, 2, 32), (1000, 1, 64)):
        functions = {"ours": partial(fit_two, 0, *size), "theirs": partial(fit_two, 1, *size)}
        benchmark = "two concurrent fits, {}x100x8, patch_size {}, batch_size {}".format(*size)
        seconds = time_interleaved(functions, args.rounds)
        yield comparison(benchmark, "one thread each", seconds, 1 / 1.3)


def run(script, *args):
    """Run a script in a new process and return what it prints."""
    command = [sys.executable, "-c", script, *args]
    folder = Path(__file__).parent
    return subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True).stdout


def synchronize():
    """Wait for the GPU, if there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


COMPARISONS = {
    function.__name__: function
    for function in (
        fits, default_fits, search, predictions, unequal_lengths, cuda_graphs, training_step,
        scaling, memory, imports, concurrent_fits,
    )
}  # fmt: skip


def main():
    """Run all comparisons, or those that `--lines` names."""
    options = parser(__doc__, rounds=5)
    names = list(COMPARISONS)
    options.add_argument(
        "--lines", nargs="+", choices=names, default=names, help="comparisons to run (default: all)"
    )
    options.add_argument("--data", help="folder that contains PLAID_TRAIN.ts")
    args = begin(options, *sorted(set(peers.PACKAGES.values())))
    rows = []
    for name in names:
        if name in args.lines:
            for row in COMPARISONS[name](args):
                print(*row.values(), sep=", ", file=sys.stderr, flush=True)
                rows.append(row)
    report(rows, args.out)


if __name__ == "__main__":
    main()
