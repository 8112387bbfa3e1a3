"""Convolutional encoders, split at the layer whose channels are modulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ctxrnn._checks import check_count, derive_seed, unknown_name

from ._weights import IMAGENET, load_pretrained

LAYERS = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "small": ("layer1", "layer2", "layer3"),
}
# Of images in [0, 1], as torchvision's weights expect them.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and where it is modulated.

    Attributes:
        kind: "resnet18" (torchvision) or "small" (three residual blocks of 16, 32, 64 channels).
        layer: The modulated layer; None for the last one. Its output is post-ReLU.
        stem: "imagenet" (7x7, stride 2, pooled) or "cifar" (3x3, stride 1), of resnet18; the small
            net has the second.
        skips: Whether blocks have their identity path.
        skip_scope: Which blocks `skips` speaks of: those "above" the modulated layer, or "all".
        weights: None (random), "imagenet" (torchvision's IMAGENET1K_V1, which must be in torch's
            cache), or the path of a state dict of torchvision's resnet18 as safetensors.
        channels: Channels of the images.
        normalised: Whether images are centred and scaled as ImageNet's weights expect; None where
            these are the weights.

    Raises:
        ValueError: If a name is unknown, or no block lies above the modulated layer where `skips`
            speaks of those.

    Example:
        >>> from ctxrnn.comodulation import EncoderConfig
        >>> EncoderConfig("small").modulated  # the last layer, unless another is named
        'layer3'
    """

    kind: str = "resnet18"
    layer: str | None = None
    stem: Literal["imagenet", "cifar"] = "imagenet"
    skips: bool = True
    skip_scope: Literal["above", "all"] = "above"
    weights: str | None = None
    channels: int = 3
    normalised: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in LAYERS:
            raise unknown_name("encoder", self.kind, LAYERS)
        layers = LAYERS[self.kind]
        if self.layer is not None and self.layer not in layers:
            raise unknown_name("layer", self.layer, layers)
        for name, value, known in (
            ("stem", self.stem, ("imagenet", "cifar")),
            ("skip_scope", self.skip_scope, ("above", "all")),
        ):
            if value not in known:
                raise unknown_name(name, value, known)
        check_count("channels", self.channels)
        if not self.skips and self.skip_scope == "above" and self.modulated == layers[-1]:
            raise ValueError(
                f"no block lies above {self.modulated}: without skips choose an earlier layer, or "
                "skip_scope='all'"
            )
        if self.weights is not None and self.kind != "resnet18":
            raise ValueError(f"weights are of resnet18: got kind={self.kind!r}")

    @property
    def normalises(self) -> bool:
        """Whether images are centred and scaled."""
        return self.weights == IMAGENET if self.normalised is None else self.normalised

    @property
    def modulated(self) -> str:
        """Name of the modulated layer."""
        return self.layer or LAYERS[self.kind][-1]


class Encoder(nn.Module):
    """Features of images, with a cut behind the modulated layer.

    h = below(x), (image, channel, height, width), not negative; features = above(M) of a modulated
    h, pooled over space. Where no layer lies above, h may as well be pooled before it is modulated:
    a gain per channel commutes with the mean over space.

    Args:
        stem: From images to the first layer's input.
        layers: The layers in order, name -> module.
        layer: Name of the modulated one.
        normalised: Whether images are centred and scaled as torchvision's weights expect.

    Example: that of `make_encoder`.
    """

    def __init__(
        self, stem: nn.Module, layers: Mapping[str, nn.Module], layer: str, *, normalised: bool
    ) -> None:
        super().__init__()
        self.stem, self.layers, self.layer = stem, nn.ModuleDict(layers), layer
        self.cut = list(layers).index(layer) + 1
        self.normalised = normalised

    @property
    def last(self) -> bool:
        """Whether no layer lies above the modulated one."""
        return self.cut == len(self.layers)

    def prepared(self, images: Tensor) -> Tensor:
        """Return images as they are taken in: bytes become numbers in [0, 1]."""
        kind = next(self.parameters()).dtype
        x = images.to(kind)
        x = x / 255 if images.dtype == torch.uint8 else x
        if self.normalised:
            mean, deviation = (x.new_tensor(v)[:, None, None] for v in (_MEAN, _DEVIATION))
            x = (x - mean) / deviation
        return x

    def below(self, images: Tensor) -> Tensor:
        """Return h, (image, channel, height, width); (image, channel, 1, 1) at the last layer."""
        x = self.stem(self.prepared(images))
        for module in list(self.layers.values())[: self.cut]:
            x = module(x)
        return x.mean(dim=(2, 3), keepdim=True) if self.last else x

    def above(self, h: Tensor) -> Tensor:
        """Return features, (image, feature)."""
        for module in list(self.layers.values())[self.cut :]:
            h = module(h)
        return h.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return features without modulation, (image, feature)."""
        return self.above(self.below(images))


class _SmallBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, an identity path, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.downsample: nn.Module | None = None
        if skip:
            self.downsample = (
                nn.Identity()
                if same
                else nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y if self.downsample is None else y + self.downsample(x))


def _has_skip(config: EncoderConfig, layer: str) -> bool:
    layers = LAYERS[config.kind]
    above = layers.index(layer) > layers.index(config.modulated)
    return config.skips or (config.skip_scope == "above" and not above)


def _small(config: EncoderConfig) -> tuple[nn.Module, dict[str, nn.Module]]:
    stem = nn.Sequential(
        nn.Conv2d(config.channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    )
    sizes = {"layer1": (16, 16, 1), "layer2": (16, 32, 2), "layer3": (32, 64, 2)}
    return stem, {name: _SmallBlock(*size, _has_skip(config, name)) for name, size in sizes.items()}


def _resnet(config: EncoderConfig) -> tuple[nn.Module, dict[str, nn.Module]]:
    try:
        from torchvision.models import resnet18
        from torchvision.models.resnet import BasicBlock
    except ImportError as error:
        raise ImportError(
            "resnet18 is torchvision's, which is not here: pip install 'ctxrnn[images]'"
        ) from error

    class Plain(BasicBlock):  # type: ignore[misc,unused-ignore]
        """A block without its identity path."""

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)))

    whole = resnet18(weights=None)
    if config.weights is not None:
        load_pretrained(whole, config.weights)
    if config.stem == "cifar":
        whole.conv1, whole.maxpool = (
            nn.Conv2d(config.channels, 64, 3, 1, 1, bias=False),
            nn.Identity(),
        )
    elif config.channels != 3:
        whole.conv1 = nn.Conv2d(config.channels, 64, 7, 2, 3, bias=False)
    stem = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool)
    layers = {name: getattr(whole, name) for name in LAYERS["resnet18"]}
    for name, layer in layers.items():
        if not _has_skip(config, name):
            for block in layer:
                block.__class__, block.downsample = Plain, None
    return stem, layers


_BUILDERS: dict[str, Callable[[EncoderConfig], tuple[nn.Module, dict[str, nn.Module]]]] = {
    "resnet18": _resnet,
    "small": _small,
}


def make_encoder(config: EncoderConfig, *, seed: int = 0) -> Encoder:
    """Build an encoder; its initial weights depend on the seed alone.

    Args:
        config: Which encoder.
        seed: Seed of the initial weights.

    Raises:
        ImportError: If torchvision is needed and not installed.
        FileNotFoundError: If weights are named that are not there.
        CheckpointError: If their file is damaged, or holds another network's.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncoderConfig, make_encoder
        >>> encoder = make_encoder(EncoderConfig("small", layer="layer2", channels=1)).eval()
        >>> images = torch.rand(4, 1, 28, 28)
        >>> h = encoder.below(images)  # channels of layer2, which can be modulated
        >>> h.shape, encoder.above(h).shape
        (torch.Size([4, 32, 14, 14]), torch.Size([4, 64]))
        >>> torch.equal(encoder.above(h), encoder(images))
        True
    """
    # torch's initialisations draw from its global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "encoder"))
        stem, layers = _BUILDERS[config.kind](config)
    return Encoder(stem, layers, config.modulated, normalised=config.normalises)


def sizes_of(encoder: Encoder, channels: int) -> tuple[int, int]:
    """Return the channels of the modulated layer, and the number of features."""
    was = encoder.training
    encoder.eval()
    with torch.no_grad():
        h = encoder.below(torch.zeros(1, channels, 32, 32))
        features = encoder.above(h).shape[1]
    encoder.train(was)
    return h.shape[1], features
