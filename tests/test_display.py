"""The figures: they render, and their artists show the right values."""

import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_cls import (
    CLSAttentionDisplay,
    EmbeddingDisplay,
    StrategyDisplay,
    TrainingDisplay,
)
from tests.figure_helpers import is_inside, legend_of, overlaps, render, texts, visible_texts
from tests.helpers import bumps, small


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def stopped(data):
    """Return a classifier that stopped early and restored the weights of an earlier epoch."""
    params = {"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 40, "lr": 2e-2}
    clf = small(**params).fit(*data)
    assert clf.n_iter_ < 40
    return clf


# All displays


DISPLAYS = [CLSAttentionDisplay, EmbeddingDisplay, StrategyDisplay, TrainingDisplay]


@pytest.mark.parametrize("display", DISPLAYS)
def test_missing_matplotlib_raises_with_a_hint_to_install_it(display, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    # The error is raised before X is used.
    args = (None,) if display in (CLSAttentionDisplay, EmbeddingDisplay) else ()
    message = rf"{display.__name__}.from_estimator requires .* `pip install"
    with pytest.raises(ImportError, match=message):
        display.from_estimator(fitted, *args)
    with pytest.raises(ImportError, match=r"TrainingDisplay.plot requires .* `pip install"):
        TrainingDisplay({"a": fitted.history_}).plot()


@pytest.mark.parametrize("display", [CLSAttentionDisplay, EmbeddingDisplay, TrainingDisplay])
def test_unfitted_and_other_estimators_raise(display, data):
    X = () if display is TrainingDisplay else (data[0][:3],)
    for estimator in (small(), make_pipeline(FunctionTransformer(), small())):
        with pytest.raises(NotFittedError):
            display.from_estimator(estimator, *X)
    other = LogisticRegression().fit(data[0][:, :, 0], data[1])
    with pytest.raises(TypeError, match="ends in one, got LogisticRegression"):
        display.from_estimator(other, *X)


def test_given_axes_are_used_without_pyplot(fitted, stopped, data):
    X, y = data
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, 3)
    CLSAttentionDisplay.from_estimator(fitted, X[:2], ax=axes[0])
    EmbeddingDisplay.from_estimator(fitted, X, y, ax=axes[1])
    display = render(TrainingDisplay.from_estimator(stopped, ax=axes[2]))
    assert display.figure_ is figure
    assert plt.get_fignums() == []
    assert not axes[0].axison  # divided into panels
    assert display.axes_.shape == (3, 1)


def test_invalid_number_of_axes_raises(fitted, data):
    X = data[0][:2]
    axes = Figure().subplots(1, 2)
    display = CLSAttentionDisplay.from_estimator(fitted, X, ax=axes)
    assert display.axes_.tolist() == [axes.tolist()]
    with pytest.raises(ValueError, match=r"ax must be 2 Axes.* got 3"):
        display.plot(ax=Figure().subplots(1, 3))
    loose = Figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"a single one from plt.subplots\(\), got 1"):
        display.plot(ax=loose)
    with pytest.raises(ValueError, match="ax must be a single Axes, got 2"):
        EmbeddingDisplay(np.eye(2), [0, 1]).plot(ax=axes)
    for other in ("x", Figure()):
        with pytest.raises(TypeError, match=r"ax must be Axes, .* got (str|Figure)"):
            display.plot(ax=other)


def test_only_panels_in_a_grid_share_labels(stopped, data):
    row = Figure().subplots(1, 3)
    render(TrainingDisplay.from_estimator(stopped, ax=row))
    labels = [ax.get_ylabel() for ax in row]
    assert labels == ["loss", "validation accuracy", "learning rate"]
    assert [ax.get_xlabel() for ax in row] == ["epoch"] * 3
    column = Figure().subplots(3, 1)
    X = [data[0][0], data[0][1][:8], data[0][2][:12]]
    display = render(CLSAttentionDisplay.from_estimator(stopped, X, ax=column))
    assert [ax.get_xlabel() for ax in column] == ["time step"] * 3
    for axes in (row, column, display.attention_axes_.flat):
        for ax in axes:
            assert any(tick.get_text() for tick in ax.get_yticklabels())
    for ax in (*row, *column):
        assert any(tick.get_text() for tick in ax.get_xticklabels())
    grid = render(CLSAttentionDisplay.from_estimator(stopped, X))
    assert [ax.get_ylabel() for ax in grid.axes_[0]] == ["value", "", ""]
    assert [ax.get_ylabel() for ax in grid.attention_axes_[0]] == ["attention", "", ""]


def test_a_legend_with_many_entries_stays_inside_the_figure(fitted):
    labels = np.repeat([f"walking upstairs {i}" for i in range(56)], 2)
    points = np.random.default_rng(0).normal(size=(112, 2))
    histories = {f"cls_strategy=learned, lr={i / 100}": fitted.history_ for i in range(30)}
    for display in (EmbeddingDisplay(points, labels), TrainingDisplay(histories)):
        render(display.plot())
        assert is_inside(legend_of(display), display.figure_)
        assert is_inside(display.ax_.title, display.figure_)
        assert display.ax_.get_window_extent().width > 300
    many = EmbeddingDisplay(points, np.arange(112) / 112).plot()
    assert many.figure_.legends == []


def test_long_names_and_signs_of_formulas_are_drawn_as_text(fitted):
    names = ["_hidden", "$5 and $6", "a very long name of the first of all classes"]
    points = np.random.default_rng(0).normal(size=(6, 2))
    expected = ["$5 and $6", "_hidden", "a very long name of the fi…f all classes"]
    display = render(EmbeddingDisplay(points, np.repeat(names, 2)).plot())
    assert [text.strip().replace("\\", "") for text in texts(legend_of(display))] == expected
    display = render(TrainingDisplay(dict.fromkeys([*names, 2 * names[2]], fitted.history_)).plot())
    shown = [text.strip().replace("\\", "") for text in texts(legend_of(display))]
    assert shown[:3] == names
    assert len(shown[3]) == 60
    for text in legend_of(display).get_texts():
        assert "mathdefault" not in text.get_text()
    assert is_inside(legend_of(display), display.figure_)


def test_for_nested_searches_and_pipelines_the_classifier_of_the_best_estimator_is_drawn(data):
    X, y = data
    inner = Pipeline([("abs", FunctionTransformer(np.abs)), ("clf", small(max_epochs=1))])
    search = GridSearchCV(inner, {"clf__depth": [1]}, cv=2)
    outer = make_pipeline(FunctionTransformer(np.negative), search).fit(X, y)
    display = CLSAttentionDisplay.from_estimator(outer, X[:2])
    assert np.array_equal(display.sequences, np.abs(X[:2]))
    last = outer[-1].best_estimator_[-1]
    assert np.array_equal(display.attention, last.cls_attention(np.abs(X[:2])))
    without_steps = Pipeline([("clf", last)])
    display = CLSAttentionDisplay.from_estimator(without_steps, X[:2])
    assert np.array_equal(display.attention, last.cls_attention(X[:2]))


def test_plotting_again_draws_the_same_on_new_axes(fitted, data):
    display = CLSAttentionDisplay.from_estimator(fitted, data[0][:1])
    first = display.ax_
    ax = Figure().subplots()
    assert render(display.plot(block=0, ax=ax)) is display
    assert display.ax_ is ax is not first
    old, new = (axes.lines[0].get_ydata() for axes in (first, ax))
    assert np.array_equal(old, new)


def test_parameters_may_be_arrays(data):
    depths, titles = np.array([1, 2]), np.array(["first", "second"])
    display = StrategyDisplay(["learned"], depths, np.ones((1, 2, 3))).plot()
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["1", "2"]
    display = CLSAttentionDisplay(data[0][:2], np.full((2, 1, 1, 20), 0.05), titles=titles).plot()
    assert [ax.get_title() for ax in display.axes_[0]] == ["first", "second"]


def test_first_argument_of_plot_is_ax(fitted, data):
    figure = Figure()
    for display in (
        StrategyDisplay(["learned"], [1], np.ones((1, 1, 3))),
        TrainingDisplay({"a": fitted.history_}),
        CLSAttentionDisplay(data[0][:1], fitted.cls_attention(data[0][:1])),
        EmbeddingDisplay(np.eye(2), [0, 1]),
    ):
        assert display.plot(figure.add_subplot()).figure_ is figure


def test_search_without_a_refitted_estimator_raises(data):
    search = GridSearchCV(small(max_epochs=1), {"depth": [1]}, cv=2, refit=False).fit(*data)
    with pytest.raises(
        ValueError, match="no best_estimator_ because of refit=False; fit it with refit"
    ):
        EmbeddingDisplay.from_estimator(search, data[0])


# EmbeddingDisplay


def test_unseen_sequences_are_hollow_and_do_not_change_the_projection(fitted, data):
    X, y = data
    X_unseen, y_unseen = bumps(n=30, seed=1)
    display = EmbeddingDisplay.from_estimator(fitted, X, y, X_unseen=X_unseen, y_unseen=y_unseen)
    pca = PCA(2, svd_solver="full").fit(fitted.transform(X))
    seen, unseen = (pca.transform(fitted.transform(each)) for each in (X, X_unseen))
    expected = [seen[y == 0], unseen[y_unseen == 0], seen[y == 1], unseen[y_unseen == 1]]
    for scatter, points in zip(render(display).scatters_, expected, strict=True):
        assert np.allclose(scatter.get_offsets(), points, atol=1e-5)
    assert [len(scatter.get_facecolor()) for scatter in display.scatters_] == [1, 0, 1, 0]
    ratios = pca.explained_variance_ratio_
    assert display.ax_.get_xlabel() == f"PCA 1 ({ratios[0]:.0%} of the variance)"
    assert display.ax_.get_ylabel() == f"PCA 2 ({ratios[1]:.0%} of the variance)"
    assert texts(legend_of(display)) == ["0", "1", "seen", "unseen"]
    assert legend_of(display).get_title().get_text() == "class"


def test_missing_labels_are_predicted(fitted, data):
    X, y = data
    X_unseen, _ = bumps(n=30, seed=1)
    display = EmbeddingDisplay.from_estimator(fitted, X, X_unseen=X_unseen)
    predicted = np.concatenate([fitted.predict(X), fitted.predict(X_unseen)])
    assert np.array_equal(display.labels, predicted)
    assert display.label_name == "predicted class"
    display = EmbeddingDisplay.from_estimator(fitted, X, 1 - y, X_unseen=X_unseen)
    assert np.array_equal(display.labels, [*(1 - y), *fitted.predict(X_unseen)])
    assert display.label_name == "class (unseen: predicted)"


class Joint(BaseEstimator):
    """A reducer without `transform`, like TSNE."""

    def fit_transform(self, X, y=None):
        assert y is None
        self.n_fitted_ = len(X)
        return X[:, 1:3]


def test_reducer_without_transform_is_fitted_on_all_vectors_without_labels(fitted, data):
    X, y = data
    reducer = Joint()
    display = EmbeddingDisplay.from_estimator(fitted, X, y, X_unseen=X[:9], reducer=reducer)
    expected = fitted.transform(np.concatenate([X, X[:9]]))[:, 1:3]
    assert np.allclose(display.points, expected, atol=1e-5)
    assert display.ax_.get_ylabel() == "Joint 2"
    assert not hasattr(reducer, "n_fitted_")


def test_reducer_may_be_a_pipeline_or_use_the_classes(fitted, data):
    X, y = data
    reducer = make_pipeline(FunctionTransformer(), PCA(5, svd_solver="full"))
    display = EmbeddingDisplay.from_estimator(fitted, X, y, reducer=reducer)
    assert display.points.shape == (60, 2)
    assert display.ax_.get_xlabel().startswith("PCA 1 (")
    three = EmbeddingDisplay.from_embeddings(
        fitted.transform(X), np.arange(60) % 3, reducer=LinearDiscriminantAnalysis()
    )
    assert three.ax_.get_xlabel().startswith("LinearDiscriminantAnalysis 1 (")
    with pytest.raises(ValueError, match=r"LinearDiscriminant.*\(60, 1\).* set n_components=2"):
        EmbeddingDisplay.from_estimator(fitted, X, y, reducer=LinearDiscriminantAnalysis())


def test_pipeline_draws_the_vectors_of_its_last_step(data):
    X, y = data
    pipeline = make_pipeline(FunctionTransformer(np.abs), small(max_epochs=2)).fit(X, y)
    display = EmbeddingDisplay.from_estimator(pipeline, X, y)
    expected = PCA(2, svd_solver="full").fit_transform(pipeline.transform(X))
    assert np.allclose(display.points, expected, atol=1e-5)


def test_vectors_may_be_data_frames(fitted, data):
    X, y = data
    with sklearn.config_context(transform_output="pandas"):
        display = render(EmbeddingDisplay.from_estimator(fitted, X, y, X_unseen=X, y_unseen=y))
    assert np.array_equal(display.points[:60], display.points[60:])


def test_fifty_classes_have_different_styles():
    points = np.random.default_rng(0).normal(size=(100, 2))
    display = render(EmbeddingDisplay(points, np.arange(100) % 50).plot())
    styles = [
        (handle.get_color(), handle.get_marker()) for handle in legend_of(display).legend_handles
    ]
    assert len(set(styles)) == 50
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(styles))


def test_inconsistent_numbers_of_labels_raise(fitted, data):
    X, y = data
    with pytest.raises(ValueError, match="inconsistent"):
        EmbeddingDisplay.from_estimator(fitted, X, y[:5])
    with pytest.raises(ValueError, match="y_unseen was given without X_unseen or y"):
        EmbeddingDisplay.from_estimator(fitted, X, y, y_unseen=y)
    with pytest.raises(ValueError, match="y_unseen was given without X_unseen or y"):
        EmbeddingDisplay.from_estimator(fitted, X, X_unseen=X, y_unseen=y)
    with pytest.raises(ValueError, match="pass both or neither"):
        EmbeddingDisplay.from_embeddings(fitted.transform(X), y, y_unseen=y)


def test_missing_and_mixed_labels_raise(fitted, data):
    draw, vectors = EmbeddingDisplay.from_embeddings, fitted.transform(data[0][:3])
    for label in (None, np.nan):
        with pytest.raises(ValueError, match=rf"y\[1\] is {label}, .* leave out y to"):
            draw(vectors, np.array(["a", label, "b"], dtype=object))
    with pytest.raises(ValueError, match="both be numbers or both be strings, got int64 and <U1"):
        draw(vectors, np.array([0, 1, 0]), embeddings_unseen=vectors, y_unseen=["0", "1", "0"])


def test_labels_may_be_a_column():
    display = EmbeddingDisplay.from_embeddings(np.eye(3), np.array([[0], [1], [0]]))
    assert display.labels.tolist() == [0, 1, 0]


def test_too_few_vectors_and_invalid_reducers_raise():
    with pytest.raises(ValueError, match=r"at least 2 sequences .* shape \(1, 16\)"):
        EmbeddingDisplay.from_embeddings(np.ones((1, 16)), [0])
    for reducer in ("pca", PCA):
        with pytest.raises(TypeError, match=r"reducer must be .* for example PCA\(2\), got"):
            EmbeddingDisplay.from_embeddings(np.eye(3), [0, 1, 0], reducer=reducer)


# TrainingDisplay


def test_epoch_ticks_are_integers_and_names_may_be_integers(data):
    clf = small(max_epochs=2).fit(*data)
    display = render(TrainingDisplay.from_estimator({1: clf, 2: clf}))
    assert texts(legend_of(display)) == ["1", "2"]
    ticks = display.axes_[-1, 0].get_xticks()
    assert np.array_equal(ticks, ticks.round())


def test_a_single_epoch_has_one_tick(data):
    display = render(TrainingDisplay.from_estimator(small(max_epochs=1).fit(*data)))
    ax = display.axes_[-1, 0]
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]


def test_history_is_drawn_with_a_star_at_the_restored_epoch(stopped):
    display = render(TrainingDisplay.from_estimator(stopped))
    history = stopped.history_
    loss, accuracy, lr = display.axes_[:, 0]

    train, valid, star = loss.lines
    assert np.array_equal(train.get_xdata(), history["epoch"])
    assert np.array_equal(train.get_ydata(), history["train_loss"])
    assert np.array_equal(valid.get_ydata(), history["valid_loss"])
    best = int(np.argmin(history["valid_loss"]))
    assert star.get_marker() == "*"
    assert (*star.get_xdata(), *star.get_ydata()) == (best + 1, history["valid_loss"][best])
    assert np.array_equal(accuracy.lines[0].get_ydata(), history["valid_accuracy"])
    assert accuracy.lines[1].get_ydata() == [history["valid_accuracy"][best]]
    assert np.array_equal(lr.lines[0].get_ydata(), history["lr"])
    labels = [ax.get_ylabel() for ax in display.axes_[:, 0]]
    assert labels == ["loss", "validation accuracy", "learning rate"]
    assert lr.get_xlabel() == "epoch"
    assert texts(legend_of(display)) == ["training", "validation", "restored epoch"]


def test_history_without_early_stopping_has_two_panels(fitted):
    display = render(TrainingDisplay.from_estimator(fitted))
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["loss", "learning rate"]
    assert [len(ax.lines) for ax in display.axes_[:, 0]] == [1, 1]
    assert display.ax_.lines[0].get_ydata().tolist() == fitted.loss_curve_
    assert display.figure_.legends == []


def test_several_estimators_are_named_by_differing_parameters(fitted, stopped, data):
    X, y = data
    pipeline = make_pipeline(FunctionTransformer(), small(max_epochs=3, depth=1)).fit(X, y)
    display = render(TrainingDisplay.from_estimator([fitted, pipeline]))
    assert texts(legend_of(display)) == ["depth=2, max_epochs=8", "depth=1, max_epochs=3"]
    assert [len(line.get_ydata()) for line in display.ax_.lines] == [8, 3]
    assert len({to_hex(line.get_color()) for line in display.ax_.lines}) == 2
    display = TrainingDisplay.from_estimator({"a": fitted, "b": stopped})
    assert texts(legend_of(display))[:2] == ["a", "b"]
    assert len(display.axes_[1, 0].lines) == 2  # the accuracy of one estimator, and its star
    same = TrainingDisplay.from_estimator((fitted, fitted))
    assert list(same.histories) == ["fit 0", "fit 1"]
    with pytest.raises(ValueError, match=r"at least one fitted estimator, got \[\]"):
        TrainingDisplay.from_estimator([])


def test_for_a_search_its_best_estimator_is_drawn(data):
    search = GridSearchCV(small(max_epochs=2), {"depth": [1, 2]}, cv=2)
    with pytest.raises(NotFittedError):
        TrainingDisplay.from_estimator(search)
    best = search.fit(*data).best_estimator_
    display = TrainingDisplay.from_estimator({"search": search, "pipeline": make_pipeline(best)})
    assert display.histories == dict.fromkeys(("search", "pipeline"), best.history_)


def test_star_is_at_the_last_improvement_of_the_validation_loss():
    losses = [4.0, 2.0, 1.0, 3.0]
    history = {"train_loss": losses, "valid_loss": losses}
    history["valid_loss_best"] = [True, True, True, False]
    train, _, star = TrainingDisplay({"a": history}).plot().ax_.lines
    assert train.get_ydata().tolist() == losses
    assert (*star.get_xdata(), *star.get_ydata()) == (3, 1.0)


# StrategyDisplay


class Scored(ClassifierMixin, BaseEstimator):
    """A classifier with a known score."""

    def __init__(self, cls_strategy="learned", depth=2, lr=0, pooling="cls"):
        self.cls_strategy = cls_strategy
        self.depth = depth
        self.lr = lr
        self.pooling = pooling

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.x_ = X[0, 0]
        return self

    def predict(self, X):
        return np.zeros(len(X))

    def score(self, X, y=None):
        tenths = len(self.cls_strategy) if self.pooling == "cls" else 9
        return tenths / 10 + self.depth / 100 + self.lr + self.x_ / 1000


def searched(grid, estimator=None, **params):
    X, y = np.arange(12.0)[:, None], np.arange(12) % 2
    return GridSearchCV(estimator or Scored(), grid, cv=3, **params).fit(X, y)


def test_scores_by_strategy_and_depth_have_the_standard_deviation_over_folds():
    search = searched({"depth": [4, 1], "cls_strategy": ["random", "zeros", "learned"]})
    display = render(StrategyDisplay.from_estimator(search))
    assert display.strategies == ["learned", "zeros", "random"]
    assert display.depths == [1, 4]
    results = search.cv_results_
    cells = {
        (p["cls_strategy"], p["depth"]): (mean, std)
        for p, mean, std in zip(
            results["params"], results["mean_test_score"], results["std_test_score"], strict=True
        )
    }
    xs = []
    for strategy, bars in zip(display.strategies, display.errorbars_, strict=True):
        line, _, (spread,) = bars
        xs.append(line.get_xdata())
        for depth, x, mean, segment in zip(
            (1, 4), *line.get_data(), spread.get_segments(), strict=True
        ):
            expected, std = cells[strategy, depth]
            assert mean == pytest.approx(expected)
            assert segment[:, 1] == pytest.approx([expected - std, expected + std])
            assert round(x) == (1, 4).index(depth)
    assert len(np.unique(xs)) == 6  # side by side
    ax = display.ax_
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "4"]
    assert texts(legend_of(display)) == display.strategies
    assert ax.get_ylabel() == "accuracy\nmean ± standard deviation, 3 folds"
    assert (ax.get_title(), ax.get_xlabel()) == ("Value of the [CLS] token", "depth (blocks)")
    styles = [(to_hex(b[0].get_color()), b[0].get_marker()) for b in display.errorbars_]
    assert styles == [("#0072b2", "o"), ("#e69f00", "s"), ("#cc79a7", "D")]


def test_strategies_are_on_the_x_axis_without_depths():
    display = render(StrategyDisplay.from_estimator(searched({"cls_strategy": ["zeros", "fixed"]})))
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["zeros", "fixed"]
    assert display.ax_.get_xlabel() == "cls_strategy"
    assert display.figure_.legends == []
    assert [bars[0].get_xdata().tolist() for bars in display.errorbars_] == [[0], [1]]


def test_legend_of_strategies_hides_no_scores():
    display = StrategyDisplay(["learned", "zeros", "max"], [1, 2, 3], np.ones((3, 3, 2)))
    render(display.plot())
    legend = legend_of(display).get_window_extent()
    assert legend.x0 >= display.ax_.get_window_extent().x1
    assert is_inside(legend_of(display), display.figure_)


def test_many_depths_and_long_names_of_scores_are_legible():
    name = "neg_mean_absolute_percentage_error, best batch_size, dropout, weight_decay, lr"
    display = StrategyDisplay(["zeros"], range(1, 41), np.ones((1, 40, 2)), score_name=name)
    figure = render(display.plot()).figure_
    labels = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert labels == [str(depth) for depth in range(1, 41, 2)]
    assert overlaps(visible_texts(figure)) == []
    assert is_inside(display.ax_.yaxis.label, figure)
    assert display.ax_.get_ylabel().replace("\n", " ").startswith(name)


def test_best_candidate_is_drawn_if_other_parameters_were_searched():
    pipeline = Pipeline([("pass", FunctionTransformer()), ("any", Scored())])
    grid = {"any__cls_strategy": ["zeros", "learned"], "any__depth": [1, 2], "any__lr": [0.2, 0.3]}
    display = StrategyDisplay.from_estimator(searched(grid, pipeline))
    alone = StrategyDisplay.from_estimator(
        searched({"cls_strategy": ["zeros", "learned"], "depth": [1, 2], "lr": [0.3]})
    )
    assert np.array_equal(display.scores, alone.scores)
    assert display.ax_.get_ylabel().startswith("accuracy, best lr\n")


def test_combinations_that_were_not_searched_are_nan():
    grids = [
        {"cls_strategy": ["zeros", "fixed"], "depth": [1]},
        {"cls_strategy": ["zeros"]},  # at the depth of the estimator, 2
        {"depth": [3]},
    ]
    display = render(StrategyDisplay.from_estimator(searched(grids)))
    assert display.depths == [1, 2]
    assert np.isnan(display.scores[:, :, 0]).tolist() == [[False, False], [False, True]]


def test_poolings_are_drawn_like_strategies():
    both = searched({"cls_strategy": ["zeros", "learned"], "pooling": ["cls", "max"]})
    apart = searched([{"cls_strategy": ["zeros", "learned"]}, {"pooling": ["max"]}])
    for search in (both, apart):
        display = render(StrategyDisplay.from_estimator(search))
        assert display.strategies == ["learned", "zeros", "max"]
        assert display.ax_.get_xlabel() == "strategy or pooling"
        assert display.ax_.get_ylabel().startswith("accuracy\n")  # no other parameter
        results = search.cv_results_
        expected = [
            mean
            for params, mean in zip(results["params"], results["mean_test_score"], strict=True)
            if params.get("cls_strategy") == "zeros" and params.get("pooling", "cls") == "cls"
        ]
        assert display.scores[1, 0].mean() == pytest.approx(expected[0])


def test_metric_defaults_to_that_of_refit():
    grid = {"cls_strategy": ["zeros", "learned"]}
    scoring = {"a": lambda clf, X, y: clf.depth, "b": lambda clf, X, y: -clf.depth}
    search = searched(grid, scoring=scoring, refit="b")
    assert (StrategyDisplay.from_estimator(search).scores == -2).all()
    display = StrategyDisplay.from_estimator(search, metric="a")
    assert (display.scores == 2).all()
    assert display.ax_.get_ylabel().startswith("a\n")
    with pytest.raises(ValueError, match="metric must be one of 'a', 'b', got 'c'"):
        StrategyDisplay.from_estimator(search, metric="c")
    with pytest.raises(ValueError, match="metric must be one of 'a', 'b', got None"):
        StrategyDisplay.from_estimator(searched(grid, scoring=scoring, refit=False))


def test_searches_without_strategies_raise():
    with pytest.raises(NotFittedError):
        StrategyDisplay.from_estimator(GridSearchCV(Scored(), {"depth": [1]}))
    with pytest.raises(ValueError, match=r"searched parameters \(depth\); add 'cls_strategy': \["):
        StrategyDisplay.from_estimator(searched({"depth": [1, 2]}))
    with pytest.raises(
        TypeError, match=r"estimator must be .* for example GridSearchCV, got Scored"
    ):
        StrategyDisplay.from_estimator(Scored().fit(np.ones((2, 1)), [0, 1]))
