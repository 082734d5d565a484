"""What is drawn, read back from the figures; and that they render."""

import subprocess
import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.fixes import parse_version

from sklearn_cls import (
    CLSAttentionDisplay,
    EmbeddingDisplay,
    StrategyDisplay,
    TrainingDisplay,
    _display_training,
)
from tests.helpers import bumps, small

has_callbacks = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"), reason="scikit-learn has none"
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def stopped(data):
    """Return a classifier that was stopped early, and went back some epochs."""
    params = {"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 40, "lr": 2e-2}
    clf = small(**params).fit(*data)
    assert clf.n_iter_ < 40
    return clf


def render(display):
    display.figure_.canvas.draw()
    return display


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def legend_of(display):
    return display.figure_.legends[0]


# What all displays share.


def test_import_leaves_matplotlib_and_model_selection_alone():
    code = (
        "import sys, sklearn_cls; "
        "print({'matplotlib', 'skorch', 'sklearn.model_selection'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


DISPLAYS = [CLSAttentionDisplay, EmbeddingDisplay, StrategyDisplay, TrainingDisplay]


@pytest.mark.parametrize("display", DISPLAYS)
def test_without_matplotlib_it_is_said_how_to_get_it(display, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    # Before anything is predicted, for which X would have to be there.
    args = (None,) if display in (CLSAttentionDisplay, EmbeddingDisplay) else ()
    message = rf"{display.__name__}.from_estimator requires .* `pip install"
    with pytest.raises(ImportError, match=message):
        display.from_estimator(fitted, *args)
    with pytest.raises(ImportError, match=r"TrainingDisplay.plot requires .* `pip install"):
        TrainingDisplay({"a": [fitted.history_]}).plot()


@pytest.mark.parametrize("display", [CLSAttentionDisplay, EmbeddingDisplay, TrainingDisplay])
def test_an_estimator_that_is_not_fitted_or_another_is_refused(display, data):
    X = () if display is TrainingDisplay else (data[0][:3],)
    for estimator in (small(), make_pipeline(FunctionTransformer(), small())):
        with pytest.raises(NotFittedError):
            display.from_estimator(estimator, *X)
    other = LogisticRegression().fit(data[0][:, :, 0], data[1])
    with pytest.raises(TypeError, match="ends in one, got LogisticRegression"):
        display.from_estimator(other, *X)


def test_a_display_given_axes_leaves_pyplot_alone(fitted, stopped, data):
    X, y = data
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, 3)
    CLSAttentionDisplay.from_estimator(fitted, X[:2], ax=axes[0])
    EmbeddingDisplay.from_estimator(fitted, X, y, ax=axes[1])
    display = render(TrainingDisplay.from_estimator(stopped, ax=axes[2]))
    assert display.figure_ is figure
    assert plt.get_fignums() == []
    assert not axes[0].axison  # shared out
    assert display.axes_.shape == (3, 1)


def test_several_panels_take_as_many_axes_and_no_other_number(fitted, data):
    X = data[0][:2]
    axes = Figure().subplots(1, 2)
    display = CLSAttentionDisplay.from_estimator(fitted, X, ax=axes)
    assert display.axes_.tolist() == [axes.tolist()]
    with pytest.raises(ValueError, match=r"ax must be 2 Axes.* got 3"):
        display.plot(ax=Figure().subplots(1, 3))
    loose = Figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"one of plt.subplots\(\) for all of them, got 1"):
        display.plot(ax=loose)
    with pytest.raises(ValueError, match="ax must be a single Axes, got 2"):
        EmbeddingDisplay(np.eye(2), [0, 1]).plot(ax=axes)
    for other in ("x", Figure()):
        with pytest.raises(TypeError, match=r"ax must be Axes, .* got (str|Figure)"):
            display.plot(ax=other)


def test_panels_that_do_not_lie_in_a_grid_keep_their_labels(stopped, data):
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


def is_inside(artist, figure):
    box, whole = artist.get_window_extent(), figure.bbox
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1


@pytest.mark.parametrize("n_sequences", [1, 2, 4])
@pytest.mark.parametrize("n_features", [1, 3, 5])
def test_the_legend_and_the_titles_of_sequences_fit_the_figure(n_sequences, n_features):
    rng = np.random.default_rng(0)
    sequences = rng.normal(size=(n_sequences, 30, n_features))
    attention = np.full((n_sequences, 1, 2, 30), 1 / 30)
    names = [f"acceleration {i}" for i in range(n_features)]
    titles = ["class walking downstairs\npredicted walking upstairs"] * n_sequences
    display = CLSAttentionDisplay(sequences, attention, titles=titles, feature_names=names)
    render(display.plot())
    assert is_inside(legend_of(display), display.figure_)
    boxes = [ax.title.get_window_extent() for ax in display.axes_[0]]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_the_legend_of_many_classes_or_trainings_fits_the_figure(fitted):
    labels = np.repeat([f"walking upstairs {i}" for i in range(56)], 2)
    points = np.random.default_rng(0).normal(size=(112, 2))
    histories = {f"cls_strategy=learned, lr={i / 100}": [fitted.history_] for i in range(30)}
    for display in (EmbeddingDisplay(points, labels), TrainingDisplay(histories)):
        render(display.plot())
        assert is_inside(legend_of(display), display.figure_)
        assert is_inside(display.ax_.title, display.figure_)
        assert display.ax_.get_window_extent().width > 300
    many = EmbeddingDisplay(points, np.arange(112) / 112).plot()
    assert many.figure_.legends == []


def test_searches_and_pipelines_within_each_other_are_looked_into(data):
    X, y = data
    inner = Pipeline([("abs", FunctionTransformer(np.abs)), ("clf", small(max_epochs=1))])
    search = GridSearchCV(inner, {"clf__depth": [1]}, cv=2)
    outer = make_pipeline(FunctionTransformer(np.negative), search).fit(X, y)
    display = CLSAttentionDisplay.from_estimator(outer, X[:2])
    assert np.array_equal(display.sequences, np.abs(X[:2]))
    last = outer[-1].best_estimator_[-1]
    assert np.array_equal(display.attention, last.cls_attention(np.abs(X[:2])))


def test_a_display_can_be_drawn_again(fitted, data):
    display = CLSAttentionDisplay.from_estimator(fitted, data[0][:1])
    first = display.ax_
    ax = Figure().subplots()
    assert render(display.plot(block=0, ax=ax)) is display
    assert display.ax_ is ax is not first
    old, new = (axes.lines[0].get_ydata() for axes in (first, ax))
    assert np.array_equal(old, new)


# CLSAttentionDisplay


def test_attention_is_below_the_sequence_on_the_same_steps(fitted, data):
    X, y = data
    before = X.copy()
    display = render(CLSAttentionDisplay.from_estimator(fitted, X[:3], y[:3]))
    assert np.array_equal(X, before)
    attention = fitted.cls_attention(X[:3])[:, -1].mean(axis=1)
    assert display.axes_.shape == display.attention_axes_.shape == (1, 3)
    for i in range(3):
        ax, below = display.axes_[0, i], display.attention_axes_[0, i]
        assert np.array_equal([line.get_ydata() for line in ax.lines], X[i].T)
        values, edges, _ = below.patches[0].get_data()
        assert np.allclose(values, attention[i])
        assert np.array_equal(edges, np.arange(21) - 0.5)
        assert below.lines[0].get_ydata().tolist() == [1 / 20, 1 / 20]
        assert ax.get_xlim() == below.get_xlim() == (-0.5, 19.5)
        assert ax.get_title() == f"class {y[i]}\npredicted {fitted.predict(X[i : i + 1])[0]}"
        assert ax.get_xlabel() == "time step"
        # The sequence is drawn above the lower third, and the attention within.
        lowest = ax.transData.transform((0, X[:3].min()))[1]
        highest = below.transData.transform((0, attention.max()))[1]
        assert highest < lowest
    assert display.figure_.get_suptitle() == "What [CLS] reads: last block, mean of 2 heads"
    names = ["feature 0", "feature 1", "attention of [CLS]", "uniform attention"]
    assert texts(legend_of(display)) == names


def test_each_block_is_a_row_and_each_head_a_row_of_its_image(fitted, data):
    X = data[0][:2]
    display = CLSAttentionDisplay.from_estimator(fitted, X, block="all", heads="each")
    attention = fitted.cls_attention(X)
    assert display.axes_.shape == (2, 2)
    for i in range(2):
        for block in range(2):
            below = display.attention_axes_[block, i]
            assert np.allclose(below.collections[0].get_array(), attention[i, block])
            assert below.get_ylim()[0] > below.get_ylim()[1]  # head 0 on top
    assert display.attention_axes_[1, 0].get_ylabel() == "block 1\nhead"
    assert render(display).figure_.get_suptitle() == "What [CLS] reads: each block, each of 2 heads"


def test_a_pipeline_draws_what_its_last_step_gets(data):
    X, y = data
    pipeline = make_pipeline(FunctionTransformer(np.abs), small(max_epochs=2)).fit(X, y)
    display = CLSAttentionDisplay.from_estimator(pipeline, X[:2])
    assert np.array_equal(display.sequences, np.abs(X[:2]))
    expected = pipeline[-1].cls_attention(np.abs(X[:2]))
    assert np.array_equal(display.attention, expected)
    alone = Pipeline([("clf", pipeline[-1])])
    display = CLSAttentionDisplay.from_estimator(alone, np.abs(X[:2]))
    assert np.array_equal(display.attention, expected)


def test_each_sequence_ends_where_it_ends(fitted, data):
    X = data[0][:3].copy()
    lists = [x[:n] for x, n in zip(X, (20, 12, 1), strict=True)]
    for x, n in zip(X, (20, 12, 1), strict=True):
        x[n:] = np.nan
    X[0, 5] = np.nan  # missing, not padding
    lists[0] = X[0]
    for given in (X, lists):
        display = render(CLSAttentionDisplay.from_estimator(fitted, given))
        ends = [ax.get_xlim()[1] for ax in display.axes_[0]]
        assert ends == [19.5, 11.5, 0.5]
        for below in display.attention_axes_[0]:
            assert below.patches[0].get_data().values.sum() == pytest.approx(1, abs=1e-5)
        assert np.isnan(display.axes_[0, 0].lines[0].get_ydata()[5])


def test_a_table_is_a_line_a_row(data):
    pd = pytest.importorskip("pandas")
    X, y = pd.DataFrame(data[0][:, :, 0]), data[1]
    clf = small(max_epochs=1).fit(X, y)
    display = CLSAttentionDisplay.from_estimator(clf, X[:2])
    assert np.array_equal(display.axes_[0, 1].lines[0].get_ydata(), X.iloc[1])
    assert texts(legend_of(display)) == ["attention of [CLS]", "uniform attention"]


def test_many_features_are_an_image():
    X, y = bumps(n=20, n_features=6)
    X[0, 3, 1] = np.nan
    clf = small(max_epochs=1).fit(X, y)
    names = list("abcdef")
    display = CLSAttentionDisplay.from_estimator(clf, X[:2], feature_names=names)
    image = render(display).ax_.collections[0].get_array()
    assert np.array_equal(image.filled(np.nan), X[0].T, equal_nan=True)
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == names
    with pytest.raises(ValueError, match="must name the 6 features of a step, got 1 names"):
        CLSAttentionDisplay.from_estimator(clf, X[:2], feature_names=["a"])


def test_what_cannot_be_drawn_of_attention_is_refused(fitted, data):
    X, y = data
    draw = CLSAttentionDisplay.from_estimator
    with pytest.raises(ValueError, match=r"X holds 60 sequences, .* such as X\[:4\]"):
        draw(fitted, X)
    with pytest.raises(ValueError, match=r"np\.newaxis"):
        draw(fitted, X[0])  # one sequence, not 20
    for block in (2, -3, "last", 1.0):
        with pytest.raises(ValueError, match="block must be 'all' or from -2 to 1, got"):
            draw(fitted, X[:2], block=block)
    with pytest.raises(ValueError, match="heads must be 'mean' or 'each', got 0"):
        draw(fitted, X[:2], heads=0)
    with pytest.raises(ValueError, match="inconsistent"):
        draw(fitted, X[:2], y[:3])
    mean = small(pooling="mean", max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="pooling='mean'"):
        draw(mean, X[:2])


# EmbeddingDisplay


def test_unseen_sequences_are_hollow_in_the_plane_of_the_seen(fitted, data):
    X, y = data
    X_unseen, y_unseen = bumps(n=30, seed=1)
    display = EmbeddingDisplay.from_estimator(fitted, X, y, X_unseen=X_unseen, y_unseen=y_unseen)
    pca = PCA(2, svd_solver="full").fit(fitted.transform(X))
    seen, unseen = (pca.transform(fitted.transform(each)) for each in (X, X_unseen))
    expected = [seen[y == 0], unseen[y_unseen == 0], seen[y == 1], unseen[y_unseen == 1]]
    for scatter, points in zip(render(display).scatters_, expected, strict=True):
        assert np.allclose(scatter.get_offsets(), points, atol=1e-5)
    assert [len(scatter.get_facecolor()) for scatter in display.scatters_] == [1, 0, 1, 0]
    shares = pca.explained_variance_ratio_
    assert display.ax_.get_xlabel() == f"PCA 1 ({shares[0]:.0%} of the variance)"
    assert display.ax_.get_ylabel() == f"PCA 2 ({shares[1]:.0%} of the variance)"
    assert texts(legend_of(display)) == ["0", "1", "seen", "unseen"]
    assert legend_of(display).get_title().get_text() == "class"


def test_sequences_without_labels_have_the_predicted_classes(fitted, data):
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
    """A reducer that cannot be applied to what it was not fitted on."""

    def fit_transform(self, X, y=None):
        self.n_fitted_ = len(X)
        return X[:, 1:3]


def test_a_reducer_without_transform_is_fitted_on_all(fitted, data):
    X, y = data
    reducer = Joint()
    display = EmbeddingDisplay.from_estimator(fitted, X, y, X_unseen=X[:9], reducer=reducer)
    expected = fitted.transform(np.concatenate([X, X[:9]]))[:, 1:3]
    assert np.allclose(display.points, expected, atol=1e-5)
    assert display.ax_.get_ylabel() == "Joint 2"
    assert not hasattr(reducer, "n_fitted_")


def test_a_reducer_may_be_a_pipeline_and_may_use_the_classes(fitted, data):
    X, y = data
    reducer = make_pipeline(FunctionTransformer(), PCA(5, svd_solver="full"))
    display = EmbeddingDisplay.from_estimator(fitted, X, y, reducer=reducer)
    assert display.points.shape == (60, 2)
    assert display.ax_.get_xlabel().startswith("PCA 1 (")
    three = EmbeddingDisplay.from_embeddings(
        fitted.transform(X), np.arange(60) % 3, reducer=LinearDiscriminantAnalysis()
    )
    assert three.ax_.get_xlabel().startswith("LinearDiscriminantAnalysis 1 (")
    with pytest.raises(ValueError, match=r"LinearDiscriminant.*\(60, 1\).* set its n_components=2"):
        EmbeddingDisplay.from_estimator(fitted, X, y, reducer=LinearDiscriminantAnalysis())


def test_embeddings_of_a_pipeline_are_those_of_its_last_step(data):
    X, y = data
    pipeline = make_pipeline(FunctionTransformer(np.abs), small(max_epochs=2)).fit(X, y)
    display = EmbeddingDisplay.from_estimator(pipeline, X, y)
    expected = PCA(2, svd_solver="full").fit_transform(pipeline.transform(X))
    assert np.allclose(display.points, expected, atol=1e-5)


def test_embeddings_may_come_out_as_a_table(fitted, data):
    X, y = data
    with sklearn.config_context(transform_output="pandas"):
        display = render(EmbeddingDisplay.from_estimator(fitted, X, y, X_unseen=X, y_unseen=y))
    assert np.array_equal(display.points[:60], display.points[60:])


def test_fifty_classes_can_be_told_apart():
    points = np.random.default_rng(0).normal(size=(100, 2))
    display = render(EmbeddingDisplay(points, np.arange(100) % 50).plot())
    looks = [
        (handle.get_color(), handle.get_marker()) for handle in legend_of(display).legend_handles
    ]
    assert len(set(looks)) == 50
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(looks))


def test_labels_that_do_not_fit_the_sequences_are_refused(fitted, data):
    X, y = data
    with pytest.raises(ValueError, match="inconsistent"):
        EmbeddingDisplay.from_estimator(fitted, X, y[:5])
    with pytest.raises(ValueError, match="y_unseen needs X_unseen"):
        EmbeddingDisplay.from_estimator(fitted, X, y, y_unseen=y)
    with pytest.raises(ValueError, match=r"y_unseen needs X_unseen, .* and y"):
        EmbeddingDisplay.from_estimator(fitted, X, X_unseen=X, y_unseen=y)
    with pytest.raises(ValueError, match="pass both or neither"):
        EmbeddingDisplay.from_embeddings(fitted.transform(X), y, y_unseen=y)


def test_labels_that_are_missing_or_of_two_kinds_are_refused(fitted, data):
    draw, vectors = EmbeddingDisplay.from_embeddings, fitted.transform(data[0][:3])
    for label in (None, np.nan):
        with pytest.raises(ValueError, match=rf"y\[1\] is {label}, .* Leave y out"):
            draw(vectors, np.array(["a", label, "b"], dtype=object))
    with pytest.raises(ValueError, match="labels of one kind, got int64 and <U1"):
        draw(vectors, np.array([0, 1, 0]), embeddings_unseen=vectors, y_unseen=["0", "1", "0"])
    assert draw(vectors, np.array([[0], [1], [0]])).labels.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"at least 2 sequences .* shape \(1, 16\)"):
        draw(vectors[:1], [0])
    for reducer in ("pca", PCA):
        with pytest.raises(TypeError, match=r"reducer must be .* such as PCA\(2\), got"):
            draw(vectors, [0, 1, 0], reducer=reducer)


# TrainingDisplay


def test_epochs_are_whole_numbers_and_trainings_may_be_named_by_numbers(data):
    clf = small(max_epochs=2).fit(*data)
    display = render(TrainingDisplay.from_estimator({1: clf, 2: clf}))
    assert texts(legend_of(display)) == ["1", "2"]
    ticks = display.axes_[-1, 0].get_xticks()
    assert np.array_equal(ticks, ticks.round())


def test_training_draws_the_history_and_marks_the_restored_epoch(stopped):
    display = render(TrainingDisplay.from_estimator(stopped))
    history = stopped.history_
    loss, accuracy, lr = display.axes_[:, 0]

    def recorded(key):
        return [epoch[key] for epoch in history]

    train, valid, star = loss.lines
    assert np.array_equal(train.get_xdata(), np.arange(1, len(history) + 1))
    assert np.array_equal(train.get_ydata(), recorded("train_loss"))
    assert np.array_equal(valid.get_ydata(), recorded("valid_loss"))
    best = int(np.argmin(recorded("valid_loss")))
    assert star.get_marker() == "*"
    assert (*star.get_xdata(), *star.get_ydata()) == (best + 1, history[best]["valid_loss"])
    assert np.array_equal(accuracy.lines[0].get_ydata(), recorded("valid_accuracy"))
    assert accuracy.lines[1].get_ydata() == [history[best]["valid_accuracy"]]
    assert np.array_equal(lr.lines[0].get_ydata(), recorded("lr"))
    labels = [ax.get_ylabel() for ax in display.axes_[:, 0]]
    assert labels == ["loss", "validation accuracy", "learning rate"]
    assert lr.get_xlabel() == "epoch"
    assert texts(legend_of(display)) == ["training", "validation", "restored epoch"]


def test_without_early_stopping_there_are_two_panels(fitted):
    display = render(TrainingDisplay.from_estimator(fitted))
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["loss", "learning rate"]
    assert [len(ax.lines) for ax in display.axes_[:, 0]] == [1, 1]
    assert display.ax_.lines[0].get_ydata().tolist() == fitted.loss_curve_
    assert display.figure_.legends == []


def test_several_trainings_are_named_by_what_differs(fitted, stopped, data):
    X, y = data
    pipeline = make_pipeline(FunctionTransformer(), small(max_epochs=3, depth=1)).fit(X, y)
    display = render(TrainingDisplay.from_estimator([fitted, pipeline]))
    assert texts(legend_of(display)) == ["depth=2, max_epochs=8", "depth=1, max_epochs=3"]
    assert [len(line.get_ydata()) for line in display.ax_.lines] == [8, 3]
    assert len({to_hex(line.get_color()) for line in display.ax_.lines}) == 2
    display = TrainingDisplay.from_estimator({"a": fitted, "b": stopped})
    assert texts(legend_of(display))[:2] == ["a", "b"]
    assert len(display.axes_[1, 0].lines) == 2  # one has an accuracy, with its star
    same = TrainingDisplay.from_estimator((fitted, fitted))
    assert list(same.histories) == ["fit 0", "fit 1"]
    with pytest.raises(ValueError, match=r"one or several fitted estimators, got \[\]"):
        TrainingDisplay.from_estimator([])


def test_a_curve_is_the_mean_over_fits_and_those_that_stopped_count_on():
    def fit(losses, best):
        return [
            {"train_loss": loss, "valid_loss": loss, "valid_loss_best": i == best}
            for i, loss in enumerate(losses)
        ]

    display = TrainingDisplay({"a": [fit([4, 2, 1, 3], 2), fit([2, 4], 0)]}).plot()
    train, _, star = display.ax_.lines
    assert train.get_ydata().tolist() == [3, 3, 2.5, 3.5]
    assert (*star.get_xdata(), *star.get_ydata()) == (2, 3)


def test_a_search_without_its_monitor_says_what_to_type(data):
    search = GridSearchCV(small(max_epochs=1), {"depth": [1]}, cv=2)
    with pytest.raises(NotFittedError):
        TrainingDisplay.from_estimator(search)
    search.fit(*data)
    with pytest.raises(
        ValueError, match=r"set_callbacks\(monitor\).* search.best_estimator_ alone"
    ):
        TrainingDisplay.from_estimator(search)
    with pytest.raises(ValueError, match="monitor is for a fitted search"):
        TrainingDisplay.from_estimator(search.best_estimator_, monitor=object())
    best = TrainingDisplay.from_estimator([search])  # among others, its best
    assert list(best.histories.values()) == [[search.best_estimator_.history_]]


@has_callbacks
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_monitor_finds_each_candidate_and_fold_of_a_search(n_jobs, data):
    X, y = data
    params = {"max_epochs": 6, "early_stopping": True, "n_iter_no_change": 1, "lr": 3e-2}
    plain = small(**params)
    monitor = TrainingDisplay.monitor()
    pipeline = Pipeline([("abs", FunctionTransformer(np.abs)), ("clf", clone(plain))])
    pipeline["clf"].set_callbacks(monitor)
    grid = {"clf__depth": [1, 2], "clf__cls_strategy": ["zeros", "learned"]}
    folds = StratifiedKFold(2)
    search = GridSearchCV(pipeline, grid, cv=folds, n_jobs=n_jobs).fit(X, y)
    display = render(TrainingDisplay.from_estimator(search, monitor=monitor))
    expected = {
        f"cls_strategy={strategy}, depth={depth}": [
            clone(plain)
            .set_params(cls_strategy=strategy, depth=depth)
            .fit(np.abs(X[train]), y[train])
            .history_
            for train, _ in folds.split(X, y)
        ]
        for strategy in ("zeros", "learned")
        for depth in (1, 2)
    }
    assert texts(legend_of(display))[:4] == [*display.histories]
    assert set(display.histories) == set(expected)
    for name, fits in expected.items():
        losses, found = (
            [[(e["epoch"], e["train_loss"], e["valid_loss_best"]) for e in fit] for fit in of]
            for of in (fits, display.histories[name])
        )
        assert found == losses
    lengths = {len(fit) for fits in expected.values() for fit in fits}
    assert min(lengths) < 6  # the epoch at which a fit stopped is there, too


@has_callbacks
def test_a_monitor_tells_searches_with_the_same_best_model_apart(data):
    monitor = TrainingDisplay.monitor()
    clf = small(max_epochs=2).set_callbacks(monitor)
    searches = [
        GridSearchCV(
            clf, {"lr": lr}, cv=cv, refit=refit, scoring=lambda clf, X, y: -abs(clf.lr - 1e-2)
        ).fit(*data)
        for lr, cv, refit in [
            ([1e-3, 1e-2], 2, True),
            ([1e-2, 1e-3], 3, True),
            ([1e-2], 2, True),
            ([1e-3, 1e-2, 1e-1], 2, False),
        ]
    ]
    for search in searches:
        histories = TrainingDisplay.from_estimator(search, monitor=monitor).histories
        assert len(histories) == len(search.cv_results_["params"])
        for fits, params in zip(histories.values(), search.cv_results_["params"], strict=True):
            assert len(fits) == search.n_splits_
            rates = [fit[0]["lr"] / params["lr"] for fit in fits]
            assert rates == pytest.approx([rates[0]] * len(rates))
            assert 0.5 < rates[0] <= 1


@has_callbacks
def test_a_monitor_of_several_searches_knows_which_is_which(data):
    monitor = TrainingDisplay.monitor()
    clf = small(max_epochs=2).set_callbacks(monitor)
    first = GridSearchCV(clf, {"depth": [1, 2]}, cv=2).fit(*data)
    second = GridSearchCV(clf, {"lr": [1e-3, 1e-2]}, cv=2).fit(*data)
    clf.fit(*data)
    for search, names in ((first, ["depth=1", "depth=2"]), (second, ["lr=0.001", "lr=0.01"])):
        display = TrainingDisplay.from_estimator(search, monitor=monitor)
        assert list(display.histories) == names
        rates = [line.get_ydata()[0] for line in display.axes_[1, 0].lines]
        assert (rates[0] == rates[1]) == (search is first)
    for empty in (TrainingDisplay.monitor(), monitor):
        other = GridSearchCV(small(max_epochs=3), {"depth": [1]}, cv=2).fit(*data)
        with pytest.raises(ValueError, match=r"recorded nothing of this GridSearchCV.* clf.set_"):
            TrainingDisplay.from_estimator(other, monitor=empty)


def test_a_monitor_needs_scikit_learn_1_9(monkeypatch):
    monkeypatch.setattr(_display_training, "ScoringMonitor", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn 1.9 .* search.best_estimator_"):
        TrainingDisplay.monitor()


# StrategyDisplay


class Scored(ClassifierMixin, BaseEstimator):
    """A classifier whose score is known."""

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
        of_token = len(self.cls_strategy) if self.pooling == "cls" else 9
        return of_token / 10 + self.depth / 100 + self.lr + self.x_ / 1000


def searched(grid, estimator=None, **params):
    X, y = np.arange(12.0)[:, None], np.arange(12) % 2
    return GridSearchCV(estimator or Scored(), grid, cv=3, **params).fit(X, y)


def test_scores_by_strategy_and_depth_with_the_deviation_over_folds():
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
    assert texts(ax.get_legend()) == display.strategies
    assert ax.get_ylabel() == "accuracy\nmean ± deviation over 3 folds"
    assert (ax.get_title(), ax.get_xlabel()) == ("Value of the [CLS] token", "depth (blocks)")
    looks = [(to_hex(b[0].get_color()), b[0].get_marker()) for b in display.errorbars_]
    assert looks == [("#0072b2", "o"), ("#e69f00", "s"), ("#cc79a7", "D")]


def test_strategies_alone_need_no_axis_of_depth():
    display = render(StrategyDisplay.from_estimator(searched({"cls_strategy": ["zeros", "fixed"]})))
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["zeros", "fixed"]
    assert display.ax_.get_xlabel() == "cls_strategy"
    assert display.ax_.get_legend() is None
    assert [bars[0].get_xdata().tolist() for bars in display.errorbars_] == [[0], [1]]


def test_of_other_parameters_the_best_is_drawn_in_a_pipeline_too():
    pipeline = Pipeline([("pass", FunctionTransformer()), ("any", Scored())])
    grid = {"any__cls_strategy": ["zeros", "learned"], "any__depth": [1, 2], "any__lr": [0.2, 0.3]}
    display = StrategyDisplay.from_estimator(searched(grid, pipeline))
    alone = StrategyDisplay.from_estimator(
        searched({"cls_strategy": ["zeros", "learned"], "depth": [1, 2], "lr": [0.3]})
    )
    assert np.array_equal(display.scores, alone.scores)
    assert display.ax_.get_ylabel().startswith("accuracy, best lr\n")


def test_what_was_not_searched_is_a_gap():
    grids = [
        {"cls_strategy": ["zeros", "fixed"], "depth": [1]},
        {"cls_strategy": ["zeros"]},  # at the depth of the estimator, 2
        {"depth": [3]},
    ]
    display = render(StrategyDisplay.from_estimator(searched(grids)))
    assert display.depths == [1, 2]
    assert np.isnan(display.scores[:, :, 0]).tolist() == [[False, False], [False, True]]


def test_poolings_are_drawn_beside_the_strategies_and_never_as_one():
    both = searched({"cls_strategy": ["zeros", "learned"], "pooling": ["cls", "max"]})
    apart = searched([{"cls_strategy": ["zeros", "learned"]}, {"pooling": ["max"]}])
    for search in (both, apart):
        display = render(StrategyDisplay.from_estimator(search))
        assert display.strategies == ["learned", "zeros", "max"]
        assert display.ax_.get_xlabel() == "strategy or pooling"
        assert display.ax_.get_ylabel().startswith("accuracy\n")  # of nothing the best
        results = search.cv_results_
        of_zeros = [
            mean
            for params, mean in zip(results["params"], results["mean_test_score"], strict=True)
            if params.get("cls_strategy") == "zeros" and params.get("pooling", "cls") == "cls"
        ]
        assert display.scores[1, 0].mean() == pytest.approx(of_zeros[0])


def test_of_several_metrics_that_of_refit_is_drawn_or_the_one_asked_for():
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


def test_a_search_without_strategies_says_what_to_add():
    with pytest.raises(NotFittedError):
        StrategyDisplay.from_estimator(GridSearchCV(Scored(), {"depth": [1]}))
    with pytest.raises(ValueError, match=r"parameters searched, depth; add 'cls_strategy': \["):
        StrategyDisplay.from_estimator(searched({"depth": [1, 2]}))
    with pytest.raises(TypeError, match=r"estimator must be .* such as GridSearchCV, got Scored"):
        StrategyDisplay.from_estimator(Scored().fit(np.ones((2, 1)), [0, 1]))


def test_what_is_drawn_may_be_given_as_arrays(data):
    depths, titles = np.array([1, 2]), np.array(["first", "second"])
    display = StrategyDisplay(["learned"], depths, np.ones((1, 2, 3))).plot()
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["1", "2"]
    display = CLSAttentionDisplay(data[0][:2], np.full((2, 1, 1, 20), 0.05), titles=titles).plot()
    assert [ax.get_title() for ax in display.axes_[0]] == ["first", "second"]


def test_plot_takes_axes_by_place(fitted, data):
    figure = Figure()
    for display in (
        StrategyDisplay(["learned"], [1], np.ones((1, 1, 3))),
        TrainingDisplay({"a": [fitted.history_]}),
        CLSAttentionDisplay(data[0][:1], fitted.cls_attention(data[0][:1])),
        EmbeddingDisplay(np.eye(2), [0, 1]),
    ):
        assert display.plot(figure.add_subplot()).figure_ is figure


def test_a_search_that_kept_no_model_says_so(data):
    search = GridSearchCV(small(max_epochs=1), {"depth": [1]}, cv=2, refit=False).fit(*data)
    with pytest.raises(ValueError, match="kept no model, as refit=False; fit it with refit=True"):
        EmbeddingDisplay.from_estimator(search, data[0])


def test_a_reducer_does_not_see_the_classes_of_unseen_sequences():
    class Reducer(BaseEstimator):
        def fit_transform(self, X, y=None):
            assert y is None
            return X

    EmbeddingDisplay.from_embeddings(
        np.eye(2), [0, 1], embeddings_unseen=np.eye(2), y_unseen=[1, 0], reducer=Reducer()
    )
