"""Write the inventories that Sphinx needs to link to other projects without network access.

Each inventory contains only the objects to which the documentation, the docstrings and the code of
the examples refer. After adding an object below, run `python docs/_inventories/write.py`.
"""

import zlib
from pathlib import Path

FOLDER = Path(__file__).parent

# The name of each project and, by role, the page on which each of its objects is documented. "$"
# stands for the name of the object, as in Sphinx inventories.
PROJECTS = {
    "python": (
        "Python",
        {
            "py:exception": {"KeyboardInterrupt": "library/exceptions.html#$"},
            "py:module": {"pickle": "library/pickle.html#module-$"},
        },
    ),
    "numpy": (
        "NumPy",
        {
            "py:class": {"numpy.memmap": "reference/generated/$.html#$"},
            "py:function": {
                "numpy.lib.stride_tricks.sliding_window_view": "reference/generated/$.html#$"
            },
            "py:method": {"numpy.ma.MaskedArray.filled": "reference/generated/$.html#$"},
        },
    ),
    "sklearn": (
        "scikit-learn",
        {
            "py:class": {
                "sklearn.calibration.CalibratedClassifierCV": "modules/generated/$.html#$",
                "sklearn.callback.ProgressBar": "modules/generated/$.html#$",
                "sklearn.callback.ScoringMonitor": "modules/generated/$.html#$",
                "sklearn.cluster.KMeans": "modules/generated/$.html#$",
                "sklearn.decomposition.PCA": "modules/generated/$.html#$",
                "sklearn.ensemble.BaggingClassifier": "modules/generated/$.html#$",
                "sklearn.ensemble.HistGradientBoostingClassifier": "modules/generated/$.html#$",
                "sklearn.manifold.TSNE": "modules/generated/$.html#$",
                "sklearn.model_selection.GridSearchCV": "modules/generated/$.html#$",
                "sklearn.model_selection.GroupKFold": "modules/generated/$.html#$",
                "sklearn.model_selection.RandomizedSearchCV": "modules/generated/$.html#$",
                "sklearn.model_selection.StratifiedGroupKFold": "modules/generated/$.html#$",
                "sklearn.model_selection.TunedThresholdClassifierCV": "modules/generated/$.html#$",
                "sklearn.neighbors.NearestNeighbors": "modules/generated/$.html#$",
                "sklearn.neural_network.MLPClassifier": "modules/generated/$.html#$",
                "sklearn.pipeline.Pipeline": "modules/generated/$.html#$",
                "sklearn.semi_supervised.SelfTrainingClassifier": "modules/generated/$.html#$",
            },
            "py:function": {
                "sklearn.base.clone": "modules/generated/$.html#$",
                "sklearn.datasets.load_digits": "modules/generated/$.html#$",
                "sklearn.inspection.permutation_importance": "modules/generated/$.html#$",
                "sklearn.metrics.adjusted_rand_score": "modules/generated/$.html#$",
                "sklearn.model_selection.train_test_split": "modules/generated/$.html#$",
            },
        },
    ),
    "skorch": (
        "skorch",
        {
            "py:class": {
                "skorch.callbacks.Callback": "callbacks.html#$",
                "skorch.classifier.NeuralNetClassifier": "classifier.html#$",
            },
            "py:module": {"skorch.callbacks": "callbacks.html#module-$"},
        },
    ),
    "torch": (
        "PyTorch",
        {
            "py:class": {
                "torch.cuda.CUDAGraph": "generated/$.html#$",
                "torch.nn.Dropout": "generated/$.html#$",
                "torch.nn.Module": "generated/$.html#$",
                "torch.nn.TransformerEncoder": "generated/$.html#$",
                "torch.optim.AdamW": "generated/$.html#$",
                "torch.utils.data.Dataset": "data.html#$",
            },
            "py:function": {
                "torch.cuda.synchronize": "generated/$.html#$",
                "torch.get_num_threads": "generated/$.html#$",
                "torch.nn.functional.scaled_dot_product_attention": "generated/$.html#$",
            },
            "py:module": {"torch.distributed": "distributed.html#module-$"},
        },
    ),
}


def inventory(name, objects):
    """Return an inventory as bytes, in version 2 of Sphinx's format."""
    header = (
        "# Sphinx inventory version 2\n"
        f"# Project: {name}\n"
        "# Version: \n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = [
        f"{target} {role} 1 {address.replace('$', target)} -\n"
        for role, addresses in objects.items()
        for target, address in addresses.items()
    ]
    return header.encode() + zlib.compress("".join(lines).encode(), 9)


if __name__ == "__main__":
    for project, (name, objects) in PROJECTS.items():
        (FOLDER / f"{project}.inv").write_bytes(inventory(name, objects))
