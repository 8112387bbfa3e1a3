"""The drawn image sets: their statistics against theory, and that they can be learnt."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ctxrnn.tasks import image_set

DRAWN = ("attr-sprites", "hier-textures")
# Two-sided normal tail below 1e-6: none of the few hundred bounds here is likely to fail.
SIGMAS = 5


def bound(probability, count):
    return SIGMAS * np.sqrt(probability * (1 - probability) / count)


@pytest.fixture(scope="module")
def sprites():
    return image_set("attr-sprites", images=40_000, validation=10, test=20_000, seed=1)


@pytest.mark.parametrize("name", DRAWN)
def test_a_seed_gives_the_same_images(name):
    one, again, other = (image_set(name, images=60, seed=seed) for seed in (3, 3, 4))
    rows = np.arange(60)
    assert torch.equal(one.read(rows), again.read(rows))
    np.testing.assert_array_equal(one.labels, again.labels)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert (one.read(rows) != other.read(rows)).float().mean() > 0.9


@pytest.mark.parametrize("name", DRAWN)
def test_a_split_does_not_depend_on_the_size_of_the_others(name):
    few = image_set(name, images=150, validation=20, test=30)
    many = image_set(name, images=9000, validation=70, test=30)
    assert torch.equal(few.read(few.rows("test")), many.read(many.rows("test")))
    np.testing.assert_array_equal(few.labels[few.rows("test")], many.labels[many.rows("test")])


@pytest.mark.parametrize("name", DRAWN)
def test_splits_are_disjoint_and_sized_as_asked(name):
    images = image_set(name, images=600)
    assert {split: len(rows) for split, rows in images.splits.items()} == {
        "train": 400,
        "validation": 100,
        "test": 100,
    }
    assert len(np.unique(np.concatenate(list(images.splits.values())))) == 600
    assert not set(images.probe()) & {*images.rows("validation"), *images.rows("test")}


def test_stand_ins_say_so():
    assert image_set("attr-sprites", images=6).title == "attr-sprites (stand-in for CelebA)"
    assert image_set("hier-textures", images=6).stand_in_for == "CIFAR-100"
    assert "stand-in for CelebA" in repr(image_set("attr-sprites", images=6))


def test_prevalences_go_from_4_to_50_percent_in_every_group(sprites):
    expected = np.geomspace(0.04, 0.5, 12)
    found = sprites.labels[sprites.rows("test")].mean(0)
    ranks = [label for first in range(3) for label in range(first, 12, 3)]
    assert (np.abs(found[ranks] - expected) < bound(expected, 20_000)).all()
    assert [len(group) for group in sprites.groups.values()] == [3] * 4
    for group in sprites.groups.values():
        assert found[list(group)].min() < 0.1
        assert found[list(group)].max() > 0.25


def test_attributes_correlate_as_stated(sprites):
    labels = sprites.labels[sprites.rows("test")]
    prevalence = np.empty(12)
    prevalence[[label for first in range(3) for label in range(first, 12, 3)]] = np.geomspace(
        0.04, 0.5, 12
    )
    group = sprites.group_of
    for a in range(12):
        for b in range(a):
            correlation = 0.4 if group[a] == group[b] else 0.1
            latent = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
            both = float(latent.cdf(norm.ppf(prevalence[[a, b]])))
            assert abs((labels[:, a] & labels[:, b]).mean() - both) < bound(both, 20_000)


def test_training_labels_are_flipped_and_others_are_not(sprites):
    right = image_set("attr-sprites", images=40_000, validation=10, test=20_000, seed=1, flips=0)
    wrong = right.labels != sprites.labels
    for split in ("validation", "test"):
        assert not wrong[sprites.rows(split)].any()
    rate = wrong[sprites.rows("train")].mean(0)
    assert (np.abs(rate - 0.02) < bound(0.02, len(sprites.rows("train")))).all()
    assert torch.equal(right.read(range(100)), sprites.read(range(100)))


def test_a_patch_lies_at_its_place_give_or_take_a_pixel():
    images = image_set("attr-sprites", images=4000, attributes=1, noise=0, flips=0, strength=100)
    signal = images.read(np.arange(4000)).squeeze(1).double().numpy() - 128
    present = images.labels[:, 0] == 1
    assert (signal[~present] == 0).all()
    # The peak of the bar is 100 gray levels high or deep, and its centre is symmetric.
    assert (np.abs(signal[present]).max((1, 2)) == 100).all()
    weight = np.abs(signal[present])
    mass = weight.sum((1, 2))
    y, x = (
        (weight.sum(axis) * np.arange(24)).sum(1) / mass
        for axis in (2, 1)
    )  # fmt: skip
    centres = np.stack([y, x], 1)
    places, counts = np.unique(np.round(centres, 3), axis=0, return_counts=True)
    assert len(places) == 9
    np.testing.assert_allclose(np.ptp(places, 0), 2, atol=1e-6)
    assert (np.abs(counts / counts.sum() - 1 / 9) < bound(1 / 9, counts.sum())).all()


def test_patches_of_different_attributes_lie_apart():
    images = image_set("attr-sprites", images=6000, noise=0, flips=0, strength=100)
    signal = np.abs(images.read(np.arange(6000)).squeeze(1).double().numpy() - 128) > 50
    alone = images.labels.sum(1) == 1
    centres = []
    for label in range(12):
        y, x = np.nonzero(signal[alone & (images.labels[:, label] == 1)].mean(0) > 0)
        centres.append((y.mean(), x.mean()))
    distances = np.linalg.norm(np.array(centres)[:, None] - np.array(centres), axis=-1)
    assert distances[np.triu_indices(12, 1)].min() > 3


def test_noise_of_a_pixel_has_its_standard_deviation():
    pixels = image_set("attr-sprites", images=600, strength=0, noise=20).read(range(600)).double()
    count = pixels.numel()
    # Rounding adds 1/12; the relative error of a standard deviation is 1 / sqrt(2 n).
    expected = np.sqrt(20**2 + 1 / 12)
    assert abs(pixels.mean() - 128) < SIGMAS * expected / np.sqrt(count)
    assert abs(pixels.std() / expected - 1) < SIGMAS / np.sqrt(2 * count)


def test_a_linear_probe_finds_every_sprite():
    images = image_set("attr-sprites", images=6000)

    def pixels(split):
        return images.read(images.rows(split)).flatten(1).numpy() / 64 - 2

    for label in range(12):
        wanted, truth = (images.labels[images.rows(split), label] for split in ("train", "test"))
        probe = LogisticRegression(C=1e-3, max_iter=200).fit(pixels("train"), wanted)
        area = roc_auc_score(truth, probe.decision_function(pixels("test")))
        positive = truth.sum()
        negative = len(truth) - positive
        # Standard error of the area at chance (Mann-Whitney).
        error = np.sqrt((len(truth) + 1) / (12 * positive * negative))
        assert area > 0.5 + SIGMAS * error
        assert area < 0.99, "a patch should be faint"


@pytest.mark.parametrize("attributes", [1, 2, 7, 16, 40])
def test_any_number_of_attributes(attributes):
    images = image_set("attr-sprites", images=60, attributes=attributes)
    assert images.labels.shape == (60, attributes)
    assert sorted(sum(images.groups.values(), ())) == list(range(attributes))


def test_textures_form_a_hierarchy_of_even_classes():
    images = image_set("hier-textures", images=1350, validation=150, test=200)
    assert images.shape == (3, 32, 32)
    for split, most in (("train", 10), ("validation", 2), ("test", 2)):
        counts = np.bincount(images.labels[images.rows(split)], minlength=100)
        assert most - 1 <= counts.min() <= counts.max() <= most
    assert [len(group) for group in images.groups.values()] == [5] * 20
    np.testing.assert_array_equal(images.coarse, images.labels // 5)


def test_images_of_a_class_are_one_picture_moved_by_up_to_two_pixels():
    images = image_set("hier-textures", images=1200, noise=0, parent=25, child=10)
    rows = np.flatnonzero(images.labels == 37)
    pictures = images.read(rows).double().numpy() - 128
    steps = [(y, x) for y in range(-4, 5) for x in range(-4, 5)]
    first = np.stack([np.roll(pictures[0], step, (1, 2)).ravel() for step in steps])
    likeness = np.array([[np.corrcoef(p.ravel(), f)[0, 1] for f in first] for p in pictures[1:]])
    # What is left is the rounding of gray levels of variance about 25^2.
    assert likeness.max(1).min() > 0.999
    assert len(set(likeness.argmax(1))) > 3
    contrast = pictures.std((1, 2, 3)) / np.hypot(25, 10)
    assert 0.65 < contrast.min() < 0.9
    assert 1.1 < contrast.max() < 1.35


def test_sisters_share_their_parent_and_strangers_do_not():
    images = image_set("hier-textures", images=4000)
    pixels = images.read(np.arange(4000)).double().flatten(1)
    means = torch.stack([pixels[images.labels == label].mean(0) for label in range(100)]) - 128
    likeness = torch.corrcoef(means)
    family = torch.from_numpy(images.group_of)
    sisters = (family[:, None] == family) & ~torch.eye(100, dtype=torch.bool)
    assert likeness[sisters].mean() > likeness[family[:, None] != family].mean() + 0.2


def test_nearest_means_tell_textures_above_chance():
    images = image_set("hier-textures")
    train, test = images.rows("train"), images.rows("test")
    pixels = images.read(train).float().flatten(1)
    means = torch.stack([pixels[images.labels[train] == label].mean(0) for label in range(100)])
    distance = torch.cdist(images.read(test).float().flatten(1), means).numpy()
    truth = images.labels[test]
    fine = (distance.argmin(1) == truth).mean()
    coarse = (distance.argmin(1) // 5 == truth // 5).mean()
    distance[images.group_of != images.coarse[test][:, None]] = np.inf
    within = (distance.argmin(1) == truth).mean()
    for accuracy, chance in ((fine, 0.01), (coarse, 0.05), (within, 0.2)):
        assert accuracy > chance + bound(chance, len(test))
    # The detail is weak: the superclass is far easier than the class within it.
    assert coarse > 0.8 > within


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "attr-sprites",
            {"images": 5, "validation": 3, "test": 2},
            "images must exceed validation",
        ),
        ("hier-textures", {"images": 0}, "images must be at least 1: got 0"),
        ("attr-sprites", {"images": 10, "test": -1}, "test must be at least 1: got -1"),
        ("attr-sprites", {"attributes": 0}, "attributes must be at least 1: got 0"),
        ("attr-sprites", {"size": 9}, "size must be at least 10: got 9"),
        ("attr-sprites", {"flips": 2}, r"flips must lie in \[0, 1\]: got 2"),
        ("attr-sprites", {"noise": -1}, "noise must be zero or more and finite: got -1"),
        ("hier-textures", {"child": -1}, "child must be zero or more and finite: got -1"),
        ("hier-textures", {"size": 8}, "size must be at least 16: got 8"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ValueError, match=message):
        image_set(name, **options)
