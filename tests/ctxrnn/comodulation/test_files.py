"""Networks in files, and features kept on disk."""

import numpy as np
import pytest
import torch

from ctxrnn import CheckpointError
from ctxrnn.comodulation import (
    ComodulatedNetwork,
    EncoderConfig,
    Head,
    NetworkConfig,
    cached_features,
    load_network,
    make_encoder,
    save_network,
)


class Source:
    def __init__(self, count=30, seed=0):
        self.images = torch.randint(
            256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
        )
        self.reads = 0

    def read(self, rows):
        self.reads += len(rows)
        return self.images[torch.as_tensor(rows)]


def encoder(seed=0, layer=None):
    return make_encoder(EncoderConfig("small", layer), seed=seed).eval()


@pytest.mark.parametrize("layer", ["layer1", None])
def test_features_are_made_once_and_mapped(tmp_path, layer):
    source, net = Source(), encoder(layer=layer)
    shares = []
    found = cached_features(net, source, 30, tmp_path, "a", batch=7, report=shares.append)
    assert isinstance(found, np.memmap)
    assert shares[-1] == 1
    with torch.no_grad():
        exact = net.below(source.images).numpy()
    # Half precision keeps 11 bits; batches of 7 round otherwise in the last place of float32.
    assert np.abs(found - exact).max() <= 2.0**-11 * np.abs(exact).max() * 1.01
    reads = source.reads
    again = cached_features(net, source, 30, tmp_path, "a", batch=7)
    assert source.reads == reads + 1
    assert (again == found).all()
    assert len(list(tmp_path.iterdir())) == 1


def test_other_weights_data_or_precision_get_a_file_of_their_own(tmp_path):
    source = Source()
    cached_features(encoder(), source, 30, tmp_path, "a")
    cached_features(encoder(1), source, 30, tmp_path, "a")
    cached_features(encoder(), source, 30, tmp_path, "b")
    exact = cached_features(encoder(), source, 30, tmp_path, "a", dtype="float32")
    assert exact.dtype == np.float32
    assert len(list(tmp_path.iterdir())) == 4
    # Weights above the cut do not matter.
    low = encoder(layer="layer1")
    cached_features(low, source, 30, tmp_path, "a")
    with torch.no_grad():
        for parameter in low.layers["layer3"].parameters():
            parameter.add_(1.0)
    cached_features(low, source, 30, tmp_path, "a")
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_made_again(tmp_path, damage, caplog):
    source = Source()
    first = np.array(cached_features(encoder(), source, 30, tmp_path, "a"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    again = cached_features(encoder(), source, 30, tmp_path, "a")
    assert (again == first).all()
    assert "is damaged" in caplog.text


def test_an_interrupted_file_leaves_nothing(tmp_path):
    class Failing(Source):
        def read(self, rows):
            if rows[-1] > 20:
                raise KeyboardInterrupt
            return super().read(rows)

    with pytest.raises(KeyboardInterrupt):
        cached_features(encoder(), Failing(), 30, tmp_path, "a", batch=7)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "head", [Head.attributes(4, ((0, 1), (2, 3))), Head.classes(5, ((0, 1), (2, 3, 4)))]
)
def test_a_network_comes_back_as_it_was(tmp_path, head):
    config = NetworkConfig(
        EncoderConfig("small", "layer2", skips=False, skip_scope="all", normalised=True),
        (7, 5),
        head,
    )
    network = ComodulatedNetwork(config, seed=4).eval()
    path = tmp_path / "network.safetensors"
    save_network(network, path, notes={"epoch": 3})
    found, notes = load_network(path)
    assert notes == {"epoch": 3}
    assert found.config == config
    context = torch.tensor([0, 1]) if head.per_image else None
    images = Source(2).images
    with torch.no_grad():
        z = (m(m.encoder.below(images), None, context) for m in (network, found))
        assert next(z).equal(next(z))


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_network(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="never opened here"):
        load_network(path)
    from ctxrnn import CTRNN, save

    save(CTRNN(1, 2, 1), path)
    with pytest.raises(CheckpointError, match="holds a network, not a comodulated network"):
        load_network(path)
