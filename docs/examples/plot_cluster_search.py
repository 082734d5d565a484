"""
Search on a cluster
===================

A search runs on a Dask cluster by one line: the context around `fit`. Everything else, the scores
included, stays as it is on a laptop.
"""

# %%
# The client connects to a cluster. Here, Dask starts one with two workers in this process; with the
# address of a scheduler, ``Client("tcp://scheduler:8786")``, the rest of the script runs on that
# cluster. ``Client()`` starts workers that are processes of this machine, in a notebook or below
# ``if __name__ == "__main__"``.

import joblib
import matplotlib.pyplot as plt
from dask.distributed import Client, get_task_stream
from sklearn.model_selection import GridSearchCV

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls.datasets import load_digit_sequences

client = Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
X, y = load_digit_sequences()
X, y = X[:300], y[:300]
clf = CLSTransformerClassifier(embedding="linear", max_epochs=4, random_state=0)
search = GridSearchCV(clf, {"depth": [1, 2, 3], "d_model": [32, 64]}, cv=3)

with joblib.parallel_config("dask"), get_task_stream() as tasks:
    search.fit(X, y)
search.best_params_

# %%
# Each fit is a task of a worker. If a worker is lost, its fits are done again by the others. The
# scores are those of a search in this process, bit by bit. :ref:`cluster-search` says how many
# threads and which GPU a worker uses.

fits = [task for task in tasks.data if "fit_and_score" in str(task["key"])]
workers = sorted({task["worker"] for task in fits})
begin = min(step["start"] for task in fits for step in task["startstops"])
fig, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
for task in fits:
    computed = next(step for step in task["startstops"] if step["action"] == "compute")
    ax.barh(
        workers.index(task["worker"]),
        computed["stop"] - computed["start"],
        left=computed["start"] - begin,
        edgecolor="white",
        color="tab:blue",
    )
ax.set_yticks(range(len(workers)), [f"worker {i + 1}" for i in range(len(workers))])
ax.set_xlabel("time (s)")
ax.set_title("The fits of the search, by worker")
client.shutdown()
plt.show()
