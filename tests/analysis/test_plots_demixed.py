"""What the figures of demixed components draw."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from ctxrnn.analysis import fit_dpca, plots

AXES = ("context", "stimulus", "time")
LEVELS = {"context": ["go", "anti"], "stimulus": np.array([0.0, 0.5, 1.0, 1.5, 2.0])}
X = np.random.default_rng(0).normal(size=(2, 5, 6, 8))
MODEL = fit_dpca(X, AXES, components=2, ridge=0.1)


@pytest.fixture
def ax():
    with plots.style():
        yield plots.new_figure(size=(3, 3)).axes[0]


def courses(ax):
    """Lines of combinations: neither the line at zero nor the empty ones of the legend."""
    return [line for line in ax.lines if len(line.get_xdata()) == 6]


@pytest.mark.parametrize("number", [0, 1])
def test_a_line_is_the_component_in_one_combination(ax, number):
    times = np.arange(6) * 50.0 - 100
    made = plots.demixed_component(
        ax, MODEL, X, "stimulus", number, levels=LEVELS, times=times, label="time from cue (ms)"
    )
    assert made is ax
    drawn = courses(ax)
    scores = MODEL.project(X, "stimulus")[..., number].reshape(10, 6)
    assert np.array([line.get_ydata() for line in drawn]) == pytest.approx(scores)
    assert all(line.get_xdata() == pytest.approx(times) for line in drawn)
    # Colours by the condition of the group, dashes by the other one.
    assert [line.get_color() for line in drawn[:5]] == [line.get_color() for line in drawn[5:]]
    assert len({line.get_color() for line in drawn}) == 5
    assert {line.get_linestyle() for line in drawn[:5]} == {"-"}
    assert {line.get_linestyle() for line in drawn[5:]} == {"--"}
    names = [str(level) for level in LEVELS["stimulus"]]
    assert ax.get_legend_handles_labels()[1] == [*names, "go", "anti"]
    assert ax.get_xlabel() == "time from cue (ms)"
    share = 100 * MODEL.variances["stimulus"][number]
    assert ax.get_ylabel() == (f"stimulus, component {number + 1}\n({share:.1f} % of the variance)")


def test_colour_is_chosen_and_many_levels_have_no_dashes(ax):
    plots.demixed_component(ax, MODEL, X, "stimulus", colour="context")
    drawn = courses(ax)
    first, second = plots.colours_of([0, 1]).values()
    assert first != second
    assert [line.get_color() for line in drawn] == [first] * 5 + [second] * 5
    assert {line.get_linestyle() for line in drawn} == {"-"}
    assert ax.get_legend_handles_labels()[1] == ["0", "1"]
    assert ax.get_xlabel() == "time step"
    assert drawn[0].get_xdata() == pytest.approx(np.arange(6))


def test_time_may_stand_anywhere_and_alone(ax):
    turned = fit_dpca(
        np.moveaxis(X, 2, 0), ("time", "context", "stimulus"), components=2, ridge=0.1
    )
    plots.demixed_component(ax, turned, np.moveaxis(X, 2, 0), "time")
    scores = MODEL.project(X, "time")[..., 0].reshape(10, 6)
    assert np.array([line.get_ydata() for line in courses(ax)]) == pytest.approx(scores)
    alone = plots.new_figure(size=(3, 3)).axes[0]
    plots.demixed_component(alone, fit_dpca(X[0, 0], ("time",)), X[0, 0], "time")
    assert len(courses(alone)) == 1
    assert alone.get_legend_handles_labels()[1] == []


def test_bars_are_the_variance_split_by_group(ax):
    assert plots.demixed_variance(ax, MODEL, most=5) is ax
    table = MODEL.table().head(5)
    assert len(ax.containers) == len(MODEL.groups) == 4
    top = np.zeros(5)
    for bars, name in zip(ax.containers, MODEL.groups, strict=True):
        heights = np.array([bar.get_height() for bar in bars])
        assert heights == pytest.approx(100 * table["variance"] * table[f"share_{name}"])
        assert [bar.get_y() for bar in bars] == pytest.approx(top)
        top += heights
        assert bars.get_label() == f"{name} ({100 * MODEL.marginal[name]:.0f} %)"
    assert top == pytest.approx(100 * table["variance"])
    assert len({to_hex(bars[0].get_facecolor()) for bars in ax.containers}) == 4
    assert "%" in ax.get_ylabel()


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("unknown group", lambda ax: plots.demixed_component(ax, MODEL, X, "stimulu")),
        ("number must be below 2", lambda ax: plots.demixed_component(ax, MODEL, X, "time", 2)),
        ("unknown condition 'time'", lambda ax: plots.demixed_component(
            ax, MODEL, X, "time", colour="time")),
        ("must have the axes context, stimulus, time, unit", lambda ax: plots.demixed_component(
            ax, MODEL, X[0], "time")),
        ("with time among them", lambda ax: plots.demixed_component(
            ax, fit_dpca(X[0, 0], ("a",)), X[0, 0], "a")),
    ],
)  # fmt: skip
def test_errors_say_what_must_hold(ax, message, call):
    with pytest.raises(ValueError, match=message):
        call(ax)
