"""The alternatives that the speed benchmark compares this package with.

They are configured as a user would configure them.

Shapes: B sequences, T steps, F features, K classes, D `d_model`. X is (n, T, F) float32, y (n,).
"""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from harness import DEVICE
from skorch import NeuralNetClassifier
from torch import nn

LR = 1e-3


class CLSNetwork(nn.Module):
    """Linear embedding, [CLS] token and linear head around an encoder with learned positions.

    Subclasses create their encoder in `build` and call it in `encode`.
    """

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
    """`nn.TransformerEncoder`, with the learned positions added to its input."""

    def build(self, n_tokens, d_model, n_heads, dim_feedforward, depth, dropout):
        """Build the encoder."""
        layer = nn.TransformerEncoderLayer(
            d_model, n_heads, dim_feedforward, dropout, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(d_model)
        self.encoder = nn.TransformerEncoder(layer, depth, norm, enable_nested_tensor=False)

    def encode(self, z):
        """Return the output of the encoder, (B, 1 + T, D), for tokens z of the same shape."""
        return self.encoder(z + self.position)


class Bert(CLSNetwork):
    """`transformers.BertModel`, which adds learned positions of its own."""

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
        """Return the output of the encoder, (B, 1 + T, D), for tokens z of the same shape."""
        return self.encoder(inputs_embeds=z).last_hidden_state


class XTransformer(CLSNetwork):
    """`x_transformers.ContinuousTransformerWrapper`, which adds learned positions of its own."""

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
        """Return the output of the encoder, (B, 1 + T, D), for tokens z of the same shape."""
        return self.encoder(z)


NETWORKS = {"skorch": TransformerEncoder, "BertModel": Bert, "x-transformers": XTransformer}
CLASSIFIERS = ("MVTSTransformer", "ConvTran", "TSTPlus")
PACKAGES = {  # the import name of the package that provides each alternative
    "BertModel": "transformers",
    "x-transformers": "x_transformers",
    "MVTSTransformer": "sktime",
    "ConvTran": "sktime",
    "TSTPlus": "tsai",
}


def is_installed(name):
    """Return whether the package that provides an alternative is installed."""
    return name not in PACKAGES or find_spec(PACKAGES[name]) is not None


def sizes(X, y):
    """Return F, K and T, the first three arguments of a network."""
    return X.shape[2], int(y.max()) + 1, X.shape[1]


def skorch_classifier(X, y, *, max_epochs, batch_size, dropout):
    """Return a skorch classifier around `TransformerEncoder`, unfitted, without validation data."""
    names = ("module__n_features", "module__n_classes", "module__n_steps")
    return NeuralNetClassifier(
        TransformerEncoder, **dict(zip(names, sizes(X, y), strict=True)), module__dropout=dropout,
        criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=LR, max_epochs=max_epochs,
        batch_size=batch_size, iterator_train__shuffle=True, train_split=None, device=DEVICE,
        verbose=0,
    )  # fmt: skip


def fit(name, X, y, *, max_epochs, batch_size, dropout):
    """Train a network of `NETWORKS`: "skorch" with skorch, the others in a plain PyTorch loop."""
    if name == "skorch":
        clf = skorch_classifier(X, y, max_epochs=max_epochs, batch_size=batch_size, dropout=dropout)
        return clf.fit(X, y)
    return train(NETWORKS[name](*sizes(X, y), dropout=dropout), X, y, max_epochs, batch_size)


def train(network, X, y, max_epochs, batch_size):
    """Train `network`, which maps sequences to logits, in a plain PyTorch loop and return it."""
    network.to(DEVICE).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
    X, y = torch.from_numpy(X).to(DEVICE), torch.from_numpy(y).to(DEVICE)
    for _ in range(max_epochs):
        for batch in torch.randperm(len(X)).to(DEVICE).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(X[batch]), y[batch]).backward()
            optimizer.step()
    return network


def fit_default(name, X, y, *, max_epochs, batch_size):
    """Train a classifier of `CLASSIFIERS` with its default dimensions."""
    X = np.ascontiguousarray(X.swapaxes(1, 2))  # (n, F, T)
    if name == "TSTPlus":  # tsai has no estimator for it and trains it with fastai
        module = import_module("tsai.models.TSTPlus")
        network = module.TSTPlus(X.shape[1], int(y.max()) + 1, X.shape[2])
        return train(network, X, y, max_epochs, batch_size)
    module = import_module("sktime.classification.deep_learning")
    if name == "MVTSTransformer":
        classifier = module.MVTSTransformerClassifier
    else:
        classifier = import_module(f"{module.__name__}.convtran").ConvTranClassifierTorch
    clf = classifier(num_epochs=max_epochs, batch_size=batch_size, verbose=False, random_state=0)
    return clf.fit(X, y)
