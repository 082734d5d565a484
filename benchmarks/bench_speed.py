"""What a user waits for, against what they would use instead: fits, a search, predictions, import.

Every row is the median of rounds in turn, in one process or process by process, and "ratio" is the
median of the ratios of the rounds: how many times faster, or smaller, this package is. "wanted" is
the least it should be. Peers that are not installed are left out: `pip install transformers
x-transformers sktime tsai`. Where there is a GPU, fits and predictions run there. `--data DIR` is a
folder with PLAID_TRAIN.ts.
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
from harness import begin, in_turn, parser, report
from sklearn.model_selection import GridSearchCV
from torch.utils.flop_counter import FlopCounterMode

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._network.cls_token import CLS_STRATEGIES
from sklearn_cls._network.encoder import CLSEncoder
from sklearn_cls._training.auto import auto_patch_size
from sklearn_cls.datasets import load_digit_sequences, load_ts

SHAPES = {"2000x100x8": ((2000, 100, 8), 64, 1), "120x315x3": ((120, 315, 3), 32, 2)}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def noise(shape, n_classes=10):
    """Return sequences of normal noise, float32, and the classes 0, 1, ... in turn."""
    X = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return X, np.arange(len(X)) % n_classes


def same_network(**params):
    """Return the estimator with the network that the peers have."""
    return CLSTransformerClassifier(
        embedding="linear", patch_size=1, augment=False, random_state=0, **params
    )


def row(what, against, seconds, wanted, ours="ours", theirs="theirs"):
    """Return a row of the table."""
    return {
        "what": what,
        "against": against,
        "ours": seconds[ours],
        "theirs": seconds[theirs],
        "ratio": seconds[theirs, ours],
        "wanted": wanted,
    }


def fits(args):
    """Fits of one network: plain skorch, BERT, x-transformers."""
    for dropout in (0.0, 0.1):
        for shape, (size, batch_size, max_epochs) in SHAPES.items():
            X, y = noise(size)
            plan = {"max_epochs": max_epochs, "batch_size": batch_size, "dropout": dropout}
            functions = {
                name: partial(peers.fit, name, X, y, device=DEVICE, **plan)
                for name in peers.NETWORKS
                if peers.is_there(name) and (dropout or name == "skorch")
            }
            functions["ours"] = lambda X=X, y=y, plan=plan: same_network(**plan).fit(X, y)
            seconds = in_turn(functions, args.rounds)
            wanted = 8.0 if shape == "120x315x3" else 3.0 if dropout else 2.2
            for name in functions:
                if name != "ours" and (dropout or shape == "2000x100x8"):
                    what = f"fit {shape}, dropout {dropout}"
                    yield row(what, name, seconds, wanted, theirs=name)


def default_fits(args):
    """Fits with default settings, the same number of updates and batch size."""
    for shape, (size, batch_size, max_epochs) in SHAPES.items():
        X, y = noise(size)
        plan = {"max_epochs": max_epochs, "batch_size": batch_size}
        functions = {
            name: partial(peers.fit_default, name, X, y, **plan)
            for name in peers.CLASSIFIERS
            if peers.is_there(name)
        }
        functions["ours"] = lambda X=X, y=y, plan=plan: CLSTransformerClassifier(**plan).fit(X, y)
        seconds = in_turn(functions, args.rounds)
        for name in functions:
            if name != "ours":
                wanted = 8.0 if shape == "120x315x3" else 2.0
                yield row(f"fit {shape}, defaults", name, seconds, wanted, theirs=name)


def search(args):
    """A grid search over strategy and depth in two processes."""
    X, y = load_digit_sequences()
    plan = {"max_epochs": 4, "batch_size": 64}
    grid = {"cls_strategy": list(CLS_STRATEGIES), "depth": [1, 2, 4]}
    ours = GridSearchCV(same_network(**plan), grid, cv=3, n_jobs=2, refit=False)
    theirs = GridSearchCV(
        peers.net(X, y, device=DEVICE, dropout=0.1, **plan),
        {f"module__{name}": values for name, values in grid.items()},
        cv=3,
        n_jobs=2,
        refit=False,
    )
    functions = {"ours": lambda: ours.fit(X, y), "theirs": lambda: theirs.fit(X, y)}
    yield row("grid search, digits", "skorch", in_turn(functions, args.rounds), 3.0)


def predictions(args):
    """Probabilities of many sequences, and of one."""
    X, y = noise((10_000, 100, 8))
    clf = same_network(max_epochs=1).fit(X[:500], y[:500])
    textbook = peers.TransformerEncoder(*peers.sizes(X, y)).to(DEVICE).eval()

    def theirs(batch_size):
        with torch.inference_mode():
            parts = torch.from_numpy(X).split(batch_size)
            return torch.cat([textbook(x.to(DEVICE)).softmax(-1).cpu() for x in parts]).numpy()

    functions = {f"batch {size}": partial(theirs, size) for size in (32, 128, 512)}
    functions["ours"] = lambda: clf.predict_proba(X)
    seconds = in_turn(functions, args.rounds)
    best = min((name for name in functions if name != "ours"), key=seconds.get)
    against = f"nn.TransformerEncoder, {best}"
    yield row("predict_proba 10000x100x8", against, seconds, 2.0, theirs=best)

    one, network = X[:1], clf.module_
    x = torch.from_numpy(one).to(DEVICE)

    def forward():
        with torch.inference_mode():
            network(x)

    functions = {"ours": lambda: clf.predict_proba(one), "theirs": forward}
    seconds = in_turn(functions, 300 * args.rounds, warm_up=50)
    yield row("predict_proba 1x100x8", "the network's forward", seconds, 1 / 1.5)


def unequal_lengths(args):
    """A fit on 100 to 1344 steps, against one that pads every sequence to 1344."""
    path = Path(args.data or ".") / "PLAID_TRAIN.ts"
    if not path.exists():
        return
    X, y = load_ts(path)
    padded = np.zeros((len(X), max(map(len, X)), 1), dtype=np.float32)
    for values, x in zip(padded, X, strict=True):
        values[: len(x)] = x.reshape(-1, 1)
    # The same patches: of 1344 steps, "auto" would make longer ones.
    size = auto_patch_size(int(np.median([len(x) for x in X])))
    clf = CLSTransformerClassifier(max_epochs=1, patch_size=size, random_state=0)
    functions = {"ours": lambda: clf.fit(X, y), "theirs": lambda: clf.fit(padded, y)}
    yield row("fit PLAID", "padded to the longest", in_turn(functions, args.rounds), 2.0)


def share_of_limit(args):
    """A training step's matrix products by themselves, over the step.

    The operations of a step are counted by `FlopCounterMode`, those of attention included (without
    what its way back computes again); their rate is that of `a @ b` at the shape of the
    feed-forward's, the fastest of the step.
    """
    size, width, n_steps = 32, 128, 400
    torch.manual_seed(0)
    network = CLSEncoder(
        n_features=8, n_classes=10, depth=3, d_model=width, dim_feedforward=2 * width,
        dropout=0.0, embedding="linear",
    ).to(DEVICE)  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x = torch.randn(size, n_steps, 8, device=DEVICE)
    y = torch.arange(size, device=DEVICE) % 10
    a = torch.randn(size * n_steps, width, device=DEVICE)
    b = torch.randn(width, 2 * width, device=DEVICE)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        synchronize()

    def flops(q, k, v, *args, **kwargs):
        return 4 * math.prod(q) * k[-2]  # two products of all rows with all rows

    def flops_back(grad, q, k, v, *args, **kwargs):
        return 2 * flops(q, k, v)

    aten = torch.ops.aten
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: flops,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: flops_back,
        },
    )
    with counter:
        step()
    n_products = max(1, round(counter.get_total_flops() / (2 * a.numel() * b.shape[1])))

    def products():
        for _ in range(n_products):
            a @ b
        synchronize()

    seconds = in_turn({"ours": step, "theirs": products}, 5 * args.rounds)
    yield row("step 32x400, d_model 128, depth 3", "its matrix products", seconds, 0.6)


def growth(args):
    """Seconds a sequence of small data over those of large data; the same per step of length."""
    for small, large, wanted in (
        ((1000, 30, 4), (64_000, 30, 4), 1 / 1.15),
        ((64, 100, 4), (64, 6400, 4), 64**-0.3),
    ):
        data = {"theirs": noise(small), "ours": noise(large)}
        factor = (large[0] * large[1]) / (small[0] * small[1])
        n_epochs = {"theirs": round(factor), "ours": 1}

        def fit(name, data=data, n_epochs=n_epochs):
            clf = CLSTransformerClassifier(max_epochs=n_epochs[name], batch_size=64)
            clf.fit(*data[name])

        functions = {name: partial(fit, name) for name in data}
        what, against = (f"epoch of {'x'.join(map(str, shape))}" for shape in (large, small))
        yield row(what, f"{factor:.0f} of {against}", in_turn(functions, 1), wanted)


def memory(args):
    """Resident memory that a training step adds, in MB, on Linux."""
    if not Path("/proc/self/status").exists():
        return
    script = """
import re, sys, torch, numpy as np, peers
from sklearn_cls._network.encoder import CLSEncoder
torch.set_num_threads(1)
X, y = np.zeros((64, 1000, 8), np.float32), np.arange(64) % 10
if sys.argv[1] == "ours":
    network = CLSEncoder(n_features=8, n_classes=10, depth=4, embedding="linear")
    from sklearn_cls._network.dropout import seed_generators
    seed_generators(network, 0)
else:
    network = peers.TransformerEncoder(8, 10, 1000, depth=4)
optimizer = torch.optim.AdamW(network.parameters(), fused=True)
x, y = torch.randn(64, 1000, 8), torch.from_numpy(y)
def peak():  # of this program: `ru_maxrss` starts as that of the program that started it
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
before = peak()
torch.nn.functional.cross_entropy(network(x), y).backward()
optimizer.step()
print(peak() - before)
"""
    added = {name: float(run(script, name)) for name in ("ours", "theirs")}
    seconds = {**added, ("theirs", "ours"): added["theirs"] / added["ours"]}
    yield row("MB of a step 64x1000x8, depth 4", "nn.TransformerEncoder", seconds, 1 / 0.6)


def imports(args):
    """Importing this package, against torch and scikit-learn."""
    scripts = {"ours": "import sklearn_cls", "theirs": "import torch, sklearn"}
    functions = {name: partial(run, script) for name, script in scripts.items()}
    yield row("import", "torch, sklearn", in_turn(functions, 2 * args.rounds), 0.95)


def two_at_once(args):
    """Two fits side by side with the threads their batches are worth, against one each."""
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

    def pair(n_jobs, *size):
        command = [sys.executable, "-c", script, str(n_jobs), *map(str, size)]
        processes = [subprocess.Popen(command) for _ in range(2)]
        if any(process.wait() for process in processes):
            raise RuntimeError("a fit failed")

    for size in ((1000, 2, 32), (1000, 1, 64)):
        functions = {"ours": partial(pair, 0, *size), "theirs": partial(pair, 1, *size)}
        what = "two fits at once, {}x100x8, patches of {}, batches of {}".format(*size)
        yield row(what, "one thread each", in_turn(functions, args.rounds), 1 / 1.3)


def run(script, *args):
    """Return what a script prints in a process of its own."""
    command = [sys.executable, "-c", script, *args]
    folder = Path(__file__).parent
    return subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True).stdout


def synchronize():
    """Wait for the GPU, if there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


LINES = (
    fits, default_fits, search, predictions, unequal_lengths, share_of_limit, growth, memory,
    imports, two_at_once,
)  # fmt: skip


def main():
    """Measure every line, or those asked for."""
    options = parser(__doc__, rounds=5)
    names = [line.__name__ for line in LINES]
    options.add_argument("--lines", nargs="+", choices=names, default=names)
    options.add_argument("--data", help="folder of PLAID_TRAIN.ts")
    args = begin(options, *sorted(set(peers.PACKAGES.values())))
    rows = []
    for line in LINES:
        if line.__name__ in args.lines:
            for row in line(args):
                print(*row.values(), sep=", ", file=sys.stderr, flush=True)
                rows.append(row)
    report(rows, args.out)


if __name__ == "__main__":
    main()
