"""
How the value of [CLS] affects training
=======================================

This example compares four values of [CLS] on a problem in which one marked step decides the class
and all others are noise. What does [CLS] attend to before and after training? How large is the
gradient of its query? How far does a learned token move?
"""

# %%
# In these sequences, feature 0 is 1 at one random step. The signs of the other two features at this
# step decide the class.

import matplotlib.pyplot as plt
import numpy as np
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls.datasets import make_sequences

X, y = make_sequences("marked", 1500, random_state=0)
X_train, y_train, X_test, y_test = X[:500], y[:500], X[500:], y[500:]
marked = X_test[:, :, 0].argmax(1)

# %%
# A skorch callback can access all gradients. :math:`W_q` is the first third of the rows of the
# matrix that computes queries, keys and values.


class TokenMonitor(Callback):
    """Record the gradient norm of W_q, and how far the token has moved."""

    def on_train_begin(self, net, **kwargs):
        self.start = net.module_.token.value.detach().clone()
        self.norms, self.moved = [], [0.0]

    def on_grad_computed(self, net, **kwargs):
        w_q = net.module_.blocks[0].qkv.weight.grad.chunk(3)[0]
        self.norms.append(w_q.norm().item())

    def on_batch_end(self, net, **kwargs):
        self.moved.append((net.module_.token.value.detach() - self.start).norm().item())


# %%
# With one block, [CLS] attends to the steps once. A fit of one epoch with a learning rate of almost
# 0 returns the network at initialization. All weights except the token are initially the same for
# all strategies, and so are the batches and the learning rate. In the
# :doc:`study of [CLS] </the_answer>`, where the learning rate was tuned for each strategy, the same
# value was chosen for all of them. This example illustrates a single run; the study compares
# accuracies.

params = {
    "depth": 1, "embedding": "linear", "augment": False, "d_model": 32, "n_heads": 2,
    "dim_feedforward": 64, "batch_size": 32, "random_state": 0,
}  # fmt: skip
strategies = ["learned", "zeros", "fixed", "random"]
start, end, monitors = {}, {}, {}
for strategy in strategies:
    clf = CLSTransformerClassifier(cls_strategy=strategy, **params)
    start[strategy] = clf.set_params(max_epochs=1, lr=1e-12).fit(X_train, y_train)
    start[strategy] = start[strategy].cls_attention(X_test)[:, 0]
    monitors[strategy] = TokenMonitor()
    clf.set_params(max_epochs=25, lr=0.01, callbacks=[monitors[strategy]]).fit(X_train, y_train)
    end[strategy] = clf.cls_attention(X_test)[:, 0]
    print(f"{strategy:8} test accuracy {clf.score(X_test, y_test):.3f}")

# %%
# The figure shows the attention to a step by its distance from the marked step, for the head that
# attends to the marked step most. At initialization, the query with "zeros" is 0, so the attention
# to every step is exactly 1/24. After training, this head attends almost only to the marked step.

distances = np.arange(-8, 9)


def by_distance(attention):
    """Return the mean attention of one head by distance from the marked step."""
    steps = np.arange(X.shape[1]) - marked[:, np.newaxis]
    heads = attention.transpose(0, 2, 1)  # (n_sequences, n_steps, n_heads)
    head = heads[steps == 0].mean(0).argmax()
    return [heads[steps == distance][:, head].mean() for distance in distances]


colors = dict(zip(strategies, ["#0072B2", "#E69F00", "#009E73", "#CC79A7"], strict=True))
figure, axes = plt.subplots(2, 2, figsize=(7, 4.6), sharex=True, sharey=True, layout="constrained")
for ax, strategy in zip(axes.flat, strategies, strict=True):
    ax.plot(distances, by_distance(end[strategy]), color=colors[strategy], label="after training")
    ax.plot(distances, by_distance(start[strategy]), "k:", label="at initialization")
    ax.set_title(strategy)
    ax.legend(loc="upper left", fontsize="small")
figure.supxlabel("steps from the marked one")
figure.supylabel("attention of one head")

# %%
# The strategies differ in how soon :math:`W_q` receives a useful gradient. With "zeros", the
# gradient is exactly 0 at the first update: :math:`W_q` multiplies a vector of zeros, so only the
# biases can learn. As soon as the bias of the preceding layer norm has changed, this vector is no
# longer 0, and :math:`W_q` starts to learn. With "random", every sequence has a different query, so
# the network first has to learn to ignore the token. At the start, the gradient is larger with
# "learned" than with "fixed", because a learned token is initially 50 times smaller: the layer norm
# before :math:`W_q` compensates for this, but the residual connection does not.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for (strategy, monitor), marker in zip(monitors.items(), "os^D", strict=True):
    smooth = np.convolve(monitor.norms[1:], np.full(10, 0.1), mode="valid")
    norms = [monitor.norms[0], *smooth]  # The first norm is not averaged.
    left.plot(norms, color=colors[strategy], marker=marker, markevery=40, label=strategy)
left.set_yscale("symlog", linthresh=1e-3)
left.set(
    xlabel="update", ylabel="norm (mean of 10 updates)", title="Gradient of $W_q$", ylim=(-1e-4, 10)
)
left.legend(ncols=4, loc="upper center")
monitor = monitors["learned"]
right.plot(monitor.moved, color=colors["learned"])
right.axhline(monitor.start.norm().item(), color="k", linestyle=":")
right.annotate("initial norm of the token", (len(monitor.moved), monitor.start.norm().item()),
               xytext=(0, 4), textcoords="offset points", ha="right")  # fmt: skip
right.set(
    xlabel="update", ylabel="distance from the initial token", title='Movement of a "learned" token'
)
plt.show()
# sphinx_gallery_thumbnail_number = 1
