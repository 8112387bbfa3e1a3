"""attr-sprites: faint patches that are present or absent, in the place of CelebA's attributes."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from ctxrnn._checks import check_count, check_fraction, check_not_negative

from ._image_set import ImageSet
from ._pixels import ArrayPixels
from ._splits import consecutive, drawn_counts, generator

NAME = "attr-sprites"
RAREST, MOST_COMMON = 0.04, 0.5
# Correlation of the normal variables behind two attributes, in one group and in two.
WITHIN, BETWEEN = 0.4, 0.1
_PATCH = 5
_GRAY = 128.0
_CHUNK = 8192


def attr_sprites(
    *,
    seed: int = 0,
    attributes: int = 12,
    images: int = 12000,
    validation: int | None = None,
    test: int | None = None,
    size: int = 24,
    strength: float = 40.0,
    noise: float = 40.0,
    flips: float = 0.02,
) -> ImageSet:
    """Draw images of faint patches, each of which is one binary attribute.

    An attribute is present where a normal variable exceeds the quantile of its prevalence; the
    variables correlate by 0.4 within a group and by 0.1 between groups. Prevalences go in equal
    ratios from 4 to 50 %. An attribute shows as a bright or dark bar of 5 by 5 pixels at a place of
    its own, off by up to one pixel each way; all pixels are noisy. Some labels of training images
    are wrong; those of the other splits are right.

    Args:
        seed: Patterns, attributes and noise. A split depends on the seed and its own size alone.
        attributes: How many, in groups of about three.
        images: How many are drawn in all.
        validation: How many of them validate; None for a sixth.
        test: How many of them test; None for a sixth.
        size: Width and height in pixels.
        strength: Height of a bar above or below gray, in gray levels of 255.
        noise: Standard deviation of a pixel's noise, in gray levels.
        flips: Probability that a training label is wrong.
    """
    counts = drawn_counts(NAME, images, validation, test)
    check_count("attributes", attributes)
    check_count("size", size, 2 * _PATCH)
    check_not_negative("strength", strength)
    check_not_negative("noise", noise)
    check_fraction("flips", flips)
    groups = attribute_groups(attributes)
    bars, places = _bars(seed, attributes, size)
    labels, pictures = [], []
    for split, count in counts.items():
        rng = generator(seed, NAME, split)
        present = draw_attributes(rng, count, groups)
        pictures.append(_render(rng, present, bars * strength, places, size, noise))
        wrong = rng.random(present.shape) < (flips if split == "train" else 0)
        labels.append(present ^ wrong)
    return ImageSet(
        name=NAME,
        stand_in_for="CelebA",
        kind="attributes",
        label_names=tuple(f"patch {number + 1}" for number in range(attributes)),
        groups=groups,
        labels=np.concatenate(labels).astype(np.uint8),
        splits=consecutive(counts),
        pixels=ArrayPixels(np.concatenate(pictures)[:, None]),
        options={
            "seed": seed, "attributes": attributes, **counts, "size": size, "strength": strength,
            "noise": noise, "flips": flips,
        },
    )  # fmt: skip


def attribute_groups(attributes: int) -> dict[str, tuple[int, ...]]:
    """Return groups of neighbouring attributes, of about three each."""
    parts = np.array_split(np.arange(attributes), max(1, round(attributes / 3)))
    return {f"group {i + 1}": tuple(map(int, part)) for i, part in enumerate(parts)}


def prevalences(groups: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Return the probability of each attribute; every group spans rare and common ones."""
    count = sum(map(len, groups.values()))
    levels = np.geomspace(RAREST, MOST_COMMON, count) if count > 1 else np.array([MOST_COMMON])
    # The first of every group are the rarest, and so on.
    by_rank = sorted((rank, label) for group in groups.values() for rank, label in enumerate(group))
    chances = np.empty(count)
    chances[[label for _, label in by_rank]] = levels
    return chances


def draw_attributes(
    rng: np.random.Generator, count: int, groups: dict[str, tuple[int, ...]]
) -> np.ndarray:
    """Draw which attributes images have, bool (image, attribute)."""
    chances = prevalences(groups)
    latent = np.sqrt(1 - WITHIN) * rng.standard_normal((count, len(chances)))
    latent += np.sqrt(BETWEEN) * rng.standard_normal((count, 1))
    for group in groups.values():
        latent[:, group] += np.sqrt(WITHIN - BETWEEN) * rng.standard_normal((count, 1))
    return latent > -ndtri(chances)


def _bars(seed: int, attributes: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bar of height +1 or -1 and a place (corner) for each attribute."""
    rng = generator(seed, NAME, "patterns")
    y, x = np.mgrid[:_PATCH, :_PATCH] - _PATCH // 2
    angle = np.pi * rng.permutation(attributes)[:, None, None] / attributes
    across = x * np.sin(angle) - y * np.cos(angle)
    sign = rng.choice([-1.0, 1.0], (attributes, 1, 1))
    side = int(np.ceil(np.sqrt(attributes)))
    corner = np.round(np.linspace(1, size - _PATCH - 1, side)).astype(int)
    grid = np.stack(np.meshgrid(corner, corner), -1).reshape(-1, 2)
    return sign * np.exp(-(across**2)), rng.permutation(grid)[:attributes]


def _render(
    rng: np.random.Generator,
    present: np.ndarray,
    bars: np.ndarray,
    places: np.ndarray,
    size: int,
    noise: float,
) -> np.ndarray:
    images = np.empty((len(present), size, size), dtype=np.uint8)
    for start in range(0, len(present), _CHUNK):
        has = present[start : start + _CHUNK]
        canvas = rng.standard_normal((len(has), size, size), dtype=np.float32)
        canvas = canvas * np.float32(noise) + np.float32(_GRAY)
        shifts = rng.integers(-1, 2, (*has.shape, 2))
        for label, (bar, place) in enumerate(zip(bars, places, strict=True)):
            for shift in np.ndindex(3, 3):
                step = np.array(shift) - 1
                rows = np.flatnonzero(has[:, label] & (shifts[:, label] == step).all(-1))
                top, left = place + step
                canvas[rows, top : top + _PATCH, left : left + _PATCH] += bar
        images[start : start + _CHUNK] = np.clip(np.rint(canvas), 0, 255)
    return images
