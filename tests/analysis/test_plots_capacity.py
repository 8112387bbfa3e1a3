import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from ctxrnn.analysis import Interval, mean_interval, paired_difference, plots, synergy

VARIANTS = ("e-add", "s-sym", "es-add-sym")


@pytest.fixture
def ax():
    with plots.style():
        yield plots.new_figure(size=(3, 3)).axes[0]


def grid(seeds=3, value=lambda k, n, seed: min(1.0, n / k / 8)):
    return pd.DataFrame(
        [
            {"variant": "e-add", "tasks": k, "units": n, "seed": seed, "solved": value(k, n, seed)}
            for k in (2, 4, 8)
            for n in (8, 16, 32, 64)
            for seed in range(seeds)
        ]
    )


def capacities():
    return pd.DataFrame(
        {"variant": "e-add", "units": [8, 16, 32, 64], "capacity": [2, 2, 6, 8],
         "flag": ["below", "", "", "at least"]}
    )  # fmt: skip


def sizes(variant="e-add"):
    return pd.DataFrame(
        {"variant": variant, "tasks": [2, 4, 8, 16], "size": [8.0, 16.0, 32.0, 64.0],
         "low": [0.0, 8.0, 16.0, 32.0], "high": [8.0, 32.0, np.inf, np.inf],
         "flag": ["at most", "", "", "above"], "replicates": 7}
    )  # fmt: skip


def test_capacity_map_shows_medians_with_missing_cells_grey(ax):
    table = grid(value=lambda k, n, seed: seed**2 / 10)
    table = table[~((table.tasks == 8) & (table.units == 8))]
    bar = ax.figure.add_axes((0.9, 0.1, 0.05, 0.8))
    assert plots.capacity_map(ax, table, bar=bar) is ax
    shown = ax.images[0].get_array()
    # Median of 0, 0.1, 0.4; K upwards.
    assert shown[0, 0] == pytest.approx(0.1)
    assert not np.isfinite(np.ma.filled(shown, np.nan)[2, 0])
    assert ax.get_facecolor()[:3] == pytest.approx((0.8,) * 3)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["8", "16", "32", "64"]
    assert "n = 3" in ax.get_title()
    assert bar.get_ylabel().startswith("fraction of tasks solved")


def test_stairs_lie_on_the_upper_edge_of_the_last_task_number_learnt(ax):
    plots.capacity_map(ax, grid(), capacity=capacities())
    (stairs,) = [p for p in ax.patches if isinstance(p, mpl.patches.StepPatch)]
    # Nothing at N = 8; K = 2 is the first row; K = 6 halfway between the rows of 4 and 8.
    np.testing.assert_allclose(stairs.get_data().values, [-0.5, 0.5, 2.0, 2.5])


def test_points_of_the_map_lie_at_the_size_needed_on_the_log_axis(ax):
    needed = sizes().assign(size=[8.0, 16 * np.sqrt(2), 32.0, 64.0])
    plots.capacity_map(ax, grid(), sizes=needed[needed.tasks <= 8])
    x, y = ax.lines[0].get_data()
    # Censored K = 2 is not drawn; halfway between 16 and 32 in log N.
    np.testing.assert_allclose(x, [1.5, 2.0])
    np.testing.assert_allclose(y, [1, 2])


def test_maps_and_shares_are_of_one_variant(ax):
    two = pd.concat([grid(), grid().assign(variant="s-sym")])
    with pytest.raises(ValueError, match="of one variant: got e-add, s-sym"):
        plots.capacity_map(ax, two)
    with pytest.raises(ValueError, match="of one variant"):
        plots.choice_shares(ax, two)


def test_sizes_mark_what_lies_beyond_the_grid_and_name_the_exponent(ax):
    exponents = pd.DataFrame(
        {"variant": ["e-add"], "gamma": [0.5], "low": [0.4], "high": [0.6], "factor": [8.0]}
    )
    plots.sizes_needed(ax, sizes(), exponents=exponents)
    by_marker = {line.get_marker(): line for line in ax.lines if len(line.get_xdata())}
    assert list(by_marker["^"].get_xdata()) == [16]
    assert list(by_marker["v"].get_xdata()) == [2]
    assert list(by_marker["o"].get_xdata()) == [4, 8]
    (label,) = ax.get_legend_handles_labels()[1]
    assert "n = 7" in label
    assert "0.50 [0.40, 0.60]" in label
    (fit,) = [line for line in ax.lines if len(line.get_xdata()) == 50]
    np.testing.assert_allclose(fit.get_ydata(), 8 * fit.get_xdata() ** 0.5)
    # Open ends stop at the frame.
    reach = ax.collections[0].get_segments()
    assert reach[1][1][1] == pytest.approx(ax.get_ylim()[1])
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_variants_stand_side_by_side(ax):
    plots.sizes_needed(ax, pd.concat([sizes(v) for v in VARIANTS]))
    first = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in "osD"]
    first = [x for x in first if x > 3]
    assert len(set(np.round(first, 6))) == 3


def test_timescale_map_tells_mean_and_half_interval(ax):
    values = [0.1, 0.2, 0.3]
    table = pd.DataFrame(
        [
            {"tau_e": e, "tau_s": s, "seed": i, "cost": v + 0.1 * (s > 0) - 0.2}
            for e in (0, 100) for s in (0, 1000) for i, v in enumerate(values)
        ]
    )  # fmt: skip
    plots.timescale_map(ax, table, "cost", label="cost", centre=0.0)
    np.testing.assert_allclose(ax.images[0].get_array(), [[0, 0.1], [0, 0.1]], atol=1e-12)
    reach = mean_interval(values)
    half = (reach.high - reach.low) / 2
    assert ax.texts[0].get_text() == f"0.00\n±{half:.2f}"
    low, high = ax.images[0].get_clim()
    assert (low, high) == pytest.approx((-0.1, 0.1))
    assert "tau_s" in ax.get_xlabel()


def test_load_is_binned_with_intervals(ax):
    table = pd.DataFrame(
        {"variant": "s-sym", "load": np.arange(12) / 6, "area": np.arange(12.0) ** 2, "seed": 0}
    )
    plots.load_scatter(ax, table.sample(frac=1, random_state=0), bins=3)
    means = next(line for line in ax.lines if line.get_markersize() == 5)
    np.testing.assert_allclose(means.get_xdata(), [1.5 / 6, 5.5 / 6, 9.5 / 6])
    np.testing.assert_allclose(means.get_ydata(), [3.5, 31.5, 91.5])
    assert "n = 12" in ax.get_legend_handles_labels()[1][0]


def test_load_of_each_size_has_a_line_of_its_own(ax):
    table = pd.DataFrame(
        [
            {"variant": "s-sym", "size": n, "load": k / c, "area": n / 100 - 0.1 * k + 0.01 * i}
            for n, c in ((8, 2), (16, 4)) for k in (1, 2, 4) for i in range(3)
        ]
    )  # fmt: skip
    plots.load_scatter(ax, table, by="size")
    means = [line for line in ax.lines if line.get_markersize() == 4.5]
    np.testing.assert_allclose(means[0].get_xdata(), [0.5, 1, 2])
    np.testing.assert_allclose(means[0].get_ydata(), [-0.01, -0.11, -0.31])
    np.testing.assert_allclose(means[1].get_xdata(), [0.25, 0.5, 1])
    np.testing.assert_allclose(means[1].get_ydata(), [0.07, -0.03, -0.23])
    assert ax.get_legend_handles_labels()[1] == ["N = 8, n = 3 each", "N = 16, n = 3 each"]


def shares(count=3):
    rows = [
        {"variant": "s-sym", "order": o, "seed": 0, "level": x, "as_k": 1 - x + 0.01 * o,
         "as_j": x / 2, "neither": x / 2 - 0.01 * o}
        for o in range(count) for x in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_choice_shares_are_means_over_orders_and_seeds_with_bands(ax):
    plots.choice_shares(ax, shares())
    lines = dict(zip(ax.get_legend_handles_labels()[1], ax.lines, strict=False))
    np.testing.assert_allclose(lines["as task k"].get_ydata(), [1.01, 0.51, 0.01])
    np.testing.assert_allclose(lines["neither"].get_ydata(), [-0.01, 0.24, 0.49])
    assert len(ax.collections) == 3
    assert ax.get_title() == "synaptic (s-sym), n = 3"


def test_differences_are_open_where_nothing_may_be_claimed(ax):
    up = np.array([0.1, 0.2, 0.15, 0.12, 0.3])
    table = pd.DataFrame(
        [
            {"variant": v, "order": o, "seed": 0, "area": m + 0.01 * o * (v == "s-sym")}
            for v, m in (("e-add", 0.5), ("s-sym", 0.5), ("es-add-sym", 0.9))
            for o in range(6)
        ]
    )
    worse = table.replace({"area": {0.9: 0.3}})
    entries = [
        ("a", paired_difference(up, up * 0)),
        ("b", Interval(0.1, -0.1, 0.3, 9, 0.95)),
        ("c", synergy(table, "area", combined="es-add-sym", single=("e-add", "s-sym"))),
        ("d", paired_difference([-0.1], [0.0])),
        ("e", synergy(worse, "area", combined="es-add-sym", single=("e-add", "s-sym"))),
        ("f", paired_difference(up[:4], 0 * up[:4])),
    ]
    plots.difference_points(ax, entries)
    points = [line for line in ax.lines if line.get_marker() == "o"]
    filled = [p.get_markerfacecolor() != "white" for p in points]
    assert filled == [True, False, True, False, False, False]
    # Below 0 is a finding, though none of synergy: open, but black.
    assert [p.get_color() == "black" for p in points] == [True, False, True, False, True, False]
    assert [t.get_text() for t in ax.get_yticklabels()] == list("abcdef")
    assert ax.texts[1].get_text() == "+0.100, n = 9"
    assert ax.texts[3].get_text() == "−0.100, n = 1"
    # One row has no interval; the last line is the one at 0.
    assert len(ax.lines) == 6 + 5 + 1
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    with pytest.raises(ValueError, match="at least one difference"):
        plots.difference_points(ax, [])


def test_number_of_pairs_stands_in_the_label_if_it_is_the_same(ax):
    groups = list("aabbccddee")
    entries = [
        (name, paired_difference(np.arange(10.0), np.zeros(10), groups=groups)) for name in "ab"
    ]
    plots.difference_points(ax, entries, label="area")
    assert ax.get_xlabel() == "area, n = 5"
    assert [text.get_text() for text in ax.texts] == ["+4.500", "+4.500"]


def test_bands_of_orders_with_several_seeds_are_those_of_the_orders(ax):
    wide = pd.DataFrame(
        [[1.0, 3.0, 2.0, 6.0, 4.0, 8.0]] * 2,
        columns=pd.MultiIndex.from_product([range(3), range(2)], names=["order", "seed"]),
    )
    plots.band(ax, wide, color="k")
    low, high = np.sort(np.unique(ax.collections[0].get_paths()[0].vertices[:, 1]))
    means = mean_interval([2.0, 4.0, 6.0])
    assert (low, high) == pytest.approx((means.low, means.high))
    plots.band(ax, wide[0], color="k")
    assert len(ax.collections) == 1


def test_relation_draws_least_squares_with_the_band_of_the_mean_response(ax):
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.1, 0.9, 2.2, 2.8])
    table = pd.DataFrame({"variant": "e-add", "seed": range(4), "clean": x, "area": y})
    plots.relation(ax, table, "clean", "area", label="area")
    line = ax.lines[1]
    slope, offset = np.polyfit(x, y, 1)
    np.testing.assert_allclose(line.get_ydata(), offset + slope * line.get_xdata())
    # At the end x = 3: 1 / 4 + 1.5^2 / 5 = 0.7; t_{2, 0.975} in closed form.
    residual = np.sqrt(((y - offset - slope * x) ** 2).sum() / 2)
    reach = 0.95 * np.sqrt(2 / (1 - 0.95**2)) * residual * np.sqrt(0.7)
    band = ax.collections[0].get_paths()[0].vertices
    end = band[np.isclose(band[:, 0], 3.0), 1]
    assert end.max() == pytest.approx(offset + 3 * slope + reach)
    assert "n = 4" in ax.get_legend_handles_labels()[1][0]


def test_all_are_drawn_without_a_warning(ax, tmp_path):
    with plots.style():
        figure = plots.new_figure(1, 2, size=(6, 3))
        plots.capacity_map(figure.axes[0], grid(), capacity=capacities(), sizes=sizes().iloc[:3])
        plots.sizes_needed(figure.axes[1], sizes().assign(low=np.nan, high=np.nan))
    assert len(plots.save_figure(figure, tmp_path / "both")) == 2
