"""MNIST in full: small files in the IDX format, where they lie, what is refused, and sequences."""

import gzip
import sys

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from ctxrnn.tasks import image_set, list_image_sets, sequence_set

TRAIN, TEST = 60, 20
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array):
    """Write the format out: magic number, sizes, bytes."""
    header = [0x800 + array.ndim, *array.shape]
    return b"".join(number.to_bytes(4, "big") for number in header) + array.tobytes()


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"{part}-{what}-ubyte": array
        for part, count in (("train", TRAIN), ("t10k", TEST))
        for what, array in (
            ("images-idx3", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", rng.permutation(np.arange(count) % 10).astype(np.uint8)),
        )
    }


def write(folder, files, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
        else:
            (folder / name).write_bytes(idx(array))


def read(data, name="mnist-full", **options):
    return image_set(name, data, checksums=False, **({"validation": 20} | options))


def joined(files, what):
    return np.concatenate([files[f"{part}-{what}-ubyte"] for part in ("train", "t10k")])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", [".", "MNIST/raw", "mnist-full"])
def test_every_value_comes_back(tmp_path, packed, place):
    files = arrays()
    write(tmp_path / place, files, packed)
    images = read(tmp_path)
    np.testing.assert_array_equal(
        images.read(range(TRAIN + TEST))[:, 0], joined(files, "images-idx3")
    )
    np.testing.assert_array_equal(images.labels, joined(files, "labels-idx1"))
    assert images.rows("test").tolist() == list(range(TRAIN, TRAIN + TEST))
    held = images.rows("validation")
    assert np.bincount(images.labels[held]).tolist() == [2] * 10
    assert sorted([*images.rows("train"), *held]) == list(range(TRAIN))
    assert set(held) != set(read(tmp_path, seed=1).rows("validation"))


def test_values_are_those_of_torchvision(tmp_path):
    write(tmp_path / "MNIST" / "raw", arrays(), packed=False)
    images = read(tmp_path)
    for train, rows in ((True, range(TRAIN)), (False, range(TRAIN, TRAIN + TEST))):
        reader = MNIST(tmp_path, train=train, download=False)
        assert torch.equal(images.read(rows)[:, 0], reader.data)
        np.testing.assert_array_equal(images.labels[rows], reader.targets)


def test_classes_and_groups_are_those_of_the_digits(tmp_path):
    write(tmp_path, arrays())
    images, digits = read(tmp_path), image_set("digits", kind="classes")
    assert images.label_names == digits.label_names == tuple("0123456789")
    assert dict(images.groups) == dict(digits.groups)
    assert list(images.groups) == ["loops", "straight", "curves"]
    np.testing.assert_array_equal(images.coarse == 1, np.isin(images.labels, [1, 4, 7]))


def test_it_lies_beside_fashion_mnist_whose_files_have_the_same_names(tmp_path):
    clothes, digits = arrays(1), arrays(2)
    for place in ("MNIST/raw", "mnist-full"):
        data = tmp_path / place.replace("/", "-")
        write(data, clothes)
        write(data / place, digits)
        for name, files in (("fashion-mnist", clothes), ("mnist-full", digits)):
            images = read(data, name).read(range(TRAIN + TEST))
            np.testing.assert_array_equal(images[:, 0], joined(files, "images-idx3"))
    (data / place / f"{LABELS}.gz").unlink()
    # The files of one folder only: never some of each.
    np.testing.assert_array_equal(read(data).labels, joined(clothes, "labels-idx1"))


def test_other_images_in_the_same_format_are_no_mnist(tmp_path):
    write(tmp_path, arrays())
    message = (
        r"^mnist-full: .*train-images-idx3-ubyte.gz is damaged or another file: .*MD5 sum "
        "6bbc9ace.*again"
    )
    with pytest.raises(ValueError, match=message):
        image_set("mnist-full", tmp_path)
    images = read(tmp_path)
    assert (images.stand_in_for, images.title) == ("MNIST", "mnist-full (stand-in for MNIST)")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (IMAGES, lambda a: idx(a[:, 0]), r"magic number 2051 .* got 2050; get it again"),
        (LABELS, lambda a: idx(a[:, None]), r"magic number 2049 .* got 2050; get it again"),
        (IMAGES, lambda a: idx(a)[:-1], r"must hold 60 x 28 x 28 bytes.* got 47039; get it again"),
        (LABELS, lambda a: idx(a[1:]), r"as many labels as images: got 59 and 60; get them again"),
        (LABELS, lambda a: idx(a + 1), r"must hold labels in 0..9: got 10; get it again"),
        (IMAGES, lambda a: idx(a[:, 1:]), r"of one size in .*: got \(27, 28\) and \(28, 28\)"),
    ],
)
def test_wrong_contents_are_refused_by_name(tmp_path, file, content, message):
    files = arrays()
    write(tmp_path, files)
    (tmp_path / f"{file}.gz").write_bytes(gzip.compress(content(files[file]), 1))
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith("mnist-full: ")
    assert str(tmp_path) in str(caught.value)


def test_damaged_gzip_files_are_named(tmp_path):
    write(tmp_path, arrays())
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-40])
    message = rf"^mnist-full: {path} is damaged: it cannot be unpacked \(.*get it"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_missing_files_are_listed_with_the_remedy(tmp_path):
    folder = tmp_path / "mnist-full"
    write(folder, arrays())
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    message = (
        rf"^mnist-full: missing t10k-labels-idx1-ubyte.gz \(1 of 4 files\) in {folder}; "
        "pass the folder of the four files as data=, or data=DIR, download=True$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train-labels.* in .*nowhere.*\(no such folder\)"):
        read(tmp_path / "nowhere")


def test_the_list_says_whether_it_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("CTXRNN_DATA", str(tmp_path))
    missing = list_image_sets().set_index("name").loc["mnist-full"]
    assert not missing.here
    assert f"mnist-full: missing {IMAGES}.gz" in missing.missing
    assert missing.meaning.startswith("70,000 digits of MNIST")
    write(tmp_path / "MNIST" / "raw", arrays())
    assert list_image_sets().set_index("name").here["mnist-full"]
    assert len(read(None)) == TRAIN + TEST


def test_download_only_when_asked(tmp_path, monkeypatch):
    calls = []

    def download(reader):
        calls.append(str(reader.root))
        write(tmp_path / "MNIST" / "raw", arrays(), packed=False)

    monkeypatch.setattr(MNIST, "download", download)
    with pytest.raises(FileNotFoundError, match="download=True"):
        read(tmp_path)
    assert calls == []
    assert len(read(tmp_path, download=True)) == TRAIN + TEST
    read(tmp_path, download=True)
    assert calls == [str(tmp_path)], "what is here is not downloaded again"


def test_no_library_is_needed_but_to_download(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    write(tmp_path, arrays())
    assert len(read(tmp_path)) == TRAIN + TEST
    with pytest.raises(ImportError, match="mnist-full needs torchvision"):
        read(tmp_path / "nowhere", download=True)


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def download(reader):
        raise RuntimeError("Error downloading\n  train-images")

    monkeypatch.setattr(MNIST, "download", download)
    message = (
        r"^mnist-full: the download failed \(Error downloading train-images\); pass the folder"
    )
    with pytest.raises(OSError, match=message):
        read(tmp_path, download=True)


@pytest.mark.parametrize(
    ("reading", "steps", "features"), [("rows", 28, 28), ("columns", 28, 28), ("pixels", 784, 1)]
)
@pytest.mark.parametrize("permutation", [None, 3])
def test_they_are_read_as_sequences(tmp_path, reading, steps, features, permutation):
    files = arrays()
    write(tmp_path / "MNIST" / "raw", files)
    sequences = sequence_set(
        "mnist-full", tmp_path, reading=reading, permutation=permutation, validation=20,
        checksums=False,
    )  # fmt: skip
    assert (sequences.steps, sequences.features) == (steps, features)
    pixels = joined(files, "images-idx3")[[0, 70]].reshape(2, 784).astype(np.float32) / 255
    if permutation is not None:
        assert (sequences.order != np.arange(784)).any()
        pixels = pixels[:, sequences.order]
    grid = pixels.reshape(2, 28, 28)
    expected = {"rows": grid, "columns": grid.swapaxes(1, 2), "pixels": pixels[:, :, None]}
    np.testing.assert_array_equal(sequences.read([0, 70]), expected[reading])
    assert sequences.classes == tuple("0123456789")
    assert [len(rows) for rows in sequences.splits.values()] == [40, 20, 20]
    how = reading if permutation is None else f"permuted {reading}"
    assert sequences.title == f"mnist-full (stand-in for MNIST), {how}"
