"""
How the value of [CLS] acts
===========================

Four values that [CLS] may have, on a problem with a known answer: one marked step decides the
class, all others are noise, so [CLS] has to find it. What does it attend to before and after
training, what gradient reaches its query, and how far does a learned token travel?
"""

# %%
# In these sequences feature 0 is 1 at one random step, and the signs of the other two features at
# this step are the class.

import matplotlib.pyplot as plt
import numpy as np
from skorch.callbacks import Callback

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls.datasets import make_sequences

X, y = make_sequences("marked", 1500, random_state=0)
X_train, y_train, X_test, y_test = X[:500], y[:500], X[500:], y[500:]
marked = X_test[:, :, 0].argmax(1)

# %%
# A callback of skorch sees every gradient: :math:`W_q` is the first third of the rows of the
# weight that makes queries, keys and values.


class Watch(Callback):
    """Keeps the norm of the gradient to W_q, and how far the token is from its start."""

    def on_train_begin(self, net, **kwargs):
        self.start = net.module_.token.value.detach().clone()
        self.norms, self.moved = [], [0.0]

    def on_grad_computed(self, net, **kwargs):
        w_q = net.module_.blocks[0].qkv.weight.grad.chunk(3)[0]
        self.norms.append(w_q.norm().item())

    def on_batch_end(self, net, **kwargs):
        self.moved.append((net.module_.token.value.detach() - self.start).norm().item())


# %%
# One block, so that [CLS] reads once. A fit of one epoch with next to no step size is the network
# at the start. All other weights and all batches are the same under every strategy, and so is the
# step size: tuned for each in :doc:`/the_answer`, it came out the same. One run, to look at: the
# accuracy of others is there.

params = {
    "depth": 1, "embedding": "linear", "augment": False, "d_model": 32, "n_heads": 2,
    "dim_feedforward": 64, "batch_size": 32, "random_state": 0,
}  # fmt: skip
strategies = ["learned", "zeros", "fixed", "random"]
start, end, watches = {}, {}, {}
for strategy in strategies:
    clf = CLSTransformerClassifier(cls_strategy=strategy, **params)
    start[strategy] = clf.set_params(max_epochs=1, lr=1e-12).fit(X_train, y_train)
    start[strategy] = start[strategy].cls_attention(X_test)[:, 0]
    watches[strategy] = Watch()
    clf.set_params(max_epochs=25, lr=0.01, callbacks=[watches[strategy]]).fit(X_train, y_train)
    end[strategy] = clf.cls_attention(X_test)[:, 0]
    print(f"{strategy:8} test accuracy {clf.score(X_test, y_test):.3f}")

# %%
# Attention by the distance of a step from the marked one, of the head that reads the marked one
# more. At the start the query of zeros is 0 and every step gets exactly the same share, a 24th. At
# the end this head reads the marked step and hardly any other.

distances = np.arange(-8, 9)


def by_distance(attention):
    """Mean attention of one head to steps so far from the marked one."""
    steps = np.arange(X.shape[1]) - marked[:, np.newaxis]
    heads = attention.transpose(0, 2, 1)  # (n_sequences, n_steps, n_heads)
    head = heads[steps == 0].mean(0).argmax()
    return [heads[steps == distance][:, head].mean() for distance in distances]


colors = dict(zip(strategies, ["#0072B2", "#E69F00", "#009E73", "#CC79A7"], strict=True))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), sharey=True, layout="constrained")
for ax, strategy in zip(axes, strategies, strict=True):
    ax.plot(distances, by_distance(end[strategy]), color=colors[strategy], label="end")
    ax.plot(distances, by_distance(start[strategy]), "k:", label="start")
    ax.set(title=strategy, xlabel="steps from the mark")
    ax.legend()
axes[0].set_ylabel("attention of one head")
figure.suptitle("What [CLS] attends to at the start and at the end of training")

# %%
# What differs is how soon the gradient that reaches :math:`W_q` can teach it. With zeros it is
# exactly 0 at the first update: the row that :math:`W_q` multiplies is 0, and of the query only its
# bias can learn. Then the bias of the norm before it has moved as well, the row is no longer 0, and
# :math:`W_q` follows. Under random each sequence asks by a query of its own, so that the network
# first has to learn not to heed it. The gradient of learned is larger at the start than that of
# fixed as its token starts 50 times smaller, which the norm before :math:`W_q` makes up for, and
# the residual path does not.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for (strategy, watch), marker in zip(watches.items(), "os^D", strict=True):
    smooth = np.convolve(watch.norms[1:], np.full(10, 0.1), mode="valid")
    norms = [watch.norms[0], *smooth]  # the first as it is
    left.plot(norms, color=colors[strategy], marker=marker, markevery=40, label=strategy)
left.set_yscale("symlog", linthresh=1e-3)
left.set(
    xlabel="update", ylabel="norm, mean of 10 updates", title="Gradient to $W_q$", ylim=(-1e-4, 10)
)
left.legend(ncols=4, loc="upper center")
watch = watches["learned"]
right.plot(watch.moved, color=colors["learned"])
right.axhline(watch.start.norm().item(), color="k", linestyle=":")
right.annotate("norm of the token at the start", (len(watch.moved), watch.start.norm().item()),
               xytext=(0, 4), textcoords="offset points", ha="right")  # fmt: skip
right.set(
    xlabel="update", ylabel="distance from the start", title='How far a "learned" token travels'
)
plt.show()
# sphinx_gallery_thumbnail_number = 2
