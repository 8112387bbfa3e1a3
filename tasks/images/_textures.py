"""hier-textures: classes that differ in detail within superclasses, in the place of CIFAR-100."""

from __future__ import annotations

import numpy as np

from ctxrnn._checks import check_count, check_not_negative

from ._image_set import ImageSet
from ._pixels import ArrayPixels
from ._splits import consecutive, drawn_counts, generator

NAME = "hier-textures"
SUPERCLASSES, CHILDREN = 20, 5
# Cycles per image of the pattern of a superclass, and of the detail of a class.
_PARENT_BAND, _CHILD_BAND = (1.0, 3.0), (3.0, 6.0)
_SHIFT = 2
_GRAY = 128.0
_CHUNK = 4096


def hier_textures(
    *,
    seed: int = 0,
    images: int = 15000,
    validation: int | None = None,
    test: int | None = None,
    size: int = 32,
    parent: float = 6.0,
    child: float = 4.0,
    noise: float = 40.0,
) -> ImageSet:
    """Draw coloured textures: 20 superclasses by their coarse pattern, 5 classes in each by detail.

    Parent and child patterns are random fields of 1 to 3 and 3 to 6 cycles per image. Every image
    is the sum of both, moved by up to 2 pixels each way (around the edges), at a contrast of 0.7 to
    1.3, with noise on all pixels. In every split the classes are as even as its size allows.

    Args:
        seed: Patterns, images and noise. A split depends on the seed and its own size alone.
        images: How many are drawn in all.
        validation: How many of them validate; None for a sixth.
        test: How many of them test; None for a sixth.
        size: Width and height in pixels.
        parent: Standard deviation of the pattern of a superclass, in gray levels of 255.
        child: That of the detail of a class.
        noise: That of a pixel's noise.
    """
    counts = drawn_counts(NAME, images, validation, test)
    check_count("size", size, 16)
    for what, level in (("parent", parent), ("child", child), ("noise", noise)):
        check_not_negative(what, level)
    templates = _templates(seed, size, parent, child)
    labels, pictures = [], []
    for split, count in counts.items():
        rng = generator(seed, NAME, split)
        labels.append(rng.permutation(np.arange(count) % len(templates)))
        pictures.append(_render(rng, labels[-1], templates, noise))
    pairs = [(a, b) for a in range(SUPERCLASSES) for b in range(CHILDREN)]
    return ImageSet(
        name=NAME,
        stand_in_for="CIFAR-100",
        kind="classes",
        label_names=tuple(f"texture {a + 1}.{b + 1}" for a, b in pairs),
        groups={
            f"texture {a + 1}": tuple(range(a * CHILDREN, (a + 1) * CHILDREN))
            for a in range(SUPERCLASSES)
        },
        labels=np.concatenate(labels).astype(np.int64),
        splits=consecutive(counts),
        pixels=ArrayPixels(np.concatenate(pictures)),
        options={
            "seed": seed, **counts, "size": size, "parent": parent, "child": child, "noise": noise,
        },
    )  # fmt: skip


def _templates(seed: int, size: int, parent: float, child: float) -> np.ndarray:
    """Draw the noiseless picture of each class, (class, channel, height, width)."""
    rng = generator(seed, NAME, "patterns")
    coarse = _fields(rng, (SUPERCLASSES, 3, size, size), _PARENT_BAND)
    fine = _fields(rng, (SUPERCLASSES * CHILDREN, 3, size, size), _CHILD_BAND)
    return (parent * np.repeat(coarse, CHILDREN, 0) + child * fine).astype(np.float32)


def _fields(
    rng: np.random.Generator, shape: tuple[int, ...], band: tuple[float, float]
) -> np.ndarray:
    """Draw periodic random fields of some frequencies, each of mean 0 and variance 1."""
    cycles = np.fft.fftfreq(shape[-1], 1 / shape[-1])
    radius = np.hypot(cycles[:, None], cycles)
    kept = (radius >= band[0]) & (radius <= band[1])
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * kept).real
    return field / field.std((-2, -1), keepdims=True)


def _render(
    rng: np.random.Generator, labels: np.ndarray, templates: np.ndarray, noise: float
) -> np.ndarray:
    size = templates.shape[-1]
    images = np.empty((len(labels), *templates.shape[1:]), dtype=np.uint8)
    line = np.arange(size)
    for start in range(0, len(labels), _CHUNK):
        classes = labels[start : start + _CHUNK]
        shift = rng.integers(-_SHIFT, _SHIFT + 1, (2, len(classes), 1))
        y, x = (line - shift) % size
        # Indices for (image, channel, height, width).
        channel = np.arange(templates.shape[1])[:, None, None]
        canvas = templates[
            classes[:, None, None, None], channel, y[:, None, :, None], x[:, None, None]
        ]
        canvas *= rng.uniform(0.7, 1.3, (len(classes), 1, 1, 1)).astype(np.float32)
        canvas += np.float32(noise) * rng.standard_normal(canvas.shape, dtype=np.float32)
        images[start : start + _CHUNK] = np.clip(np.rint(canvas + np.float32(_GRAY)), 0, 255)
    return images
