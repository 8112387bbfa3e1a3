"""The work of the studies of comodulation: first stage, read-outs, features, conditions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CheckpointError
from ctxrnn._checkpoint import as_json, read_tensors
from ctxrnn._checks import derive_seed
from ctxrnn.comodulation import (
    ComodulatedNetwork,
    Examples,
    Head,
    NetworkConfig,
    cached_features,
    condition,
    load_network,
    pretrain,
    save_network,
    tune,
)
from ctxrnn.comodulation._network import make_readout
from ctxrnn.studies._cells import Cell, cell_key
from ctxrnn.studies._comodulation_embedding import ARMS as EMBEDDED
from ctxrnn.studies._comodulation_embedding import embedding
from ctxrnn.studies._comodulation_measures import Measured, first_score, measure, score_of
from ctxrnn.studies._comodulation_settings import (
    ComodulationSettings,
    decoder_of,
    encoder_of,
    first_stage,
    seed_of,
)
from ctxrnn.studies._configured import parsed
from ctxrnn.studies._desk import Desk, as_result, stops
from ctxrnn.studies._store import Result
from ctxrnn.tasks import ImageSet, image_set

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Stage:
    """The data of a study in the form that the networks want.

    Attributes:
        images: The image set.
        rows: Split -> rows that are used.
        kept: Attributes that the first stage sees, and those that are held out.
    """

    images: ImageSet
    rows: Mapping[str, np.ndarray]
    kept: tuple[tuple[int, ...], tuple[int, ...]]

    def labels(self, split: str, chosen: Sequence[int] = ()) -> Tensor:
        """Return labels: attributes (image, attribute), or fine classes (image,)."""
        labels = self.images.labels[self.rows[split]]
        return torch.as_tensor(labels[:, list(chosen)] if len(chosen) else labels).long()

    def coarse(self, split: str) -> Tensor:
        """Return the superclass of each image."""
        return torch.as_tensor(self.images.coarse[self.rows[split]]).long()

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Groups of attributes, or the classes of each superclass."""
        return tuple(tuple(members) for members in self.images.groups.values())


def stage_of(settings: ComodulationSettings) -> Stage:
    """Read the data of a study.

    Raises:
        FileNotFoundError: If data are missing; the line says which, where, and how to get them.
    """
    options = {}
    for assignment in settings.options:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"options must be name=value each: got {assignment!r}")
        options[name] = parsed(text)
    images = image_set(settings.data, settings.data_dir, **options)
    wanted = "classes" if settings.classes else "attributes"
    if images.kind != wanted:
        raise ValueError(
            f"versions {', '.join(settings.versions)} want {wanted}: {settings.data} has "
            f"{images.kind}"
        )
    rows = dict(images.splits)
    if settings.most_train is not None:
        # The first ones, among which is the probe set.
        rows["train"] = rows["train"][: settings.most_train]
    for split in SPLITS:
        if not len(rows.get(split, ())):
            raise ValueError(
                f"{settings.data}: the {split} split is empty: choose another set, or hold images "
                "out (options=validation=500, for sets that know it)"
            )
    return Stage(images, rows, _held_out(settings, images, rows["train"]))


def _held_out(
    settings: ComodulationSettings, images: ImageSet, train: np.ndarray
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if settings.classes:
        return (), ()
    count = images.labels.shape[1]
    if not settings.heldout:
        return tuple(range(count)), ()
    if settings.heldout >= count:
        raise ValueError(f"heldout must be below {count} attributes: got {settings.heldout}")
    order = np.argsort(images.labels[train].mean(axis=0), kind="stable")
    places = np.linspace(0, count - 1, settings.heldout).round().astype(int)
    out = sorted(int(a) for a in order[places])
    return tuple(a for a in range(count) if a not in out), tuple(out)


class Comodulation:
    """Computes cells: one first stage for those that share it, then every condition.

    Args:
        settings: Of the study.
    """

    additive = True

    def __init__(self, settings: ComodulationSettings) -> None:
        self.settings = settings

    def unit(self, cell: Cell) -> Hashable:
        """Cells of one first stage belong to the same process."""
        return cell_key(first_stage(self.settings, cell))

    def shared(self, cell: Cell) -> Hashable:
        """Cells of one first stage and length share features."""
        return None

    def cost(self, cell: Cell) -> float:
        """Return the seconds that a cell takes, with its share of the first stage."""
        from ctxrnn.studies._comodulation_cost import cell_seconds

        return cell_seconds(self.settings, cell)

    def __call__(
        self, cells: Sequence[Cell], desk: Desk
    ) -> Iterator[tuple[Cell, Result | Exception]]:
        """Compute the cells; yield each as soon as it is measured."""
        stage = stage_of(self.settings)
        for mine in _grouped(cells, lambda cell: self.unit(cell)):
            trained = FirstStage(self.settings, stage, mine[0], desk)
            for part in _grouped(mine, _base):
                base = _Base(trained, part[0], desk)
                try:
                    for cell in part:
                        yield cell, _outcome(base, cell, desk)
                finally:
                    base.close()


def _grouped(cells: Sequence[Cell], key: Callable[[Cell], Hashable]) -> list[list[Cell]]:
    found: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        found.setdefault(key(cell), []).append(cell)
    return list(found.values())


def _base(cell: Cell) -> tuple[Any, ...]:
    """What cells share that start from the same network and features."""
    names = ("seed", "layer", "skips", "decoder", "length", "version", "head_epochs")
    return tuple(cell[name] for name in names)


def _outcome(base: _Base, cell: Cell, desk: Desk) -> Result | Exception:
    started = time.process_time()
    try:
        measured = base.measured(cell, lambda share: desk.report(cell, share))
        return as_result(
            {**measured.values, **measured.tables}, seconds=time.process_time() - started
        )
    except Exception as error:
        if stops(error):
            raise
        return error


class FirstStage:
    """Networks after the first stage, trained or taken from the folder.

    Args:
        settings: Of the study.
        stage: The data.
        cell: One of the cells that share them.
        desk: Where files lie and progress is told.
    """

    def __init__(
        self, settings: ComodulationSettings, stage: Stage, cell: Cell, desk: Desk
    ) -> None:
        self.settings, self.stage, self.desk = settings, stage, desk
        self.seed = seed_of(cell)
        self.identity = as_json(
            {
                **first_stage(settings, cell),
                "data": stage.images.fingerprint,
                "train": len(stage.rows["train"]),
                "pretrain": dataclasses.asdict(settings.pretrain),
                "heldout": list(stage.kept[1]),
            }
        )
        text = cell_key({key: str(value) for key, value in self.identity.items()})
        self.name = f"stage1-{cell['seed']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        self.files = {
            length: f"networks/{self.name}-{length}.safetensors"
            for length in settings.pretrain.lengths
        }
        self.cell = cell
        if not self._found():
            self._train()

    def network(self, length: int, layer: str) -> tuple[ComodulatedNetwork, dict[str, Any]]:
        """Return a network cut at a layer, and the notes of its first stage."""
        found, notes = load_network(self.desk.folder / self.files[length])
        config = dataclasses.replace(
            found.config, encoder=dataclasses.replace(found.config.encoder, layer=layer)
        )
        cut = ComodulatedNetwork(config, seed=self.seed)
        cut.load_state_dict(found.state_dict())
        return cut.to(self.settings.device).eval(), notes

    def _found(self) -> bool:
        for file in self.files.values():
            path = self.desk.folder / file
            if not path.exists():
                return False
            try:
                if load_network(path)[1].get("identity") != self.identity:
                    raise CheckpointError(f"{path} is another network")
            except CheckpointError as error:
                self.desk.note(f"{error}; it is trained again")
                return False
        return True

    def _examples(self, split: str) -> Examples:
        stage = self.stage
        labels = (
            stage.coarse(split) if self.settings.classes else stage.labels(split, stage.kept[0])
        )
        return Examples(stage.images, labels, rows=stage.rows[split])

    def _train(self) -> None:
        settings, cell = self.settings, self.cell
        train, validation = self._examples("train"), self._examples("validation")
        head = (
            Head.classes(len(self.stage.groups))
            if settings.classes
            else Head.attributes(len(self.stage.kept[0]))
        )
        encoder = dataclasses.replace(
            encoder_of(settings, cell["layer"], cell["skips"]), channels=self.stage.images.shape[0]
        )
        config = NetworkConfig(encoder, decoder_of(cell["decoder"]), head)
        network = ComodulatedNetwork(config, seed=self.seed).to(settings.device)
        path = self.desk.path(f"training/{self.name}.training")
        if path.exists():
            try:
                read_tensors(path, "first stage")
            except CheckpointError as error:
                self.desk.note(f"{error}; this first stage starts again")
                path.unlink()
        before = first_score(network, validation, settings.classes)
        found = pretrain(
            network, train, validation, score=score_of(settings.classes), config=settings.pretrain,
            seed=self.seed, checkpoint=path,
            report=lambda told: self.desk.report(cell, 0.9 * float(told["share"])),
        )  # fmt: skip
        for length, state in found.states.items():
            network.load_state_dict(state)
            notes = {
                "identity": self.identity, "epoch": found.epochs[length], "untrained": before,
                "history": [_timeless(row) for row in found.history if row["epoch"] <= length],
                "weights": encoder.weights or "random",
            }  # fmt: skip
            save_network(network, self.desk.path(self.files[length]), notes=as_json(notes))
            self.desk.keep(self.files[length])
        path.unlink(missing_ok=True)


def _timeless(row: Mapping[str, float]) -> dict[str, float]:
    """Leave out what differs from run to run."""
    return {name: value for name, value in row.items() if name != "images_per_second"}


class _Base:
    """The network that conditions start from, with the data as they see them."""

    def __init__(self, trained: FirstStage, cell: Cell, desk: Desk) -> None:
        self.trained, self.settings, self.stage = trained, trained.settings, trained.stage
        self.cell, self.desk, self.seed = cell, desk, trained.seed
        self.version = str(cell["version"])
        self.attributes = self.stage.kept[1] or self.stage.kept[0]
        self.network, self.notes = trained.network(cell["length"], cell["layer"])
        # A folder of its own, that it can be removed while other processes use theirs.
        own = (
            ""
            if self.settings.keep_features
            else f"/{trained.name}-{'-'.join(map(str, _base(cell)))}"
        )
        self.folder = desk.path(f"features{own}/.")
        self.features = {split: self._features(split) for split in SPLITS}
        self.data = {split: self._examples(split, self.features[split]) for split in SPLITS}
        self.head_score = float("nan")
        if self.settings.classes or self.stage.kept[1]:
            self._new_readout(self._head(), int(cell["head_epochs"]))
        elif self.version == "groups":
            self._reheaded(self._head())
        self.probe = self.data["train"].take(
            range(min(self.settings.probe, len(self.data["train"])))
        )

    def close(self) -> None:
        """Remove the features unless they are kept."""
        self.features, self.data = {}, {}
        if not self.settings.keep_features:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()

    def _head(self) -> Head:
        groups = self.stage.groups
        if self.settings.classes:
            count = len(self.stage.images.label_names)
            return Head.classes(count, groups if self.version == "V2" else ())
        count = len(self.attributes)
        if self.version == "groups":
            place = {attribute: k for k, attribute in enumerate(self.attributes)}
            inner = [tuple(place[a] for a in members if a in place) for members in groups]
            return Head.attributes(count, [members for members in inner if members])
        return Head.attributes(count)

    def _features(self, split: str) -> np.ndarray:
        rows = self.stage.rows[split]
        source = _Chosen(self.stage.images, rows)
        digest = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        return cached_features(
            self.network.encoder, source, len(rows), self.folder,
            f"{self.stage.images.fingerprint}-{digest}",
        )  # fmt: skip

    def _examples(self, split: str, inputs: Any) -> Examples:
        context = self.stage.coarse(split) if self.version == "V2" else None
        labels = self.stage.labels(split, () if self.settings.classes else self.attributes)
        small = isinstance(inputs, np.ndarray) and inputs.nbytes < 2**31
        # In memory at once where there is room: reading a map row by row is slow.
        return Examples(torch.from_numpy(np.array(inputs)) if small else inputs, labels, context)

    def _reheaded(self, head: Head) -> None:
        """Give the network another head with the same read-out."""
        made = ComodulatedNetwork(dataclasses.replace(self.network.config, head=head))
        made.load_state_dict(self.network.state_dict())
        self.network = made.to(self.settings.device).eval()

    def _new_readout(self, head: Head, epochs: int) -> None:
        """Fit a read-out of its own to the new outputs, the same for all conditions."""
        config = dataclasses.replace(self.network.config, head=head)
        made = ComodulatedNetwork(config)
        state = self.network.state_dict()
        fresh = make_readout(self.network.units, head.outputs, derive_seed(self.seed, self.version))
        state |= {f"readout.{name}": value for name, value in fresh.state_dict().items()}
        made.load_state_dict(state)
        made = made.to(self.settings.device).eval()
        tuning = dataclasses.replace(
            self.settings.tune, epochs=epochs, learning_rate=self.settings.head_rate
        )
        found = tune(
            made, condition("last-layer"), self.data["train"], self.data["validation"],
            self.data["train"].take([0]), score=score_of(self.settings.classes), config=tuning,
            seed=derive_seed(self.seed, "readout"),
        )  # fmt: skip
        self.network = found.network.requires_grad_(True)
        self.head_score = max(row["score"] for row in found.history[1:])

    def _images(self, split: str) -> Examples:
        """Return the images themselves, for what trains the encoder."""
        known = self.data[split]
        return Examples(self.stage.images, known.labels, known.context, self.stage.rows[split])

    def measured(self, cell: Cell, report: Callable[[float], Any]) -> Measured:
        """Tune and measure a cell."""
        settings = self.settings
        chosen = condition(str(cell["condition"]))
        if cell["joint"]:
            chosen = dataclasses.replace(chosen, trained=(*chosen.trained, "readout"))
        data, probe = self.data, self.probe
        if "encoder" in chosen.trained:
            data = {split: self._images(split) for split in SPLITS}
            probe = data["train"].take(range(len(self.probe)))
        rate = float(cell["rate"]) or settings.tune.learning_rate
        tuned = tune(
            self.network, chosen, data["train"], data["validation"], probe,
            score=score_of(settings.classes), options=settings.modulation,
            config=dataclasses.replace(settings.tune, learning_rate=rate), seed=self.seed,
            report=lambda share: report(0.9 * share),
        )  # fmt: skip
        meaning = self._meaning()
        found = measure(self._before(), tuned, data, settings, meaning, self.seed)
        if cell["seed"] == 0 and not cell["joint"] and cell["condition"] in EMBEDDED:
            found.tables["embedding"] = embedding(self._before(), tuned, data["test"], meaning)
        first = {
            "first_epoch": int(self.notes["epoch"]),
            "first_score": float(self.notes["history"][self.notes["epoch"] - 1]["score"]),
            "untrained_score": float(self.notes["untrained"]),
            "head_score": self.head_score,
            "weights": str(self.notes["weights"]),
            "data_name": self.stage.images.name,
            "stand_in_for": self.stage.images.stand_in_for or "",
            "train_images": len(self.stage.rows["train"]),
            "contexts": self.network.head.contexts,
            "outputs": self.network.head.outputs,
            "heldout": ",".join(map(str, self.stage.kept[1])),
            "chance": self._chance(),
        }
        return Measured({**first, **found.values}, found.tables)

    def _chance(self) -> str:
        """Say how often a guess among the classes that are possible is right."""
        head = self.network.head
        if not self.settings.classes:
            return ""
        if not head.allowed:
            return f"1/{head.outputs}"
        names = self.stage.images.groups
        return ", ".join(
            f"{name} 1/{len(classes)}" for name, classes in zip(names, head.allowed, strict=True)
        )

    def _before(self) -> ComodulatedNetwork:
        return copy.deepcopy(self.network)

    def _meaning(self) -> dict[str, Any]:
        """Return what outputs and contexts are called, and the group of each context."""
        images, groups = self.stage.images, self.stage.images.groups
        none = {"group": None, "group_names": None}
        if self.settings.classes:
            names = list(groups) if self.version == "V2" else ["all"]
            above = {c: name for name, members in groups.items() for c in members}
            outputs = list(images.label_names)
            superclass = [above[c] for c in range(len(outputs))]
            return {"contexts": names, "outputs": outputs, "superclass": superclass} | none
        names = [images.label_names[a] for a in self.attributes]
        if self.version == "groups":
            held = [name for name, members in groups.items() if set(members) & set(self.attributes)]
            return {"contexts": held, "outputs": names} | none
        number = {a: k for k, members in enumerate(groups.values()) for a in members}
        group = [number[a] for a in self.attributes]
        told = [list(groups)[k] for k in group]
        return {"contexts": names, "outputs": names, "group": group, "group_names": told}


class _Chosen:
    """Some rows of an image set."""

    def __init__(self, images: ImageSet, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def read(self, rows: Any) -> Tensor:
        return self.images.read(self.rows[np.asarray(rows)])


def check_data(settings: ComodulationSettings) -> None:
    """Raise an error that says all that is missing, before anything is computed."""
    if settings.device != "cpu":
        from ctxrnn.studies._networks import device_of
        from ctxrnn.studies._plan import NetworkSettings

        device_of(NetworkSettings(device=settings.device))
    missing = []
    try:
        stage_of(settings)
    except FileNotFoundError as error:
        missing.append(
            f"{error} (--data DIR names the folder, --set options=download=true gets files that "
            "can be had)"
        )
    if settings.encoder.kind == "resnet18":
        try:
            ComodulatedNetwork(NetworkConfig(settings.encoder, (2,), Head.classes(2)))
        except FileNotFoundError as error:
            missing.append(f"{error} (--set encoder.weights=none for random weights)")
    if missing:
        raise FileNotFoundError("; and ".join(missing))
