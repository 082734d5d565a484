"""Overhead of `fit` over a plain PyTorch loop.

The loop trains the same network with the same batch size. It receives a built network and prepared
data; `fit` also validates and standardizes the data, builds the network, records the history and
calls its callbacks. The data are the digits (1,797 sequences of 8 steps and 8 features) and 2,000
random sequences of 100 steps and 8 features. Both train for 10 epochs with batches of 64, a
learning rate of 1e-3 and no augmentation; all other parameters have their default values.
"""

import copy

import torch
import torch.nn.functional as F
from harness import begin, noise, parser, report, time_interleaved

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._network.dropout import seed_generators
from sklearn_cls.datasets import load_digit_sequences

N_EPOCHS, BATCH_SIZE, LR = 10, 64, 1e-3


def main():
    """Time `fit` and the loop on both datasets."""
    args = begin(parser(__doc__, rounds=7))
    print("# data: digits (1797, 8, 8); normal noise (2000, 100, 8); default network, 10 epochs")
    data = {"digits": load_digit_sequences(), "2000x100x8": noise((2000, 100, 8))}
    report([measure(name, X, y, args.rounds) for name, (X, y) in data.items()], args.out)


def measure(name, X, y, rounds):
    """Return one row of the table."""
    clf = CLSTransformerClassifier(
        max_epochs=N_EPOCHS, batch_size=BATCH_SIZE, lr=LR, augment=False, random_state=0
    ).fit(X, y)
    functions = {
        "fit": lambda: clf.fit(X, y),
        "loop": lambda: train(copy.deepcopy(clf.module_), X, y),
    }
    seconds = time_interleaved(functions, rounds)
    return {
        "data": name,
        "fit_s": seconds["fit"],
        "loop_s": seconds["loop"],
        "ratio": seconds["fit", "loop"],
    }


def train(network, X, y):
    """Train the network in a plain PyTorch loop."""
    seed_generators(network.train(), 0)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    n_batches = -(-len(X) // BATCH_SIZE)
    n_updates = N_EPOCHS * n_batches
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, n_updates, pct_start=0.1)
    for _ in range(N_EPOCHS):
        for batch in torch.randperm(len(X)).tensor_split(n_batches):
            optimizer.zero_grad()
            F.cross_entropy(network(X[batch]), y[batch], label_smoothing=0.1).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


if __name__ == "__main__":
    main()
