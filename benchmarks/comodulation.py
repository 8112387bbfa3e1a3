"""Time both stages of comodulation: against plain training of ResNet-18, and with cached features.

    python benchmarks/comodulation.py --rounds 5 --device cuda --batch 256 --precision bfloat16

benchmarks/README.md says how to read the tables.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from _measure import Report, Verdict, add_options, align, check_rounds, ratio, time_rounds
from torch import Tensor, nn

from ctxrnn.comodulation import (
    ComodulatedNetwork,
    EncoderConfig,
    Examples,
    Head,
    NetworkConfig,
    PretrainConfig,
    TuningConfig,
    condition,
    pretrain,
    tune,
)

PACKAGES = ("ctxrnn", "torch", "torchvision", "numpy")
OURS, PLAIN = "first stage", "torchvision ResNet-18"
CACHED, UNCACHED = "second stage, cached", "second stage, uncached"


def images_of(count: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random images (bytes) with 40 attributes."""
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)
    return images, torch.randint(2, (count, 40), generator=source)


def network_of(options: argparse.Namespace) -> ComodulatedNetwork:
    """Return the network of the study of CelebA."""
    config = NetworkConfig(EncoderConfig("resnet18"), (512, 512, 256), Head.attributes(40))
    return ComodulatedNetwork(config, seed=0).to(options.device)


def plain_training(images: Tensor, labels: Tensor, options: argparse.Namespace) -> None:
    """Train torchvision's ResNet-18 with 40 outputs for an epoch, as one would by hand."""
    from torchvision.models import resnet18

    device = torch.device(options.device)
    torch.manual_seed(0)
    network = resnet18(num_classes=40).to(device)
    if device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    dtype = {"float32": None, "bfloat16": torch.bfloat16}[options.precision]
    for rows in torch.randperm(len(images)).split(options.batch):
        x = images[rows].to(device).float() / 255
        if device.type == "cuda":
            x = x.contiguous(memory_format=torch.channels_last)
        y = labels[rows].to(device).float()
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = nn.functional.binary_cross_entropy_with_logits(network(x), y)
        loss.backward()
        optimiser.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def first_stage(images: Tensor, labels: Tensor, options: argparse.Namespace) -> None:
    """Train ours for an epoch."""
    config = PretrainConfig(lengths=(1,), batch=options.batch, precision=options.precision)
    few = Examples(images[:8], labels[:8])
    pretrain(
        network_of(options), Examples(images, labels), few,
        score=lambda *_: {"score": 0.0}, config=config,
    )  # fmt: skip


def second_stage(inputs: Tensor, labels: Tensor, options: argparse.Namespace) -> None:
    """Tune couplings of one context for an epoch, on features or on images."""
    config = NetworkConfig(EncoderConfig("resnet18"), (512, 512, 256), Head.classes(40))
    network = ComodulatedNetwork(config, seed=0).to(options.device).eval()
    examples = Examples(inputs, labels.argmax(dim=1))
    few = examples.take(range(8))
    tune(
        network, condition("comod"), examples, few, few,
        score=lambda *_: {"score": 0.0},
        config=TuningConfig(epochs=1, batch=options.batch, log_every=10**6),
    )  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16")
    parser.add_argument("--images", type=int, default=512, help="images per epoch (default 512)")
    parser.add_argument("--size", type=int, default=64, help="their side (default 64)")
    parser.add_argument("--batch", type=int, default=64, help="images per step (default 64)")
    add_options(parser, rounds=3, seconds=120, per="per comparison")
    options = parser.parse_args()
    check_rounds(parser, options)
    if options.device == "cpu":
        torch.set_num_threads(1)
    work = f"{options.images} images of {options.size}x{options.size}, batch {options.batch}"
    report = Report("Comodulation", PACKAGES, options, f"{work}, {options.device}")
    images, labels = images_of(options.images, options.size)
    with torch.no_grad():
        encoder = network_of(options).eval().encoder
        parts = [encoder.below(part.to(options.device)).cpu() for part in images.split(128)]
    features = torch.cat(parts).half()

    stage = time_rounds(
        {
            OURS: lambda: first_stage(images, labels, options),
            PLAIN: lambda: plain_training(images, labels, options),
        },
        rounds=options.rounds, seconds=options.seconds,
    )  # fmt: skip
    tuning = time_rounds(
        {
            CACHED: lambda: second_stage(features, labels, options),
            UNCACHED: lambda: second_stage(images, labels, options),
        },
        rounds=options.rounds, seconds=options.seconds,
    )  # fmt: skip
    rows = [["", "images / s"]]
    for name, times in {**stage, **tuning}.items():
        rows.append([name, f"{options.images / float(np.median(times)):.0f}"])
    report.say("", *align(rows))
    report.judge(
        [
            Verdict(f"{PLAIN} / {OURS}, time", ratio(stage[PLAIN], stage[OURS]), 1 / 1.1, 1.0),
            Verdict(f"{UNCACHED} / {CACHED}", ratio(tuning[UNCACHED], tuning[CACHED]), 20.0, 50.0),
        ]
    )
    report.write()


if __name__ == "__main__":
    main()
