"""What the figures of choices, units and similarities draw."""

import numpy as np
import pandas as pd
import pytest
from ctxrnn.analysis._plots_units import psychometric_curve, similarity_map, task_variance_map
from ctxrnn.analysis.psychometric import choice_table, fit_psychometric
from matplotlib.lines import Line2D

from ctxrnn.analysis import plots

LEVELS = np.linspace(-0.4, 0.4, 9)


@pytest.fixture
def ax():
    with plots.style():
        yield plots.new_figure(size=(3, 3)).axes[0]


def counts(slope, seed=0):
    p = 0.05 + 0.9 / (1 + np.exp(-slope * LEVELS))
    return np.random.default_rng(seed).binomial(50, p)


def curves(ax):
    """Lines without markers that are no axes of the plot."""
    return [line for line in ax.lines if len(line.get_xdata()) > 2 and line.get_marker() == "None"]


def test_points_intervals_and_curves_of_each_context(ax):
    chosen = [counts(10), counts(-5, 1)]
    given = np.tile(LEVELS, 2), np.concatenate(chosen)
    labels = ["dm1"] * 9 + ["dm2"] * 9
    out = psychometric_curve(
        ax, *given, trials=[50] * 18, contexts=labels, xlabel="coherence (%)", ylabel="right"
    )
    assert out is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("coherence (%)", "right")
    assert ax.get_legend_handles_labels()[1] == ["dm1, n = 450", "dm2, n = 450"]
    assert len(curves(ax)) == len(ax.containers) == 2
    for k, curve, drawn in zip(chosen, curves(ax), ax.containers, strict=True):
        points, _, (bars,) = drawn.lines
        assert points.get_ydata() == pytest.approx(k / 50)
        table = choice_table(LEVELS, k, [50] * 9)
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        assert ends == pytest.approx(table[["low", "high"]].to_numpy())
        fit = fit_psychometric(LEVELS, k, [50] * 9)
        assert curve.get_ydata() == pytest.approx(fit(curve.get_xdata()))
        assert curve.get_color() == points.get_color()
        assert (curve.get_xdata().min(), curve.get_xdata().max()) == (-0.4, 0.4)
    markers = [drawn.lines[0].get_marker() for drawn in ax.containers]
    styles = [line.get_linestyle() for line in curves(ax)]
    assert len(set(markers)) == len(set(styles)) == 2


def test_contexts_may_alternate(ax):
    rows = np.random.default_rng(0).permutation(18)
    s, k = np.tile(LEVELS, 2)[rows], np.concatenate([counts(10), counts(-5, 1)])[rows]
    labels = np.repeat(["a", "b"], 9)[rows]
    psychometric_curve(ax, s, k, trials=[50] * 18, contexts=labels, lapses=None)
    shown = dict(zip(dict.fromkeys(labels), ax.containers, strict=True))
    assert shown["a"].lines[0].get_ydata() == pytest.approx(counts(10) / 50)
    assert not curves(ax)


def test_a_fit_without_maximum_is_not_drawn(ax):
    psychometric_curve(ax, LEVELS, LEVELS > 0.05)
    assert not curves(ax)
    assert ax.get_legend_handles_labels()[1] == ["n = 9, no fit"]
    with pytest.raises(ValueError, match="each of 9 rows"):
        psychometric_curve(ax, LEVELS, LEVELS > 0, contexts=["a"])


def test_continuous_evidence_is_pooled_and_fitted_by_trial(ax):
    generator = np.random.default_rng(0)
    s = generator.normal(size=600)
    chosen = generator.random(600) < 1 / (1 + np.exp(-2 * s))
    psychometric_curve(ax, s, chosen, link="gaussian", lapses="none", bins=6)
    assert len(ax.containers[0].lines[0].get_xdata()) == 6
    (curve,) = curves(ax)
    fit = fit_psychometric(s, chosen, link="gaussian", lapses="none")
    assert curve.get_ydata() == pytest.approx(fit(curve.get_xdata()))


def variances():
    values = [[1, 0.2, 0], [0.1, 1, 0.3], [1, 0.9, 0.8], [0, 0, 1.0], [0.2, 1, 0]]
    return pd.DataFrame(values, index=[0, 2, 3, 5, 7], columns=["go", "anti", "dm"])


def test_units_are_ordered_by_cluster_then_task(ax):
    table = variances()
    groups = pd.DataFrame({"unit": [7, 5, 3, 2, 0], "cluster": [1, 0, 0, 1, 0]})
    bar = ax.figure.add_axes((0.9, 0.1, 0.05, 0.8))
    assert task_variance_map(ax, table, groups, bar=bar) is ax
    shown = np.asarray(ax.images[0].get_array())
    # Cluster 0: units 0 and 3 prefer go, 0 more so; 5 prefers dm. Cluster 1: 7 more than 2.
    assert shown == pytest.approx(table.loc[[0, 3, 5, 7, 2]].to_numpy().T)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["go", "anti", "dm"]
    bars = [a for a in ax.get_children() if isinstance(a, Line2D) and a.get_linewidth() == 4]
    assert [list(b.get_xdata()) for b in bars] == [[-0.5, 2.5], [2.5, 4.5]]
    assert len({b.get_color() for b in bars}) == 2
    assert [(t.get_text(), t.xy[0]) for t in ax.texts] == [("0", 1.0), ("1", 3.5)]
    assert ax.get_xlim() == (-0.5, 4.5)
    assert ax.get_xlabel() == "5 units, by cluster"
    assert bar.get_ylabel() == "normalised task variance"
    assert ax.images[0].get_clim() == (0, 1)


def test_units_without_a_cluster_come_last(ax):
    task_variance_map(ax, variances(), pd.DataFrame({"unit": [5, 2], "cluster": [1, 0]}))
    shown = np.asarray(ax.images[0].get_array())
    assert shown == pytest.approx(variances().loc[[2, 5, 0, 3, 7]].to_numpy().T)
    assert [t.get_text() for t in ax.texts] == ["0", "1"]
    other = plots.new_figure(size=(3, 3)).axes[0]
    task_variance_map(other, variances())
    assert np.asarray(other.images[0].get_array()) == pytest.approx(
        variances().loc[[0, 3, 7, 2, 5]].to_numpy().T
    )
    assert not other.texts
    with pytest.raises(ValueError, match="got unit 1 besides"):
        task_variance_map(ax, variances(), pd.DataFrame({"unit": [1], "cluster": [0]}))
    with pytest.raises(ValueError, match="at least one unit"):
        task_variance_map(ax, variances().iloc[:0])


def test_similarities_are_drawn_with_their_numbers(ax):
    names = ["go", "anti", "dm"]
    values = np.array([[1, -0.5, np.nan], [0.75, 1, 0.25], [np.nan, 0.125, 1]])
    table = pd.DataFrame(values, index=names, columns=names[::-1])
    bar = ax.figure.add_axes((0.9, 0.1, 0.05, 0.8))
    assert similarity_map(ax, table, bar=bar) is ax
    image = ax.images[0]
    assert np.ma.filled(image.get_array(), np.nan) == pytest.approx(values, nan_ok=True)
    assert image.get_clim() == (-1, 1)
    # White stands for 0.
    assert min(image.cmap(image.norm(0.0))[:3]) > 0.95
    assert sorted(t.get_text() for t in ax.texts) == sorted(
        ["1.00", "-0.50", "0.75", "1.00", "0.25", "0.12", "1.00"]
    )
    assert [t.get_text() for t in ax.texts if t.get_position() == (1, 0)] == ["-0.50"]
    assert [label.get_text() for label in ax.get_xticklabels()] == names[::-1]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert bar.get_ylabel() == "cosine"


def test_similarities_of_one_sign_have_no_middle(ax):
    similarity_map(ax, pd.DataFrame(np.eye(10)), limits=(0, 1), label="CKA")
    assert ax.images[0].get_clim() == (0, 1)
    assert ax.images[0].cmap.name == "cividis"
    assert not ax.texts
    similarity_map(ax, pd.DataFrame(np.eye(10)), values=True)
    assert len(ax.texts) == 100
    with pytest.raises(ValueError, match="rising pair"):
        similarity_map(ax, pd.DataFrame(np.eye(2)), limits=(1, 0))
