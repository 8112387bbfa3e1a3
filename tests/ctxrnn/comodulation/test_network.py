"""Identities between conditions, parameter counts, frozen parts, encoders."""

import copy
import dataclasses
import hashlib
import math

import pytest
import torch
from torch import nn

from ctxrnn.comodulation import (
    CONDITIONS,
    ComodulatedNetwork,
    Condition,
    EncoderConfig,
    Examples,
    Head,
    Modulation,
    ModulationConfig,
    NetworkConfig,
    TuningConfig,
    condition,
    make_encoder,
    predict,
    probe_gain,
    tune,
)
from ctxrnn.comodulation._data import epoch_order

GROUPS = ((0, 1), (2, 3, 4))
HEADS = {
    "attributes": Head.attributes(5),
    "groups": Head.attributes(5, GROUPS),
    "classes": Head.classes(5),
    "superclass": Head.classes(5, GROUPS),
}


def network(head="attributes", seed=0, layer=None, **encoder):
    config = NetworkConfig(EncoderConfig("small", layer, **encoder), (8, 6), HEADS[head])
    return ComodulatedNetwork(config, seed=seed).double().eval()


def images(count, seed=0, size=12):
    source = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, size, size), generator=source, dtype=torch.uint8)


def normal(*shape, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=torch.float64)


def hidden(model, count, seed=1):
    with torch.no_grad():
        return model.encoder.below(images(count, seed).double() / 255)


def examples(model, head, count=40, seed=0, raw=False):
    source = torch.Generator().manual_seed(seed)
    context = None
    if head in ("attributes", "groups"):
        labels = torch.randint(2, (count, 5), generator=source)
    else:
        labels = torch.randint(5, (count,), generator=source)
        if head == "superclass":
            context = (labels >= 2).long()
    inputs = images(count, seed) if raw else hidden(model, count, seed).float()
    return Examples(inputs, labels, context)


def modulation(model, name, **options):
    return Modulation(
        condition(name), ModulationConfig(**options), model.head.contexts, model.channels,
        model.units, seed=3,
    ).double()  # fmt: skip


def accuracy(logits, labels):
    right = (logits.argmax(dim=1) if labels.ndim == 1 else logits > 0) == labels
    return {"score": float(right.double().mean())}


def context_of(model, count):
    return torch.arange(count) % 2 if model.head.per_image else None


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", [n for n in CONDITIONS if n != "film"])
def test_without_coupling_every_condition_is_none(head, name):
    model = network(head)
    h, context = hidden(model, 6), context_of(network(head), 6)
    made = modulation(model, name)
    if made.controller is not None:
        nn.init.zeros_(made.controller.theta)
    found = model(h, made, context)
    expected = model(h, modulation(model, "none"), context)
    assert found.equal(expected) or (found - expected)[expected.isfinite()].abs().max() < 1e-14
    film = model(h, modulation(model, "film"), context)
    assert (film - expected)[expected.isfinite()].abs().max() < 1e-14


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layer", ["layer2", "layer3"])
def test_with_a_gain_of_one_comod_is_attention_bit_for_bit(head, layer):
    for dtype in (torch.float32, torch.float64):
        model = network(head, layer=layer).to(dtype)
        h, context = hidden(model.double(), 6).to(dtype), context_of(model, 6)
        model = model.to(dtype)
        comod, attention = (modulation(model, name) for name in ("comod", "attention"))
        theta = normal(*comod.controller.theta.shape, seed=5)
        for made in (comod, attention):
            made.to(dtype)
            with torch.no_grad():
                made.controller.theta.copy_(theta)
        assert model(h, comod, context).equal(model(h, attention, context))


def test_logits_by_hand():
    model, groups = network("attributes"), network("groups")
    h = hidden(model, 4)
    made = modulation(model, "comod")
    with torch.no_grad():
        made.controller.theta.copy_(normal(5, model.channels))
        made.g.copy_(normal(5, 6, seed=2).abs())
    z = model(h, made)
    w, b = model.readout.weight, model.readout.bias
    for k in range(5):
        m = h * (made.controller.theta[k] ** 2).exp()[:, None, None]
        a = model.decoder(m.mean(dim=(2, 3)))
        expected = (a * made.g[k]) @ w[k] + b[k]
        assert (z[:, k] - expected).abs().max() < 1e-13
    made = modulation(groups, "comod")
    with torch.no_grad():
        made.controller.theta.copy_(normal(2, model.channels))
    z = groups(h, made)
    for k, members in enumerate(GROUPS):
        m = h * (made.controller.theta[k] ** 2).exp()[:, None, None]
        expected = groups.readout(groups.decoder(m.mean(dim=(2, 3))))
        for output in members:
            assert (z[:, output] - expected[:, output]).abs().max() < 1e-13


def test_superclasses_leave_their_classes_only():
    model = network("superclass")
    context = torch.tensor([0, 1, 1])
    made = modulation(model, "attention")
    with torch.no_grad():
        made.controller.theta.copy_(normal(2, model.channels))
    h = hidden(model, 3)
    z = model(h, made, context)
    assert z.isfinite().tolist() == [[True, True, False, False, False]] + 2 * [
        [False, False, True, True, True]
    ]
    m = h * (made.controller.theta[context] ** 2).exp()[:, :, None, None]
    expected = model.readout(model.decoder(m.mean(dim=(2, 3))))
    assert (z - expected)[z.isfinite()].abs().max() < 1e-13
    with pytest.raises(ValueError, match="needs the context of each image"):
        model(h, made)


def test_gains_of_channels_commute_with_pooling_and_with_relu():
    x, c = normal(2, 4, 3, 3), normal(4, seed=1).abs()
    gain = (0.7 * c).exp()[:, None, None]
    pooled = (x * gain).mean(dim=(2, 3))
    assert (pooled - x.mean(dim=(2, 3)) * gain[:, 0, 0]).abs().max() < 1e-15
    assert (torch.relu(x * gain) - torch.relu(x) * gain).abs().max() == 0


def test_forms_of_the_gain():
    model = network()
    c = modulation(model, "comod").couplings()
    m = torch.tensor(0.4, dtype=torch.float64).expand(5)
    exp = modulation(model, "comod").scale(m, 0.09)
    assert (exp - (0.4 * c - 0.045 * c**2).exp()).abs().max() < 1e-15
    linear = modulation(model, "comod", gain_form="linear").scale(m, 0.09)
    assert (linear - (1 + 0.4 * c)).abs().max() < 1e-15
    # Each draw has its own m, each context its own couplings.
    many = modulation(model, "comod").scale(normal(2, 7, 5), 0.0)
    assert many.shape == (2, 7, 5, model.channels)
    soft = modulation(model, "comod", controller="mlp", theta_init=0.3).couplings()
    assert (soft > 0).all()
    assert soft.mean().item() == pytest.approx(0.09, rel=0.5)


def test_running_gain_by_hand():
    made = modulation(network(), "comod", tau_max=2.0)
    fresh = normal(5, 6).abs()
    g, tau = torch.ones(5, 6, dtype=torch.float64), 1.0
    for _ in range(4):
        made.update(fresh)
        g = (tau * g + fresh) / (tau + 1)
        g = g / g.mean(dim=1, keepdim=True)
        tau = min(tau + 1, 2.0)
        assert (made.g - g).abs().max() < 1e-14
        assert made.g.mean(dim=1).sub(1).abs().max() < 1e-14
        assert (made.tau == tau).all()
    before = made.g.clone()
    made.update(fresh.flip(1), torch.tensor([True, False, True, True, True]))
    assert made.g[1].equal(before[1])
    assert not made.g[0].equal(before[0])


def test_permuted_gain_is_one_fixed_permutation_per_context():
    model = network()
    made, again = (modulation(model, "permuted-gain") for _ in range(2))
    g = normal(5, 6).abs()
    shown = made.shown(g)
    assert shown.equal(again.shown(g))
    # Not one for all: contexts that have the same gain show others.
    assert len(made.shown(g[:1].expand(5, -1)).unique(dim=0)) == 5
    assert shown.sort(dim=1).values.equal(g.sort(dim=1).values)
    assert not shown.equal(g)
    assert modulation(model, "comod").shown(g).equal(g)


def test_numbers_of_parameters():
    model = network()
    k, c, h = 5, model.channels, model.units
    count = {name: modulation(model, name).parameter_count() for name in CONDITIONS}
    assert count["attention"] == count["comod"] == count["comod-0"] == k * c
    assert count["shuffled-label"] == count["permuted-gain"] == count["input-noise"] == k * c
    assert count["film"] == 2 * k * c
    assert count["learned-gain"] == k * c + k * h
    for name in ("none", "bias-only", "last-layer", "decoder", "full"):
        assert count[name] == 0


def digests(module):
    return {
        name: hashlib.sha256(value.numpy().tobytes()).hexdigest()
        for name, value in module.state_dict().items()
    }


# Below the last layer batch norm lies above the cut, where it sees modulated channels.
@pytest.mark.parametrize("layer", ["layer2", None])
@pytest.mark.parametrize("head", ["attributes", "superclass"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_what_is_not_trained_stays_as_it_is(name, head, layer):
    model = network(head, layer=layer).float()
    before = digests(model)
    raw = name == "full"
    train, probe = examples(model.double(), head, raw=raw), examples(model, head, 8, raw=raw)
    model = model.float()
    found = tune(
        model, condition(name), train, train, probe, score=accuracy,
        config=TuningConfig(epochs=2, batch=16, learning_rate=0.03), seed=1,
    )  # fmt: skip
    assert digests(model) == before, "the network that is given is not changed"
    changed = {key for key, value in digests(found.network).items() if value != before[key]}
    parts = {"bias-only": {"readout.bias"}, "last-layer": {"readout.weight", "readout.bias"}}
    trained = set(CONDITIONS[name].trained)
    expected = parts.get(name, set())
    if "decoder" in trained:
        expected = {key for key in before if key.startswith(("decoder", "readout"))}
    if name == "full":
        expected = set(before)
        # Batch norm counts its batches.
        assert {key for key in changed if "running_mean" in key}
    assert changed == expected
    own = {
        "controller": ["controller.theta"], "film": ["film.gamma", "film.beta"], "gain": ["eta"]
    }  # fmt: skip
    fresh = modulation(model, name).float().state_dict()
    for part, keys in own.items():
        for key in keys if part in trained else ():
            assert not found.modulation.state_dict()[key].equal(fresh[key])
    counted = sum(p.numel() for p in found.network.parameters() if p.requires_grad)
    assert found.trained == counted + found.modulation.parameter_count()
    assert len(found.history) == (1 if name == "none" else 3)


@pytest.mark.parametrize("name", ["comod", "comod-0", "shuffled-label", "permuted-gain"])
@pytest.mark.parametrize("scope", ["all", "own_context"])
def test_gains_after_tuning_are_not_negative_with_mean_one(name, scope):
    model = network("superclass").float()
    train = examples(model.double(), "superclass")
    model = model.float()
    found = tune(
        model, condition(name), train, train, train.take(range(10)), score=accuracy,
        options=ModulationConfig(probe_scope=scope),
        config=TuningConfig(epochs=1, batch=16, learning_rate=0.03),
    )  # fmt: skip
    for g in (found.gain, found.modulation.g):
        assert (g >= 0).all()
        assert g.mean(dim=1).sub(1).abs().max() < 1e-12
    assert (found.gain != 1).any()
    again = probe_gain(found.network, found.modulation, train.take(range(10)), 0)
    assert again.equal(found.gain)


def test_micro_batches_change_nothing():
    model = network().float()
    train = examples(model.double(), "attributes")
    model = model.float()
    for name in ("comod", "input-noise", "decoder"):
        whole, parts = (
            tune(
                model.double(), condition(name), train, train, train, score=accuracy,
                config=TuningConfig(epochs=1, batch=16, images_at_once=size),
            )
            for size in (None, 5)
        )  # fmt: skip
        assert (whole.predict(train) - parts.predict(train)).abs().max() < 1e-5


def test_conditions_see_the_same_batches_and_noise():
    model = network().float()
    train = examples(model.double(), "attributes")
    model = model.float()
    runs = [
        tune(
            model, condition("comod"), train, train, train, score=accuracy, seed=seed,
            config=TuningConfig(epochs=1, batch=16),
        )
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert runs[0].predict(train).equal(runs[1].predict(train))
    assert not runs[0].predict(train).equal(runs[2].predict(train))


def test_the_encoder_is_tuned_at_a_tenth_of_the_rate():
    model = network()
    train = examples(model, "attributes", 16, raw=True)
    found = tune(
        model, condition("full"), train, train, train, score=accuracy,
        config=TuningConfig(epochs=1, batch=16, learning_rate=0.02),
    )  # fmt: skip
    before, largest = dict(model.named_parameters()), {}
    for name, value in found.network.named_parameters():
        moved = (value - before[name]).abs().max().item()
        largest[name] = moved / (0.002 if name.startswith("encoder") else 0.02)
    # Adam's first step is the rate wherever the slope is far above 1e-8.
    assert list(largest.values()) == pytest.approx([1.0] * len(largest), rel=1e-3)


def test_the_order_of_examples_depends_on_seed_and_epoch_alone():
    orders = [epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    for order in orders:
        assert order.sort().values.equal(torch.arange(50))
    assert len(torch.stack(orders).unique(dim=0)) == 4
    assert epoch_order(50, 1, 2).equal(orders[3])


def test_the_best_epoch_is_kept():
    model = network().float()
    train = examples(model.double(), "attributes")
    model = model.float()
    scores = iter([9.0, 1.0, 3.0, 2.0])
    seen = []

    def score(logits, _):
        seen.append(logits)
        return {"score": next(scores)}

    found = tune(
        model, condition("attention"), train, train, train, score=score,
        config=TuningConfig(epochs=3, batch=16, learning_rate=0.1),
    )  # fmt: skip
    # What was there before tuning is no epoch.
    assert found.kept_epoch == 2
    assert found.predict(train).equal(seen[2])
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        tune(
            model, condition("attention"), train, train, train,
            score=lambda *_: {"score": float("nan")}, config=TuningConfig(epochs=1, batch=16),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "layer"),
    [("small", "layer1"), ("small", "layer3"), ("resnet18", "layer2"), ("resnet18", None)],
)
def test_the_cut_changes_nothing(kind, layer):
    if kind == "resnet18":
        pytest.importorskip("torchvision")
    whole = make_encoder(EncoderConfig(kind, stem="cifar"), seed=2).eval()
    cut = make_encoder(EncoderConfig(kind, layer, stem="cifar"), seed=2).eval()
    x = images(3, size=16)
    with torch.no_grad():
        assert (cut(x) - whole(x)).abs().max() < 1e-5
        h = cut.below(x)
    assert (h >= 0).all()


def test_resnet_is_torchvisions():
    models = pytest.importorskip("torchvision.models")
    own = make_encoder(EncoderConfig(), seed=1).eval()
    reference = models.resnet18(weights=None)
    state = copy.deepcopy(own.state_dict())
    renamed = {}
    for name, value in state.items():
        for ours, theirs in (("stem.0", "conv1"), ("stem.1", "bn1"), ("layers.", "")):
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        renamed[name] = value
    reference.load_state_dict(renamed, strict=False)
    reference.fc = nn.Identity()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (own(x) - reference.eval()(x)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["small", "resnet18"])
def test_blocks_without_skips(kind):
    if kind == "resnet18":
        pytest.importorskip("torchvision")
    layer = "layer2"
    kinds = {
        scope: make_encoder(EncoderConfig(kind, layer, "cifar", False, scope), seed=1)
        for scope in ("above", "all")
    }
    kinds["with"] = make_encoder(EncoderConfig(kind, layer, "cifar"), seed=1)
    count = {name: len(list(e.parameters())) for name, e in kinds.items()}
    assert count["all"] < count["above"] < count["with"]
    x = images(2, size=16)
    outputs = {name: e.eval() for name, e in kinds.items()}
    with torch.no_grad():
        below = {name: e.below(x) for name, e in outputs.items()}
    # Blocks below the modulated layer keep theirs where the scope is "above".
    assert below["above"].shape == below["all"].shape == below["with"].shape
    block = kinds["all"].layers["layer1"]
    block = block[0] if kind == "resnet18" else block
    y = torch.rand(2, block.conv1.in_channels, 8, 8)
    with torch.no_grad():
        plain = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(y))))))
        assert block(y).equal(plain)


def test_an_encoder_depends_on_its_seed_alone():
    first, second, other = (make_encoder(EncoderConfig("small"), seed=s) for s in (1, 1, 2))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make_encoder(EncoderConfig("small"), seed=1)
    assert torch.get_rng_state().equal(before)
    assert digests(first) == digests(second) != digests(other)


def test_mu_and_the_way_of_the_gradient_are_settings():
    noise = [name for name, one in CONDITIONS.items() if one.stochastic]
    for name, own in CONDITIONS.items():
        assert ModulationConfig().applied(own) == own
        half = ModulationConfig(mu=0.5).applied(own)
        assert half.mu == (None if own.mu is None else 0.5)
        assert dataclasses.replace(half, mu=own.mu) == own
        through = ModulationConfig(gain_grad="through").applied(own)
        assert through.through is (name in noise)
    plain = ModulationConfig(mu=1.0, gain_grad="detached")
    assert not any(plain.applied(CONDITIONS[name]).through for name in noise)
    model = network()
    h = hidden(model, 4)
    made = modulation(model, "comod", mu=0.25)
    scale = (0.25 * made.couplings()).exp()
    expected = model.logits(model.activity(h, scale), made.g)
    assert model(h, made).equal(expected)


def test_images_and_features_are_told_apart():
    model = network()
    raw = images(3)
    h = hidden(model, 3)
    assert model.takes_images(raw)
    assert model.takes_images(raw.double() / 255)
    assert not model.takes_images(h.half())
    same = network(channels=64)
    both = torch.rand(3, 64, 5, 5)
    assert same.takes_images(both, True)
    assert not same.takes_images(both, False)
    assert same.takes_images(both.byte())
    for kind, wanted in ((model, raw[:, :2]), (model, raw[0]), (model, h[:, :5])):
        with pytest.raises(ValueError, match=r"inputs must be images of 3( or features of 64)?"):
            kind.takes_images(wanted)
    with pytest.raises(ValueError, match="inputs must be features of 64 channels"):
        model.takes_images(raw, False)
    with pytest.raises(ValueError, match=r"images or features of layer3: say which with Examples"):
        same.takes_images(both)


def test_images_may_be_bytes_or_numbers_or_features():
    model = network()
    raw, labels = images(12), torch.arange(60).reshape(12, 5) % 2
    with torch.no_grad():
        h = model.encoder.below(raw)
    kinds = (raw, raw.double() / 255, h, h.numpy())
    found = []
    for inputs in kinds:
        train = Examples(inputs, labels)
        tuned = tune(
            model, condition("comod"), train, train, train.take(range(6)), score=accuracy,
            config=TuningConfig(epochs=1, batch=5),
        )  # fmt: skip
        found.append(tuned.predict(train))
    for other in found[1:]:
        # Numbers are read in float32.
        assert (other - found[0]).abs().max() < 1e-5


def broken(model, **changes):
    good = examples(model, "superclass")
    labels, context = good.labels.clone(), good.context.clone()
    for name, (place, value) in changes.items():
        (labels if name == "labels" else context)[place] = value
    return dataclasses.replace(good, labels=labels, context=context)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("labels of train must be one class for each example, below 5: got 0 to 7",
         {"labels": (3, 7)}),
        ("contexts of train must lie in 0 to 1: got 0 to 2", {"context": (3, 2)}),
        ("labels of train must be possible in their context: 1 examples of context 1 have another "
         "class, such as 0; allowed are 2, 3, 4", {"labels": (5, 0), "context": (5, 1)}),
    ],
)  # fmt: skip
def test_labels_must_fit_the_head_and_their_context(message, change):
    model = network("superclass")
    good, bad = broken(model), broken(model, **change)
    with pytest.raises(ValueError, match=message):
        tune(model, condition("comod"), bad, good, good, score=accuracy)
    with pytest.raises(ValueError, match=message.replace("train", "validation")):
        tune(model, condition("comod"), good, bad, good, score=accuracy)


def test_labels_of_another_kind_or_number_are_refused():
    model, classes = network(), network("classes")
    h = hidden(model, 6)
    for head, labels, message in (
        (model, torch.zeros(6, 4), r"5 attributes for each example, 0 or 1: got shape \(6, 4\)"),
        (model, -torch.ones(6, 5), r"5 attributes for each example, 0 or 1: got -1 to -1"),
        (classes, torch.zeros(6, 5), r"one class for each example, below 5: got shape \(6, 5\)"),
        (classes, torch.zeros(6), r"one class for each example, below 5: got shape \(6,\) of fl"),
    ):
        some = Examples(h, labels)
        with pytest.raises(ValueError, match=message):
            tune(head, condition("comod"), some, some, some, score=accuracy)
    for count in (5, 7):
        with pytest.raises(
            ValueError, match=f"labels must be one for each of 6 inputs: got {count}"
        ):
            Examples(h, torch.zeros(count, 5))
    with pytest.raises(ValueError, match="context must be one for each of 6 inputs: got 5"):
        Examples(h, torch.zeros(6), torch.zeros(5))
    with pytest.raises(ValueError, match="rows must say which rows of a object"):
        Examples(object(), torch.zeros(6))
    alone = network("superclass")
    some = Examples(h, torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match="the context of each image of train: got None"):
        tune(alone, condition("comod"), some, some, some, score=accuracy)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["comod", "comod-0"])
def test_nan_in_a_noise_pass_is_an_error(name, bad):
    model = network().float()
    train = examples(model.double(), "attributes", 12)
    model = model.float()
    inputs = train.inputs.clone()
    inputs[2, 7] = bad
    spoilt = dataclasses.replace(train, inputs=inputs)
    config = TuningConfig(epochs=1, batch=12)
    with pytest.raises(ValueError, match="inputs of the probe set must be finite: 1 of"):
        tune(model, condition(name), train, train, spoilt, score=accuracy, config=config)
    with pytest.raises(
        ValueError, match="inputs of the training set at step 0 of epoch 1 must be finite: 1 of"
    ):
        tune(model, condition(name), spoilt, train, train, score=accuracy, config=config)
    with torch.no_grad():
        model.decoder[0].weight[0, 0] = bad
    with pytest.raises(FloatingPointError, match="the noise pass of the probe set gave no decoder"):
        tune(model, condition(name), train, train, train, score=accuracy, config=config)


def test_couplings_of_the_mlp_start_where_they_should():
    for start in (1e-3, 0.3, 3.0, 40.0):
        made = modulation(network(), "comod", controller="mlp", theta_init=start)
        with torch.no_grad():
            made.controller.out.zero_()
        # Of float32: shift is rounded, and softplus adds log1p(exp(-shift)).
        expected = torch.full((5, 64), start**2, dtype=torch.float64)
        assert (made.couplings() / expected - 1).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("theta_init must not be 0", lambda: ModulationConfig(theta_init=0.0, controller="mlp")),
        ("theta_init must not be 0, nor so small", lambda: ModulationConfig(theta_init=1e-30)),
        ("theta_init must be finite: got nan", lambda: ModulationConfig(theta_init=math.nan)),
        ("theta_init must be finite: got inf", lambda: ModulationConfig(theta_init=math.inf)),
        ("mu must be zero or more and finite", lambda: ModulationConfig(mu=math.nan)),
        ("unknown gain_grad 'throug'", lambda: ModulationConfig(gain_grad="throug")),
        ("mu=0 must come with the gradient through the gain, gain_grad='through'",
         lambda: ModulationConfig(mu=0.0, gain_grad="detached")),
        ("'comod': mu=0 must come with the gradient", lambda: modulation(
            network(), "comod", mu=0.0)),
        ("'comod-0': mu=0 must come with the gradient", lambda: modulation(
            network(), "comod-0", gain_grad="detached")),
        ("'attention': mu=0 must come with the gradient", lambda: modulation(
            network(), "attention", mu=0.0, gain_grad="through")),
        ("'x': mu=0 must come with the gradient", lambda: Condition("x", ("controller",), 0.0)),
        ("'x': mu=None must come with the gradient", lambda: Condition("x", ("controller",))),
        ("unknown part in trained of 'x' 'controler'.* Did you mean 'controller'",
         lambda: Condition("x", ("controler",), 1.0)),
        ("unknown gain of 'x' 'noisy'", lambda: Condition("x", ("controller",), 1.0, "noisy")),
        ("mu of 'x' must be finite", lambda: Condition("x", ("controller",), math.inf)),
        ("'x' with a gain from noise must train the controller",
         lambda: Condition("x", ("readout",), 1.0, "noise")),
        ("'x' has through=True, which must come with a gain from noise",
         lambda: Condition("x", ("controller",), 1.0, through=True)),
        ("'x' has noisy=True, which must come with a mu",
         lambda: Condition("x", ("readout",), noisy=True)),
        ("'x' must have both 'gain' in trained and gain='learned'",
         lambda: Condition("x", ("controller",), 1.0, "learned")),
        ("train must hold one example", lambda: tune(
            network(), condition("comod"), *[examples(network(), "attributes", 0)] * 3,
            score=accuracy)),
        ("theta_init must not be 0", lambda: ModulationConfig(theta_init=0.0)),
        ("mu=0 must come with the gradient", lambda: Modulation(
            CONDITIONS["comod-0"].__class__("x", ("controller",), 0.0, "noise"),
            ModulationConfig(), 2, 3, 4)),
        ("unknown condition 'comodd'.* Did you mean 'comod'", lambda: condition("comodd")),
        ("unknown gain_form", lambda: ModulationConfig(gain_form="log")),
        ("sigma must be positive", lambda: ModulationConfig(sigma=0.0)),
        ("no block lies above layer3", lambda: EncoderConfig("small", skips=False)),
        ("unknown layer 'layer4'", lambda: EncoderConfig("small", "layer4")),
        ("hold each of 5 attributes once", lambda: Head.attributes(5, ((0, 1), (1, 2, 3, 4)))),
        ("hold each of 5 classes once", lambda: Head.classes(5, ((0, 1), (2, 3)))),
        ("at least one hidden layer", lambda: NetworkConfig(decoder=())),
        ("give images, not features", lambda: tune(
            network().float(), condition("full"), *[examples(network(), "attributes")] * 3,
            score=accuracy)),
    ],
)  # fmt: skip
def test_errors_say_what_must_hold(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_predictions_do_not_depend_on_how_many_are_computed_at_once(monkeypatch):
    model = network()
    data = examples(model, "attributes")
    made = modulation(model, "comod")
    whole = predict(model, data, made)
    monkeypatch.setattr(ComodulatedNetwork, "chunk", lambda *_: 3)
    assert (predict(model, data, made, size=7) - whole).abs().max() < 1e-13


def test_a_run_that_diverges_keeps_its_good_epochs(monkeypatch):
    from ctxrnn.comodulation import _tuning

    model = network().float()
    train = examples(network(), "attributes", 24)
    train = dataclasses.replace(train, inputs=train.inputs.float())
    config = TuningConfig(epochs=4, batch=12, learning_rate=1e-1)
    whole = tune(model, condition("comod"), train, train, train, score=accuracy, config=config)
    original = _tuning._Tuning.step

    def broken(self, batch, epoch, number):
        if epoch == 3:
            raise FloatingPointError("the noise pass gave no decoder gain")
        return original(self, batch, epoch, number)

    monkeypatch.setattr(_tuning._Tuning, "step", broken)
    found = tune(model, condition("comod"), train, train, train, score=accuracy, config=config)
    assert [row["epoch"] for row in found.history if row["epoch"]] == [1, 2]
    best = max((row for row in whole.history if row["epoch"] in (1, 2)), key=lambda r: r["score"])
    assert found.kept_epoch == best["epoch"]
    monkeypatch.setattr(
        _tuning._Tuning, "step", lambda *_: (_ for _ in ()).throw(FloatingPointError("no gain"))
    )
    with pytest.raises(FloatingPointError, match="no gain"):
        tune(model, condition("comod"), train, train, train, score=accuracy, config=config)
