"""Studies of comodulation: first stages, read-outs, rates, claims, resumed; missing data."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from ctxrnn.analysis import attribute_scores, calibration_error, class_accuracy
from ctxrnn.comodulation import EncoderConfig, PretrainConfig, TuningConfig, load_network, predict
from ctxrnn.studies import study
from ctxrnn.studies._comodulation import comodulation
from ctxrnn.studies._comodulation_cost import cell_seconds
from ctxrnn.studies._comodulation_measures import measure, probabilities, score_of
from ctxrnn.studies._comodulation_settings import ComodulationSettings, Rates, cells_of
from ctxrnn.studies._comodulation_tables import (
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
    expected = reached.iloc[0] if len(reached) else np.nan
    assert row["epochs_to_95"] == pytest.approx(expected, nan_ok=True)
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
    draw = np.random.default_rng(0)
    rows = []
    for seed in range(10):
        base = draw.normal(scale=0.001)
        for arm in ("none", "attention", "comod", "shuffled-label", "permuted-gain"):
            row = {
                "seed": seed, "layer": "layer3", "skips": True, "decoder": "16-12", "length": 1,
                "version": "attributes", "head_epochs": 0, "condition": arm, "joint": False,
                "arm": arm, "data_name": "digits", "stand_in_for": "", "train_images": 5,
                "weights": "random",
            }  # fmt: skip
            for measured in (
                "f1", "precision", "recall", "accuracy", "balanced_accuracy", "f1_tuned",
                "mean_average_precision", "ece", "ece_scaled", "ece_positive", "nll", "brier",
                "noise_ratio", "noise_label", "change", "cka", "epochs_to_95", "early_area",
            ):  # fmt: skip
                shift = differences.get(arm.replace("-", "_"), {}).get(measured, 0.0)
                row[measured] = 0.5 + base + shift + draw.normal(scale=0.002)
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("differences", "verdicts"),
    [
        (
            {"comod": {"f1": 0.05, "recall": 0.2, "precision": -0.1, "change": 0.3},
             "none": {"f1": -0.05}},
            {"O1": "holds", "O1*": "not shown", "O2": "holds", "O4": "not shown", "O5": "holds",
             "D9": "holds"},
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
    bare = judged(settings, comparisons[comparisons["b"] != "shuffled-label"], cells)
    assert bare.set_index("claim")["verdict"]["D9"] == "not tested"


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
    flipped = cells.assign(skips=~cells["skips"])
    again = judged(settings, compared(settings, flipped), flipped)
    assert again.query("claim == 'O7'")["verdict"].tolist() == ["opposite"]


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


def test_measures_of_a_tuned_network_by_hand():
    from ctxrnn.comodulation import (
        ComodulatedNetwork,
        Examples,
        Head,
        NetworkConfig,
        condition,
        tune,
    )

    source = torch.Generator().manual_seed(0)
    network = ComodulatedNetwork(
        NetworkConfig(EncoderConfig("small"), (6,), Head.attributes(3)), seed=1
    ).eval()
    h = torch.rand(60, 64, 1, 1, generator=source)
    data = Examples(h, torch.randint(2, (60, 3), generator=source))
    tuned = tune(
        network, condition("comod"), data, data, data, score=score_of(False),
        config=TuningConfig(epochs=1, batch=30),
    )  # fmt: skip
    meaning = {"contexts": list("abc"), "outputs": list("abc"), "group": None, "group_names": None}
    found = measure(network, tuned, dict.fromkeys(("train", "validation", "test"), data),
                    TINY, meaning, 0)  # fmt: skip
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
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: fashion-mnist: missing train-images-idx3-ubyte.gz")
    assert str(tmp_path / "12") in told
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
