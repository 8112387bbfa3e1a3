"""How long cells of the studies of comodulation take, as far as can be told beforehand.

Arithmetic is counted and divided by a rate. That of one CPU core was measured; that of a GPU is an
assumption (a small part of what its makers promise), since none was at hand.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from ctxrnn.comodulation import ComodulatedNetwork, Head, NetworkConfig, condition
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._comodulation_settings import (
    ComodulationSettings,
    cells_of,
    decoder_of,
    encoder_of,
    first_stage,
)

RATES = {"small": 6e10, "resnet18": 1.3e11}
"""Floating point operations per second of training on one core, measured, by encoder."""
GPU = 1e13
"""The same of a GPU: an assumption."""
STEP = {"cpu": 1.2e-3, "cuda": 2e-3}
"""Seconds of a step of tuning beyond its arithmetic."""
# Seconds in which one core reads a photograph.
_READ = {"celeba": 5e-4}
# What is known of data sets without opening them: training images, size, channels, outputs,
# superclasses or groups.
_SIZES = {
    "celeba": (162_770, (78, 64), 3, 40, 8), "cifar100": (45_000, (32, 32), 3, 100, 20),
    "fashion-mnist": (55_000, (28, 28), 1, 10, 3), "attr-sprites": (8_000, (24, 24), 1, 12, 4),
    "hier-textures": (10_000, (32, 32), 3, 100, 20), "digits": (1_077, (8, 8), 1, 8, 3),
    "mnist": (4_000, (28, 28), 1, 10, 3),
}  # fmt: skip


def cell_seconds(settings: ComodulationSettings, cell: Cell) -> float:
    """Return seconds of one core, or of the GPU, for a cell with its share of the first stage."""
    kind = torch.device(settings.device).type
    rate = RATES[settings.encoder.kind] if kind == "cpu" else GPU
    step = STEP.get(kind, STEP["cuda"])
    images, size, channels, outputs, groups = _SIZES.get(
        settings.data, (10_000, (32, 32), 3, 40, 8)
    )
    images = min(images, settings.most_train or images)
    encoder = replace(encoder_of(settings, cell["layer"], bool(cell["skips"])), channels=channels)
    below, above, decoder = flops(
        replace(encoder, weights=None), decoder_of(str(cell["decoder"])), size
    )
    contexts = {"attributes": outputs, "groups": groups}.get(str(cell["version"]), 1)
    chosen = condition(str(cell["condition"]))
    # Forward, and twice that backward.
    passes = 0.0 if not chosen.trained else 3.0
    if chosen.stochastic:
        passes += 2 if settings.modulation.noise_axis == "antithetic" else 1
    one = contexts * (above + decoder) * passes
    if "encoder" in chosen.trained:
        one = 3 * (below + above + decoder)
    elif not chosen.trained or "controller" not in chosen.trained:
        one /= contexts
    epochs = settings.tune.epochs if chosen.trained else 0
    steps = epochs * -(-images // settings.tune.batch)
    # Evaluation: a fifth of the training set, once an epoch.
    tuning = epochs * images * (one + (above + decoder) * contexts / 5) / rate + steps * step
    read = _READ.get(settings.data, 0.0)
    if "encoder" in chosen.trained:
        tuning += epochs * images * 1.2 * read
    stage = settings.pretrain.lengths[-1] * images * 3 * (below + above + decoder) / rate
    stage += settings.pretrain.lengths[-1] * images * read / max(1, settings.pretrain.workers)
    features = images * 1.3 * (below / rate + read)
    return tuning + stage / _sharing(settings) + features / 10 + 0.1


@functools.lru_cache(maxsize=64)
def _sharing(settings: ComodulationSettings) -> float:
    """Return how many cells share a first stage, on average."""
    cells = cells_of(settings)
    stages = {tuple(first_stage(settings, cell).items()) for cell in cells}
    return len(cells) / len(stages)


@functools.lru_cache(maxsize=64)
def flops(encoder: object, decoder: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int]:
    """Count the operations of one image: below the cut, above it, and in the decoder."""
    from torch.utils.flop_counter import FlopCounterMode

    network = ComodulatedNetwork(NetworkConfig(encoder, decoder, Head.classes(2))).eval()  # type: ignore[arg-type]
    x = torch.zeros(1, encoder.channels, *size)  # type: ignore[attr-defined]
    counts = []
    with torch.no_grad():
        for call in (
            lambda: network.encoder.below(x),
            lambda: network.encoder.above(network.encoder.below(x)),
            lambda: network(network.encoder.below(x)),
        ):
            with FlopCounterMode(display=False) as counter:
                call()
            counts.append(counter.get_total_flops())
    return counts[0], counts[1] - counts[0], counts[2] - counts[1]
