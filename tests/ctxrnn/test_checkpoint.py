import errno
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

import ctxrnn
from ctxrnn import (
    CTRNN,
    AbstractModulation,
    CheckpointError,
    Drive,
    load,
    load_notes,
    save,
    variant_ids,
)
from ctxrnn import _checkpoint as module

U = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0))
C = torch.eye(3)


def answer(network):
    u, c = U.to(network.dtype), C.to(network.dtype)
    return network(u, c, generator=5).outputs.detach()


@pytest.fixture
def saved(tmp_path):
    network = CTRNN(2, 5, 2, "es", contexts=3, seed=1)
    path = tmp_path / "network.safetensors"
    save(network, path, notes={"tasks": ["go"], "level": 0.5})
    return network, path


@pytest.mark.parametrize("variant", variant_ids())
def test_every_variant_comes_back_bit_for_bit(variant, tmp_path):
    network = CTRNN(2, 5, 2, variant, contexts=3, seed=1)
    save(network, tmp_path / "x")
    again = load(tmp_path / "x")
    assert again.variant == variant
    assert torch.equal(answer(again), answer(network))


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.float64, "tau": [50.0, 60.0, 70.0, 80.0, 90.0]},
        {"excitatory": 0.6, "density": 0.5, "self_connections": False},
        {"learn_tau": True, "learn_x0": True, "nonlinearity": "softplus", "form": "rate"},
        {"tau_e": 40.0, "tau_s": 100.0, "readout": "potentials", "noise_scaling": "euler-maruyama"},
    ],
)
def test_every_option_comes_back(options, tmp_path):
    network = CTRNN(2, 5, 2, "s-asym-2", contexts=3, interpolation="factor-linear", **options)
    save(network, tmp_path / "x")
    again = load(tmp_path / "x")
    assert again.config == network.config
    assert torch.equal(answer(again), answer(network))


def test_notes_come_back(saved):
    assert load_notes(saved[1]) == {"tasks": ["go"], "level": 0.5}


class Shift(AbstractModulation):
    pathway = "excitability"

    def modulate(self, circuit, context):
        return circuit

    def config(self):
        return {"units": self.units, "contexts": self.contexts}


def test_own_pathways_and_nonlinearities_are_asked_for(tmp_path):
    network = CTRNN(2, 5, 2, Shift(5, 3), nonlinearity=torch.sin, seed=0)
    save(network, tmp_path / "x")
    with pytest.raises(CheckpointError, match=r"pathways=\{'Shift': Shift\}"):
        load(tmp_path / "x")
    with pytest.raises(CheckpointError, match="pass nonlinearity="):
        load(tmp_path / "x", pathways={"Shift": Shift})
    again = load(tmp_path / "x", pathways={"Shift": Shift}, nonlinearity=torch.sin)
    assert torch.equal(answer(again), answer(network))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_truncated_files_are_refused(saved, share):
    _, path = saved
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="truncated, damaged, or not a checkpoint"):
        load(path)


def test_any_flipped_bit_is_noticed(saved):
    _, path = saved
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(CheckpointError):
            load(path)


def test_pickles_are_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"weight": torch.zeros(2)}, tmp_path / "torch.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb()))
    for name in ("torch.pt", "plain.pkl"):
        with pytest.raises(CheckpointError, match="is a pickle or zip"):
            load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def rewrite(path, change):
    tensors, header = module.read_tensors(path, "network")
    header.update(change)
    header["digest"] = module._digest(tensors, header)
    save_file(tensors, path, metadata={"ctxrnn": json.dumps(header)})


def test_newer_and_foreign_files_are_refused(saved, tmp_path):
    _, path = saved
    rewrite(path, {"format": 99})
    with pytest.raises(CheckpointError, match=r"format 99, written by ctxrnn .* upgrade ctxrnn"):
        load(path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="was not written by ctxrnn"):
        load(tmp_path / "foreign")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load(tmp_path)


def test_other_kinds_are_refused(saved):
    _, path = saved
    with pytest.raises(CheckpointError, match="holds a network, not a training run"):
        module.read_tensors(path, "training run")


def test_a_full_disk_keeps_the_old_file(saved, monkeypatch):
    network, path = saved
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*No space left on device\. Free some space"):
        save(network, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_missing_folder_is_named(tmp_path):
    network = CTRNN(2, 3, 1, seed=0)
    with pytest.raises(OSError, match=r"cannot write .*nowhere"):
        save(network, tmp_path / "nowhere" / "x")


def test_files_tell_versions_and_settings_to_any_reader(saved):
    from safetensors import safe_open

    with safe_open(saved[1], framework="np") as file:
        header = json.loads(file.metadata()["ctxrnn"])
    assert header["versions"]["torch"] == torch.__version__
    assert header["network"]["seed"] == 1
    assert [p["kind"] for p in header["pathways"]] == ["Drive", "Hadamard"]


def test_public_error_is_a_value_error():
    assert issubclass(ctxrnn.CheckpointError, ValueError)


@pytest.mark.parametrize("tau", [33.3, [33.3, 40.1, 50.0, 60.0, 70.7]])
def test_time_constants_come_back_to_the_last_bit(tau, tmp_path):
    network = CTRNN(2, 5, 2, tau=tau, dt=33.3, seed=1, dtype=torch.float64)
    network.noise = 0.25
    save(network, tmp_path / "x")
    again = load(tmp_path / "x")
    assert torch.equal(again.tau, network.tau)
    assert again.noise == 0.25
    assert torch.equal(answer(again), answer(network))


def test_a_config_that_would_load_another_network_is_refused(tmp_path):
    class Forgetful(Drive):
        def __init__(self, units, contexts, *, strength=1.0, seed=0):
            super().__init__(units, contexts, seed=seed)
            self.strength = strength

        def config(self):
            return {"units": self.units, "contexts": self.contexts}

    network = CTRNN(2, 5, 2, Forgetful(5, 3, strength=5.0), contexts=3)
    with pytest.raises(ValueError, match=r"config\(\) of Forgetful .*: 'strength' is missing"):
        save(network, tmp_path / "x")
    assert not (tmp_path / "x").exists()
