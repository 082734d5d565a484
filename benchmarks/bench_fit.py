"""`fit` against a bare PyTorch loop over the same network and batches.

The loop knows the network and has its batches ready to slice; `fit` also checks and standardises
the data, builds the network, keeps a history and asks its callbacks. Digits (1,797 sequences of
8 x 8), and 2,000 random sequences of 100 x 8; 10 epochs, batch 64, lr 1e-3, no augmentation,
otherwise default settings.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from harness import begin, in_turn, parser, report

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._network.dropout import seed_generators
from sklearn_cls.datasets import load_digit_sequences

N_EPOCHS, BATCH_SIZE, LR = 10, 64, 1e-3


def main():
    """Measure both data sets."""
    args = begin(parser(__doc__, rounds=7))
    print("# data: digits (1797, 8, 8); normal noise (2000, 100, 8); default network, 10 epochs")
    rng = np.random.default_rng(0)
    data = {
        "digits": load_digit_sequences(),
        "2000x100x8": (rng.normal(size=(2000, 100, 8)).astype(np.float32), np.arange(2000) % 10),
    }
    rows = []
    for name, (X, y) in data.items():
        clf = CLSTransformerClassifier(
            max_epochs=N_EPOCHS, batch_size=BATCH_SIZE, lr=LR, augment=False, random_state=0
        ).fit(X, y)
        seconds = in_turn(
            {
                "fit": lambda clf=clf, X=X, y=y: clf.fit(X, y),
                "loop": lambda clf=clf, X=X, y=y: loop(copy.deepcopy(clf.module_), X, y),
            },
            args.rounds,
        )
        rows.append(
            {
                "data": name,
                "fit_s": seconds["fit"],
                "loop_s": seconds["loop"],
                "ratio": seconds["fit", "loop"],
            }
        )
    report(rows, args.out)


def loop(network, X, y):
    """Train the network with what a plain loop needs, and nothing else."""
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
        for rows in torch.randperm(len(X)).tensor_split(n_batches):
            optimizer.zero_grad()
            F.cross_entropy(network(X[rows]), y[rows], label_smoothing=0.1).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


if __name__ == "__main__":
    main()
