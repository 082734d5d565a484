"""What users would use instead of this package, as they would use it.

Shapes: B sequences, T steps, F features, K classes, D `d_model`. X is (n, T, F) float32, y (n,).
"""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from skorch import NeuralNetClassifier
from torch import nn

LR = 1e-3


class CLSNetwork(nn.Module):
    """A linear embedding, learned positions and a [CLS] token around an encoder, read at row 0."""

    def __init__(
        self, n_features, n_classes, n_steps, *, cls_strategy="learned", d_model=64, n_heads=4,
        dim_feedforward=128, depth=2, dropout=0.1,
    ):  # fmt: skip
        super().__init__()
        self.cls_strategy = cls_strategy
        token = torch.zeros(d_model) if cls_strategy == "zeros" else torch.randn(d_model)
        self.token = nn.Parameter(token, requires_grad=cls_strategy == "learned")
        self.position = nn.Parameter(0.02 * torch.randn(1 + n_steps, d_model))
        self.embedding, self.head = nn.Linear(n_features, d_model), nn.Linear(d_model, n_classes)
        self.build(1 + n_steps, d_model, n_heads, dim_feedforward, depth, dropout)

    def forward(self, x):
        """Return logits (B, K) of x (B, T, F)."""
        token = self.token.expand(len(x), 1, -1)
        if self.cls_strategy == "random":
            token = torch.randn_like(token)
        return self.head(self.encode(torch.cat([token, self.embedding(x)], 1))[:, 0])


class TransformerEncoder(CLSNetwork):
    """Around `nn.TransformerEncoder`: the network everyone writes first."""

    def build(self, n_tokens, d_model, n_heads, dim_feedforward, depth, dropout):
        """Build the encoder."""
        layer = nn.TransformerEncoderLayer(
            d_model, n_heads, dim_feedforward, dropout, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(d_model)
        self.encoder = nn.TransformerEncoder(layer, depth, norm, enable_nested_tensor=False)

    def encode(self, z):
        """Return z (B, 1 + T, D) encoded."""
        return self.encoder(z + self.position)


class Bert(CLSNetwork):
    """Around `transformers.BertModel`, which adds positions of its own."""

    def build(self, n_tokens, d_model, n_heads, dim_feedforward, depth, dropout):
        """Build the encoder."""
        transformers = import_module("transformers")
        config = transformers.BertConfig(
            vocab_size=1,
            hidden_size=d_model,
            num_hidden_layers=depth,
            num_attention_heads=n_heads,
            intermediate_size=dim_feedforward,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=n_tokens,
        )
        self.encoder = transformers.BertModel(config, add_pooling_layer=False)

    def encode(self, z):
        """Return z (B, 1 + T, D) encoded."""
        return self.encoder(inputs_embeds=z).last_hidden_state


class XTransformer(CLSNetwork):
    """Around `x_transformers.ContinuousTransformerWrapper`, which adds positions of its own."""

    def build(self, n_tokens, d_model, n_heads, dim_feedforward, depth, dropout):
        """Build the encoder."""
        x_transformers = import_module("x_transformers")
        layers = x_transformers.Encoder(
            dim=d_model,
            depth=depth,
            heads=n_heads,
            attn_dim_head=d_model // n_heads,
            ff_mult=dim_feedforward / d_model,
            attn_dropout=dropout,
            ff_dropout=dropout,
        )
        self.encoder = x_transformers.ContinuousTransformerWrapper(
            max_seq_len=n_tokens, attn_layers=layers
        )

    def encode(self, z):
        """Return z (B, 1 + T, D) encoded."""
        return self.encoder(z)


NETWORKS = {"skorch": TransformerEncoder, "BertModel": Bert, "x-transformers": XTransformer}
CLASSIFIERS = ("MVTSTransformer", "ConvTran", "TSTPlus")
PACKAGES = {
    "BertModel": "transformers",
    "x-transformers": "x_transformers",
    "MVTSTransformer": "sktime",
    "ConvTran": "sktime",
    "TSTPlus": "tsai",
}


def is_there(name):
    """Whether the package of a peer is installed."""
    return name not in PACKAGES or find_spec(PACKAGES[name]) is not None


def sizes(X, y):
    """Return the first three arguments of a network: F, K, T."""
    return X.shape[2], int(y.max()) + 1, X.shape[1]


def net(X, y, *, max_epochs, batch_size, dropout, device):
    """Return plain skorch around `TransformerEncoder`, on all of the data, unfitted."""
    n_features, n_classes, n_steps = sizes(X, y)
    return NeuralNetClassifier(
        TransformerEncoder,
        module__n_features=n_features,
        module__n_classes=n_classes,
        module__n_steps=n_steps,
        module__dropout=dropout,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=LR,
        max_epochs=max_epochs,
        batch_size=batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        device=device,
        verbose=0,
    )


def fit(name, X, y, **plan):
    """Train a network of `NETWORKS`: plain skorch, or a bare loop."""
    return net(X, y, **plan).fit(X, y) if name == "skorch" else loop(name, X, y, **plan)


def loop(name, X, y, *, max_epochs, batch_size, dropout, device):
    """Train a network in a bare loop."""
    network = NETWORKS[name](*sizes(X, y), dropout=dropout).to(device).train()
    return train(network, X, y, max_epochs, batch_size, device)


def train(network, X, y, max_epochs, batch_size, device):
    """Train `network`, of sequences to logits, and return it."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
    X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    for _ in range(max_epochs):
        for rows in torch.randperm(len(X)).to(device).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(X[rows]), y[rows]).backward()
            optimizer.step()
    return network


def fit_default(name, X, y, *, max_epochs, batch_size):
    """Train a classifier of `CLASSIFIERS` with the dimensions it comes with."""
    X = np.ascontiguousarray(X.swapaxes(1, 2))  # (n, F, T)
    if name == "TSTPlus":  # a network only; its package trains in fastai's loop
        device = "cuda" if torch.cuda.is_available() else "cpu"
        module = import_module("tsai.models.TSTPlus")
        network = module.TSTPlus(X.shape[1], int(y.max()) + 1, X.shape[2]).to(device)
        return train(network, X, y, max_epochs, batch_size, device)
    module = import_module("sktime.classification.deep_learning")
    if name == "MVTSTransformer":
        classifier = module.MVTSTransformerClassifier
    else:
        classifier = import_module(f"{module.__name__}.convtran").ConvTranClassifierTorch
    clf = classifier(num_epochs=max_epochs, batch_size=batch_size, verbose=False, random_state=0)
    return clf.fit(X, y)
