"""The hierarchical network against dense matrices, autograd, differences and closed forms."""

import math
import shutil

import pytest
import torch

from ctxrnn import make_generator
from ctxrnn.comodulation import _local
from ctxrnn.comodulation._hierarchy import (
    Smoothing,
    hidden,
    loss_of,
    modulated,
    parameter_total,
    readout,
    smoothing_factors,
)
from ctxrnn.comodulation._hierarchy_couplings import coupling_gradient
from ctxrnn.comodulation._hierarchy_noise import (
    BlankCovariance,
    covariance_weights,
    genuine_covariance,
    sample_rule,
    updated_gain,
)
from ctxrnn.comodulation._hierarchy_weights import weight_gradient
from ctxrnn.comodulation._local import local, local_gradient, local_weight_gradient
from ctxrnn.comodulation.hierarchy import (
    CouplingStack,
    HierarchyConfig,
    Member,
    NoisePass,
    OutputStack,
    WeightStack,
    draw_parameters,
    drive_of,
    examples_of,
    fit,
    last_activity,
    log_probabilities,
    split_batches,
    unpack,
)

SMALL = HierarchyConfig(positions=5, orientations=3)


def drawn(config=SMALL, seed=0, dtype=torch.float64, networks=1, scale=1.0):
    """Parameters of some networks; scaled up, the hidden layers do more than their biases."""
    flat = torch.cat(
        [draw_parameters(config, make_generator(seed, k), dtype) for k in range(networks)]
    )
    return unpack(scale * flat, config)


def drives(config, images, seed=0, networks=1, dtype=torch.float64):
    generator = make_generator(seed, "drives")
    shape = (networks, images, *config.shape)
    return drive_of(torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def dense_mask(config):
    """Masks of both hidden layers, (unit, unit below), by the rule in words: same orientation,
    position within the window; with the number of the weight that stands there."""
    n, o, v = config.positions, config.orientations, config.units
    masks = []
    for below_units, side in ((1, n - 1), (v, n - 2)):
        up, down = v * side * side * o, below_units * (side + 1) ** 2 * o
        where = -torch.ones(up, down, dtype=torch.long)
        weight = torch.arange(v * 4 * below_units * side * side * o).view(
            v, 4, below_units, side, side, o
        )
        for unit in range(v):
            for y in range(side):
                for x in range(side):
                    for angle in range(o):
                        row = ((unit * side + y) * side + x) * o + angle
                        for place, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                            for low in range(below_units):
                                column = ((low * (side + 1) + y + dy) * (side + 1) + x + dx) * o
                                index = weight[unit, place, low, y, x, angle]
                                where[row, column + angle] = index
        masks.append(where)
    return masks


def dense(where, weights):
    filled = torch.cat([weights.flatten(), weights.new_zeros(1)])
    return filled[where]


def test_layer_sizes_and_numbers_of_weights():
    config = HierarchyConfig()
    assert config.sizes == (2560, 9000, 7840)
    shapes = {name: math.prod(shape) for name, shape in config.shapes().items()}
    assert (shapes["w1"], shapes["w2"]) == (36_000, 125_440)
    assert (shapes["b1"], shapes["b2"], shapes["out"], shapes["bias"]) == (9000, 7840, 78_400, 10)
    assert parameter_total(config) == sum(shapes.values())


def test_fan_in_is_4_and_16_and_orientation_is_preserved_through_both_layers():
    first, second = dense_mask(SMALL)
    assert set((first >= 0).sum(1).tolist()) == {4}
    assert set((second >= 0).sum(1).tolist()) == {16}
    weights = drawn(scale=20.0)
    ones = [part.clone() for part in weights]
    # Without biases and with positive weights, activity shows what is connected.
    own = weights._replace(w1=ones[0].abs(), b1=0 * ones[1], w2=ones[2].abs(), b2=0 * ones[3])
    for angle in range(SMALL.orientations):
        shown = torch.zeros(1, 1, *SMALL.shape, dtype=torch.float64)
        shown[..., angle] = 1
        h2 = hidden(own, shown).h2
        assert (h2[..., angle] > 0).all()
        assert h2.sum(dim=(0, 1, 2, 3, 4)).nonzero().flatten().tolist() == [angle]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_local_layers_equal_the_masked_dense_ones(dtype):
    weights, shown = drawn(dtype=dtype, scale=20.0), drives(SMALL, 6, dtype=dtype)
    first, second = dense_mask(SMALL)
    x = shown[0].flatten(1)
    h1 = (x @ dense(first, weights.w1[0]).T + weights.b1[0].flatten()).clamp_min(0)
    h2 = (h1 @ dense(second, weights.w2[0]).T + weights.b2[0].flatten()).clamp_min(0)
    found = hidden(weights, shown)
    # Sums of up to 17 terms.
    tolerance = 17 * torch.finfo(dtype).eps * max(1.0, float(h2.max()))
    assert (found.h1[0].flatten(1) - h1).abs().max() < tolerance
    assert (found.h2[0].flatten(1) - h2).abs().max() < tolerance
    assert torch.equal(last_activity(weights, shown[0]), found.h2[0].flatten(1))


def test_initial_weights_have_the_bound_of_the_dense_layer():
    weights = drawn(HierarchyConfig())
    for part, below in (
        (weights.w1, 2560), (weights.b1, 2560), (weights.w2, 9000), (weights.b2, 9000),
        (weights.out, 7840), (weights.bias, 7840),
    ):  # fmt: skip
        bound = 1 / math.sqrt(below)
        assert part.abs().max() <= bound
        # The largest of n uniform numbers falls below bound (1 - 10 / n) with probability e^-10.
        assert part.abs().max() > bound * (1 - 10 / part.numel())


def test_columns_of_f_sum_to_1_and_theta_1_gives_c_1():
    place, angle = smoothing_factors(HierarchyConfig())
    whole = torch.einsum("ab,cd,ef->acebdf", place, place, angle).reshape(2560, 2560)
    assert (whole.sum(0) - 1).abs().max() < 1e-14
    # Directly, by the definition: rows first, then columns.
    y, x, o = torch.meshgrid(
        torch.linspace(-2 * math.pi, 2 * math.pi, 16, dtype=torch.float64),
        torch.linspace(-2 * math.pi, 2 * math.pi, 16, dtype=torch.float64),
        torch.arange(10, dtype=torch.float64) * math.pi / 10,
        indexing="ij",
    )
    points = torch.stack([y.flatten(), x.flatten(), o.flatten()], dim=1)
    kernel = torch.exp(-(torch.cdist(points, points) ** 2) / (2 * 0.1**2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    kernel = kernel / kernel.sum(0)
    # cdist's squares lose digits: 1e-7 of the squared distance 0.0987 / 0.02.
    assert (kernel - whole).abs().max() < 1e-6
    for dtype in (torch.float32, torch.float64):
        c = Smoothing(HierarchyConfig(), dtype).couplings(torch.ones(1, 16, 16, 10, dtype=dtype))
        assert (c - 1).abs().max() < 4 * torch.finfo(dtype).eps
    # Not almost the identity for a wide kernel: both factors act.
    wide = HierarchyConfig(positions=5, orientations=3, smoothing=2.0)
    place, angle = smoothing_factors(wide)
    theta = torch.rand(1, *wide.shape, dtype=torch.float64, generator=make_generator(0))
    whole = torch.einsum("ab,cd,ef->acebdf", place, place, angle).reshape(75, 75)
    expected = (theta.flatten() ** 2) @ whole
    found = Smoothing(wide, torch.float64).couplings(theta).flatten()
    assert (found - expected).abs().max() < 1e-13


def test_gain_is_the_equation_and_may_precede_the_rectification():
    responses = torch.randn(1, 3, *SMALL.shape, dtype=torch.float64, generator=make_generator(1))
    c = torch.rand(1, 1, *SMALL.shape, dtype=torch.float64, generator=make_generator(2))
    by_hand = (responses * torch.exp(0.7 * c - 0.5 * 0.01 * c**2)).clamp_min(0)
    found = modulated(drive_of(responses), c, 0.7, 0.01)
    assert (found - by_hand).abs().max() < 1e-15
    by_hand = torch.exp(responses + 0.7 * c - 0.5 * 0.01 * c**2)
    found = modulated(drive_of(responses, exponential=True), c, 0.7, 0.01)
    assert (found / by_hand - 1).abs().max() < 1e-14


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_compiled_layers_are_there_where_there_is_a_compiler(monkeypatch):
    monkeypatch.delenv("CTXRNN_KERNEL", raising=False)
    assert _local.library.__wrapped__() is not None, "run `pip install -e .` again"
    monkeypatch.setenv("CTXRNN_KERNEL", "off")
    assert _local.library.__wrapped__() is None


@pytest.mark.parametrize("images", [1, 2, 3, 7])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("below", [1, 4])
def test_compiled_layers_equal_those_in_torch(monkeypatch, images, shared, below):
    generator = make_generator(images, below)
    networks, own = 3, 1 if shared else 3
    # Lines of 7 x 3 = 21 numbers: one of 16, one of 4, one alone.
    h = torch.randn(networks, images, below, 8, 8, 3, generator=generator)
    g = torch.randn(networks, images, 4, 7, 7, 3, generator=generator)
    w = torch.randn(own, 4, 4, below, 7, 7, 3, generator=generator)
    b = torch.randn(own, 4, 7, 7, 3, generator=generator)
    found = local(h, w, b), local_gradient(g, w), local_weight_gradient(g, h)
    monkeypatch.setattr(_local, "library", lambda: None)
    expected = local(h, w, b), local_gradient(g, w), local_weight_gradient(g, h)
    for mine, other in zip(found, expected, strict=True):
        # At most 17 terms of a few units.
        assert (mine - other).abs().max() < 17 * 2**-23 * 20


def test_compiled_passes_equal_those_in_torch(monkeypatch):
    weights = drawn(scale=20.0, dtype=torch.float32)
    shown = drives(SMALL, 3, networks=5, dtype=torch.float32)
    generator = make_generator(4)
    labels = torch.randint(10, (5, 3), generator=generator)
    theta = 1 + 0.2 * torch.randn(5, *SMALL.shape, generator=generator)
    gain = torch.rand(5, SMALL.sizes[2], generator=generator)
    smoothing = Smoothing(SMALL)
    c = smoothing.couplings(theta)
    m = 0.1 * torch.randn(5, 50, generator=generator, dtype=torch.float64)

    def passes(nodes):
        return (
            coupling_gradient(weights, smoothing, theta, gain, shown, labels),
            genuine_covariance(weights, shown, c, *covariance_weights(m, nodes), 0.01),
            log_probabilities(weights, shown.flatten(0, 1), gain[0], c[0].exp()),
            log_probabilities(weights, shown[0]),
        )

    # Seven nodes and fifteen images: blocks of four, and what is left.
    found = passes(7)
    monkeypatch.setattr(_local, "library", lambda: None)
    for mine, other in zip(found, passes(7), strict=True):
        assert other.abs().max() > 1e-3
        # Sums over up to 7,840 terms of either sign in another order.
        assert (mine - other).abs().max() < 100 * 2**-23 * float(other.abs().max())


def test_noise_pass_of_a_stack_is_the_covariance_of_its_own_draws():
    stack = stack_of("couplings", [], [Member(k, arm) for arm in ("images", None) for k in (0, 2)])
    stack.epoch()
    gain, tau, theta = stack.gain.clone(), stack.tau, stack.optimiser.values
    draws = 0.1 * torch.randn(3, 50, generator=make_generator(8), dtype=torch.float64)
    shown = stack.examples.train[stack.tasks, 1]
    stack.measure(shown, draws, *covariance_weights(draws, 4))
    assert stack.tau == tau + 1 == 5
    c = stack.smoothing.couplings(theta)
    for place, task in ((0, 0), (1, 2)):
        m = draws[task].float()
        # Each image with each draw; what images differ in is not the modulator's.
        seen = modulated(shown[place][:, None], c[place], m[:, None, None, None], 0.01)
        h = hidden(stack.weights, seen).h2.flatten(2)
        h = h - h.mean(1, keepdim=True)
        q = torch.einsum("btu,t->u", h, m - m.mean()).clamp_min(0) / 100
        expected = (tau * gain[place] + q / q.mean()) / (tau + 1)
        expected = expected / expected.mean()
        # Four nodes in place of fifty draws, of which this is one pass in five.
        assert (stack.gain[place] - expected).abs().max() < 0.02 * expected.max()
        assert (stack.gain[place] - gain[place]).abs().max() > 0.05
    assert torch.equal(stack.gain[2:], torch.ones_like(stack.gain[2:]))


def test_compiled_adam_is_torchs(monkeypatch):
    generator = make_generator(0)
    start, slopes = (
        torch.randn(2, 37, generator=generator),
        torch.randn(20, 2, 37, generator=generator),
    )
    parameter = torch.nn.Parameter(start.clone())
    optimiser = torch.optim.Adam([parameter], lr=1e-3)
    for slope in slopes:
        parameter.grad = slope
        optimiser.step()
    for kernel in (_local.library(), None):
        monkeypatch.setattr(_local, "library", lambda kernel=kernel: kernel)
        values, mean, square = start.clone(), torch.zeros(2, 37), torch.zeros(2, 37)
        for count, slope in enumerate(slopes, 1):
            _local.adam_step(values, mean, square, slope, count, 1e-3)
        # Twenty steps of 1e-3, each rounded to a few units of single precision.
        assert (values - parameter).abs().max() < 20 * 4 * 2**-23


def test_gradients_of_all_weights_are_those_of_autograd():
    flat = 20 * torch.cat(
        [draw_parameters(SMALL, make_generator(k), torch.float64) for k in (0, 1)]
    )
    shown, labels = drives(SMALL, 3, networks=2), torch.tensor([[0, 1, 2], [9, 9, 4]])
    flat.requires_grad_(True)
    weights = unpack(flat, SMALL)
    loss_of(readout(weights, hidden(weights, shown).h2), labels).sum().backward()
    found = torch.empty_like(flat)
    with torch.no_grad():
        weight_gradient(unpack(flat, SMALL), shown, labels, unpack(found, SMALL))
    assert flat.grad.abs().max() > 0.01
    assert (found - flat.grad).abs().max() < 1e-12


def test_gradient_of_theta_is_the_finite_difference():
    config = HierarchyConfig(positions=5, orientations=3, smoothing=0.6)
    weights, shown = drawn(config, scale=20.0), drives(config, 2)
    labels, smoothing = torch.tensor([[3, 5]]), Smoothing(config, torch.float64)
    generator = make_generator(3)
    theta = 1 + 0.2 * torch.randn(1, *config.shape, generator=generator, dtype=torch.float64)
    gain = torch.rand(1, config.sizes[2], generator=generator, dtype=torch.float64)

    def loss(values):
        seen = modulated(shown, smoothing.couplings(values)[:, None], 1.0, 0.0)
        return float(loss_of(readout(weights, hidden(weights, seen).h2, gain), labels))

    found = coupling_gradient(weights, smoothing, theta, gain, shown, labels)
    step = 1e-6
    for place in (0, 7, 20, 44, 60):
        moved = torch.zeros_like(theta).flatten()
        moved[place] = step
        moved = moved.view_as(theta)
        slope = (loss(theta + moved) - loss(theta - moved)) / (2 * step)
        # Rounding of the loss over the step, 1e-16 / 1e-6, and the step squared.
        assert abs(slope - float(found.flatten()[place])) < 1e-8 + 1e-6 * abs(slope)
    assert found.abs().max() > 1e-4


def test_gain_after_a_noise_pass_by_hand():
    gain, tau = torch.tensor([[2.0, 1.0, 0.0, 1.0]]), 3
    found, later = updated_gain(gain, torch.tensor([[3e-4, -5.0, 1e-4, 0.0]]), tau)
    # q / mean = (3, 0, 1, 0); (3 g + q) / 4 = (9, 3, 1, 3) / 4, of mean 1.
    assert torch.allclose(found, torch.tensor([[2.25, 0.75, 0.25, 0.75]]), atol=1e-6)
    assert later == 4
    same, later = updated_gain(gain, -torch.ones(1, 4), 100)
    assert torch.allclose(same, (100 * gain + 1) / 101)
    assert later == 100


def test_sample_rule_integrates_polynomials_over_the_draws():
    m = 0.1 * torch.randn(3, 500, generator=make_generator(0), dtype=torch.float64)
    values, weights = sample_rule(m, 4)
    for power in range(8):
        expected = (m**power).mean(1)
        found = (weights * values**power).sum(1)
        assert (found - expected).abs().max() < 1e-13 * 0.1**power * 10**4
    values, weights = covariance_weights(m, 4)
    assert torch.allclose((weights * values).sum(1), m.var(1, unbiased=False))
    with pytest.raises(ValueError, match=r"nodes must be in \[1, 500\].*number of draws: got 0"):
        sample_rule(m, 0)


def test_covariance_of_the_rule_is_that_of_all_draws():
    weights, shown = drawn(scale=20.0), drives(SMALL, 2)
    c = torch.rand(1, *SMALL.shape, generator=make_generator(5), dtype=torch.float64) + 0.5
    m = 0.1 * torch.randn(1, 500, generator=make_generator(6), dtype=torch.float64)
    # Literally: every draw run, covariance over draws and images.
    seen = modulated(shown[0][:, None], c, m[0][:, None, None, None], 0.01)
    activity = hidden(weights, seen).h2.flatten(2)
    literal = torch.einsum("btu,t->u", activity - activity.mean(1, keepdim=True), m[0] - m.mean())
    literal = literal / 1000
    every = genuine_covariance(weights, shown, c, *covariance_weights(m, None), 0.01)[0]
    assert (every - literal).abs().max() < 1e-15
    # What is left are kinks: less with every node, and with four less than what another 500 draws
    # would change.
    other = 0.1 * torch.randn(1, 500, generator=make_generator(7), dtype=torch.float64)
    again = genuine_covariance(weights, shown, c, *covariance_weights(other, None), 0.01)[0]
    errors = [
        (genuine_covariance(weights, shown, c, *covariance_weights(m, k), 0.01)[0] - literal).norm()
        for k in (2, 4, 16, 64)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.5 * (again - literal).norm()
    assert errors[3] < 0.01 * (again - literal).norm()


def test_covariance_without_kinks_needs_four_nodes():
    weights, shown = drawn(scale=20.0), drives(SMALL, 2)
    # Positive weights and biases: no unit is ever silent, and h is a sum of exponentials.
    own = weights._replace(**{k: getattr(weights, k).abs() for k in ("w1", "b1", "w2", "b2")})
    c = torch.rand(1, *SMALL.shape, generator=make_generator(5), dtype=torch.float64) + 0.5
    m = 0.1 * torch.randn(1, 500, generator=make_generator(6), dtype=torch.float64)
    every = genuine_covariance(own, shown, c, *covariance_weights(m, None), 0.01)
    four = genuine_covariance(own, shown, c, *covariance_weights(m, 4), 0.01)
    # Of exp(m c) the rule leaves terms from the eighth power on: (0.4 x 1.5)^8 / 8!.
    assert (four / every - 1).abs().max() < 0.6**8 / math.factorial(8) / 0.01


def test_blank_image_leaves_rounding_and_real_images_a_covariance():
    config = HierarchyConfig()
    weights = drawn(config, dtype=torch.float32)
    m = 0.1 * torch.randn(2, 500, generator=make_generator(0), dtype=torch.float64)
    q = BlankCovariance(weights, 500)(m)
    assert 0 < q.abs().max() < 1e-12
    # The same in full: 500 copies of one activity.
    activity = hidden(weights, torch.zeros(1, 1, *config.shape)).h2.flatten(1).repeat(500, 1)
    rest = activity - activity.mean(0)
    single = m[0].float()
    assert ((single - single.mean()) @ rest / 500).abs().max() < 1e-12
    # Where all draws are the same to the last bit of their mean there is no covariance at all.
    assert (q[0][(rest[0] == 0)] == 0).all()
    gain, _ = updated_gain(torch.ones(2, 7840), q, 1)
    assert gain.max() > 3
    shown = 10 * drives(config, 2, dtype=torch.float32)
    c = torch.ones(1, *config.shape)
    real = genuine_covariance(weights, shown, c, *covariance_weights(m[:1], 4), 0.01)
    assert real.abs().mean() > 1e6 * q.abs().mean()
    blank = torch.ones(1, 1, *config.shape)
    exponential = genuine_covariance(weights, blank, c, *covariance_weights(m[:1], 4), 0.01)
    assert exponential.abs().mean() > 1e6 * q.abs().mean()


def test_split_rule_of_the_code():
    generator = make_generator(0)
    train, held = split_batches(1440, 10, 2, 0.5, generator)
    assert train.shape == (3, 2)
    assert held.shape == (4,)
    train, held = split_batches(1440, 300, 2, 0.5, generator)
    assert (train.shape, held.shape) == ((75, 2), (150,))
    train, held = split_batches(4000, 4000, 32, 0.3, generator)
    assert (train.shape, held.shape) == ((38, 32), (87 * 32,))
    train, held = split_batches(1440, 1000, 32, 0.3, generator)
    assert (train.shape, held.shape) == ((10, 32), (21 * 32,))
    rows = torch.cat([train.flatten(), held])
    assert len(rows.unique()) == len(rows) == 992


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 12, 2, 0.5), r"count must not exceed the 10 samples there are: got 12"),
        ((10, 2, 2, 0.5), r"must leave batches to train and to validate: got 1 and 0"),
        ((10, 10, 0, 0.5), r"batch must be"),
    ],
)
def test_splits_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_batches(*arguments, make_generator(0))


def stack_of(kind, tasks, members=None):
    """Make a stack of networks of three tasks."""
    config, dtype = SMALL, torch.float32
    inputs = [drives(config, 12, seed=k, dtype=dtype)[0] for k in range(3)]
    # Classes that can be learned: how bright the image is.
    labels = [(x.sum((1, 2, 3)) > x.sum((1, 2, 3)).median()).long() for x in inputs]
    splits = [split_batches(12, 12, 2, 0.5, make_generator(k)) for k in range(3)]
    examples = examples_of(inputs, labels, splits)
    flat = 10 * draw_parameters(config, make_generator(9), dtype)
    weights = unpack(flat, config)
    if kind == "weights":
        stack = WeightStack(flat.repeat(len(tasks), 1), config, examples, torch.tensor(tasks), 1e-3)
    elif kind == "output":
        activity = [last_activity(weights, x) for x in inputs]
        start = weights.out.repeat(len(tasks), 1, 1), weights.bias.repeat(len(tasks), 1)
        stack = OutputStack(start, examples_of(activity, labels, splits), torch.tensor(tasks), 1e-2)
    else:
        orders = torch.stack(
            [torch.randperm(config.sizes[2], generator=make_generator(k)) for k in range(3)]
        )
        stack = CouplingStack(
            weights, config, examples, members, 1e-2, NoisePass(draws=50),
            [make_generator(k, "m") for k in range(3)], orders,
        )  # fmt: skip
    return stack


def after(stack, epochs=4):
    """Return what training has made of a stack, and its validation losses."""
    for _ in range(epochs):
        stack.epoch()
    return *stack.state(), stack.validation()


@pytest.mark.parametrize("kind", ["weights", "output"])
def test_stacked_networks_are_those_trained_alone(kind):
    before = stack_of(kind, [0, 1, 2]).state()
    together = after(stack_of(kind, [0, 1, 2]))
    assert all((x - y).abs().max() > 1e-3 for x, y in zip(before, together, strict=False))
    for task in range(3):
        for one, all_ in zip(after(stack_of(kind, [task])), together, strict=True):
            # Sums in another order; Adam may turn a rounding of a tiny slope into a step.
            assert (one[0] - all_[task]).abs().max() < 1e-4


@pytest.mark.parametrize("arm", [None, "images", "blank-exp", "blank", "permuted"])
def test_stacked_couplings_are_those_trained_alone(arm):
    arms = (None, "images", "blank-exp", "blank", "permuted")
    company = [Member(k, other) for other in arms for k in range(3)]
    place = company.index(Member(1, arm))
    together = after(stack_of("couplings", [], company))
    alone = after(stack_of("couplings", [], [Member(1, arm)]))
    for one, all_ in zip(alone, together, strict=True):
        assert (one[0] - all_[place]).abs().max() < 1e-4
    theta, gain, _ = alone
    assert (theta - 1).abs().max() > 1e-2
    assert (gain == 1).all() == (arm is None)
    assert abs(float(gain.mean()) - 1) < 1e-5


def test_exchanged_gains_are_those_of_the_blank_image_on_other_units():
    stack = stack_of("couplings", [], [Member(2, "blank"), Member(2, "permuted")])
    _, gain, _ = after(stack)
    # Its mean is summed in another order.
    assert torch.allclose(gain[1], gain[0][stack.orders[2]], rtol=1e-5)
    assert not torch.allclose(gain[1], gain[0], rtol=1e-5)


def test_networks_that_leave_do_not_change_the_others():
    company = [Member(k, arm) for arm in (None, "images", "permuted") for k in range(3)]
    whole = fit(stack_of("couplings", [], company), 30)
    short = fit(stack_of("couplings", [], company), 30, 3)
    assert (short.ran < 30).any()
    assert (whole.ran == 30).all()
    same = whole.wait < 3
    assert same.any()
    assert torch.equal(short.epoch[same], whole.epoch[same])
    for mine, other in zip(short.state, whole.state, strict=True):
        assert (mine[same] - other[same]).abs().max() < 1e-3
    with pytest.raises(ValueError, match="patience must be"):
        fit(stack_of("couplings", [], company), 30, 0)


class _Scripted:
    """A stack whose validation losses are given; its state is the number of the epoch."""

    def __init__(self, losses):
        self.losses, self.count = losses, 0

    def __len__(self):
        return 1

    def epoch(self):
        self.count += 1

    def validation(self):
        return torch.tensor([self.losses[self.count]])

    def state(self):
        return (torch.tensor([float(self.count)]),)

    def keep(self, rows):
        raise AssertionError("the only network cannot leave")


@pytest.mark.parametrize(
    ("losses", "patience", "epoch", "wait", "ran"),
    [
        ([3, 2, 2.5, 2.4, 1, 4], None, 4, 3, 5),
        ([3, 2, 2.5, 2.4, 1, 4], 2, 1, 1, 3),
        ([3, 2, 2.5, 2.4, 1, 4], 4, 4, 3, 5),
        # The copy before training, and of equals the last.
        ([1, 2, 3, 2, 3, 3], None, 0, 0, 5),
        ([1, 1, 3, 1, 3, 3], None, 3, 2, 5),
        ([2, float("nan"), 1, 3, 3, 3], None, 2, 2, 5),
    ],
)  # fmt: skip
def test_the_copy_with_the_lowest_validation_loss_is_kept(losses, patience, epoch, wait, ran):
    fitted = fit(_Scripted([float(loss) for loss in losses]), 5, patience)
    assert (int(fitted.epoch), int(fitted.wait), int(fitted.ran)) == (epoch, wait, ran)
    assert float(fitted.state[0]) == epoch
    assert float(fitted.loss) == losses[epoch]


def test_many_images_in_parts_are_the_same():
    weights, shown = drawn(), drives(SMALL, 37)
    gain = torch.rand(1, SMALL.sizes[2], dtype=torch.float64, generator=make_generator(0))
    whole = readout(weights, hidden(weights, shown).h2, gain)
    found = log_probabilities(weights, shown[0], gain[0])
    assert (found - whole[0]).abs().max() < 1e-13


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HierarchyConfig(positions=2), r"positions must be at least 3.*got 2"),
        (lambda: HierarchyConfig(smoothing=0.0), r"smoothing must be"),
        (lambda: NoisePass(nodes=501), r"nodes must be in \[2, draws=500\].*got 501"),
        (lambda: Member(0, "blnk"), r"unknown arm 'blnk'"),
    ],
)
def test_errors_say_what_must_hold(build, message):
    with pytest.raises(ValueError, match=message):
        build()
