import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctxrnn import derive_seed, parameter_count
from ctxrnn.studies import study, study_names
from ctxrnn.studies._ambiguity import CORRUPTED, MATCHED
from ctxrnn.studies._configured import changed, from_dict, to_dict
from ctxrnn.studies._packing import RECIPE as PACKING
from ctxrnn.studies._packing import _cells, arms
from ctxrnn.studies._plan import plan_network
from ctxrnn.studies._recipes import from_settings, recipe

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "initial_spread.py"
FIGURES = {
    "learning": {"learning", "final", "tasks"},
    "ambiguity": {"curves-N8", "pathways", "choices", "comparisons", "relation"},
    "packing": {"map-M1", "map-M2", "map-M3", "sizes", "comparisons"},
    "load": {"load", "accuracy"},
    "synergy": {"synergy", "contributions"},
    "timescales": {"maps", "recovery", "comparisons"},
    "comodulation-encoding": {"couplings", "variance", "accuracy", "auc"},
    "comodulation-fewshot": {"accuracy", "tasks", "differences"},
    "comodulation-celeba": {
        "model", "lengths",
        *(f"{kind}-E{length}" for kind in ("conditions", "curves", "gains", "likeness",
                                           "reliability", "representations")
          for length in (1, 2)),
    },
    "comodulation-cifar": {
        "model",
        *(f"{kind}-{version}" for kind in ("conditions", "curves", "gains", "reliability",
                                           "representations") for version in ("V1", "V2")),
        "likeness-V2",
    },
    "comodulation-architecture": {"model", "architecture"},
    "language": {"scores", "curves", "contexts", "strip", "symbols"},
    "sequential-images": {
        "scores",
        *(f"{kind}-{reading}" for kind in ("curves", "contexts", "strip", "symbols")
          for reading in ("rows", "permuted-rows")),
    },
}  # fmt: skip
COMODULATION = {
    "history", "reliability", "selected", "rates", "curves", "comparisons", "claims", "embedding"
}  # fmt: skip
SEQUENCES = {
    "history", "corruption", "strip", "strip_gains", "by_symbol", "networks", "models",
    "comparisons", "statements",
}  # fmt: skip
TABLES = {
    "learning": {"variants"},
    "ambiguity": {"curves", "choices", "crossings", "networks", "passing", "comparisons"},
    "packing": {"best", "map", "areas", "capacity", "sizes", "exponents", "comparisons", "guard"},
    "load": {"ambiguity", "networks", "capacity", "relation", "comparisons"},
    "synergy": {"ambiguity", "conflict", "comparisons", "contributions"},
    "timescales": {"switch", "noise", "latency", "maps", "comparisons"},
    "comodulation-fewshot": {"curves", "tasks", "displays", "comparisons", "verdicts"},
    "comodulation-encoding": {
        "decoders",
        "estimates",
        "variances",
        "accuracies",
        "correlations",
        "ratios",
        "comparisons",
    },
    "comodulation-celeba": {*COMODULATION, "attributes", "similarity"},
    "comodulation-cifar": {*COMODULATION, "similarity"},
    "comodulation-architecture": COMODULATION,
    "language": SEQUENCES,
    "sequential-images": SEQUENCES,
}


@pytest.fixture(scope="module", params=study_names())
def finished(request, tmp_path_factory):
    name = request.param
    folder = tmp_path_factory.mktemp(name) / "out"
    chosen = study(name, "smoke")
    chosen.run(folder, executor="inline", progress=False)
    return name, chosen, folder


def test_smoke_scale_gives_every_table_and_figure(finished):
    name, chosen, folder = finished
    tables = chosen.load(folder)
    assert "failures" not in tables
    assert len(tables["cells"]) == len(chosen.cells(tables["cells"]))
    assert TABLES[name] <= set(tables)
    for table in TABLES[name]:
        written = pd.read_parquet(folder / f"{table}.parquet")
        assert list(written.columns) == list(tables[table].columns)
        assert len(written) == len(tables[table])
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert drawn == FIGURES[name]
    assert drawn == {path.stem for path in (folder / "figures").glob("*.pdf")}
    assert (folder / "findings.txt").read_text().strip()


def test_folder_says_which_study_it_holds(finished):
    name, chosen, folder = finished
    settings = json.loads((folder / "settings.json").read_text())
    again = from_settings(settings)
    assert again.identity() == chosen.identity()
    assert again.cells() == chosen.cells()
    assert settings["study"] == name


def test_findings_claim_nothing_where_the_interval_includes_zero(finished):
    _, chosen, folder = finished
    tables = chosen.load(folder)
    if "comparisons" not in tables or not len(tables["comparisons"]):
        return
    rows = tables["comparisons"]
    includes = (rows["difference_low"] <= 0) & (rows["difference_high"] >= 0)
    assert not rows.loc[includes, "claim"].any()
    # Two replicates at smoke scale: nothing may be claimed of a mean over so few.
    assert (rows["n"] <= 2).all()
    text = (folder / "findings.txt").read_text()
    compared = [line for line in text.splitlines() if "(n = 2" in line and "against" in line]
    assert all("no claim" in line or "below 0" in line for line in compared)


@pytest.mark.parametrize("name", study_names())
@pytest.mark.parametrize("scale", ["smoke", "quick", "paper"])
def test_every_scale_builds_and_round_trips(name, scale):
    settings = recipe(name).settings(scale)
    assert from_dict(type(settings), json.loads(json.dumps(to_dict(settings)))) == settings
    cells = study(name, scale).cells()
    assert cells
    # Cells of a study with work of its own are no networks that are planned.
    for cell in cells[:: max(1, len(cells) // 20)] if hasattr(settings, "base") else []:
        plan_network(settings.base, cell)


@pytest.mark.parametrize("name", ["packing", "ambiguity"])
def test_quick_scale_has_the_replicates_and_sizes_of_a_study(name):
    settings = recipe(name).settings("quick")
    assert settings.orders * settings.seeds >= 5
    assert len(settings.sizes) >= 3
    assert {"e-add", "s-sym", "es-add-sym"} <= set(settings.variants)


def test_quick_ambiguity_has_every_corruption_of_the_specification():
    settings = recipe("ambiguity").settings("quick")
    kinds = {CORRUPTED[name].kind for name in settings.corruptions}
    wanted = {"mix2", "mixU", "noise-frozen", "noise-ou", "atten", "window", "swap", "posterior"}
    assert kinds == wanted
    assert settings.effects
    assert {"window-early", "window-delay", "window-late"} <= set(settings.corruptions)


def test_ambiguity_measures_both_pathways_and_each_alone(tmp_path):
    chosen = study(
        "ambiguity",
        "smoke",
        ["variants=s-sym,es-add-sym", "corruptions=mix2,noise-frozen", "seeds=1"],
    )
    chosen.run(tmp_path / "out", executor="inline", progress=False)
    curves = chosen.load(tmp_path / "out")["curves"]
    arms = curves.groupby("variant")["pathway"].unique().map(set).to_dict()
    assert arms == {"s-sym": {"both"}, "es-add-sym": {"both", "excitability", "synaptic"}}
    assert set(curves["corruption"]) == {"mix2", "noise-frozen", MATCHED}
    clean = curves[curves["level"] == 0].groupby(["variant", "corruption"])["normalised"]
    # Level 0 is the clean context, in whatever pathway.
    assert np.allclose(clean.max(), clean.min())


@pytest.mark.parametrize(
    ("name", "assignments", "figures"),
    [
        ("learning", ["variants=none"], {"learning", "final", "tasks"}),
        ("ambiguity", ["variants=none", "seeds=2"], {"choices", "curves-N8", "relation"}),
        ("packing", ["variants=s-sym"], {"map-M1", "map-M2", "map-M3", "sizes"}),
        ("load", ["variants=e-add"], {"load", "accuracy"}),
        ("synergy", ["variants=e-add,s-sym"], set()),
        ("timescales", ["seeds=1"], {"maps", "recovery", "comparisons"}),
    ],
)
def test_studies_of_one_arm_draw_what_there_is(tmp_path, caplog, name, assignments, figures):
    chosen = study(name, "smoke", assignments)
    chosen.run(tmp_path, executor="inline", progress=False)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == figures


def test_matched_arms_have_the_sizes_that_their_matching_wants():
    settings = PACKING.settings("quick")
    cells = [c for c in study("packing").cells() if c["variant"] == "es-add-sym"]
    for cell in cells[:: len(cells) // 40]:
        plan = plan_network(settings.base, cell)
        shape = {"inputs": 17, "outputs": 9, "contexts": cell["tasks"]}
        single = parameter_count("e-add", units=cell["size"], **shape)
        options = {k: v for k, v in plan.options.items() if k in ("on_e", "on_s")}
        own = parameter_count("es-add-sym", units=plan.units, **shape, **options)
        if cell["matching"] == "M1":
            assert plan.units == cell["size"]
        elif cell["matching"] == "M2":
            assert own <= single < parameter_count("es-add-sym", units=plan.units + 1, **shape)
        else:
            assert plan.units == cell["size"]
            assert own == single


def test_arms_that_are_the_same_network_are_trained_once():
    assert arms(PACKING.settings("quick")) == [
        ("e-add", "M1"),
        ("s-sym", "M1"),
        ("es-add-sym", "M1"),
        ("es-add-sym", "M2"),
        ("es-add-sym", "M3"),
    ]


def _walk(settings, needed):
    """Play the bisection with networks that reach the criterion from a size of their own on."""
    table, rounds = pd.DataFrame(), 0
    while True:
        cells = _cells(settings, table)
        keys = [tuple(cell.values()) for cell in cells]
        known = set() if table.empty else set(table[list(cells[0])].itertuples(False, None))
        new = [cell for cell, key in zip(cells, keys, strict=True) if key not in known]
        if not new:
            return table, rounds
        rows = []
        for cell in new:
            score = 0.95 if cell["size"] >= needed(cell) else 0.1
            # The better rate by evaluation is the one whose test score counts.
            good = cell["learning_rate"] == settings.rates[-1]
            rows.append({**cell, "evaluated_min": score if good else 0.0,
                         "relative_min": score if good else 0.0})  # fmt: skip
        table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
        rounds += 1
        assert rounds < 12


def test_bisection_finds_the_smallest_size_of_every_chain():
    settings = changed(
        PACKING.settings("quick"), ["orders=2", "sizes=8,50", "guard=0", "tasks=2,5"]
    )

    def needed(cell):
        chain = [cell[k] for k in ("order", "tasks", "variant", "matching")]
        places = [*settings.grid, 1000]
        return places[derive_seed(3, *chain) % len(places)]

    table, _ = _walk(settings, needed)
    for key, rows in table.groupby(["order", "tasks", "variant", "matching"]):
        if key[3] == "M3" or (key[2].startswith("es") and key[3] == "M1"):
            continue
        cell = dict(zip(["order", "tasks", "variant", "matching"], key, strict=True))
        passed = rows.loc[rows["relative_min"] >= settings.theta, "size"]
        failed = rows.loc[~rows["size"].isin(passed), "size"]
        wanted = needed(cell)
        if wanted == 1000:
            assert passed.empty
            assert failed.max() == max(settings.grid)
        else:
            assert passed.min() == wanted
            below = [size for size in settings.grid if size < wanted]
            assert not below or max(below) in set(failed)


def test_bisection_that_was_interrupted_asks_for_the_same_cells():
    settings = changed(PACKING.settings("quick"), ["orders=1", "sizes=8,50", "guard=0", "tasks=5"])
    whole, _ = _walk(settings, lambda cell: 20)
    everything = {tuple(c.values()) for c in _cells(settings, whole)}
    generator = np.random.default_rng(0)
    for _ in range(20):
        part = whole[generator.random(len(whole)) < generator.random()]
        asked = {tuple(c.values()) for c in _cells(settings, part.reset_index(drop=True))}
        assert asked <= everything


def test_study_of_ones_own_is_short_and_stands_in_the_docs(tmp_path):
    source = EXAMPLE.read_text()
    assert len(source.splitlines()) < 60
    page = (ROOT / "docs" / "studies.md").read_text()
    assert f"```python\n{source}```" in page
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "ctxrnn._cli", "study", str(EXAMPLE), "--scale", "smoke", "--out",
        str(out), "--set", "sd=0.1,1.0", "--workers", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "4 cells" in done.stdout
    cells = pd.read_csv(out / "cells.csv")
    assert set(cells["sd"]) == {0.1, 1.0}
    # Factors hardly move in forty steps: they still have the spread that they began with.
    assert (cells["spread_after"] / cells["sd"]).between(0.7, 1.5).all()
    assert (out / "figures" / "initial-spread.png").exists()


def test_docs_name_every_study():
    page = (ROOT / "docs" / "studies.md").read_text()
    for name in study_names():
        assert re.search(rf"^\| \[`{name}`\]", page, flags=re.MULTILINE)
        assert re.search(rf"^## .*`{name}`|^## {name.capitalize()}", page, flags=re.MULTILINE)
