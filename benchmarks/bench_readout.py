"""One step of the exact [CLS] readout against nn.TransformerEncoder carrying the same weights.

100 steps of 8 features, batch 64, linear embedding, d_model 64, 4 heads (head size 16),
feed-forward 128, dropout 0 in both. Prints, per depth, the largest difference in logits and
gradients and the speed-ups. A round is 5 steps of one and 5 of the other: after a switch, the first
step finds the heap as the other left it.
"""

import torch
import torch.nn.functional as F
from harness import begin, in_turn, parser, report
from textbook import Textbook

from sklearn_cls._network.encoder import CLSEncoder

N_STEPS = 5  # of each network in a round


def main():
    """Measure depths 1, 2 and 4."""
    args = begin(parser(__doc__, rounds=12))
    print("# data: normal noise, (64, 100, 8); d_model 64, 4 heads, feed-forward 128, no dropout")
    rows = []
    for depth in (1, 2, 4):
        torch.manual_seed(0)
        ours = CLSEncoder(
            n_features=8, n_classes=10, depth=depth, dim_feedforward=128, dropout=0.0,
            embedding="linear",
        )  # fmt: skip
        theirs = Textbook(ours)
        x, y = torch.randn(64, 100, 8), torch.randint(0, 10, (64,))
        value, gradient = differences(ours, theirs, x, y)
        networks = {"ours": ours.train(), "theirs": theirs.train()}
        optimizers = {k: torch.optim.AdamW(n.parameters(), fused=True) for k, n in networks.items()}
        train = in_turn({k: step(networks[k], optimizers[k], x, y) for k in networks}, args.rounds)
        infer = in_turn({k: inference(networks[k].eval(), x) for k in networks}, args.rounds)
        rows.append(
            {
                "depth": depth,
                "logits_differ": value,
                "gradients_differ": gradient,
                "train_ms": 1e3 * train["ours"] / N_STEPS,
                "train_ms_textbook": 1e3 * train["theirs"] / N_STEPS,
                "train_ratio": train["theirs", "ours"],
                "infer_ms": 1e3 * infer["ours"] / N_STEPS,
                "infer_ratio": infer["theirs", "ours"],
            }
        )
    report(rows, args.out)


def differences(ours, theirs, x, y):
    """Return the largest absolute difference in logits and in gradients."""
    value = (ours(x) - theirs(x)).abs().max().item()
    of_ours, of_theirs = (gradients(network, ours, x, y) for network in (ours, theirs))
    pairs = zip(of_ours, of_theirs, strict=True)
    return value, max((a - b).abs().max().item() for a, b in pairs)


def gradients(network, ours, x, y):
    """Return the gradients of what the two share, and of the blocks' weights."""
    network.zero_grad()
    F.cross_entropy(network(x), y).backward()
    shared = [*ours.embedding.parameters(), *ours.token.parameters(), *ours.head.parameters()]
    if network is ours:
        blocks = [(b.qkv.weight, b.out.weight, b.up.weight, b.down.weight) for b in ours.blocks]
    else:
        layers = network.encoder.layers
        attention = [(a.self_attn.in_proj_weight, a.self_attn.out_proj.weight) for a in layers]
        rest = [(a.linear1.weight, a.linear2.weight) for a in layers]
        blocks = [a + b for a, b in zip(attention, rest, strict=True)]
    gradient = [p.grad.clone() for p in (*shared, *(p for block in blocks for p in block))]
    network.zero_grad()
    return gradient


def step(network, optimizer, x, y):
    """Return a function that makes training steps."""

    def run():
        for _ in range(N_STEPS):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    return run


def inference(network, x):
    """Return a function that computes logits."""

    def run():
        with torch.inference_mode():
            for _ in range(N_STEPS):
                network(x)

    return run


if __name__ == "__main__":
    main()
