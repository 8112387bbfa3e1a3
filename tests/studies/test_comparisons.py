"""How the studies compare arms, on tables whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ctxrnn.studies import study
from ctxrnn.studies._ambiguity import MATCHED, AmbiguitySettings, _measures
from ctxrnn.studies._common import averaged, clusters, comparisons, network_interval, sentence
from ctxrnn.studies._load import LoadSettings
from ctxrnn.studies._load import _tables as load_tables
from ctxrnn.studies._packing import PackingSettings, _comparisons, _findings
from ctxrnn.studies._packing import _tables as packing_tables

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
    row = only(comparisons(averaged(table, NAMES, ["size"]), NAMES, ARMS))
    assert row["difference"] == pytest.approx(0)
    assert row["n"] == 5
    table = pd.concat(parts)
    table.loc[
        (table["variant"] == "s-sym") & (table["size"] == 32) & (table["order"] < 2), "value"
    ] = np.nan
    row = only(comparisons(averaged(table, NAMES, ["size"]), NAMES, ARMS))
    assert row["difference"] == pytest.approx(0)
    assert (row["n"], row["left_out"]) == (3, 2)


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
    settings = AmbiguitySettings(effects=(0.1, 0.2, 0.4, 0.8))
    name = f"{MATCHED}_area_relative"
    whole = _measures(curve([0, 0.1, 0.2, 0.4, 0.8], 0.5, MATCHED), settings)
    assert whole[name] == pytest.approx(1 - 0.5 * 0.4)  # mean of 1 - l / 2 over 0 .. 0.8
    for levels in ([0, 0.1, 0.2, 0.4], [0]):
        assert np.isnan(_measures(curve(levels, 0.5, MATCHED), settings)[name])


LOADS = LoadSettings(variants=("e-add",))


def loaded(area, worst):
    """Networks of three sizes with 2 to 10 tasks; `worst` decides K*."""
    rows = [
        {
            "order": o, "seed": 0, "variant": "e-add", "size": n, "tasks": k,
            "relative_min": worst(n, k), "parameters": 100 * n, "area": area(n, k, o),
            "area_relative": area(n, k, o),
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
    row = tables["relation"].set_index("measure").loc["area"]
    assert row["low"] < 0 < row["high"]
    assert not row["claim"]
    tables = loaded(lambda n, k, o: 0.5 + n / 100 - 0.07 * np.log2(k) + o / 10, falls)
    row = tables["relation"].set_index("measure").loc["area"]
    assert row["slope"] == pytest.approx(-0.07)
    assert row["n"] == 5
    assert row["claim"]


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
