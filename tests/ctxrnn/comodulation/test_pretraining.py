"""The first stage: resumed in mid-epoch, lengths, schedules, augmentation, several processes."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from ctxrnn import CheckpointError
from ctxrnn._checkpoint import read_tensors, write_tensors
from ctxrnn.comodulation import (
    ComodulatedNetwork,
    EncoderConfig,
    Examples,
    Head,
    NetworkConfig,
    PretrainConfig,
    predict,
    pretrain,
)
from ctxrnn.comodulation._pretraining import augmented


def network(seed=0, decoder=(8,), layer=None):
    return ComodulatedNetwork(
        NetworkConfig(EncoderConfig("small", layer), decoder, Head.attributes(2)), seed=seed
    )


def data(count=50, seed=0):
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 8, 8), generator=source, dtype=torch.uint8)
    labels = torch.stack([images[:, 0].float().mean((1, 2)) > 127, images[:, 1, 0, 0] > 127], 1)
    return Examples(images, labels.long())


def score(logits, labels):
    return {"score": -float(nn.functional.binary_cross_entropy_with_logits(logits, labels.float()))}


def config(**more):
    return PretrainConfig(**{"lengths": (1, 3), "batch": 16, "learning_rate": 1e-2, **more})


def same(a, b):
    assert a.keys() == b.keys()
    assert all(a[name].equal(b[name]) for name in a)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, optimiser, stop):
    settings = config(
        optimiser=optimiser, augment="crop-flip", checkpoint_seconds=0.0, weight_decay=1e-4
    )
    train, validation = data(), data(20, 1)
    whole = network()
    expected = pretrain(whole, train, validation, score=score, config=settings, seed=3)
    steps = iter(range(100))

    def interrupt(_):
        if next(steps) == stop:
            raise Stopped

    path = tmp_path / "run.safetensors"
    with pytest.raises(Stopped):
        pretrain(
            network(), train, validation, score=score, config=settings, seed=3, checkpoint=path,
            report=interrupt,
        )  # fmt: skip
    # 4 steps an epoch: within the first, at its end, within the second.
    resumed = network(seed=9)
    found = pretrain(
        resumed, train, validation, score=score, config=settings, seed=3, checkpoint=path
    )
    same(whole.state_dict(), resumed.state_dict())
    assert found.epochs == expected.epochs
    for length in (1, 3):
        same(found.states[length], expected.states[length])
    for ours, theirs in zip(found.history, expected.history, strict=True):
        for row in (ours, theirs):
            assert row.pop("images_per_second") > 0
        assert ours == theirs
    # Finished: nothing is left to do.
    again = pretrain(
        network(), train, validation, score=score, config=settings, seed=3, checkpoint=path
    )
    same(again.states[3], expected.states[3])


def test_each_length_keeps_its_best_epoch():
    scores = iter([0.5, 0.9, 0.7, 0.95])
    states = []
    model = network()

    def told(*_):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": next(scores)}

    found = pretrain(model, data(), data(9), score=told, config=config(lengths=(1, 3, 4)))
    assert found.epochs == {1: 1, 3: 2, 4: 4}
    for length, epoch in found.epochs.items():
        same(found.states[length], states[epoch - 1])


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    long, short = (
        pretrain(network(), data(), data(9), score=score, config=config(lengths=lengths))
        for lengths in ((1, 3), (1,))
    )
    same(long.states[1], short.states[1])


def test_the_first_step_by_hand():
    settings = config(optimiser="sgd", lengths=(1,), batch=50)
    model, reference = network(), network().train()
    train = data()
    pretrain(model, train, data(9), score=score, config=settings)
    logits = reference(reference.encoder.below(train.inputs))
    loss = nn.functional.binary_cross_entropy_with_logits(logits, train.labels.float())
    loss.backward()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter -= 1e-2 * parameter.grad
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        # The order of the images differs, and so the rounding of sums over 50 of them.
        assert (ours - theirs).abs().max() < 1e-5, name


def test_cosine_ends_near_zero():
    model = network()
    rates = []
    step = torch.optim.SGD.step

    def watched(self, *args, **more):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", watched)
        pretrain(
            model, data(), data(9), score=score,
            config=config(lengths=(2,), schedule="cosine", optimiser="sgd"),
        )  # fmt: skip
    # Eight steps: (1 + cos(pi k / 8)) / 2.
    expected = [1e-2 * (1 + float(torch.cos(torch.tensor(torch.pi * k / 8)))) / 2 for k in range(8)]
    assert rates == pytest.approx(expected)


def test_it_learns():
    def bright(count, seed):
        plain = data(count, seed)
        labels = torch.randint(2, (count, 2), generator=torch.Generator().manual_seed(seed))
        # The first attribute is the brightness of red, the second is nowhere to be seen.
        plain.inputs[:, 0] = plain.inputs[:, 0] // 2 + 100 * labels[:, :1, None].byte()
        return Examples(plain.inputs, labels)

    model = network()
    pretrain(model, bright(400, 0), bright(50, 1), score=score, config=config(lengths=(4,)))
    fresh = bright(400, 5)
    right = ((predict(model, fresh) > 0).long() == fresh.labels).float().mean(dim=0)
    assert right[0] > 0.95
    # Chance, within four standard errors.
    assert abs(right[1] - 0.5) < 4 * 0.5 / 20


def test_augmentation_shifts_and_mirrors():
    images = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    found = augmented(images, "crop-flip", torch.Generator().manual_seed(0))
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    plain = images[0, 0]
    kinds = set()
    for image in found[:, 0]:
        hits = []
        for mirrored in (False, True):
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    padded = nn.functional.pad(plain, (1, 1, 1, 1))
                    shifted = padded[1 + down : 9 + down, 1 + right : 9 + right]
                    if image.equal(shifted.flip(1) if mirrored else shifted):
                        hits.append((mirrored, down, right))
        assert len(hits) == 1
        kinds.add(hits[0])
    # 18 kinds, 200 draws: one is missed with a chance of 18 (17/18)^200 < 2e-4.
    assert len(kinds) == 18
    assert augmented(images, "none", torch.Generator()).equal(images)


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    settings = config(lengths=(1,))
    pretrain(network(), data(), data(9), score=score, config=settings, checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="truncated, damaged"):
        pretrain(network(), data(), data(9), score=score, config=settings, checkpoint=path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_goes_on_that_was_killed_between_the_last_step_and_the_score(
    tmp_path, epoch, workers
):
    settings = config(checkpoint_seconds=0.0, workers=workers)
    path = tmp_path / "run.safetensors"
    whole = network()
    expected = pretrain(whole, data(), data(9), score=score, config=settings)
    calls = iter(range(1, 9))

    def killed(logits, labels):
        if next(calls) == epoch:
            raise KeyboardInterrupt
        return score(logits, labels)

    with pytest.raises(KeyboardInterrupt):
        pretrain(network(), data(), data(9), score=killed, config=settings, checkpoint=path)
    resumed = network()
    found = pretrain(resumed, data(), data(9), score=score, config=settings, checkpoint=path)
    same(whole.state_dict(), resumed.state_dict())
    same(found.states[3], expected.states[3])
    assert all(row["images_per_second"] > 0 for row in found.history)
    assert [row["loss"] for row in found.history] == [row["loss"] for row in expected.history]


class Source:
    def __init__(self, images, fingerprint):
        self.images, self.fingerprint = images, fingerprint

    def read(self, rows):
        return self.images[torch.as_tensor(rows)]


def of_source(fingerprint="a", count=50):
    plain = data()
    rows = np.arange(50)[:count]
    return Examples(Source(plain.inputs, fingerprint), plain.labels[rows], rows=rows)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("seed is 0 there, 1 here", {"seed": 1}),
        ("learning_rate is 0.01 there, 0.02 here", {"config": config(learning_rate=0.02)}),
        (r"lengths is \[1, 3\] there, \[1\] here", {"config": config(lengths=(1,))}),
        ("augment is 'none' there, 'crop-flip' here", {"config": config(augment="crop-flip")}),
        (r"network.decoder is \[8\] there, \[9\] here", {"network": network(decoder=(9,))}),
        (r"network.decoder is \[8\] there, \[8, 8\] here", {"network": network(decoder=(8, 8))}),
        ("encoder.layer is None there, 'layer2' here", {"network": network(layer="layer2")}),
        ("data.fingerprint is 'a' there, 'b' here", {"train": of_source("b")}),
        ("data.examples is 50 there, 40 here", {"train": of_source(count=40)}),
        ("data.fingerprint is 'a' there, None here", {"train": data()}),
        ("data.labels is", {"train": dataclasses.replace(of_source(), labels=1 - data().labels)}),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(tmp_path, message, changes):
    path = tmp_path / "run.safetensors"
    settings = {
        "train": of_source(), "validation": data(9), "score": score, "config": config(), "seed": 0,
        "network": network(), "checkpoint": path,
    }  # fmt: skip
    header = "run.safetensors is of another run"
    pretrain(**settings)
    with pytest.raises(CheckpointError, match=rf"{header} \(.*{message}.*remove this one") as told:
        pretrain(**{**settings, **changes})
    assert "\n" not in str(told.value)


def test_how_images_are_read_and_when_it_is_saved_make_no_other_run(tmp_path):
    path = tmp_path / "run.safetensors"
    first = pretrain(network(), data(), data(9), score=score, config=config(), checkpoint=path)
    again = pretrain(
        network(), data(), data(9), score=score, checkpoint=path,
        config=config(workers=1, checkpoint_seconds=5.0),
    )  # fmt: skip
    same(first.states[3], again.states[3])


def test_a_checkpoint_that_does_not_fit_is_told_in_a_line(tmp_path):
    path = tmp_path / "run.safetensors"
    pretrain(network(), data(), data(9), score=score, config=config(), checkpoint=path)
    altered = network()
    altered.decoder = nn.Sequential(nn.Linear(64, 5), nn.ReLU())
    altered.readout = nn.Linear(5, 2)
    with pytest.raises(CheckpointError, match=r"does not fit this run \(.*decoder") as told:
        pretrain(altered, data(), data(9), score=score, config=config(), checkpoint=path)
    assert "\n" not in str(told.value)
    tensors, header = read_tensors(path, "first stage")
    del header["identity"]
    write_tensors(path, tensors, header, "first stage")
    with pytest.raises(CheckpointError, match="is of an older version, without its settings"):
        pretrain(network(), data(), data(9), score=score, config=config(), checkpoint=path)


def test_images_may_be_numbers():
    plain, numbers = (
        pretrain(
            network(),
            *(dataclasses.replace(d, inputs=how(d.inputs)) for d in (data(), data(9))),
            score=score, config=config(lengths=(1,)),
        )
        for how in (lambda x: x, lambda x: x.float() / 255)
    )  # fmt: skip
    same(plain.states[1], numbers.states[1])


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"inputs must be images of 3 channels, .* got float32 of shape \(1, 64, 1, 1\)",
         lambda d: dataclasses.replace(d, inputs=torch.rand(50, 64, 1, 1))),
        ("give images in train, not features", lambda d: dataclasses.replace(d, images=False)),
        ("2 attributes for each example", lambda d: dataclasses.replace(d, labels=d.labels[:, :1])),
        ("train must hold one image", lambda d: d.take(torch.arange(0))),
        ("inputs of the training set at step 0 of epoch 1 must be finite: 3 of 150",
         lambda d: dataclasses.replace(
             d, inputs=(d.inputs / 255).index_fill(0, torch.tensor([7]), torch.nan)[:, :, :1, :1])),
    ],
)  # fmt: skip
def test_images_are_checked(message, change):
    with pytest.raises(ValueError, match=message):
        pretrain(network(), change(data()), data(9), score=score, config=config(batch=50))


def test_scores_that_are_no_numbers_are_an_error():
    scores = iter([float("nan"), 0.5, 0.4])
    with pytest.raises(FloatingPointError, match="the score is nan in every epoch up to 1: look"):
        pretrain(network(), data(), data(9), score=lambda *_: {"score": next(scores)},
                 config=config())  # fmt: skip
    scores = iter([float("nan"), 0.5, float("nan")])
    found = pretrain(
        network(), data(), data(9), score=lambda *_: {"score": next(scores)},
        config=config(lengths=(3,)),
    )  # fmt: skip
    assert found.epochs == {3: 2}
    assert found.states[3]


def test_a_loss_that_is_not_finite_stops_it():
    model = network()
    with torch.no_grad():
        model.readout.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 0 of epoch 1"):
        pretrain(model, data(), data(9), score=score, config=config())


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("lengths must rise", {"lengths": (3, 1)}),
        ("must have one length", {"lengths": (1, 2), "schedule": "cosine"}),
        ("unknown optimiser", {"optimiser": "adamw"}),
        ("unknown precision", {"precision": "float8"}),
        ("workers must be at least 0", {"workers": -1}),
    ],
)
def test_settings_are_checked(message, options):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_mixed_precision_runs_and_keeps_float32_weights():
    model = network()
    found = pretrain(
        model, data(), data(9), score=score, config=config(lengths=(1,), precision="bfloat16")
    )
    assert {value.dtype for value in found.states[1].values()} == {torch.float32, torch.int64}
    plain = network()
    pretrain(plain, data(), data(9), score=score, config=config(lengths=(1,)))
    assert not model.readout.weight.equal(plain.readout.weight)


def test_loader_workers_read_the_same():
    plain, ahead = (
        pretrain(network(), data(), data(9), score=score, config=config(lengths=(1,), workers=w))
        for w in (0, 2)
    )
    same(plain.states[1], ahead.states[1])


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_processes_of_torchrun_share_a_batch(tmp_path):
    """Two processes and plain gradient descent: the mean of their gradients, by hand."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            sys.path.insert(0, sys.argv[1])
            import torch
            from test_pretraining import config, data, network, pretrain, score
            torch.set_num_threads(1)
            model = network()
            settings = config(optimiser="sgd", lengths=(1,), batch=24)
            pretrain(model, data(), data(9), score=score, config=settings, seed=2)
            if torch.distributed.get_rank() == 0:
                torch.save(model.state_dict(), sys.argv[2])
            torch.distributed.destroy_process_group()
            """
        )
    )
    out = tmp_path / "state.pt"
    here = os.path.dirname(__file__)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(script), here, str(out),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(out, weights_only=True)
    expected = by_hand()
    for name, value in expected.named_parameters():
        assert (found[name] - value).abs().max() < 1e-6, name


def by_hand():
    """Two half batches of 12, each with its own statistics of batch norm; gradients averaged."""
    from ctxrnn.comodulation._data import epoch_order

    model, momentum = network().train(), {}
    train, order = data(), epoch_order(50, 2, 1)
    for step in range(2):
        rows = order[24 * step : 24 * step + 24].reshape(2, 12)
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        total = {name: 0 for name, _ in model.named_parameters()}
        kept = None
        for part in rows:
            model.load_state_dict(buffers, strict=False)
            model.zero_grad()
            logits = model(model.encoder.below(train.inputs[part]))
            labels = train.labels[part].float()
            nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
            for name, parameter in model.named_parameters():
                total[name] = total[name] + parameter.grad / 2
            kept = kept or {name: value.clone() for name, value in model.named_buffers()}
        model.load_state_dict(kept, strict=False)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                momentum[name] = 0.9 * momentum.get(name, 0) + total[name]
                parameter -= 1e-2 * momentum[name]
    return model
