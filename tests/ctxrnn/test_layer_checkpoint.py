"""Saving and loading of modulated layers."""

import pytest
import torch
from torch import nn

from ctxrnn import (
    CTRNN,
    Chain,
    CheckpointError,
    ContextEncoder,
    Drive,
    Gain,
    Hadamard,
    ModulatedRNN,
    load,
    load_layer,
    load_notes,
    save,
    variant_ids,
)

U = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))


class Shifted(ContextEncoder):
    """An encoder of the user's own."""

    def drive(self, inputs):
        return super().drive(inputs) + 1.0


class Half(Drive):
    """A pathway of the user's own."""


def answer(layer):
    return layer(U.to(next(layer.parameters()).dtype))[0].detach()


def moved(layer):
    """Give parameters values that no seed would draw."""
    with torch.no_grad():
        for value in layer.parameters():
            value.add_(0.01 * torch.arange(value.numel()).reshape(value.shape).to(value))
    return layer


@pytest.mark.parametrize("variant", variant_ids())
def test_every_variant_comes_back_bit_for_bit(variant, tmp_path):
    layer = moved(ModulatedRNN(4, 6, modulation=variant, contexts=3, seed=1))
    save(layer, tmp_path / "x", notes={"epochs": 2})
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    again = load_layer(tmp_path / "x")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.variant == variant
    assert torch.equal(answer(again), answer(layer))
    assert load_notes(tmp_path / "x") == {"epochs": 2}


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "dropout": 0.5, "nonlinearity": "relu", "dtype": torch.float64},
        {"bias": False, "batch_first": True, "squash": "tanh", "encoder_hidden": 5},
        {"state_term": True, "alpha": 0.5, "interpolation": "factor-linear"},
        {"tau_e": 4.0, "tau_s": 9.0, "interpolation": "outer-linear", "sd": 0.3},
    ],
)
def test_every_option_comes_back(options, tmp_path):
    layer = moved(ModulatedRNN(4, 6, modulation="es-gain-sym", contexts=3, seed=2, **options))
    save(layer.eval(), tmp_path / "x")
    again = load_layer(tmp_path / "x").eval()
    assert again.config == layer.config
    assert str(again) == str(layer)
    assert torch.equal(answer(again), answer(layer))
    # It can be trained further, and saved once more.
    answer_again = again(U.to(layer.layers[0].input_weight.dtype))[0].sum()
    answer_again.backward()
    save(again, tmp_path / "y")
    assert load_layer(tmp_path / "y").config == layer.config


def test_modules_of_the_users_own_come_back(tmp_path):
    chain = Chain(Gain(6, 3, seed=1), Hadamard(6, 3, seed=1))
    encoder = ContextEncoder(4, 3, squash="sigmoid", hidden=2, units=6, seed=4)
    layer = moved(ModulatedRNN(4, 6, modulation=chain, contexts=3, encoder=encoder, seed=1))
    save(layer, tmp_path / "x")
    assert torch.equal(answer(load_layer(tmp_path / "x")), answer(layer))

    own = moved(ModulatedRNN(4, 6, modulation=Half(6, 3, seed=1), contexts=3,
                             encoder=Shifted(4, 3, seed=2), seed=1))  # fmt: skip
    save(own, tmp_path / "y")
    with pytest.raises(CheckpointError, match=r"pathway 'Half'.* pass pathways=\{'Half': Half\}"):
        load_layer(tmp_path / "y")
    with pytest.raises(CheckpointError, match=r"encoder 'Shifted'.* pass encoder=Shifted"):
        load_layer(tmp_path / "y", pathways={"Half": Half})
    again = load_layer(tmp_path / "y", pathways={"Half": Half}, encoder=Shifted)
    assert isinstance(again.layers[0].encoder, Shifted)
    assert torch.equal(answer(again), answer(own))


def test_a_layer_taken_from_torch_comes_back(tmp_path):
    layer = ModulatedRNN.from_rnn(nn.RNN(4, 6, num_layers=2), "e-gain", contexts=3, sd=0.2)
    save(layer, tmp_path / "x")
    assert torch.equal(answer(load_layer(tmp_path / "x")), answer(layer))


def test_other_files_are_refused(tmp_path):
    save(CTRNN(2, 5, 2, "es-add-sym", contexts=3), tmp_path / "network")
    save(ModulatedRNN(4, 6, contexts=3), tmp_path / "layer")
    with pytest.raises(CheckpointError, match=r"holds a network, not a layer: use ctxrnn\.load$"):
        load_layer(tmp_path / "network")
    with pytest.raises(CheckpointError, match=r"holds a layer, not a network: use .*load_layer$"):
        load(tmp_path / "layer")
    model = nn.Sequential(nn.RNN(4, 6))
    with pytest.raises(TypeError, match=r"must be a CTRNN or a ModulatedRNN: got Sequential\."):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    whole = (tmp_path / "layer").read_bytes()
    (tmp_path / "layer").write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match="truncated"):
        load_layer(tmp_path / "layer")


def test_another_encoder_than_the_files_is_refused(tmp_path):
    encoder = ContextEncoder(4, 3, seed=4)
    save(ModulatedRNN(4, 6, modulation="e-gain", contexts=3, encoder=encoder), tmp_path / "plain")
    save(ModulatedRNN(4, 6, modulation="e-gain", contexts=3), tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"holds the encoder 'ContextEncoder': do not pass"):
        load_layer(tmp_path / "plain", encoder=Shifted)
    with pytest.raises(CheckpointError, match="holds no encoder of its own: do not pass"):
        load_layer(tmp_path / "none", encoder=Shifted)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load_layer(tmp_path / "plain")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    for made in (ModulatedRNN(4, 6, contexts=3), CTRNN(2, 5, 2)):
        with pytest.raises(ValueError, match="parameters must be float32 or float64"):
            save(made.to(torch.bfloat16), tmp_path / "x")
    assert not (tmp_path / "x").exists()
