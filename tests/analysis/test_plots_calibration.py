"""What the figures of calibration and of groups draw."""

import numpy as np
import pandas as pd
import pytest
from ctxrnn.analysis._plots_calibration import grouped_similarity, reliability_diagram
from scipy import stats

from ctxrnn.analysis import plots, reliability_table


@pytest.fixture
def ax():
    with plots.style():
        yield plots.new_figure(size=(3, 3)).axes[0]


def table(images=400, seed=0):
    generator = np.random.default_rng(seed)
    p = generator.random((images, 2))
    return reliability_table(p, generator.random(p.shape) < p, kind="positive", pooled=True)


def test_reliability_is_drawn_with_counts_and_diagonal(ax):
    rows = table()
    rows.loc[3, ["count", "confidence", "accuracy"]] = [0, np.nan, np.nan]
    assert reliability_diagram(ax, rows, kind="positive") is ax
    (diagonal,) = [line for line in ax.lines if line.get_color() == "0.6"]
    assert [*diagonal.get_xdata(), *diagonal.get_ydata()] == [0, 1, 0, 1]
    points, _, (bars,) = ax.containers[0].lines
    held = rows.drop(3)
    assert points.get_xdata() == pytest.approx(held["confidence"].to_numpy())
    assert points.get_ydata() == pytest.approx(held["accuracy"].to_numpy())
    for segment, row in zip(bars.get_segments(), held.itertuples(), strict=True):
        right = round(row.accuracy * row.count)
        expected = stats.binomtest(right, int(row.count)).proportion_ci(method="wilson")
        assert segment[:, 1] == pytest.approx([expected.low, expected.high])
    (strip,) = ax.child_axes
    drawn = strip.patches[0].get_data()
    assert drawn.values.tolist() == rows["count"].tolist()
    assert drawn.edges == pytest.approx(np.arange(16) / 15)
    assert (strip.get_ylabel(), strip.get_yscale()) == ("count", "log")
    assert ax.get_xlabel() == "probability given to the attribute"


def test_several_tables_in_one_diagram(ax):
    rows = pd.concat([table(seed=k).assign(condition=name) for k, name in enumerate("ab")])
    reliability_diagram(ax, rows, by="condition")
    assert ax.get_legend_handles_labels()[1] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("confidence", "accuracy")
    (strip,) = ax.child_axes
    assert len(strip.patches) == 2
    looks = {(c.lines[0].get_color(), c.lines[0].get_marker()) for c in ax.containers}
    assert len(looks) == 2
    ax.figure.canvas.draw()


def test_tables_that_cannot_be_drawn_are_refused(ax):
    p = np.array([[0.2, 0.7]])
    with pytest.raises(ValueError, match=r"each bin once: use .*pooled=True"):
        reliability_diagram(ax, reliability_table(p, [[0, 1]]))
    many = pd.concat([table(20).assign(condition=k) for k in range(7)])
    with pytest.raises(ValueError, match="one to 6 tables can be drawn into one: got 7"):
        reliability_diagram(ax, many, by="condition")


def test_contexts_are_sorted_by_group_and_framed(ax):
    values = np.arange(16).reshape(4, 4) / 16
    similarity = pd.DataFrame(values, index=list("pqrs"), columns=list("pqrs"))
    assert grouped_similarity(ax, similarity, ["y", "x", "y", "x"], limits=(0, 1)) is ax
    order = [0, 2, 1, 3]
    assert np.asarray(ax.images[0].get_array()) == pytest.approx(values[order][:, order])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["p", "r", "q", "s"]
    frames = [(line.get_xdata()[0], line.get_xdata()[1]) for line in ax.lines]
    assert frames == [(-0.5, 1.5), (1.5, 3.5)]
    beside = {t.get_text(): t.xy[1] for t in ax.texts if t.get_text() in "xy"}
    assert beside == {"y": 0.5, "x": 2.5}
    with pytest.raises(ValueError, match="each of 4 contexts: got 1"):
        grouped_similarity(ax, similarity, ["y"])
