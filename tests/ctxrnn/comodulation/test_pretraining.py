"""The first stage: resumed in mid-epoch, lengths, schedules, augmentation, several processes."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from ctxrnn import CheckpointError
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


def network(seed=0):
    return ComodulatedNetwork(
        NetworkConfig(EncoderConfig("small"), (8,), Head.attributes(2)), seed=seed
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
    with pytest.raises(CheckpointError, match="is of seed 0, not 1"):
        pretrain(network(), data(), data(9), score=score, config=settings, seed=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="truncated, damaged"):
        pretrain(network(), data(), data(9), score=score, config=settings, checkpoint=path)


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
