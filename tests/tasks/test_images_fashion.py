"""Fashion-MNIST: the IDX format in small files, and the real images where they are installed."""

import gzip
import sys

import numpy as np
import pytest
import torch
from ctxrnn.tasks.images._fashion import DEBIAN
from torchvision.datasets import FashionMNIST

from ctxrnn.tasks import image_set

needs_data = pytest.mark.skipif(
    not (DEBIAN / "train-images-idx3-ubyte.gz").is_file(),
    reason="Debian package dataset-fashion-mnist is not installed",
)
TRAIN, TEST = 200, 50


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


def read(data, **options):
    return image_set("fashion-mnist", data, checksums=False, **({"validation": 40} | options))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw", "fashion-mnist"])
def test_every_value_comes_back(tmp_path, packed, place):
    files = arrays()
    write(tmp_path / place, files, packed)
    images = read(tmp_path)
    both = [np.concatenate([files[f"{part}-{what}-ubyte"] for part in ("train", "t10k")])
            for what in ("images-idx3", "labels-idx1")]  # fmt: skip
    np.testing.assert_array_equal(images.read(range(TRAIN + TEST))[:, 0], both[0])
    np.testing.assert_array_equal(images.labels, both[1])
    assert images.shape == (1, 28, 28)
    assert images.rows("test").tolist() == list(range(TRAIN, TRAIN + TEST))


def test_values_are_those_of_torchvision(tmp_path):
    write(tmp_path / "FashionMNIST" / "raw", arrays(), packed=False)
    images = read(tmp_path)
    for train, rows in ((True, range(TRAIN)), (False, range(TRAIN, TRAIN + TEST))):
        reader = FashionMNIST(tmp_path, train=train, download=False)
        assert torch.equal(images.read(rows)[:, 0], reader.data)
        np.testing.assert_array_equal(images.labels[rows], reader.targets)
        assert tuple(reader.classes) == images.label_names


def test_superclasses_are_tops_footwear_and_other(tmp_path):
    write(tmp_path, arrays())
    images = read(tmp_path)
    names = {
        name: {images.label_names[label] for label in group}
        for name, group in images.groups.items()
    }
    assert names == {
        "tops": {"T-shirt/top", "Pullover", "Coat", "Shirt"},
        "footwear": {"Sandal", "Sneaker", "Ankle boot"},
        "other": {"Trouser", "Dress", "Bag"},
    }
    np.testing.assert_array_equal(images.coarse == 1, np.isin(images.labels, [5, 7, 9]))


def test_validation_is_stratified_seeded_and_apart(tmp_path):
    write(tmp_path, arrays())
    images, again, other = (read(tmp_path, seed=seed) for seed in (0, 0, 1))
    held = images.rows("validation")
    assert np.bincount(images.labels[held]).tolist() == [4] * 10
    np.testing.assert_array_equal(held, again.rows("validation"))
    assert set(held) != set(other.rows("validation"))
    assert sorted([*images.rows("train"), *held]) == list(range(TRAIN))
    assert not set(images.probe(100)) & {*held, *images.rows("test")}


def test_other_images_in_the_same_format_are_no_fashion_mnist(tmp_path):
    write(tmp_path, arrays())
    message = r"train-images-idx3-ubyte.gz is damaged or another file: .*MD5 sum f4a8712d.*again"
    with pytest.raises(ValueError, match=message):
        image_set("fashion-mnist", tmp_path)
    assert read(tmp_path).stand_in_for == "Fashion-MNIST"


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def header(array, **changes):
    """An IDX file whose header is wrong."""
    numbers = [0x800 + array.ndim, *array.shape]
    for place, number in changes.items():
        numbers[["magic", "count", "height", "width"].index(place)] = number
    return b"".join(number.to_bytes(4, "big") for number in numbers) + array.tobytes()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (IMAGES, lambda a: header(a, magic=2049), r"magic number 2051 .* got 2049; get it again"),
        (LABELS, lambda a: header(a, magic=2051), r"magic number 2049 \(.*, 1 axes\): got 2051"),
        (IMAGES, lambda a: header(a, magic=0xD03), r"magic number 2051 .* got 3331"),
        (
            IMAGES,
            lambda a: header(a, count=TRAIN + 1),
            r"must hold 201 x 28 x 28 bytes, .*got 1568",
        ),
        # The product is 2^64, which is 0 to a machine.
        (IMAGES, lambda a: header(a[:0], count=2**31, height=2**31, width=4), "x 4 bytes.* got 0;"),
        (IMAGES, lambda a: header(a, width=27), r"must hold 200 x 28 x 27 bytes"),
        (IMAGES, lambda a: header(a, count=2**32 - 1, height=2**32 - 1), "must hold 4294967295 x"),
        (
            IMAGES,
            lambda a: idx(a)[:-1],
            r"must hold 200 x 28 x 28 bytes.* got 156799; get it again",
        ),
        (LABELS, lambda a: idx(a) + b"\0", r"must hold 200 bytes, as its header says: got 201"),
        (
            LABELS,
            lambda a: idx(a[1:]),
            r"as many labels as images: got 199 and 200; get them again",
        ),
        (LABELS, lambda a: idx(a + 3), r"must hold labels in 0..9: got 12; get it again"),
        (IMAGES, lambda a: idx(a[:, 1:]), r"of one size in .*: got \(27, 28\) and \(28, 28\)"),
        (IMAGES, lambda a: b"", r"magic number 2051 .* got 0"),
        (IMAGES, lambda a: idx(a)[:10], r"magic number 2051"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_wrong_headers_and_counts_are_refused(tmp_path, packed, file, content, message):
    files = arrays()
    write(tmp_path, files, packed)
    data = content(files[file])
    path = tmp_path / (f"{file}.gz" if packed else file)
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith("fashion-mnist: ")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:],
        lambda packed: packed[:40] + bytes(200) + packed[240:],
        lambda packed: packed[:10] + b"\x07" + packed[11:],
        lambda packed: b"<html>not found</html>",
        lambda packed: packed[:5],
    ],
    ids=["truncated", "checksum", "overwritten", "block type", "a page", "cut in the header"],
)
def test_damaged_gzip_files_are_named(tmp_path, damage):
    write(tmp_path, arrays())
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{path} is damaged: it cannot be unpacked \(.*get it"):
        read(tmp_path)


def test_missing_files_are_listed_with_the_remedy(tmp_path):
    write(tmp_path, arrays())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    message = (
        rf"^fashion-mnist: missing t10k-labels-idx1-ubyte.gz \(1 of 4 files\) in {tmp_path}; "
        "install the Debian package dataset-fashion-mnist, or .*download=True$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        read(tmp_path)
    # A folder that is given is the only place: what the system has does not take its place.
    with pytest.raises(FileNotFoundError, match=r"train-labels.* in .*nowhere \(no such folder\)"):
        read(tmp_path / "nowhere")


def test_download_only_when_asked(tmp_path, monkeypatch):
    calls = []

    def download(reader):
        calls.append(str(reader.root))
        write(tmp_path / "FashionMNIST" / "raw", arrays(), packed=False)

    monkeypatch.setattr(FashionMNIST, "download", download)
    with pytest.raises(FileNotFoundError, match="download=True"):
        read(tmp_path)
    assert calls == []
    assert len(read(tmp_path, download=True)) == TRAIN + TEST
    read(tmp_path, download=True)
    assert calls == [str(tmp_path)], "what is here is not downloaded again"


def test_no_library_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    write(tmp_path, arrays())
    assert len(read(tmp_path)) == TRAIN + TEST
    with pytest.raises(ImportError, match="fashion-mnist needs torchvision"):
        read(tmp_path / "nowhere", download=True)


@needs_data
def test_the_real_images():
    images = image_set("fashion-mnist", DEBIAN)
    assert (len(images), images.stand_in_for) == (70_000, None)
    sizes = {split: np.bincount(images.labels[rows]) for split, rows in images.splits.items()}
    assert sizes["train"].tolist() == [5500] * 10
    assert sizes["validation"].tolist() == [500] * 10
    assert sizes["test"].tolist() == [1000] * 10
    # Xiao et al. do not state them; widely used for normalisation.
    pixels = images.read(np.arange(60_000)).double() / 255
    assert (round(float(pixels.mean()), 4), round(float(pixels.std()), 4)) == (0.2860, 0.3530)
    assert len(images.probe()) == 2048


@needs_data
def test_the_real_images_are_found_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CTXRNN_DATA", str(tmp_path))
    assert len(image_set("fashion-mnist", validation=0)) == 70_000
