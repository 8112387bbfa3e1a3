"""CelebA in its own format: a small folder, written as the real one is, read through torchvision.

The checksums of the real files are left out (checksums=False); everything else is as for the real
data.
"""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CelebA
from torchvision.transforms import Compose, PILToTensor, Resize

from ctxrnn.tasks import image_set

COUNT = 32
GROUPS = {
    "global": "Attractive Blurry Chubby Double_Chin Heavy_Makeup Male Oval_Face Pale_Skin Young",
    "eyes": "Bags_Under_Eyes Eyeglasses Narrow_Eyes Arched_Eyebrows Bushy_Eyebrows",
    "hair": "Bald Bangs Black_Hair Blond_Hair Brown_Hair Gray_Hair Receding_Hairline Straight_Hair "
    "Wavy_Hair",
    "mouth": "Big_Lips Mouth_Slightly_Open Smiling Wearing_Lipstick",
    "nose": "Big_Nose Pointy_Nose",
    "beard": "5_o_Clock_Shadow Goatee Mustache No_Beard Sideburns",
    "cheeks": "High_Cheekbones Rosy_Cheeks",
    "wearing": "Wearing_Earrings Wearing_Hat Wearing_Necklace Wearing_Necktie",
}
NAMES = sorted(" ".join(GROUPS.values()).split())
FILES = [f"{number + 1:06d}.jpg" for number in range(COUNT)]


def write(root, seed=0):
    """Write a folder as the real one is laid out; return labels (-1, 1) and the partition."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1, 1], (COUNT, 40))
    partition = rng.permutation(np.repeat([0, 1, 2], [20, 6, 6]))

    def lines(name, header, rows):
        text = [*header, *(f"{file} {row}" for file, row in zip(FILES, rows, strict=True))]
        (folder / name).write_text("\n".join(text) + "\n")

    # As in the real file: a blank after the last name, and two before a positive value.
    values = [" ".join(f"{value:2d}" for value in row) for row in labels]
    lines("list_attr_celeba.txt", [str(COUNT), " ".join(NAMES) + " "], values)
    lines("list_eval_partition.txt", [], partition)
    lines("identity_CelebA.txt", [], rng.integers(1, 10178, COUNT))
    boxes = [" ".join(map(str, row)) for row in rng.integers(0, 400, (COUNT, 4))]
    lines("list_bbox_celeba.txt", [str(COUNT), "image_id x_1 y_1 width height"], boxes)
    marks = [" ".join(map(str, row)) for row in rng.integers(0, 178, (COUNT, 10))]
    lines("list_landmarks_align_celeba.txt", [str(COUNT), "lefteye_x lefteye_y righteye_x "], marks)
    for file in FILES:
        coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
        coarse.resize((178, 218)).save(folder / "img_align_celeba" / file, quality=90)
    return labels, partition


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return root, *write(root)


@pytest.fixture
def own(tmp_path):
    write(tmp_path)
    return tmp_path


def read(root, **options):
    return image_set("celeba", root, checksums=False, threads=2, **options)


def test_labels_and_partition_come_back(shared):
    root, labels, partition = shared
    images = read(root)
    assert images.labels.dtype == np.uint8
    np.testing.assert_array_equal(images.labels, labels == 1)
    for part, split in enumerate(("train", "validation", "test")):
        np.testing.assert_array_equal(images.rows(split), np.flatnonzero(partition == part))
    assert images.label_names == tuple(NAMES)
    assert set(images.probe(10)) < set(np.flatnonzero(partition == 0))


def test_labels_are_those_of_torchvision(shared):
    class Unchecked(CelebA):
        file_list = tuple((where, None, file) for where, _, file in CelebA.file_list)

    images = read(shared[0])
    transform = Compose([Resize(64), PILToTensor()])
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        reader = Unchecked(shared[0], split=name, transform=transform)
        pictures, attributes = zip(*reader, strict=True)
        assert torch.equal(images.read(images.rows(split)), torch.stack(pictures))
        np.testing.assert_array_equal(
            images.labels[images.rows(split)], torch.stack(attributes).numpy()
        )
        # The blank that makes a name too many.
        assert len(reader.attr_names) == 41


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, (64, 78)), ({"square": True}, (64, 64)), ({"side": 32}, (32, 39))],
)
def test_images_are_resized_as_stated(shared, options, size):
    images = read(shared[0], **options)
    rows = [5, 0, 31]
    expected = []
    for row in rows:
        with Image.open(shared[0] / "celeba" / "img_align_celeba" / FILES[row]) as opened:
            expected.append(np.asarray(opened.resize(size, Image.Resampling.BILINEAR)))
    assert images.shape == (3, size[1], size[0])
    np.testing.assert_array_equal(images.read(rows).permute(0, 2, 3, 1), np.stack(expected))


def test_threads_do_not_change_what_is_read(shared):
    one, many = (
        image_set("celeba", shared[0], checksums=False, threads=threads) for threads in (1, 5)
    )
    rows = np.random.default_rng(0).permutation(COUNT)
    assert torch.equal(one.read(rows), many.read(rows))
    assert one.fingerprint == many.fingerprint != read(shared[0], square=True).fingerprint


def test_groups_are_those_of_pascal_et_al(shared):
    images = read(shared[0])
    found = {name: {NAMES[label] for label in group} for name, group in images.groups.items()}
    assert found == {name: set(names.split()) for name, names in GROUPS.items()}
    assert sorted(sum(images.groups.values(), ())) == list(range(40))


def test_packed_images_are_the_same(own):
    path = own / "packed.npy"
    first = read(own, pack=path)
    plain = read(own)
    rows = [3, 1, 30]
    assert torch.equal(first.read(rows), plain.read(rows))
    assert first.fingerprint == plain.fingerprint
    written = path.stat().st_mtime_ns
    again = read(own, pack=path)
    assert path.stat().st_mtime_ns == written
    assert isinstance(again.pixels.array, np.memmap)
    assert [file.name for file in own.iterdir() if "part" in file.name] == []
    for options in ({"square": True}, {"side": 32}):
        with pytest.raises(ValueError, match=r"packed.npy holds other images; delete it, or pass"):
            read(own, pack=path, **options)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"packed.npy is not a file of packed images .*delete it"):
        read(own, pack=path)


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_packed_images_of_another_set_or_pickles_are_refused(own):
    path = own / "packed.npy"
    np.save(path, np.roll(read(own).read(range(COUNT)).numpy(), 1, axis=0))
    with pytest.raises(ValueError, match=r"packed.npy holds other images"):
        read(own, pack=path)
    for written in (pickle.dumps, lambda value: np.array([value], dtype=object).dumps()):
        path.write_bytes(written(Payload(own / "ran")))
        with pytest.raises(ValueError, match=r"packed.npy is not a file of packed images"):
            read(own, pack=path)
        assert not (own / "ran").exists()


def test_files_without_the_published_checksums_are_refused_or_called_a_stand_in(shared):
    with pytest.raises(ValueError, match=r"list_attr_celeba.txt is damaged or another file: its"):
        image_set("celeba", shared[0])
    assert read(shared[0]).stand_in_for == "CelebA"


def text(file, old, new):
    def damage(folder):
        path = folder / file
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    return damage


def remove(*files):
    def damage(folder):
        for file in files:
            (folder / file).unlink()

    return damage


def without_last_line(file):
    def damage(folder):
        path = folder / file
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    return damage


ATTR, PART = "list_attr_celeba.txt", "list_eval_partition.txt"
MISSING, WRONG = FileNotFoundError, ValueError


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (remove(ATTR), MISSING, r"missing list_attr_celeba.txt \(1 of 5 files\) in .*celeba; get"),
        (remove("identity_CelebA.txt", PART), MISSING, r"identity_CelebA.txt \(2 of 5 files\)"),
        (remove("img_align_celeba/000012.jpg"), MISSING, "1 of 32 images are missing .*000012.jpg"),
        (text(ATTR, "Bald Bangs", "Bangs Bald"), WRONG, r"txt must name .*got 'Bangs' for 'Bald'"),
        (text(ATTR, " Young", ""), WRONG, "the 40 attributes in their order: got 39 names"),
        (text(ATTR, " Young", " Young Old"), WRONG, "in their order: got 41 names; get"),
        (text(ATTR, "32", "33"), WRONG, "as its first line says: got 32, not 33"),
        (without_last_line(ATTR), WRONG, "as its first line says: got 31, not 32"),
        (text(ATTR, "000002.jpg ", "000002.jpg  1 "), WRONG, "list_attr_celeba.txt cannot be read"),
        (text(ATTR, "-1", " 0"), WRONG, r"must hold -1 or 1: got 0 for \w+ of 000001.jpg"),
        (text(ATTR, "-1", " 3"), WRONG, "must hold -1 or 1: got 3"),
        (text(ATTR, "-1", "no"), WRONG, "must be the name of an image and 40 whole numbers"),
        (
            text(ATTR, "\n000020.jpg", "\n"),
            WRONG,
            "must be the name of an image and 40 whole numbers",
        ),
        (text(ATTR, "000003.jpg", "000033.jpg"), WRONG, "'000003.jpg' and '000033.jpg' in place 3"),
        (text(PART, "jpg 0", "jpg 3"), WRONG, r"must hold 0 \(train\), 1 .* or 2 .*: got 3 for 00"),
        (text(PART, "jpg 0", "jpg -1"), WRONG, "got -1 for 0000"),
        (text(PART, "jpg 0", "jpg x"), WRONG, "torchvision cannot parse the text files in .*'x'"),
        (without_last_line(PART), WRONG, "must list equally many images: got 31, 32, 32, 32, 32"),
        (without_last_line("identity_CelebA.txt"), WRONG, "got 32, 32, 31, 32, 32"),
        (text("list_bbox_celeba.txt", ".jpg ", ".jpg ? "), WRONG, "torchvision cannot parse"),
    ],
)
def test_damaged_folders_are_refused(own, damage, error, message):
    damage(own / "celeba")
    with pytest.raises(error, match=message) as caught:
        read(own)
    assert str(caught.value).startswith("celeba: ")
    assert "\n" not in str(caught.value)


def test_unpacked_archives_and_wrong_folders_are_told_apart(own):
    with pytest.raises(FileNotFoundError, match=rf"holds the files itself; .*pass data={own}$"):
        read(own / "celeba")
    (own / "celeba" / "img_align_celeba").rename(own / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"missing the folder img_align_celeba in .*; get"):
        read(own)
    (own / "celeba" / "img_align_celeba.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"unpack img_align_celeba.zip there"):
        read(own)
    (own / "celeba").rename(own / "faces")
    with pytest.raises(FileNotFoundError, match=r"move them to .*faces/celeba"):
        read(own / "faces")
    with pytest.raises(
        FileNotFoundError, match=r"missing list_attr.* \(no such folder\); get them"
    ):
        read(own)


@pytest.mark.parametrize("threads", [1, 3])
def test_damaged_images_are_named_when_they_are_read(own, threads):
    images = image_set("celeba", own, checksums=False, threads=threads)
    folder = own / "celeba" / "img_align_celeba"
    whole = (folder / FILES[4]).read_bytes()
    (folder / FILES[4]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"000005.jpg is damaged and cannot be decoded \(.*trunc"):
        images.read([3, 4])
    (folder / FILES[4]).write_bytes(b"not a photograph")
    with pytest.raises(ValueError, match=r"000005.jpg is damaged and cannot be decoded"):
        images.read([4])
    (folder / FILES[4]).unlink()
    with pytest.raises(FileNotFoundError, match=r"celeba: missing 000005.jpg in .*; unpack the im"):
        images.read([4])
    Image.new("RGB", (64, 64)).save(folder / FILES[4])
    with pytest.raises(ValueError, match=r"000005.jpg must have 178 x 218 pixels: got 64 x 64"):
        images.read([4, 5])


def test_a_gray_photograph_becomes_three_equal_channels(own):
    Image.new("L", (178, 218), 77).save(own / "celeba" / "img_align_celeba" / FILES[2])
    assert (read(own).read([2]) == 77).all()


def test_download_only_when_asked(tmp_path, monkeypatch):
    calls = []

    def download(reader):
        calls.append(reader.root)
        raise RuntimeError("quota\nexceeded")

    monkeypatch.setattr(CelebA, "download", download)
    with pytest.raises(FileNotFoundError, match="or pass download=True"):
        image_set("celeba", tmp_path)
    assert calls == []
    with pytest.raises(OSError, match=r"celeba: the download failed \(quota exceeded\); get them"):
        image_set("celeba", tmp_path, download=True)
    assert calls == [tmp_path] or calls == [str(tmp_path)]


def test_settings_out_of_range(shared):
    with pytest.raises(ValueError, match="side must be at least 1: got 0"):
        image_set("celeba", shared[0], side=0)
    with pytest.raises(ValueError, match="threads must be at least 1: got 0"):
        image_set("celeba", shared[0], threads=0)
