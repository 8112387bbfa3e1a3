"""A network whose channels and decoder units are scaled context by context."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ctxrnn._checks import check_count, derive_seed

from ._encoders import Encoder, EncoderConfig, make_encoder, sizes_of
from ._estimator import Covariance, Draws
from ._heads import Head
from ._modulation import Modulation

# Numbers of one modulated layer that a pass without gradients holds at once.
_ROOM = 2**25


@dataclass(frozen=True)
class NetworkConfig:
    """An encoder, a decoder and a read-out.

    Attributes:
        encoder: The encoder.
        decoder: Units of the decoder's hidden layers; the gain acts on the last.
        head: Outputs and contexts.

    Raises:
        ValueError: If the decoder has no hidden layer, or one of no unit.

    Example:
        >>> from ctxrnn.comodulation import EncoderConfig, Head, NetworkConfig
        >>> config = NetworkConfig(EncoderConfig("small"), decoder=(64, 32), head=Head.classes(10))
        >>> config.head.outputs, config.decoder[-1]  # classes; units on which the gain acts
        (10, 32)
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: tuple[int, ...] = (512, 512, 256)
    head: Head = field(default_factory=lambda: Head.attributes(40))

    def __post_init__(self) -> None:
        if not self.decoder:
            raise ValueError("decoder must have at least one hidden layer, on which the gain acts")
        for units in self.decoder:
            check_count("decoder", units)


class ComodulatedNetwork(nn.Module):
    """Encoder, decoder and read-out; a `Modulation` scales what lies between.

        M = h exp(m c_k - s^2 c_k^2 / 2),   a = dec(enc_above(M)),   z = W (g_k a) + b

    h >= 0 are the channels of the modulated layer (`Encoder.below`). Without a modulation the gains
    are 1: the network of the first stage.

    Args:
        config: Its parts.
        seed: Seed of the initial weights.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import ComodulatedNetwork, EncoderConfig, Head, NetworkConfig
        >>> config = NetworkConfig(EncoderConfig("small"), decoder=(32,), head=Head.attributes(5))
        >>> network = ComodulatedNetwork(config).eval()
        >>> h = network.encoder.below(torch.rand(8, 3, 32, 32))  # (image, channel, 1, 1)
        >>> network(h).shape  # logits
        torch.Size([8, 5])
        >>> silent = torch.zeros(5, 32)  # decoder gain of each context and unit
        >>> torch.equal(network(h, gain=silent), network.readout.bias.expand(8, 5))
        True
    """

    def __init__(self, config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.head = config, config.head
        self.encoder: Encoder = make_encoder(config.encoder, seed=seed)
        self.channels, features = sizes_of(self.encoder, config.encoder.channels)
        self.units = config.decoder[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "decoder"))
            layers: list[nn.Module] = []
            for width in config.decoder:
                layers += [nn.Linear(features, width), nn.ReLU()]
                features = width
            self.decoder = nn.Sequential(*layers)
        self.readout = make_readout(self.units, self.head.outputs, seed)
        row = torch.tensor(self.head.row or [0] * self.head.outputs)
        self.register_buffer("row", row, persistent=False)
        allowed = torch.zeros(self.head.contexts, self.head.outputs, dtype=torch.bool)
        for context, members in enumerate(self.head.allowed):
            allowed[context, list(members)] = True
        self.register_buffer("allowed", allowed | (not self.head.allowed), persistent=False)

    row: Tensor
    allowed: Tensor

    def takes_images(self, inputs: Tensor, images: bool | None = None) -> bool:
        """Return whether inputs are images, which are encoded, or features of the modulated layer.

        Args:
            inputs: (example, channel, height, width).
            images: What they are said to be (`Examples.images`); None tells by type and channels.

        Raises:
            ValueError: If they fit neither, or both.
        """
        sizes = {True: self.config.encoder.channels, False: self.channels}
        kinds = [True, False] if images is None else [images]
        if images is None and inputs.dtype == torch.uint8:
            kinds = [True]
        found = inputs.shape[1] if inputs.ndim == 4 else -1
        likely = [kind for kind in kinds if sizes[kind] == found]
        if len(likely) > 1:
            raise ValueError(
                f"inputs of {found} channels may be images or features of {self.encoder.layer}: "
                "say which with Examples(..., images=True) or images=False"
            )
        if not likely:
            names = {kind: f"{'images' if kind else 'features'} of {sizes[kind]}" for kind in kinds}
            raise ValueError(
                f"inputs must be {' or '.join(names.values())} channels, (example, channel, "
                f"height, width): got {str(inputs.dtype).removeprefix('torch.')} of shape "
                f"{tuple(inputs.shape)}"
            )
        return likely[0]

    def activity(
        self, h: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Return the activity of the decoder's last layer, (image, context, unit).

        Args:
            h: (image, channel, height, width).
            scale: Gain of channels, (context, channel) or (image, context, channel); None is 1,
                with one context.
            shift: Added to the channels after the gain, as `scale`.
        """
        if scale is None:
            return self.decoder(self.encoder.above(h))[:, None]
        x = h[:, None] * scale[..., None, None]
        if shift is not None:
            x = x + shift[..., None, None]
        images, contexts = x.shape[:2]
        a = self.decoder(self.encoder.above(x.flatten(0, 1)))
        return a.reshape(images, contexts, -1)

    def logits(self, a: Tensor, gain: Tensor, context: Tensor | None = None) -> Tensor:
        """Return z, (image, output), from activities and decoder gains.

        Args:
            a: (image, context, unit); with one context where it is the same in all, or where it is
                that of the image.
            gain: g, (context, unit).
            context: Of each image, (image,), where the head has one per image. Outputs that are not
                possible in it get -inf.
        """
        g = gain.to(a)
        if self.head.per_image:
            if context is None:
                raise ValueError("this head needs the context of each image")
            z = self.readout(a[:, 0] * g[context])
            return z.masked_fill(~self.allowed[context], -torch.inf)
        if not self.head.row:
            return self.readout(a[:, 0] * g[0])
        scaled = (a * g)[:, self.row]
        return torch.einsum("boh,oh->bo", scaled, self.readout.weight) + self.readout.bias

    def forward(
        self,
        h: Tensor,
        modulation: Modulation | None = None,
        context: Tensor | None = None,
        *,
        gain: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Return z, (image, output), from h = encoder.below(images).

        Args:
            h: (image, channel, height, width).
            modulation: Of a condition; None for gains of 1.
            context: Of each image, where the head has one per image.
            gain: g, (context, unit); None takes the modulation's own.
            noise: Added to the modulator, (image, context), or (image, 1) where an image has one
                context.
        """
        if gain is None:
            ones = h.new_ones(self.head.contexts, self.units)
            gain = ones if modulation is None else modulation.decision_gain()
        scale, shift = self._channels(modulation, context, noise)
        return self.logits(self.activity(h, scale, shift), gain, context)

    def _channels(
        self, modulation: Modulation | None, context: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return gain and shift of channels in a decision."""
        if modulation is None:
            return None, None
        mu = modulation.condition.mu
        scale: Tensor | None = None
        shift: Tensor | None = None
        if modulation.film is not None:
            scale, shift = modulation.film.gamma, modulation.film.beta
        elif noise is not None and mu is not None:
            variance = modulation.config.sigma**2
            if self.head.per_image and context is not None:
                # One modulator for each image, in its own context.
                whole = noise.new_zeros(len(noise), self.head.contexts)
                whole[torch.arange(len(noise)), context] = noise[:, 0]
                noise = whole
            scale = modulation.scale(mu + noise, variance)
            if self.head.per_image and scale is not None and context is not None:
                scale = scale[torch.arange(len(scale)), context][:, None]
            return scale, None
        elif mu:  # At mu = 0 channels are as they are.
            scale = modulation.scale(mu, 0.0)
        if self.head.per_image and scale is not None:
            if context is None:
                raise ValueError("this head needs the context of each image")
            scale = scale[context][:, None]
            shift = None if shift is None else shift[context][:, None]
        return scale, shift

    def covariance(
        self,
        h: Tensor,
        modulation: Modulation,
        draws: Draws,
        sums: Covariance,
        context: Tensor | None = None,
    ) -> Covariance:
        """Run noise passes over some images and add to the sums; see `Covariance`.

        Args:
            h: (image, channel, height, width).
            modulation: Whose couplings.
            draws: Of the modulator, for these images.
            sums: Where the sums are kept; returned.
            context: Of each image, if only those of its own context count.
        """
        sigma = modulation.config.sigma
        if modulation.config.noise_axis == "single":
            h = h[:1].expand(draws.m.shape[1], *h.shape[1:])
            context = None if context is None else context[:1].expand(len(h))
        size = self.chunk(h)
        for first in range(0, len(h), size):
            rows = slice(first, first + size)
            mine, some = h[rows], draws.rows(first, first + size)
            m = some.m.to(h.device)
            a = torch.stack(
                [self.activity(mine, modulation.scale(m[d], sigma**2)) for d in range(len(m))]
            )
            weight = None
            if context is not None:
                weight = nn.functional.one_hot(context[rows], self.head.contexts)
            sums.add(a, some.labels, self.activity(mine)[:, 0], weight)
        return sums

    def chunk(self, h: Tensor) -> int:
        """Return how many images are computed at once in all contexts."""
        if torch.is_grad_enabled():
            return max(1, len(h))
        return max(1, _ROOM // (self.head.contexts * max(h[0].numel(), self.units)))


def make_readout(units: int, outputs: int, seed: int) -> nn.Linear:
    """Return a new read-out; its weights depend on the seed and its size alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "readout", outputs))
        return nn.Linear(units, outputs)
