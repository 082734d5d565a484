"""The figure of attention: what it shows of sequences and codes, and that it is legible."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from sklearn_cls import CLSAttentionDisplay
from tests.figure_helpers import (
    is_inside,
    legend_of,
    overlaps,
    render,
    texts,
    tick_texts,
    visible_texts,
)
from tests.helpers import bumps, small


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def attention_to(*peaks, lengths, n_blocks=1, n_heads=1):
    """Return attention that is uniform but for a peak, at one step of each sequence."""
    attention = np.zeros((len(lengths), n_blocks, n_heads, max(lengths)))
    for i, (peak, n_steps) in enumerate(zip(peaks, lengths, strict=True)):
        attention[i, ..., :n_steps] = 0.5 / n_steps
        attention[i, ..., peak] += 0.5
    return attention


@pytest.mark.parametrize("n_sequences", [1, 2, 4])
@pytest.mark.parametrize("n_features", [1, 3, 5])
def test_legend_and_titles_of_sequences_fit_the_figure(n_sequences, n_features):
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


def test_attention_is_below_the_sequence_on_the_same_time_axis(fitted, data):
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
        # The sequence is in the upper two thirds, and the attention in the lower third.
        lowest = ax.transData.transform((0, X[:3].min()))[1]
        highest = below.transData.transform((0, attention.max()))[1]
        assert highest < lowest
    assert display.figure_.get_suptitle() == "Attention of [CLS]: last block, mean of 2 heads"
    names = ["feature 0", "feature 1", "attention of [CLS]", "uniform attention"]
    assert texts(legend_of(display)) == names


def test_all_blocks_have_a_row_of_panels_and_each_head_a_row_of_the_image(fitted, data):
    X = data[0][:2]
    display = CLSAttentionDisplay.from_estimator(fitted, X, block="all", heads="each")
    attention = fitted.cls_attention(X)
    assert display.axes_.shape == (2, 2)
    for i in range(2):
        for block in range(2):
            below = display.attention_axes_[block, i]
            image = below.images[0]
            assert np.allclose(image.get_array(), attention[i, block])
            assert image.origin == "upper"  # head 0 on top
            assert np.all(np.diff(below.get_yticks()) < 0)
    assert tick_texts(display.attention_axes_[0, 0].yaxis) == ["0", "1"]
    assert display.attention_axes_[1, 0].get_ylabel() == "block 1\nhead"
    assert (
        render(display).figure_.get_suptitle() == "Attention of [CLS]: each block, each of 2 heads"
    )


def test_padding_is_not_drawn(fitted, data):
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


def test_each_row_of_a_data_frame_is_a_sequence(data):
    pd = pytest.importorskip("pandas")
    X, y = pd.DataFrame(data[0][:, :, 0]), data[1]
    clf = small(max_epochs=1).fit(X, y)
    display = CLSAttentionDisplay.from_estimator(clf, X[:2])
    assert np.array_equal(display.axes_[0, 1].lines[0].get_ydata(), X.iloc[1])
    assert texts(legend_of(display)) == ["attention of [CLS]", "uniform attention"]


def test_more_than_five_features_are_drawn_as_an_image():
    X, y = bumps(n=20, n_features=6)
    X[0, 3, 1] = np.nan
    clf = small(max_epochs=1).fit(X, y)
    names = list("abcdef")
    display = CLSAttentionDisplay.from_estimator(clf, X[:2], feature_names=names)
    image = render(display).ax_.images[0].get_array()
    low, high = np.nanmin(X[:2], axis=(0, 1)), np.nanmax(X[:2], axis=(0, 1))
    expected = (X[0] - low) / (high - low)
    assert np.allclose(image.filled(np.nan), expected.T, equal_nan=True)
    assert tick_texts(display.ax_.yaxis) == names
    assert texts(legend_of(display))[:3] == [
        "lowest value of a feature",
        "highest",
        "attention of [CLS]",
    ]
    assert texts(legend_of(display))[-1] == "missing"
    with pytest.raises(ValueError, match="one name for each of the 6 features, got 1"):
        CLSAttentionDisplay.from_estimator(clf, X[:2], feature_names=["a"])
    with pytest.raises(ValueError, match="one name for each of the 6 features, got 1"):
        CLSAttentionDisplay(X[:2], display.attention, feature_names=["a"]).plot()


def test_a_large_feature_does_not_hide_the_others_in_the_image():
    rng = np.random.default_rng(0)
    sequences = rng.normal(size=(2, 30, 8))
    attention = attention_to(0, 0, lengths=[30, 30])
    plain = render(CLSAttentionDisplay(sequences, attention).plot()).ax_.images[0].get_array()
    scaled = sequences * [1, 1, 5000, 1, 1, 1e-9, 1, 1] + [0, 0, 0, 1e6, 0, 0, 0, 0]
    display = render(CLSAttentionDisplay(scaled, attention).plot())
    assert np.allclose(display.ax_.images[0].get_array(), plain, atol=1e-6)
    constant = np.where(np.arange(8) == 1, 7.0, sequences)
    display = render(CLSAttentionDisplay(constant, attention).plot())
    assert (display.ax_.images[0].get_array()[1] == 0.5).all()


def test_features_of_different_scales_are_lines_below_each_other():
    rng = np.random.default_rng(0)
    sequences = rng.normal(size=(2, 30, 3)) * [1, 1000, 1e-3]
    sequences[0, 4:7, 1] = np.nan
    names = ["rate", "pressure", "acid"]
    attention = attention_to(0, 0, lengths=[30, 30])
    display = render(CLSAttentionDisplay(sequences, attention, feature_names=names).plot())
    drawn = [line.get_ydata() for line in display.ax_.lines]
    assert all(np.nanmin(upper) > np.nanmax(lower) for upper, lower in pairwise(drawn))
    for values, line in zip(sequences[0].T, drawn, strict=True):
        is_known = ~np.isnan(values)
        assert np.corrcoef(values[is_known], line[is_known])[0, 1] == pytest.approx(1)
    ticks = tick_texts(display.ax_.yaxis)
    assert [text.partition("\n")[0] for text in ticks] == names
    low, high = np.nanmin(sequences[..., 1]), np.nanmax(sequences[..., 1])
    assert ticks[1] == f"pressure\n{low:.0f} to {high:.0f}"
    assert texts(legend_of(display))[-1] == "missing"
    missing = display.ax_.images[0].get_array()
    assert np.flatnonzero(~missing.mask[0]).tolist() == [4, 5, 6]


def test_long_sequences_are_drawn_below_each_other_with_every_peak():
    n_steps, peak = 10_000, 7_001
    rng = np.random.default_rng(0)
    sequences = rng.normal(size=(2, n_steps, 40))
    sequences[0, 500:4_000, 3] = np.nan
    attention = attention_to(peak, 300, lengths=[n_steps] * 2)
    display = render(CLSAttentionDisplay(sequences, attention).plot())
    upper, lower = (ax.get_window_extent() for ax in display.axes_[0])
    assert upper.y0 > lower.y1
    assert upper.width > 800
    for ax, step in zip(display.attention_axes_[0], (peak, 300), strict=True):
        values, edges, _ = ax.patches[0].get_data()
        assert len(values) == 1000
        highest = values.argmax()
        assert edges[highest] <= step <= edges[highest + 1]
        assert values.max() == pytest.approx(0.5 + 0.5 / n_steps)
        # The peak is narrower than a pixel, but is drawn in full color.
        pixels = np.asarray(display.figure_.canvas.buffer_rgba())[::-1]
        x, y = ax.transData.transform((step, 0.25)).round().astype(int)
        colors = pixels[y, x - 2 : x + 3, :3].astype(int)
        assert np.abs(colors - [0xD5, 0x5E, 0x00]).sum(axis=1).min() < 250  # 458 for white
    assert overlaps(visible_texts(display.figure_)) == []


def test_an_isolated_step_of_a_long_sequence_has_a_marker():
    x = np.zeros((200, 1))
    x[[9, 11, 50]] = np.nan
    display = CLSAttentionDisplay([x], attention_to(0, lengths=[200])).plot()
    assert display.ax_.lines[0].get_markevery() == [10]


def test_sequences_of_unequal_length_have_their_own_scale_of_attention():
    lengths = [400, 6, 1]
    sequences = [np.arange(2.0 * n).reshape(n, 2) for n in lengths]
    attention = attention_to(7, 2, 0, lengths=lengths, n_heads=2)
    display = render(CLSAttentionDisplay(sequences, attention).plot())
    for i, ax in enumerate(display.attention_axes_[0]):
        highest = attention[i].max()
        assert ax.get_yticks().tolist() == pytest.approx([0, highest])
        assert tick_texts(ax.yaxis) == ["0", f"{highest:.2g}"]
        assert ax.transLimits.transform((0, highest))[1] > 0.25
    display = render(CLSAttentionDisplay(sequences, attention).plot(heads="each"))
    for ax in display.attention_axes_[0]:
        assert ax.images[0].get_array().max() == pytest.approx(1)
    labels = [ax.get_ylabel() for ax in display.figure_.axes]
    assert "relative attention of [CLS]" in labels


def test_missing_values_are_blue():
    x = np.zeros((10, 1))
    x[3:5] = np.nan
    display = render(CLSAttentionDisplay([x], attention_to(0, lengths=[10])).plot())
    image = display.ax_.images[0]
    assert np.flatnonzero(~image.get_array().mask).tolist() == [3, 4]
    assert to_hex(image.cmap(0)) == "#56b4e9"
    wide = np.tile(x, 6)
    display = render(CLSAttentionDisplay([wide], attention_to(0, lengths=[10])).plot())
    assert to_hex(display.ax_.images[0].cmap(np.ma.masked)) == "#56b4e9"
    handle = legend_of(display).legend_handles[texts(legend_of(display)).index("missing")]
    assert to_hex(handle.get_facecolor()) == "#56b4e9"


def test_feature_names_of_fit_are_on_the_axes(data):
    pd = pytest.importorskip("pandas")
    X, y = data
    frames = [pd.DataFrame(x, columns=["left", "_right$"]) for x in X]
    clf = small(max_epochs=1).fit(frames, y)
    display = render(CLSAttentionDisplay.from_estimator(clf, frames[:2]))
    assert [text.strip() for text in texts(legend_of(display))[:2]] == ["left", r"_right\$"]
    display = CLSAttentionDisplay.from_estimator(clf, frames[:2], feature_names=["a", "b"])
    assert texts(legend_of(display))[:2] == ["a", "b"]
    clf = small(max_epochs=1).fit([frame[["left"]] for frame in frames], y)
    display = CLSAttentionDisplay.from_estimator(clf, [frames[0][["left"]]])
    assert display.ax_.get_ylabel() == "left"


@pytest.mark.parametrize(
    ("n_sequences", "n_steps", "n_features", "heads"),
    [
        (4, 24, 6, "mean"),
        (8, 30, 3, "each"),
        (3, 50, 12, "mean"),
        (2, 60, 48, "each"),
        (1, 1000, 300, "mean"),
        (2, 20_000, 1, "each"),
    ],
)
def test_texts_do_not_overlap(n_sequences, n_steps, n_features, heads):
    rng = np.random.default_rng(0)
    sequences = rng.normal(size=(n_sequences, n_steps, n_features)) * 1e4
    attention = attention_to(*[0] * n_sequences, lengths=[n_steps] * n_sequences, n_heads=8)
    names = [f"laboratory value {i} of the patient" for i in range(n_features)]
    titles = ["class walking downstairs rapidly\npredicted walking upstairs rapidly"] * n_sequences
    display = CLSAttentionDisplay(sequences, attention, titles=titles, feature_names=names)
    figure = render(display.plot(heads=heads)).figure_
    assert overlaps(visible_texts(figure)) == []
    assert [t.get_text() for t in visible_texts(figure) if not is_inside(t, figure)] == []
    if n_features in (6, 12, 48):
        assert len(display.ax_.get_yticks()) == n_features  # All names are shown.
    assert figure.get_figwidth() < 13


# Codes in CLSAttentionDisplay


EVENTS = ["login", "search", "add to cart", "remove from cart", "checkout", "help"]


def draw_codes(codes, peaks=None, names=None, **kwargs):
    """Return a display of sequences of one code feature each."""
    lengths = [len(each) for each in codes]
    attention = attention_to(*(peaks or [0] * len(codes)), lengths=lengths)
    sequences = [np.empty((n, 0)) for n in lengths]
    codes = [[each] for each in codes]
    display = CLSAttentionDisplay(sequences, attention, codes=codes, code_names=names)
    return render(display.plot(**kwargs))


def written(ax):
    """Return the texts in axes by their positions on the axis of the steps."""
    return {text.get_position()[0]: text for text in ax.texts}


def test_letters_are_written_at_their_steps():
    rng = np.random.default_rng(0)
    codes = ["".join(rng.choice(list("ACGTW"), n)) for n in (60, 60, 47)]
    display = draw_codes(codes, names=["base"])
    for ax, sequence in zip(display.code_axes_[0], codes, strict=True):
        labels = written(ax)
        assert "".join(labels[step].get_text() for step in range(len(sequence))) == sequence
        assert {text.get_rotation() for text in labels.values()} == {0}
        assert all(text.get_size() >= 6 for text in labels.values())
    assert tick_texts(display.code_axes_[0, 0].yaxis) == ["base"]
    assert overlaps(visible_texts(display.figure_)) == []
    assert texts(legend_of(display)) == ["attention of [CLS]", "uniform attention"]


def test_names_of_events_are_rotated():
    rng = np.random.default_rng(0)
    codes = [list(rng.choice(EVENTS, n)) for n in (60, 25)]
    display = draw_codes(codes)
    for ax, sequence in zip(display.code_axes_[0], codes, strict=True):
        labels = written(ax)
        assert [labels[step].get_text() for step in range(len(sequence))] == sequence
        assert {text.get_rotation() for text in labels.values()} == {90}
        box = ax.get_window_extent()
        for text in labels.values():
            extent = text.get_window_extent()
            assert box.y0 <= extent.y0
            assert extent.y1 <= ax.transAxes.transform((0, 1))[1]
    assert overlaps(visible_texts(display.figure_)) == []


def test_cells_of_codes_are_colored_by_attention():
    display = draw_codes(["ACGTACGT"], peaks=[5])
    cells = display.code_axes_[0, 0].images[0].get_array()[0]
    assert cells.argmax() == 5
    assert cells[5] == 1
    assert cells[0] == pytest.approx((0.5 / 8) / (0.5 + 0.5 / 8))
    uniform = CLSAttentionDisplay(
        [np.empty((8, 0))], np.full((1, 1, 1, 8), 1 / 8), codes=[["A" * 8]]
    )
    cells = render(uniform.plot()).code_axes_[0, 0].images[0].get_array()
    assert cells.max() < 0.5  # pale


@pytest.mark.parametrize("n_steps", [500, 10_000])
@pytest.mark.parametrize("codes", ["ACGT", EVENTS])
def test_of_too_many_codes_those_with_the_highest_attention_are_written(n_steps, codes):
    rng = np.random.default_rng(0)
    labels = [codes[i] for i in rng.integers(len(codes), size=n_steps)]
    weights = rng.gamma(0.3, size=n_steps)
    top = weights.argmax()
    weights /= weights.sum()
    display = CLSAttentionDisplay(
        [np.empty((n_steps, 0))], weights.reshape(1, 1, 1, -1), codes=[[labels]]
    )
    figure = render(display.plot()).figure_
    ax = display.code_axes_[0, 0]
    assert 10 < len(ax.texts) < 120
    position = min(written(ax), key=lambda x: abs(x - top))
    assert abs(position - top) <= n_steps / 100
    assert written(ax)[position].get_text() == labels[top]
    assert overlaps(visible_texts(figure)) == []
    box = ax.get_window_extent()
    for text in ax.texts:
        assert box.x0 - 1 <= text.get_window_extent().x0
        assert text.get_window_extent().x1 <= box.x1 + 1


def test_missing_codes_are_blue_and_have_no_label():
    display = draw_codes([["A", None, "B", "C"], ["A", "B", "C", "D"]])
    ax = display.code_axes_[0, 0]
    assert sorted(written(ax)) == [0, 2, 3]
    missing = ax.images[1]
    assert np.flatnonzero(~missing.get_array().mask).tolist() == [1]
    assert to_hex(missing.cmap(0)) == "#56b4e9"
    assert "missing" in texts(legend_of(display))
    assert len(display.code_axes_[0, 1].images) == 1
    empty = draw_codes([[None] * 200])
    assert len(empty.code_axes_[0, 0].texts) == 0


def test_long_codes_are_shortened_in_the_middle():
    label = "I21.4 acute subendocardial myocardial infarction"
    display = draw_codes([[label] * 20])
    text = display.code_axes_[0, 0].texts[0].get_text()
    assert text == "I21.4 acute sub…farction"


def test_several_codes_have_a_row_each_below_numbers_and_attention():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    codes = [[list(rng.choice(EVENTS, 30)), list(rng.choice(list("ACGT"), 30))]]
    display = CLSAttentionDisplay(
        [x], attention_to(4, lengths=[30]), codes=codes, code_names=["event", "base"]
    )
    render(display.plot())
    labels = display.code_axes_[0, 0].texts
    assert [text.get_text() for text in labels] == [*codes[0][0], *codes[0][1]]
    events, bases = (
        np.array([t.get_window_extent().y1 for t in labels[i : i + 30]]) for i in (0, 30)
    )
    assert events.min() > bases.max()
    bars = display.attention_axes_[0, 0].transData.transform((0, 0))[1]
    assert events.max() <= bars
    lowest = display.ax_.transData.transform((0, x.min()))[1]
    assert lowest > display.attention_axes_[0, 0].transData.transform((0, 0.5))[1]
    assert tick_texts(display.code_axes_[0, 0].yaxis) == ["event", "base"]
    assert overlaps(visible_texts(display.figure_)) == []


def test_codes_fit_into_given_axes():
    rng = np.random.default_rng(0)
    codes = [list(rng.choice(EVENTS, 40)), list("ACGTACGTAC")]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    display = draw_codes(codes, ax=axes)
    for ax in display.code_axes_[0]:
        box = ax.get_window_extent()
        assert ax.texts
        for text in ax.texts:
            assert box.y0 - 1 <= text.get_window_extent().y0
            assert text.get_window_extent().y1 <= box.y1
        assert overlaps(ax.texts) == []
    assert figure.get_size_inches().tolist() == [8, 3]


def test_every_block_has_the_codes_and_heads_are_above_them():
    sequences = [np.empty((6, 0))] * 2
    attention = attention_to(1, 2, lengths=[6, 6], n_blocks=2, n_heads=3)
    display = CLSAttentionDisplay(sequences, attention, codes=[["ACGTAC"], ["TTTTTT"]])
    render(display.plot(block="all", heads="each"))
    assert display.code_axes_.shape == (2, 2)
    for ax in display.code_axes_[:, 0]:
        assert "".join(text.get_text() for text in ax.texts) == "ACGTAC"
    image = display.attention_axes_[0, 0].images[0]
    cells = display.code_axes_[0, 0].images[0]
    assert image.get_extent()[2] > cells.get_extent()[3]
    assert overlaps(visible_texts(display.figure_)) == []


def test_invalid_codes_raise():
    attention = attention_to(0, lengths=[4])
    short = CLSAttentionDisplay([np.empty((4, 0))], attention, codes=[["ACG"]])
    with pytest.raises(ValueError, match=r"codes\[0\] must have lists of 4 codes, .* got \[3\]"):
        short.plot()
    unnamed = CLSAttentionDisplay([np.empty((4, 0))], attention, codes=[["ACGT"]], code_names=[])
    with pytest.raises(ValueError, match="code_names must have one name for each of the 1 codes"):
        unnamed.plot()


def test_codes_of_strings_are_written():
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list("ACGT"), n)) for n in rng.integers(10, 30, size=40)]
    clf = small(max_epochs=1).fit(X, np.arange(40) % 2)
    display = render(CLSAttentionDisplay.from_estimator(clf, [X[0], "ACNNGT"]))
    first, second = (written(ax) for ax in display.code_axes_[0])
    assert "".join(first[i].get_text() for i in range(len(first))) == X[0]
    assert "".join(second[i].get_text() for i in range(6)) == "AC??GT"  # N was not in fit.
    assert display.sequences[0].shape == (len(X[0]), 0)


def test_codes_and_times_of_a_data_frame_are_drawn_beside_its_numbers():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    rows = []
    for n in rng.integers(5, 9, size=20):
        start = np.datetime64("2024-02-28T22:00:00")
        rows.append(
            {
                "time": list(start + np.arange(n) * np.timedelta64(90, "m")),
                "event": [None, *rng.choice(EVENTS, n - 1)],
                "amount": rng.normal(size=n),
                "age": 40.0 + n,
            }
        )
    X = pd.DataFrame(rows)
    clf = small(max_epochs=1).fit(X, np.arange(20) % 2)
    display = render(CLSAttentionDisplay.from_estimator(clf, X[:2]))
    amount, age = (display.sequences[0][:, j] for j in (0, 1))
    assert amount == pytest.approx(X["amount"][0])
    assert (age == X["age"][0]).all()
    assert display.feature_names == ["amount", "age"]
    assert display.code_names == ["event"]
    labels = written(display.code_axes_[0, 0])
    assert {step: text.get_text() for step, text in labels.items()} == dict(
        enumerate(X["event"][0][1:], start=1)
    )
    assert display.times[0].tolist() == [5400.0 * i for i in range(len(amount))]
    ax = display.ax_
    assert ax.get_xlabel() == "time since the start"
    expected = [f"{1.5 * step:g} h" if step else "0" for step in ax.get_xticks().astype(int)]
    n_steps = len(amount)
    shown = dict(zip(ax.get_xticks(), tick_texts(ax.xaxis), strict=True))
    for step, text in zip(ax.get_xticks(), expected, strict=True):
        assert shown[step] == (text if 0 <= step < n_steps else "")
    renamed = CLSAttentionDisplay.from_estimator(clf, X[:1], feature_names=["t", "e", "v", "a"])
    assert (renamed.feature_names, renamed.code_names) == (["v", "a"], ["e"])
    assert overlaps(visible_texts(display.figure_)) == []


def test_numbers_that_are_said_to_be_codes_are_written():
    rng = np.random.default_rng(0)
    X = np.stack([rng.normal(size=(30, 8)), rng.integers(3, size=(30, 8))], axis=-1)
    X[0, 2, 1] = np.nan
    clf = small(max_epochs=1, categorical_features=[1]).fit(X, np.arange(30) % 2)
    display = CLSAttentionDisplay.from_estimator(clf, X[:2], feature_names=["value", "kind"])
    expected = [f"{code:.0f}" for code in X[1, :, 1]]
    assert display.codes[1] == [expected]
    assert display.codes[0][0][2] is None
    assert display.sequences[0].shape == (8, 1)
    assert tick_texts(render(display).code_axes_[0, 0].yaxis) == ["kind"]


def test_invalid_arguments_of_attention_raise(fitted, data):
    X, y = data
    draw = CLSAttentionDisplay.from_estimator
    with pytest.raises(ValueError, match=r"X has 60 sequences, .* for example X\[:4\]"):
        draw(fitted, X)
    with pytest.raises(ValueError, match=r"np\.newaxis"):
        draw(fitted, X[0])  # a single sequence of shape (20, 2)
    for block in (2, -3, "last", 1.0):
        with pytest.raises(ValueError, match="block must be 'all' or an integer from -2 to 1, got"):
            draw(fitted, X[:2], block=block)
    with pytest.raises(ValueError, match="heads must be 'mean' or 'each', got 0"):
        draw(fitted, X[:2], heads=0)
    with pytest.raises(ValueError, match="inconsistent"):
        draw(fitted, X[:2], y[:3])
    mean = small(pooling="mean", max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="pooling='mean'"):
        draw(mean, X[:2])
