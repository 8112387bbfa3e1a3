"""CIFAR-100 in its own format: small pickles, written as Python 2 wrote the real ones."""

import os
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest
from torchvision.datasets import CIFAR100

from ctxrnn.tasks import image_set

# Superclasses whose classes are not neighbours, as in the real data.
COARSE_OF = np.random.default_rng(7).permutation(np.repeat(np.arange(20), 5))
FINE_NAMES = [f"class {number}" for number in range(100)]
COARSE_NAMES = [f"superclass {number}" for number in range(20)]


class Python2(pickle._Pickler):
    """Writes strings and bytes alike, as Python 2 did, and the module of that time's numpy."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, value, name=None):
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[type] = dispatch[type(len)] = dispatch[type(lambda: 0)] = save_global


def write_python2(path, content):
    with path.open("wb") as file:
        Python2(file, 2, fix_imports=False).dump(content)


def write_python3(path, content):
    path.write_bytes(pickle.dumps(content, protocol=4))


def write_protocol_2(path, content):
    # Bytes become a call of _codecs.encode.
    path.write_bytes(pickle.dumps(content, protocol=2))


def contents(seed=0):
    """What the three files hold: 400 images to train, 100 to test."""
    rng = np.random.default_rng(seed)
    files = {"meta": {"fine_label_names": FINE_NAMES, "coarse_label_names": COARSE_NAMES}}
    for part, each in (("train", 4), ("test", 1)):
        fine = rng.permutation(np.repeat(np.arange(100), each))
        files[part] = {
            "filenames": [f"{number}.png" for number in range(len(fine))],
            "batch_label": f"{part}ing batch 1 of 1",
            "fine_labels": fine.tolist(),
            "coarse_labels": COARSE_OF[fine].tolist(),
            "data": rng.integers(0, 256, (len(fine), 3072), dtype=np.uint8),
        }
    return files


def write(root, files, writer=write_python2):
    folder = root / "cifar-100-python"
    folder.mkdir()
    for name, content in files.items():
        writer(folder / name, content)
    return folder


def read(root, **options):
    return image_set("cifar100", root, checksums=False, **({"validation": 100} | options))


@pytest.mark.parametrize("writer", [write_python2, write_protocol_2, write_python3])
def test_every_value_comes_back(tmp_path, writer):
    files = contents()
    write(tmp_path, files, writer)
    images = read(tmp_path)
    data = np.concatenate([files["train"]["data"], files["test"]["data"]])
    # Three planes of 32 by 32: red, green, blue.
    np.testing.assert_array_equal(images.read(range(500)), data.reshape(500, 3, 32, 32))
    fine = files["train"]["fine_labels"] + files["test"]["fine_labels"]
    np.testing.assert_array_equal(images.labels, fine)
    np.testing.assert_array_equal(images.coarse, COARSE_OF[fine])
    assert images.label_names == tuple(FINE_NAMES)
    assert images.rows("test").tolist() == list(range(400, 500))


def test_pictures_and_labels_are_those_of_torchvision(tmp_path):
    class Unchecked(CIFAR100):
        train_list = (("train", None),)
        test_list = (("test", None),)
        meta = CIFAR100.meta | {"md5": None}

    write(tmp_path, contents())
    images = read(tmp_path)
    for train, rows in ((True, range(400)), (False, range(400, 500))):
        pictures, labels = zip(*Unchecked(tmp_path, train=train), strict=True)
        np.testing.assert_array_equal(
            images.read(rows).permute(0, 2, 3, 1), np.stack([np.asarray(p) for p in pictures])
        )
        np.testing.assert_array_equal(images.labels[rows], labels)


def test_the_files_are_written_as_python_2_did(tmp_path):
    folder = write(tmp_path, contents())
    start = (folder / "train").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in start
    assert b"T\x00\xc0\x12\x00" in start, "the data are a string of 400 x 3072 bytes"


def test_each_superclass_has_its_five_classes(tmp_path):
    write(tmp_path, contents())
    groups = read(tmp_path).groups
    assert list(groups) == COARSE_NAMES
    for number, group in enumerate(groups.values()):
        assert group == tuple(np.flatnonzero(number == COARSE_OF))
    assert sorted(sum(groups.values(), ())) == list(range(100))


def test_validation_is_stratified_seeded_and_apart(tmp_path):
    write(tmp_path, contents())
    images, again, other = (read(tmp_path, seed=seed) for seed in (0, 0, 1))
    held = images.rows("validation")
    assert (np.bincount(images.labels[held]) == 1).all()
    np.testing.assert_array_equal(held, again.rows("validation"))
    assert images.fingerprint == again.fingerprint != other.fingerprint
    assert len(set(held) & set(other.rows("validation"))) < 60
    assert sorted([*images.rows("train"), *held]) == list(range(400))
    # The first images that are trained on, in the order of the file.
    assert images.probe(50).tolist() == sorted(set(range(400)) - set(held))[:50]
    with pytest.raises(ValueError, match="validation must leave images to train on: got 5000"):
        image_set("cifar100", tmp_path, checksums=False)


class Payload:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


PAYLOADS = {
    "system": lambda mark: Payload(os.system, f"touch {mark}"),
    "eval": lambda mark: Payload(eval, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Payload(open, str(mark), "w"),
    "method": lambda mark: Payload(np.ndarray.tofile, np.zeros(1), str(mark)),
    "object array": lambda mark: np.array(
        [Payload(os.system, f"touch {mark}"), 0], dtype=object
    ),
}  # fmt: skip


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("file", ["train", "test", "meta"])
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_pickle_that_would_run_something_is_refused_unread(tmp_path, payload, file, checksums):
    files = contents()
    mark = tmp_path / "ran"
    files[file]["more"] = payload(mark)
    folder = write(tmp_path, files, write_python3)
    message = "its MD5 sum is" if checksums else rf"{file} is refused: .*no plain data\)"
    with pytest.raises(ValueError, match=message) as caught:
        image_set("cifar100", tmp_path, checksums=checksums, validation=100)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    if payload is PAYLOADS["system"] and not checksums:
        # The payload is live: plain pickle would have run it.
        pickle.loads((folder / file).read_bytes())
        assert mark.exists()


def test_the_published_checksums_are_asked_for_first(tmp_path):
    folder = write(tmp_path, contents())
    with pytest.raises(ValueError, match=rf"cifar100: {folder}/train is damaged .* not 16019d7e"):
        image_set("cifar100", tmp_path)
    assert read(tmp_path).stand_in_for == "CIFAR-100"


def put(file, key, value):
    def damage(files):
        files[file][key] = value(files[file]) if callable(value) else value

    return damage


def drop(file, key):
    return lambda files: files[file].pop(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("train", "coarse_labels"), "train must hold 'coarse_labels': got filenames"),
        (drop("test", "data"), "test must hold 'data'"),
        (put("train", "data", lambda f: f["data"][:, :3000]), r"\(image, 3072\): got uint8"),
        (put("train", "data", lambda f: f["data"].astype(float)), r"of bytes, .*: got float64"),
        (put("train", "data", [1, 2]), "of bytes, .*: got list"),
        (put("test", "fine_labels", lambda f: f["fine_labels"][1:]), r"100 images: got .* \(99,\)"),
        (put("train", "fine_labels", [0.5] * 400), "a whole number in 'fine_labels' for"),
        (put("train", "fine_labels", [100] * 400), r"'fine_labels' in 0..99: got 100 to 100"),
        (put("test", "coarse_labels", [-1] * 100), r"'coarse_labels' in 0..19: got -1 to -1"),
        (put("meta", "fine_label_names", FINE_NAMES[1:]), "meta must hold 100 names in .*: got 99"),
        (put("meta", "coarse_label_names", "dog"), "meta must hold 20 names in .*: got str"),
        (
            put("train", "coarse_labels", lambda f: [0, *f["coarse_labels"][1:]]),
            "each of 20 superclasses must have 5 classes of its own: got 5 to 6",
        ),
        (
            put("test", "coarse_labels", lambda f: [3] * 100),
            "superclasses must have 5 classes of its own: got",
        ),
    ],
)  # fmt: skip
def test_mislabelled_files_are_refused(tmp_path, damage, message):
    files = contents()
    damage(files)
    write(tmp_path, files, write_python3)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith("cifar100: ")
    assert "\n" not in str(caught.value)


def test_a_class_in_two_superclasses_is_refused(tmp_path):
    files = contents()
    first, other = np.flatnonzero(COARSE_OF == 0)[0], np.flatnonzero(COARSE_OF == 1)[0]
    for part in ("train", "test"):
        # In place of a class of its own, superclass 1 gets one of superclass 0: still five each.
        fine = np.array(files[part]["fine_labels"])
        files[part]["fine_labels"] = np.where(fine == other, first, fine).tolist()
    write(tmp_path, files)
    with pytest.raises(ValueError, match="5 classes of its own: got 5 to 5, 99 classes in all"):
        read(tmp_path)


def test_damaged_and_missing_files_are_named(tmp_path):
    folder = write(tmp_path, contents())
    whole = (folder / "train").read_bytes()
    for content in (whole[:-5000], b"", b"no pickle", b"\x80\x04N."):
        (folder / "train").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"cifar-100-python/train (is refused|must hold a dict)"
        ):
            read(tmp_path)
    (folder / "train").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"missing train \(1 of 3 files\) in .*; get 'CIFAR"
    ):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"holds the files itself; .*data={tmp_path}$"):
        read(folder)
    with pytest.raises(
        FileNotFoundError, match=r"missing train, test, meta in .*\(no such folder\)"
    ):
        read(tmp_path / "elsewhere")


def test_download_only_when_asked_and_read_by_the_same_rules(tmp_path, monkeypatch):
    files = contents()
    files["train"]["more"] = PAYLOADS["system"](tmp_path / "ran")

    def download(reader):
        write(tmp_path, files, write_python3)

    monkeypatch.setattr(CIFAR100, "download", download)
    with pytest.raises(FileNotFoundError, match="or pass download=True"):
        read(tmp_path)
    with pytest.raises(ValueError, match="train is refused"):
        read(tmp_path, download=True)
    assert not (tmp_path / "ran").exists()

    def fail(reader):
        raise OSError("no network")

    monkeypatch.setattr(CIFAR100, "download", fail)
    with pytest.raises(OSError, match=r"cifar100: the download failed \(no network\); get 'CIFAR"):
        read(tmp_path, download=True)
