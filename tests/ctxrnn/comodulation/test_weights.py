"""Weights of ResNet-18 from files that are missing, damaged or another network's."""

import pickle

import pytest
import torch

from ctxrnn import CheckpointError
from ctxrnn.comodulation import EncoderConfig, make_encoder

models = pytest.importorskip("torchvision.models")
safetensors = pytest.importorskip("safetensors.torch")

NAME = str(models.ResNet18_Weights.IMAGENET1K_V1.url).rpartition("/")[2]


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return models.resnet18(weights=None).state_dict()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The cache of torchvision, and a file of the user's own: path, name in the configuration."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / NAME
    cached.parent.mkdir(parents=True)
    own = tmp_path / "own.safetensors"
    return {"imagenet": (cached, "imagenet"), "own": (own, str(own))}


def written(state, path):
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.save_file({k: v for k, v in state.items() if torch.is_tensor(v)}, path)


@pytest.mark.parametrize("where", ["imagenet", "own"])
def test_weights_are_loaded(where, state, places):
    path, weights = places[where]
    written(state, path)
    found = make_encoder(EncoderConfig(weights=weights), seed=3)
    assert found.stem[0].weight.equal(state["conv1.weight"])
    last = found.layers["layer4"][1].bn2.running_var
    assert last.equal(state["layer4.1.bn2.running_var"])
    # Older files have no counts of batches.
    written({k: v for k, v in state.items() if "num_batches" not in k}, path)
    make_encoder(EncoderConfig(weights=weights))


def test_missing_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"resnet18-\w+.pth is missing"):
        make_encoder(EncoderConfig(weights="imagenet"))
    with pytest.raises(FileNotFoundError, match="no weights at nowhere"):
        make_encoder(EncoderConfig(weights="nowhere"))


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def truncated(state, path):
    written(state, path)
    path.write_bytes(path.read_bytes()[:20000])


DAMAGE = {
    "garbage": lambda _, path: path.write_bytes(b"garbage, " * 100),
    "empty": lambda _, path: path.write_bytes(b""),
    "truncated": truncated,
    "code": lambda _, path: path.write_bytes(pickle.dumps({"conv1.weight": Evil()})),
    "list": lambda _, path: torch.save([1, 2], path),
}


def refused(places, where, message):
    path, weights = places[where]
    with pytest.raises(CheckpointError, match=message) as told:
        make_encoder(EncoderConfig(weights=weights))
    text = str(told.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    remedy = "let torchvision download it again" if where == "imagenet" else "save_file"
    assert remedy in text


@pytest.mark.parametrize("where", ["imagenet", "own"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_told_in_a_line(where, damage, state, places):
    DAMAGE[damage](state, places[where][0])
    refused(places, where, "is damaged, or not a")


@pytest.mark.parametrize("where", ["imagenet", "own"])
@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("layer1.0.conv1.weight is missing", {"layer1.0.conv1.weight": None}),
        (r"fc.bias has shape \(10,\), not \(1000,\)", {"fc.bias": torch.zeros(10)}),
        ("extra is not of this network", {"extra": torch.zeros(1)}),
        ("bn1.weight holds NaN", {"bn1.weight": torch.full((64,), torch.nan)}),
    ],
)
def test_weights_of_another_network_are_told_in_a_line(where, message, changes, state, places):
    changed = {k: v for k, v in {**state, **changes}.items() if v is not None}
    written(changed, places[where][0])
    refused(places, where, message)
