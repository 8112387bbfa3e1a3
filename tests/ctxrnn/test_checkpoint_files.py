"""Checkpoint files byte by byte, and what goes wrong while they are written."""

import errno
import os

import pytest
import torch

from ctxrnn import CTRNN, Chain, CheckpointError, Hadamard, Masks, load, load_notes, save
from ctxrnn import _checkpoint as module


def network(**options):
    return CTRNN(1, 3, 1, "e-add", contexts=2, seed=0, **options)


def same(first, second):
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_files_load_whatever_the_length_of_their_header(tmp_path):
    net, path, starts = network(), tmp_path / "x", set()
    for length in range(0, 256, 8):
        save(net, path, notes={"padding": "x" * length})
        assert len(load_notes(path)["padding"]) == length
        with open(path, "rb") as stream:
            starts.add(stream.read(1))
    # The first byte is the low byte of the header's length, a multiple of 8.
    assert len(starts) == 32
    assert b"\x80" in starts


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "x"
    save(network(), path)
    data = path.read_bytes()
    for length in range(0, len(data), 41):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="restore it from a copy") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_of_any_byte_is_refused_in_one_line(tmp_path):
    path = tmp_path / "x"
    save(network(), path)
    data = bytearray(path.read_bytes())
    for place in range(len(data)):
        flipped = 1 << (place % 8)
        data[place] ^= flipped
        path.write_bytes(data)
        data[place] ^= flipped
        with pytest.raises(CheckpointError) as caught:
            module.read_tensors(path, "network")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_added_bytes_are_refused(tmp_path):
    path = tmp_path / "x"
    save(network(), path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError):
        load(path)


def test_loading_leaves_the_global_random_numbers_alone(tmp_path):
    chain = Chain(Hadamard(3, 2, seed=0), Masks(3, 2, seed=1))
    for net in (network(), CTRNN(1, 3, 1, Chain(*reversed(list(chain))), seed=0)):
        save(net, tmp_path / "x")
        before = torch.random.get_rng_state()
        again = load(tmp_path / "x")
        assert torch.equal(torch.random.get_rng_state(), before)
        assert same(again, net)


def test_masks_of_a_pathway_given_as_a_module_come_back(tmp_path):
    net = CTRNN(1, 6, 1, Masks(6, 2), seed=0)
    save(net, tmp_path / "x")
    assert torch.equal(load(tmp_path / "x").modulation.pathways[0].M, net.modulation.pathways[0].M)


def test_a_loaded_network_trains_on(tmp_path):
    net = network(excitatory=0.7, self_connections=False)
    save(net, tmp_path / "x")
    again = load(tmp_path / "x")
    for one in (net, again):
        one(torch.ones(2, 4, 1), torch.eye(2), generator=1).outputs.sum().backward()
    for one, other in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


class Failing:
    """A file that fails as a full disk does, after some of it was written."""

    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def write(self, data):
        self.stream.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["fdopen", "fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(where, tmp_path, monkeypatch):
    net, path = network(), tmp_path / "x"
    save(net, path)
    before = path.read_bytes()
    opened = os.fdopen

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failing = (lambda *given: Failing(opened(*given))) if where == "fdopen" else fail
    monkeypatch.setattr(module.os, where, failing)
    with pytest.raises(
        OSError, match=r"cannot write .*x: No space left on device\. Free"
    ) as caught:
        save(net, path, notes={"new": True})
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_ctrl_c_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x"
    save(network(), path)
    before = path.read_bytes()

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(network(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file/x: Not a directory"):
        save(network(), tmp_path / "file" / "x")


def test_a_new_file_has_the_usual_permissions(tmp_path):
    mask = os.umask(0o027)
    try:
        save(network(), tmp_path / "x")
    finally:
        os.umask(mask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
