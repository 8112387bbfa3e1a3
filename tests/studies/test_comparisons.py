"""How the studies compare arms, on tables whose truth is known."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ctxrnn.studies import study
from ctxrnn.studies._ambiguity import MATCHED, AmbiguitySettings, _choice, _measures, _twins
from ctxrnn.studies._common import (
    adjusted_comparisons,
    capacity_sentence,
    capacity_synergies,
    clusters,
    comparisons,
    network_interval,
    sentence,
)
from ctxrnn.studies._load import LoadSettings
from ctxrnn.studies._load import _tables as load_tables
from ctxrnn.studies._packing import PackingSettings, _comparisons, _findings
from ctxrnn.studies._packing import _measure as packing_measure
from ctxrnn.studies._packing import _tables as packing_tables
from ctxrnn.studies._synergy import SynergySettings
from ctxrnn.studies._synergy import _findings as synergy_findings

NAMES = {"value": "value"}
ARMS = ("e-add", "s-sym", "es-add-sym")


def networks(orders, seeds, value, variants=("e-add", "s-sym"), **more):
    """One row per network; `value` is a function of order, seed and variant."""
    rows = [
        {"order": o, "seed": s, "variant": v, "value": value(o, s, v), **more}
        for o in range(orders)
        for s in range(seeds)
        for v in variants
    ]
    return pd.DataFrame(rows)


def only(rows):
    (row,) = rows
    return row


def test_difference_is_that_of_the_second_arm_from_the_first():
    table = networks(6, 1, lambda o, s, v: o + 0.25 * (v == "s-sym"))
    row = only(comparisons(table, NAMES, ARMS, size=8))
    assert (row["a"], row["b"], row["size"], row["n"]) == ("s-sym", "e-add", 8, 6)
    assert row["difference"] == pytest.approx(0.25)
    assert row["claim"]


@pytest.mark.parametrize(("pairs", "claimed"), [(4, False), (5, True)])
def test_nothing_is_claimed_of_fewer_than_five_pairs(pairs, claimed):
    table = networks(1, pairs, lambda o, s, v: s + (1 + 0.01 * s) * (v == "s-sym"))
    row = only(comparisons(table, NAMES, ARMS))
    assert row["difference_low"] > 0
    assert row["claim"] is claimed
    assert ("no claim" in sentence(row)) is not claimed


def test_task_orders_with_several_seeds_are_the_independent_values():
    table = networks(5, 3, lambda o, s, v: o * (v == "s-sym") + 0.01 * s)
    assert clusters(table) == "order"
    assert only(comparisons(table, NAMES, ARMS))["n"] == 5
    # An order of which no pair is complete does not count.
    table.loc[(table["order"] == 4) & (table["variant"] == "e-add"), "value"] = np.nan
    row = only(comparisons(table, NAMES, ARMS))
    assert row["n"] == 4
    assert row["left_out"] == 3
    assert not row["claim"]
    assert clusters(networks(5, 1, lambda o, s, v: 0)) is None
    assert clusters(networks(1, 5, lambda o, s, v: 0)) is None


def test_seeds_of_one_order_are_not_taken_as_independent():
    """Under a null whose noise belongs to the order, few of the intervals exclude 0."""
    generator = np.random.default_rng(0)
    orders, seeds, tries = 6, 3, 200
    claimed = 0
    for _ in range(tries):
        effect = generator.normal(size=orders)
        noise = 0.1 * generator.normal(size=(orders, seeds))
        table = networks(
            orders, seeds, lambda o, s, v, e=effect, n=noise: (e[o] + n[o, s]) * (v == "s-sym")
        )
        claimed += only(comparisons(table, NAMES, ARMS))["claim"]
    # Pairs taken as independent exclude 0 in P(|t_5| > 1.96 sqrt(1 / 3)) = 0.31 of the tries: here
    # the bound is 0.05 with three standard errors, and 0.04 for a bootstrap of six values.
    assert claimed / tries <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / tries) + 0.04


def test_means_are_taken_over_conditions_that_all_arms_of_a_pair_have():
    """A size at which one arm failed would otherwise make a difference out of nothing."""
    parts = [
        networks(5, 1, lambda o, s, v, h=height: h + 0.001 * o, size=size)
        for size, height in ((8, 0.3), (32, 0.9))
    ]
    table = pd.concat(parts)
    table = table[~((table["variant"] == "s-sym") & (table["size"] == 32))]
    row = only(comparisons(table, NAMES, ARMS, over=["size"]))
    assert row["difference"] == pytest.approx(0)
    assert (row["n"], row["conditions_left_out"]) == (5, 5)
    assert "5 conditions that not all of them have are left out" in sentence(row)
    table = pd.concat(parts)
    table.loc[
        (table["variant"] == "s-sym") & (table["size"] == 32) & (table["order"] < 2), "value"
    ] = np.nan
    row = only(comparisons(table, NAMES, ARMS, over=["size"]))
    assert row["difference"] == pytest.approx(0)
    assert (row["n"], row["left_out"]) == (3, 2)


def test_an_arm_that_is_not_compared_takes_no_condition_away():
    """e-add failed at one size: s-sym and the combination are compared at both."""
    parts = [
        networks(5, 1, lambda o, s, v, h=height: h * (v == "es-add-sym") + 0.001 * o, ARMS, size=n)
        for n, height in ((8, 0.1), (32, 0.3))
    ]
    table = pd.concat(parts)
    table = table[~((table["variant"] == "e-add") & (table["size"] == 32))]
    rows = comparisons(table, NAMES, ARMS, over=["size"])
    found = {(row["a"], row["b"]): row for row in rows}
    assert found["es-add-sym", "s-sym"]["difference"] == pytest.approx(0.2)
    assert found["es-add-sym", "s-sym"]["conditions_left_out"] == 0
    for b in ("e-add", "best of e-add, s-sym"):
        assert found["es-add-sym", b]["difference"] == pytest.approx(0.1)
        assert found["es-add-sym", b]["conditions_left_out"] == 5


def test_synergy_is_against_the_better_part_and_counts_its_pairs():
    height = {"e-add": 0.5, "s-sym": 0.7, "es-add-sym": 0.8}
    table = networks(5, 2, lambda o, s, v: height[v] + 0.01 * o, ARMS)
    rows = comparisons(table, NAMES, ARMS)
    gain = only([row for row in rows if row["kind"] == "synergy"])
    assert gain["difference"] == pytest.approx(0.1)
    assert (gain["a"], gain["b"], gain["n"]) == ("es-add-sym", "best of e-add, s-sym", 5)
    assert len(rows) == 4


def test_synergy_below_zero_is_not_told_as_a_result():
    height = {"e-add": 0.5, "s-sym": 0.7, "es-add-sym": 0.6}
    table = networks(5, 1, lambda o, s, v: height[v] + 0.01 * o, ARMS)
    gain = only([row for row in comparisons(table, NAMES, ARMS) if row["kind"] == "synergy"])
    assert not gain["claim"]
    assert "S errs downwards" in sentence(gain)


def test_table_without_an_arm_or_a_row_gives_no_comparison():
    assert comparisons(networks(5, 1, lambda o, s, v: 0.0, ["e-add"]), NAMES, ARMS) == []
    assert comparisons(networks(0, 0, lambda o, s, v: 0.0), NAMES, ARMS) == []


def test_interval_over_few_networks_is_that_of_student():
    values = np.array([0.2, 0.5, 0.9])
    interval = network_interval([*values, np.nan])
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    assert interval.count == 3
    assert interval.low == pytest.approx(values.mean() - half)
    assert interval.high == pytest.approx(values.mean() + half)
    empty = network_interval([np.nan])
    assert empty.count == 0
    assert np.isnan(empty.mean)


def curve(levels, fall, name="noise-frozen"):
    level = np.asarray(levels, dtype=float)
    return pd.DataFrame({"corruption": name, "level": level, "normalised": 1 - fall * level})


def test_accuracy_that_never_falls_counts_as_the_largest_level():
    settings = AmbiguitySettings()
    found = _measures(curve([0, 0.2, 0.4], 1.0), settings)
    assert found["noise-frozen_sigma_80"] == pytest.approx(0.2)
    assert _measures(curve([0, 0.2, 0.4], 0.1), settings)["noise-frozen_sigma_80"] == 0.4
    mixed = curve([0, 0.5, 1.0], 0.1, "mix2")
    assert _measures(mixed, settings)["mix2_lambda_50"] == 1.0


def test_area_at_matched_effect_has_one_reach_for_all_networks():
    settings = AmbiguitySettings(effects=(0.0, 0.1, 0.2, 0.4, 0.8))
    name = f"{MATCHED}_area_relative"
    whole = _measures(curve([0, 0.1, 0.2, 0.4, 0.8], 0.5, MATCHED), settings)
    assert whole[name] == pytest.approx(1 - 0.5 * 0.4)  # mean of 1 - l / 2 over 0 .. 0.8
    for levels in ([0, 0.1, 0.2, 0.4], [0]):
        assert np.isnan(_measures(curve(levels, 0.5, MATCHED), settings)[name])


def test_arms_at_equal_accuracy_are_compared_within_sizes():
    """Accuracy and robustness rise with N; the arms differ in accuracy alone."""
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(5):
        for size, height in ((32, 0.0), (48, 0.3), (64, 0.45)):
            for variant in ("e-add", "s-sym"):
                clean = 0.9 + 0.1 * height + 0.02 * (variant == "s-sym")
                rows.append(
                    {
                        "order": 0, "seed": seed, "size": size, "variant": variant,
                        "normalised_mean": clean + 0.01 * generator.normal(),
                        "value": height + 0.02 * generator.normal(),
                    }
                )  # fmt: skip
    table = pd.DataFrame(rows)
    row = adjusted_comparisons(table, NAMES, ("e-add", "s-sym"), ["size"]).iloc[0]
    assert (row["n"], row["left_out"]) == (5, 0)
    assert abs(row["difference"]) < 0.05
    assert not row["claim"]


def test_crossings_are_told_by_twins_without_their_mean_which_is_a_half():
    keys = {"order": 0, "size": 8, "variant": "e-add"}
    rows = [
        {**keys, "seed": seed, "task": a, "other": b, "level": level, "slope": slope,
         "neither": 0.1, "away": abs(level - 0.5)}
        for seed in range(3)
        for a, b, level, slope in (
            ("go", "anti", 0.3, 2.0), ("anti", "go", 0.7, 4.0),
            ("dm1", "dm2", 0.5, 0.5), ("dm2", "dm1", np.nan, np.nan),
        )
    ]  # fmt: skip
    networks = pd.DataFrame([{**keys, "seed": seed, "passes": seed < 2} for seed in range(3)])
    found = _twins(pd.DataFrame(rows), networks).set_index("pair")
    assert list(found.index) == ["anti-go", "dm1-dm2"]
    row = found.loc["anti-go"]
    assert (row["crossings"], row["not_crossed"], row["n"]) == (4, 0, 2)
    assert (row["slope"], row["away"]) == pytest.approx((3.0, 0.2))
    assert row["flatter_than_blend"] == 0
    assert "0 of 4 crossings are flatter, 0 curves do not cross" in _choice(row)
    row = found.loc["dm1-dm2"]
    assert (row["crossings"], row["not_crossed"], row["flatter_than_blend"]) == (4, 2, 2)
    assert row["slope"] == pytest.approx(0.5)
    assert "2 of 2 crossings are flatter, 2 curves do not cross" in _choice(row)
    none = {**row, "not_crossed": 4, "slope": np.nan}
    assert _choice(none) == "none of 4 curves crosses"


def test_arms_that_share_no_condition_are_told():
    table = networks(5, 1, lambda o, s, v: 0.5 + 0.01 * o)
    table["size"] = np.where(table["variant"] == "s-sym", 64, 32)
    row = only(comparisons(table, NAMES, ARMS, over=["size"]))
    assert (row["n"], row["claim"], row["conditions_left_out"]) == (0, False, 10)
    assert np.isnan(row["difference"])
    assert sentence(row, "here, ") == (
        "here, value: s-sym against e-add: no pair is complete; 10 conditions that not all of them "
        "have are left out"
    )


def test_few_pairs_have_no_interval_of_a_synergy():
    height = {"e-add": 0.5, "s-sym": 0.7, "es-add-sym": 0.9}
    table = networks(4, 1, lambda o, s, v: height[v] + 0.01 * o * (v == "s-sym"), ARMS)
    gain = only([row for row in comparisons(table, NAMES, ARMS) if row["kind"] == "synergy"])
    assert np.isnan(gain["difference_low"])
    assert sentence(gain).endswith("S +0.185 (n = 4); no claim: too few pairs for an interval")


def test_synergy_in_capacity_is_told_without_a_claim_where_it_is_bounded():
    rows = [
        {"order": o, "seed": 0, "variant": v, "size": n, "tasks": k,
         "relative_min": 0.8 - 0.02 * (k - c[n > 8]) + 0.001 * o}
        for o in range(5)
        for v, c in (("e-add", (3, 40)), ("s-sym", (4, 5)), ("es-add-sym", (7, 40)))
        for n in (8, 16) for k in (2, 4, 6, 8)
    ]  # fmt: skip
    found = capacity_synergies(pd.DataFrame(rows), ARMS, 0.8, units="size")
    first, second = (capacity_sentence(row) for row in found.to_dict("records"))
    assert first == "es-add-sym, N = 8, K*: S +3.00 [+3.00, +3.00] tasks, K* interpolated (n = 5)"
    assert second == "es-add-sym, N = 16, K*: S is not known: K* lies outside the range of K"
    assert not len(capacity_synergies(pd.DataFrame(rows), ("e-add", "s-sym"), 0.8, units="size"))


LOADS = LoadSettings(variants=("e-add",))


def loaded(area, worst):
    """Networks of three sizes with 2 to 10 tasks; `worst` decides K*."""
    rows = [
        {
            "order": o, "seed": 0, "variant": "e-add", "size": n, "tasks": k,
            "relative_min": worst(n, k), "parameters": 100 * n, "area": area(n, k, o),
            "area_relative": area(n, k, o), "normalised_mean": 0.9 + 0.01 * ((o * n * k) % 7),
        }
        for o in range(5)
        for n in (12, 24, 48)
        for k in (2, 4, 6, 8, 10)
    ]  # fmt: skip
    return load_tables(LOADS, {"cells": pd.DataFrame(rows)})


def falls(n, k):
    """The worst task: K* lies within the range of K at N = 12 and 24, and beyond it at 48."""
    return 1 - {12: 0.06, 24: 0.025, 48: 0.0}[n] * (k - 1)


def test_slope_against_load_is_that_within_a_size():
    """Sizes differ in much else: an area that depends on N alone has no slope."""
    noise = np.random.default_rng(0).normal(scale=0.003, size=(60, 12, 5))
    tables = loaded(lambda n, k, o: 0.5 + 0.1 * np.log2(n / 12) + noise[n, k, o], falls)
    row = tables["relation"].set_index(["measure", "kind"]).loc[("area", "doubling of K")]
    assert row["low"] < 0 < row["high"]
    assert not row["claim"]
    tables = loaded(lambda n, k, o: 0.5 + n / 100 - 0.07 * np.log2(k) + o / 10, falls)
    row = tables["relation"].set_index(["measure", "kind"]).loc[("area", "doubling of K")]
    assert row["change"] == pytest.approx(-0.07)
    assert row["n"] == 5
    assert row["claim"]


def test_sizes_are_alike_at_equal_load_where_load_is_all_that_matters():
    first = loaded(lambda n, k, o: 0.5, falls)["capacity"].set_index("size")["capacity"]
    kind = "N = 24 less N = 12, equal load"
    noise = np.random.default_rng(0).normal(scale=0.003, size=(60, 12, 5))
    for effect_of_size in (0.0, 0.1):
        tables = loaded(
            lambda n, k, o, e=effect_of_size: (
                0.8 - 0.1 * np.log2(k / first[n]) + e * (n > 12) + noise[n, k, o]
            ),
            falls,
        )
        row = tables["relation"].set_index(["measure", "kind"]).loc[("area", kind)]
        assert row["change"] == pytest.approx(effect_of_size, abs=0.01)
        assert row["claim"] == (effect_of_size > 0)
        # The load of N = 48 is not known.
        assert set(tables["relation"]["kind"]) == {"doubling of K", kind}


def test_load_is_not_known_where_the_capacity_is_only_bounded():
    found = loaded(lambda n, k, o: 0.5, falls)
    flags = found["capacity"].set_index("size")["flag"]
    assert flags[48] == "at least"
    assert flags[24] == ""
    load = found["networks"].set_index("size")["load"]
    assert load[48].isna().all()
    assert load[24].notna().all()


def mapped(settings, worst):
    """Rows of a packing study at equal N; `worst` gives the worst task, or None for no network."""
    rows = []
    for order in range(settings.orders):
        for k in settings.tasks:
            for size in settings.sizes:
                for variant in settings.variants:
                    score = worst(variant, k, size, order)
                    if score is None:
                        continue
                    rows.append(
                        {
                            "order": order, "seed": 0, "tasks": k, "variant": variant,
                            "matching": "M1", "size": size, "learning_rate": settings.rates[0],
                            "budget": 1, "parameters": 100 * size, "units": size,
                            "relative_min": score, "evaluated_min": score,
                        }
                    )  # fmt: skip
    cells = pd.DataFrame(rows)
    accuracy = cells.loc[cells.index.repeat(2)].assign(
        relative=lambda t: t["relative_min"] + np.tile([0.0, 0.05], len(cells))
    )
    return {"cells": cells, "accuracy": accuracy}


PACKED = PackingSettings(
    variants=("e-add", "s-sym"), tasks=(2, 8), sizes=(8, 16, 32), orders=5, rates=(3e-3,),
    theta=0.9, thetas=(0.8,), matchings=("M1",), bisected=(), grid=(), guard=0,
)  # fmt: skip


def test_packing_compares_arms_where_both_have_networks():
    tables = mapped(
        PACKED,
        lambda v, k, n, o: None if v == "s-sym" and k == 8 else {2: 1.0, 8: 0.3}[k] + 0.001 * o,
    )
    made = packing_tables(PACKED, tables)
    assert (made["comparisons"]["difference"] == 0).all()
    assert not made["comparisons"]["claim"].any()


def test_packing_area_is_the_mean_of_solved_tasks_over_log_size():
    made = packing_tables(PACKED, mapped(PACKED, lambda v, k, n, o: 0.92 if n >= 16 else 0.5))
    # f is 0 at N = 8 and 1 at 16 and 32: over two octaves, 1/4 + 1/2.
    assert np.allclose(made["areas"]["area"], 0.75)
    assert set(made["areas"]["n"]) == {5}
    # The criterion is one of the thresholds of the tables, whether listed or not.
    assert set(made["sizes"]["theta"]) == {0.8, 0.9}


def test_packing_tells_every_arm_that_was_trained():
    settings = PackingSettings()
    tables = {
        "cells": pd.DataFrame({"a": range(3)}),
        "sizes": pd.DataFrame(
            {
                "theta": settings.theta, "variant": ["s-asym-2"] * 2, "matching": ["M1", "M2"],
                "tasks": 2, "size": 9.0, "flag": "", "low": 8.0, "high": 10.0, "replicates": 5,
            }
        ),
        "exponents": pd.DataFrame(columns=["theta"]),
        "comparisons": pd.DataFrame(),
    }  # fmt: skip
    lines = _findings(PackingSettings(variants=("e-add", "s-asym-2")), tables)
    assert [line.split(",")[0] for line in lines[1:]] == ["M1", "M2"]


def test_packing_before_its_first_network_is_empty_and_says_so():
    tables = mapped(PACKED, lambda v, k, n, o: 0.9)
    tables["cells"]["budget"] = 2
    assert packing_tables(PACKED, tables) == {}
    assert len(_findings(PACKED, tables)) == 1


def test_comparison_of_packing_has_its_columns_without_a_row():
    table = pd.DataFrame(
        columns=["order", "seed", "variant", "matching", "size", "tasks", "solved_0.9",
                 "relative_min"]
    )  # fmt: skip
    assert {"measure", "difference", "claim"} <= set(_comparisons(PACKED, table))


@pytest.mark.parametrize("name", ["ambiguity", "synergy", "timescales"])
def test_studies_of_the_whole_pool_have_one_order(name):
    with pytest.raises(ValueError, match="orders must be 1, since the tasks are the whole pool"):
        study(name, "smoke", ["orders=2"])


def test_matchings_are_checked():
    with pytest.raises(ValueError, match="unknown matching 'M4'"):
        study("packing", "smoke", ["matchings=M1,M4"])


@pytest.mark.parametrize(
    ("name", "assignment", "message"),
    [
        ("ambiguity", "effects=0.2,0.4", "effects must be at least 2 numbers that start at 0"),
        ("ambiguity", "effects=0,0.4,0.2", "effects must be at least 2 numbers that start at 0"),
        ("load", "levels=0,0.25", "levels must be .* up to 0.5 at least and 1 at most"),
        ("load", "levels=0,0.5,1.5", "levels must be"),
        ("synergy", "levels=0.1,0.5", "levels must be"),
        ("packing", "theta=80", r"theta must lie in \[0, 1\]: got 80"),
        ("packing", "thetas=0.8,1.5", r"thetas must lie in \[0, 1\]: got 1.5"),
        ("packing", "grid=50,20", "grid must rise"),
        ("load", "theta=2", r"theta must lie in \[0, 1\]: got 2"),
        ("timescales", "taus=10", "taus must be at least two time constants"),
        ("timescales", "taus=0,0", "taus must be at least two time constants"),
        ("timescales", "sigmas=0.5", "sigmas must be at least 2 numbers that start at 0"),
        ("timescales", "delays=0,0,100", "delays must be given each once"),
        ("timescales", "others=0", "others must be at least 1"),
    ],
)
def test_levels_that_give_no_result_are_refused_before_the_first_network(name, assignment, message):
    with pytest.raises(ValueError, match=message):
        study(name, "smoke", [assignment])


def gains(n, low):
    return {
        "comparisons": pd.DataFrame(
            {
                "kind": ["synergy"], "measure": "area A", "a": "es-add-sym", "b": "best of x, y",
                "arm": "clean", "size": 8, "difference": 0.1, "difference_low": low,
                "difference_high": 0.2, "n": n, "effect_size": np.nan, "claim": n >= 5 and low > 0,
                "conditions_left_out": 0,
            }
        ),
        "contributions": pd.DataFrame(columns=["measure", "arm"]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("n", "low", "told"),
    [
        (2, 0.05, "Nothing is said of synergy: fewer than 5 triples"),
        (5, -0.05, "No synergy was found in this run"),
        (5, 0.05, None),
    ],
)
def test_no_synergy_is_said_where_enough_networks_show_none(n, low, told):
    lines = synergy_findings(SynergySettings(), gains(n, low))
    assert len(lines) == 1 + (told is not None)
    if told is not None:
        assert lines[1].startswith(told)


def test_guard_takes_task_orders_as_the_independent_values():
    """Networks of one order have their tasks in common, even with one seed for each."""
    settings = dataclasses.replace(PACKED, guard=0.5)
    tables = mapped(settings, lambda v, k, n, o: 0.5)
    again = tables["cells"].assign(
        budget=2, relative_min=lambda t: 0.5 + np.where(t["order"] < 3, 0.2, -0.1)
    )
    tables["cells"] = pd.concat([tables["cells"], again], ignore_index=True)
    twice = [tables["accuracy"], tables["accuracy"].assign(budget=2)]
    tables["accuracy"] = pd.concat(twice, ignore_index=True)
    made = packing_tables(settings, tables)
    row = made["guard"].iloc[0]
    assert (row["cells"], row["independent"]) == (60, 5)
    assert (row["still_rising"], row["falling"]) == (36, 24)
    assert row["rise_low"] < 0 < row["rise_high"]
    text = _findings(settings, {**tables, **made})[-1]
    assert "(n = 5 independent orders); 36 of them rise and 24 fall" in text


def test_packing_measures_networks_without_context():
    """They have no contexts to compare, and so no effective number of tasks."""
    trained = SimpleNamespace(cell={"tasks": 8}, network=SimpleNamespace(variant="none"))
    assert packing_measure(trained, most=8) == {}
