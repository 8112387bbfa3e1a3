"""The rows of a training's history as TensorBoard's scalars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctxrnn._config import Callback
from ctxrnn._ensemble import Ensemble
from ctxrnn._network import CTRNN

from ._optional import missing


def tensorboard(folder: str | Path, ensemble: Ensemble | None = None) -> Callback:
    """Return a callback for `ctxrnn.train` that shows the training in TensorBoard.

    Every evaluation writes its row, under the names of `TrainingHistory.rows` with accuracies as
    "accuracy/NAME", at the step of the row. What an earlier training wrote to the folder for the
    same or later steps is hidden, so that one that was resumed goes on where it was.

    Args:
        folder: Where to write; `tensorboard --logdir` shows it, or a folder above it.
        ensemble: The ensemble that will be trained, each member as a run of its own, `member-0`
            and so on, within the folder.

    Returns:
        A callback for one training.

    Raises:
        ImportError: If the package tensorboard is not installed; tells how to.

    Example:
        >>> from pathlib import Path
        >>> import ctxrnn
        >>> from ctxrnn.interop import tensorboard
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50, ring=8)
        >>> network = ctxrnn.CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=50)
        >>> config = ctxrnn.TrainConfig(steps=2, evaluate_every=1)
        >>> _ = ctxrnn.train(network, tasks, config, seed=0, callbacks=[tensorboard("runs/one")])
        >>> len(list(Path("runs/one").glob("events.*")))
        1
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing("tensorboard") from None
    if not isinstance(ensemble, Ensemble | None):
        raise TypeError(f"ensemble must be an Ensemble or None: got {type(ensemble).__name__}")
    top = Path(folder)
    places: dict[CTRNN, Path] = {}
    if ensemble is not None:
        places = {member: top / f"member-{index}" for index, member in enumerate(ensemble)}
    writers: dict[CTRNN, Any] = {}

    def write(network: CTRNN, row: dict[str, float]) -> None:
        if not places:
            places[network] = top
        if network not in places:
            raise ValueError(
                "this TensorBoard callback belongs to another network: make one for each "
                "training, and for an ensemble tensorboard(folder, ensemble)"
            )
        step = int(row["step"])
        if network not in writers:
            writers[network] = SummaryWriter(str(places[network]), purge_step=step)
        for name, value in row.items():
            if name != "step":
                tag = name.replace("accuracy.", "accuracy/", 1)
                writers[network].add_scalar(tag, value, step)
        # So that a training can be watched, and nothing is lost where it is killed.
        writers[network].flush()

    return write
