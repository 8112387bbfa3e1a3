"""The study of Poisson neurons with a shared modulator: records, resume, findings, errors."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from ctxrnn.studies import study
from ctxrnn.studies._comodulation_encoding import RECIPE, _since
from ctxrnn.studies._comodulation_encoding_measure import (
    GUIDED,
    RIGHT_SIGNS,
    EncodingSettings,
    areas_under_roc,
    measure_population,
)

NAME = "comodulation-encoding"
TINY = dataclasses.replace(
    RECIPE.settings("smoke"),
    neurons=(12,),
    trials=(20, 2000),
    repeats=3,
    test_trials=2000,
    variance_repeats=1000,
)
CELL = {"seed": 0, "neurons": 12, "sigma": 0.5}


def plain(*assignments):
    """The study without figures, which take most of its time."""
    return dataclasses.replace(study(NAME, "smoke", assignments), figure=None)


@pytest.fixture(scope="module")
def measured():
    return measure_population(TINY, CELL)


def test_records_hold_every_flag(measured):
    wanted = {"labelled", "repeats", "test_trials", "informative", "rate", "rate_spread"}
    wanted |= {"difference", "coupling_noise", "variance_repeats"}
    assert wanted <= set(measured)
    assert (measured["rate"], measured["labelled"]) == (1.0, 20)


def test_decoders_that_learn_nothing_do_not_change_with_trials(measured):
    wide = measured["decoders"].pivot(index="trials", columns="decoder", values="accuracy")
    for name in ("ml", "ml-aware", "sign-only"):
        assert wide[name].nunique() == 1
    assert wide.loc[2000, GUIDED] > wide.loc[20, GUIDED]
    assert wide.loc[2000, RIGHT_SIGNS] > wide.loc[2000, GUIDED]
    # Standard error of each of two shares: 1 / (2 sqrt(2000)).
    assert wide["ml-aware"].iloc[0] > wide.drop(columns="ml-aware").to_numpy().max() - 0.05


def test_areas_under_the_curve_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    first = generator.random(101) < 0.4
    # Rounded, so that there are ties.
    margins = (generator.normal(size=(4, 101)) + first).round(1)
    expected = [metrics.roc_auc_score(first, row) for row in margins]
    assert areas_under_roc(margins, first) == pytest.approx(expected)
    assert np.isnan(areas_under_roc(margins, np.ones(101, dtype=bool))).all()


def test_estimates_and_variances_are_told_neuron_by_neuron(measured):
    estimates = measured["estimates"]
    assert estimates.groupby("trials")["neuron"].nunique().tolist() == [12, 12]
    late = estimates[estimates["trials"] == 2000]
    assert late["correlation"].iloc[0] > estimates["correlation"].iloc[0]
    variances = measured["variances"]
    # Variance of a ratio over n repeats: (2 + excess kurtosis) / n, of products of ten trials at
    # most about 10; neurons share the modulator, and are not counted as independent.
    assert abs(variances["ratio"].iloc[0] - 1) < 5 * np.sqrt(10 / 1000)
    # Of a single neuron, a factor of two either way.
    assert (variances["theory"] / variances["variance"]).between(0.5, 2).all()
    assert (variances["theory"] > 0).all()


def test_a_cell_does_not_depend_on_the_others():
    again = measure_population(TINY, dict(CELL))
    for name, table in measure_population(TINY, CELL).items():
        if isinstance(table, pd.DataFrame):
            assert table.equals(again[name])
        else:
            assert table == again[name]
    other = measure_population(TINY, {**CELL, "seed": 1})
    assert other["signs_wrong"] != again["signs_wrong"] or not other["estimates"].equals(
        again["estimates"]
    )


def test_interrupted_study_goes_on_to_the_same_records(tmp_path):
    whole, parted = plain(), plain()
    whole.run(tmp_path / "whole", executor="inline", progress=False)
    work = parted.work.function
    calls = []

    def interrupted(cell):
        calls.append(cell)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return work(cell)

    parted.work.function = interrupted
    with pytest.raises(KeyboardInterrupt):
        parted.run(tmp_path / "parted", executor="inline", progress=False)
    assert len(parted.load(tmp_path / "parted")["cells"]) == 2
    plain().run(tmp_path / "parted", executor="inline", progress=False)
    assert len(calls) == 3
    one, two = (whole.load(tmp_path / name) for name in ("whole", "parted"))
    for name in ("decoders", "estimates", "variances", "comparisons"):
        assert one[name].equals(two[name])


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    plain("seeds=1").run(tmp_path / "x", executor="inline", progress=False)
    settings = json.loads((tmp_path / "x" / "settings.json").read_text())
    assert settings["coupling_noise"] == 0.1
    with pytest.raises(ValueError, match="coupling_noise"):
        plain("seeds=1", "coupling_noise=0.2").run(
            tmp_path / "x", executor="inline", progress=False
        )


def rows(lows, claims):
    return pd.DataFrame({"trials": [10, 30, 100], "difference_low": lows, "claim": claims})


@pytest.mark.parametrize(
    ("lows", "claims", "text"),
    [
        ([0.1, 0.1, 0.1], [True] * 3, "from T = 10 on"),
        ([-0.1, 0.1, 0.1], [False, True, True], "from T = 30 on"),
        ([0.1, -0.1, 0.1], [True, False, True], "from T = 100 on"),
        ([0.1, 0.1, -0.1], [True, True, False], "not shown at the most trials; no claim"),
        ([-0.2, -0.2, -0.2], [True] * 3, "not shown at the most trials; no claim"),
    ],
)
def test_findings_say_from_where_on_a_difference_stays(lows, claims, text):
    assert _since(rows(lows, claims)) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neurons": ()}, "neurons must be given, each once"),
        ({"trials": (10, 10)}, "trials must be given, each once"),
        ({"trials": (0,)}, "trials must be at least 1"),
        ({"neurons": (5,)}, "informative must be at most neurons: got 10 of 5"),
        ({"sigmas": (0.0,)}, "sigma must be positive"),
        ({"labelled": 1}, "labelled must be at least 2"),
        ({"variance_repeats": 1}, "variance_repeats must be at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EncodingSettings(**changes)
