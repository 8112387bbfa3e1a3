"""Images as sequences: readings and permutations by their indices, standardisation, refusals."""

import gzip
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctxrnn.tasks import image_set, sequence_set

COLOUR = {"size": 16, "images": 60, "validation": 10, "test": 20}


def test_a_step_is_a_row_a_column_or_a_pixel():
    images = image_set("digits", kind="classes").read([5, 0, 9])[:, 0].float() / 255
    read = {name: sequence_set("digits", reading=name).read([5, 0, 9]) for name in
            ("rows", "columns", "pixels")}  # fmt: skip
    assert torch.equal(read["rows"], images)
    assert torch.equal(read["columns"], images.mT)
    assert torch.equal(read["pixels"], images.flatten(1)[:, :, None])
    assert read["rows"].dtype == torch.float32


@pytest.mark.parametrize("reading", ["rows", "columns", "pixels"])
def test_the_channels_of_a_pixel_stay_together(reading):
    sequences = sequence_set("hier-textures", reading=reading, **COLOUR)
    assert (sequences.steps, sequences.features) == ((256, 3) if reading == "pixels" else (16, 48))
    read = sequences.read([3, 7])
    images = image_set("hier-textures", **COLOUR).read([3, 7]).float() / 255
    for step, place, channel in ((0, 0, 0), (2, 5, 1), (15, 14, 2)):
        if reading == "rows":
            got = read[:, step, 3 * place + channel]
            assert torch.equal(got, images[:, channel, step, place])
        elif reading == "columns":
            got = read[:, step, 3 * place + channel]
            assert torch.equal(got, images[:, channel, place, step])
        else:
            got = read[:, 16 * step + place, channel]
            assert torch.equal(got, images[:, channel, step, place])
    assert read.min() >= 0
    assert read.max() <= 1


@given(seed=st.integers(-(2**70), 2**70))
def test_a_permutation_is_one_to_one_and_its_inverse_restores(seed):
    permuted = sequence_set("digits", reading="pixels", permutation=seed)
    assert sorted(permuted.order) == list(range(64))
    plain = sequence_set("digits", reading="pixels").read([1, 2])
    read = permuted.read([1, 2])
    assert torch.equal(read[:, np.argsort(permuted.order)], plain)
    assert torch.equal(read[:, 10], plain[:, permuted.order[10]])


@pytest.mark.parametrize("name", ["digits", "hier-textures"])
def test_rows_and_columns_are_cut_after_the_permutation(name):
    options = COLOUR if name == "hier-textures" else {}
    pixels, rows, columns = (
        sequence_set(name, reading=reading, permutation=4, **options)
        for reading in ("pixels", "rows", "columns")
    )
    np.testing.assert_array_equal(pixels.order, rows.order)
    grid = pixels.read([8]).reshape(rows.steps, rows.steps, -1)
    assert torch.equal(rows.read([8])[0], grid.flatten(1))
    assert torch.equal(columns.read([8])[0], grid.transpose(0, 1).flatten(1))


def test_one_seed_is_one_permutation():
    orders = [sequence_set("digits", permutation=seed).order for seed in (0, np.int64(0), 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()
    # The seed of the splits is another one.
    other = sequence_set("digits", permutation=0, seed=3)
    np.testing.assert_array_equal(other.order, orders[0])
    assert sequence_set("digits").order is None


def test_standardisation_is_that_of_the_training_images_alone():
    sequences = sequence_set("hier-textures", standardise=True, most=25, **COLOUR)
    images = image_set("hier-textures", **COLOUR)
    train = images.read(images.rows("train")[:25]).double().numpy() / 255
    mean, deviation = train.mean((0, 2, 3)), train.std((0, 2, 3))
    rows = images.rows("test")[:4]
    raw = images.read(rows).double().numpy() / 255
    expected = (raw - mean[:, None, None]) / deviation[:, None, None]
    read = sequences.read(rows).reshape(4, 16, 16, 3).permute(0, 3, 1, 2)
    # Single precision: the mean is at most a few deviations from 0.
    np.testing.assert_allclose(read, expected, atol=1e-5)
    values = sequences.read(sequences.rows("train")).reshape(-1, 3).double()
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(0, correction=0), 1, atol=1e-5)


def test_the_splits_and_labels_are_those_of_the_images():
    images, sequences = image_set("digits", kind="classes"), sequence_set("digits")
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(sequences.rows(split), images.rows(split))
    np.testing.assert_array_equal(sequences.labels, images.labels)
    assert sequences.classes == tuple("0123456789")
    assert (sequences.name, sequences.stand_in_for) == ("digits", None)
    assert repr(sequences) == (
        "SequenceSet(digits, rows; 8 steps of 8, 10 classes; train 1077, validation 360, test 360)"
    )
    drawn = sequence_set("hier-textures", reading="pixels", permutation=0, most=7, **COLOUR)
    assert drawn.title == "hier-textures (stand-in for CIFAR-100), permuted pixels"
    assert [len(rows) for rows in drawn.splits.values()] == [7, 7, 7]
    assert drawn.rows("test").tolist() == drawn.images.rows("test")[:7].tolist()


def test_fingerprint_changes_with_anything_that_matters():
    variants = [
        {},
        {"reading": "columns"},
        {"permutation": 0},
        {"permutation": 1},
        {"most": 100},
        {"standardise": True},
        {"seed": 1},
    ]
    prints = {sequence_set("digits", **options).fingerprint for options in variants}
    assert len(prints) == len(variants)
    sequences = sequence_set("digits", permutation=1)
    assert sequences.fingerprint in prints
    assert pickle.loads(pickle.dumps(sequences)).fingerprint == sequences.fingerprint
    for array in (sequences.order, sequences.rows("train")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("digit", {}, ValueError, "unknown image set 'digit'. Did you mean 'digits'"),
        ("digits", {"reading": "row"}, ValueError, "unknown reading 'row'. Did you mean 'rows'"),
        ("digits", {"readings": "rows"}, ValueError, "unknown option of digits 'readings'"),
        ("digits", {"permutation": 0.5}, TypeError, "permutation must be an integer: got 0.5"),
        ("digits", {"permutation": True}, TypeError, "permutation must be an integer: got True"),
        ("digits", {"most": 0}, ValueError, "most must be at least 1: got 0"),
        (
            "digits",
            {"kind": "attributes"},
            ValueError,
            "digits: sequences need images with classes, and these have attributes; leave out kind",
        ),
        ("attr-sprites", {"images": 60}, ValueError, "attr-sprites: sequences need images with cl"),
    ],
)
def test_refusals(name, options, error, message):
    with pytest.raises(error, match=message) as caught:
        sequence_set(name, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"unknown split 'tests'. Did you mean 'test'"):
        sequence_set("digits").rows("tests")


def idx(array):
    header = [0x800 + array.ndim, *array.shape]
    return b"".join(number.to_bytes(4, "big") for number in header) + array.tobytes()


def write_fashion(folder, level=None):
    """Small files in the format of Fashion-MNIST, of 8 rows of 6 pixels."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 8, 6), dtype=np.uint8)
        images[:] = images if level is None else level
        labels = (np.arange(count) % 10).astype(np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(idx(array), 1))


@pytest.mark.parametrize(
    ("reading", "steps", "features"), [("rows", 8, 6), ("columns", 6, 8), ("pixels", 48, 1)]
)
def test_images_from_files_that_are_not_square(tmp_path, reading, steps, features):
    write_fashion(tmp_path)
    options = {"validation": 10, "checksums": False}
    sequences = sequence_set("fashion-mnist", tmp_path, reading=reading, permutation=2, **options)
    assert (sequences.steps, sequences.features) == (steps, features)
    images = image_set("fashion-mnist", tmp_path, **options).read([0, 70]).flatten(1).float() / 255
    grid = images[:, sequences.order.tolist()].reshape(2, 8, 6)
    expected = {"rows": grid, "columns": grid.mT, "pixels": grid.reshape(2, 48, 1)}
    assert torch.equal(sequences.read([0, 70]), expected[reading])
    assert sequences.stand_in_for == "Fashion-MNIST"
    with pytest.raises(FileNotFoundError, match="fashion-mnist: missing train-images"):
        sequence_set("fashion-mnist", tmp_path / "nowhere")


def test_images_of_one_gray_level_cannot_be_standardised(tmp_path):
    write_fashion(tmp_path, level=40)
    options = {"validation": 10, "checksums": False}
    flat = sequence_set("fashion-mnist", tmp_path, standardise=True, **options)
    with pytest.raises(ValueError, match="fashion-mnist: training images of one gray level"):
        flat.read([0])
    assert sequence_set("fashion-mnist", tmp_path, **options).read([0]).std() == 0
