import numpy as np
import pandas as pd
import pytest

from ctxrnn.analysis import mean_interval, plots

VARIANTS = ("none", "e-add", "s-sym", "es-add-sym")


def table_of(column, grid, value):
    rows = [
        {"variant": variant, "seed": seed, column: x, "y": value(place, seed, x)}
        for place, variant in enumerate(VARIANTS)
        for seed in range(3)
        for x in grid
    ]
    return pd.DataFrame(rows)


def thick_lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_learning_curves_show_the_means_and_keep_the_last_value_of_a_network_that_stopped():
    table = table_of("step", [10, 20, 30], lambda place, seed, x: 0.1 * seed + x / 100)
    stopped = (table["variant"] == "e-add") & (table["seed"] == 2) & (table["step"] == 30)
    table = table[~stopped].rename(columns={"y": "relative_mean"})
    with plots.style():
        ax = plots.new_figure(size=(3, 2)).axes[0]
        assert plots.learning_curves(ax, table, target=0.97) is ax
    lines = thick_lines(ax)
    np.testing.assert_allclose(lines["no context"].get_ydata(), [0.2, 0.3, 0.4])
    # The third network stays at 0.2 + 0.2.
    np.testing.assert_allclose(
        lines["excitability (e-add)"].get_ydata(), [0.2, 0.3, (0.3 + 0.4 + 0.4) / 3]
    )
    assert "optimiser step" in ax.get_xlabel()


def test_ambiguity_curves_show_means_bands_and_colours_by_mechanism():
    table = table_of("level", [0.0, 0.5, 1.0], lambda place, seed, x: 1 - x + 0.01 * seed)
    table = table.rename(columns={"y": "normalised"})
    areas = pd.DataFrame({"variant": VARIANTS, "area": 0.75, "lambda_50": 0.5})
    with plots.style():
        ax = plots.new_figure(size=(3, 2)).axes[0]
        plots.ambiguity_curves(ax, table, areas=areas)
    lines = thick_lines(ax)
    assert len(lines) == 4
    np.testing.assert_allclose(lines["synaptic (s-sym)"].get_ydata(), [1.01, 0.51, 0.01])
    assert lines["both pathways (es-add-sym)"].get_color() == plots.MECHANISM_COLOURS["both"]
    # Band at the first level: t_{2, 0.975} s / sqrt(3) with s = 0.01.
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(
        1.01 + 0.95 * np.sqrt(2 / (1 - 0.95**2)) * 0.01 / np.sqrt(3), rel=1e-9
    )


def test_ambiguity_curves_take_any_level_and_tell_orders_apart():
    table = pd.DataFrame(
        [
            {
                "variant": "s-sym",
                "order": order,
                "seed": 0,
                "sigma": x,
                "normalised": 1 - x / 2 - order,
            }
            for order in (0, 0.1, 0.2)
            for x, y in ((0.0, 1.0), (0.5, 0.75), (2.0, 0.0))
        ]
    )
    areas = pd.DataFrame({"variant": ["s-sym"], "sigma_80": [1.25]})
    with plots.style():
        ax = plots.new_figure(size=(3, 2)).axes[0]
        plots.ambiguity_curves(
            ax, table, areas=areas, x="sigma", label="noise", crossing="sigma_80", mark=None
        )
    np.testing.assert_allclose(thick_lines(ax)["synaptic (s-sym)"].get_ydata(), [0.9, 0.65, -0.1])
    assert ax.get_xlim() == (0.0, 2.0)
    assert ax.get_xlabel() == "noise"
    # Three networks, their mean, the line at chance, the marker of the crossing.
    assert len(ax.lines) == 6
    assert ax.lines[-1].get_ydata()[0] == pytest.approx((0.65 - 0.1) / 2)


def test_points_leave_out_and_mark_what_is_missing():
    table = pd.DataFrame({"variant": ["e-add"] * 3, "lambda_50": [0.2, 0.4, np.nan]})
    with plots.style():
        ax = plots.new_figure(size=(3, 2)).axes[0]
        plots.interval_points(ax, table, "lambda_50", label="half")
    assert ax.get_xticklabels()[0].get_text() == "e-add\nn = 2*"
    assert ax.texts[0].get_text() == "0.30"


def test_points_of_many_variants_lie_below_each_other():
    table = pd.DataFrame({"variant": ["e-add"] * 3 + ["s-sym"] * 3, "area": [1, 2, 3, 4, 5, 9.0]})
    with plots.style():
        ax = plots.new_figure(size=(3, 2)).axes[0]
        plots.interval_points(ax, table, "area", label="area A", across=True)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["e-add, n = 3", "s-sym, n = 3"]
    assert ax.get_xlabel() == "area A"
    assert [text.get_text() for text in ax.texts] == ["2.00", "6.00"]
    low, high = ax.get_ylim()
    assert low > high
    (bar,) = ax.containers[1].lines[2]
    reach = mean_interval([4, 5, 9])
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], [reach.low, reach.high])


def test_bars_are_means_per_task():
    table = pd.DataFrame(
        [
            {"variant": v, "seed": s, "task": t, "accuracy": 0.1 * i + 0.2 * s + 0.3 * j,
             "chance": 0.1, "ceiling": 1.0}
            for i, v in enumerate(("e-add", "s-sym")) for s in range(2)
            for j, t in enumerate(("go", "anti"))
        ]
    )  # fmt: skip
    with plots.style():
        ax = plots.new_figure(size=(3, 2)).axes[0]
        plots.accuracy_by_task(ax, table, tasks=["go", "anti"])
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [0.1, 0.4, 0.2, 0.5])


def test_figures_are_saved_as_pdf_with_embedded_text_and_png(tmp_path):
    with plots.style():
        figure = plots.new_figure(size=(2, 2))
        figure.axes[0].set_title("title")
    written = plots.save_figure(figure, tmp_path / "name.with.dots")
    assert [path.name for path in written] == ["name.with.dots.pdf", "name.with.dots.png"]
    assert written[0].read_bytes()[:5] == b"%PDF-"
    assert b"/Type /Font" in written[0].read_bytes()
    assert b"/Subtype /Type3" not in written[0].read_bytes()
    assert written[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("variant", "kind"),
    [("none", "none"), ("e-gain", "excitability"), ("s-asym-2", "synaptic"), ("es", "both")],
)
def test_mechanism_of_a_variant(variant, kind):
    assert plots.mechanism(variant) == kind


def test_figures_keep_the_style_they_were_made_in(tmp_path):
    sizes = {}
    for medium in ("paper", "slides"):
        with plots.style(medium):
            figure = plots.new_figure(1, 2, size=("single", 2.0), sharey=True)
            plots.letters(*figure.axes)
        # Ticks are made when the figure is drawn, which is later, outside the style.
        shown, sizes_told = figure._repr_mimebundle_()
        assert shown["image/png"].startswith(b"\x89PNG")
        assert sizes_told["image/png"] == {"width": 350, "height": 200}
        (tick, *_) = figure.axes[0].get_xticklabels()
        assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "b"]
        sizes[medium] = (tick.get_size(), figure.axes[0].xaxis.label.get_size(),
                         figure.axes[0].title.get_size())  # fmt: skip
    assert sizes["paper"][:2] == (7.0, 8.0)
    assert np.allclose(np.array(sizes["slides"]), 2 * np.array(sizes["paper"]))
    assert plots.new_figure(size=("double", 2)).get_size_inches().tolist() == [7.2, 2.0]
    with pytest.raises(ValueError, match="unknown width 'triple'"):
        plots.new_figure(size=("triple", 2))
    with pytest.raises(ValueError, match="unknown medium 'poster'"), plots.style("poster"):
        pass


def test_files_hold_text_and_are_the_same_every_time(tmp_path):
    def drawn(folder):
        folder.mkdir()
        with plots.style():
            figure = plots.new_figure(size=("single", 2.0))
            figure.axes[0].set_xlabel("time (ms)")
        return plots.save_figure(figure, folder / "x", formats=("pdf", "svg", "png"))

    first, second = drawn(tmp_path / "a"), drawn(tmp_path / "b")
    assert [path.suffix for path in first] == [".pdf", ".svg", ".png"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert "time (ms)</text>" in first[1].read_text()
    # TrueType, which editors can change, and not outlines.
    assert b"/Type42" in first[0].read_bytes() or b"/CIDFontType2" in first[0].read_bytes()
    with pytest.raises(ValueError, match="unknown format 'eps'"):
        plots.save_figure(plots.new_figure(size=(1, 1)), tmp_path / "y", formats=("eps",))
