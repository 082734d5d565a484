"""The exact [CLS] readout compared with `nn.TransformerEncoder` with the same weights.

The sequences have 100 steps and 8 features, and a batch has 64 sequences. Both networks have a
linear embedding, d_model 64, 4 heads of size 16, feed-forward layers of size 128 and no dropout.
The table shows the largest differences in logits and gradients, and the speed-ups in training and
inference, by depth. A round consists of 5 steps of one network, then 5 of the other, because the
first step after a switch is slowed down by the memory layout that the other network left.
"""

from functools import partial

import torch
import torch.nn.functional as F
from harness import begin, parser, report, time_interleaved
from textbook import Textbook, gradient_pairs

from sklearn_cls._network.encoder import CLSEncoder

N_STEPS = 5  # steps of each network in a round


def main():
    """Measure depths 1, 2 and 4."""
    args = begin(parser(__doc__, rounds=12))
    print("# data: normal noise, (64, 100, 8); d_model 64, 4 heads, feed-forward 128, no dropout")
    report([measure(depth, args.rounds) for depth in (1, 2, 4)], args.out)


def measure(depth, rounds):
    """Return one row of the table."""
    torch.manual_seed(0)
    ours = CLSEncoder(
        n_features=8, n_classes=10, depth=depth, dim_feedforward=128, dropout=0.0,
        embedding="linear",
    )  # fmt: skip
    theirs = Textbook(ours)
    x, y = torch.randn(64, 100, 8), torch.randint(0, 10, (64,))
    gradients = gradient_pairs(ours, theirs, partial(F.cross_entropy, target=y), x)
    row = {
        "depth": depth,
        "logits_differ": (ours(x) - theirs(x)).abs().max().item(),
        "gradients_differ": max((a - b).abs().max().item() for a, b in gradients),
    }
    networks = {"ours": ours.train(), "theirs": theirs.train()}
    optimizers = {k: torch.optim.AdamW(n.parameters(), fused=True) for k, n in networks.items()}
    train = time_interleaved(
        {k: training(networks[k], optimizers[k], x, y) for k in networks}, rounds
    )
    infer = time_interleaved({k: inference(networks[k].eval(), x) for k in networks}, rounds)
    return {
        **row,
        "train_ms": 1e3 * train["ours"] / N_STEPS,
        "train_ms_textbook": 1e3 * train["theirs"] / N_STEPS,
        "train_ratio": train["theirs", "ours"],
        "infer_ms": 1e3 * infer["ours"] / N_STEPS,
        "infer_ratio": infer["theirs", "ours"],
    }


def training(network, optimizer, x, y):
    """Return a function that trains for `N_STEPS` steps."""

    def run():
        for _ in range(N_STEPS):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    return run


def inference(network, x):
    """Return a function that computes the logits `N_STEPS` times."""

    def run():
        with torch.inference_mode():
            for _ in range(N_STEPS):
                network(x)

    return run


if __name__ == "__main__":
    main()
