"""Dynamical similarity of systems whose similarity is known."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import linalg, optimize

from ctxrnn.analysis import dsa_distance, dsa_embedding, dsa_matrix

try:
    import DSA  # noqa: F401
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True
needs_package = pytest.mark.skipif(not INSTALLED, reason="dsa-metric is not installed")

# Cosines are resolved to the machine's 2e-16, so that a descent may stop 2e-8 rad from a minimum;
# the package's ridge of 1e-8 changes operators by as much, relative to their norm. Rounding grows
# by the spread of the singular values, here up to some tens.
RESOLVED = 1e-6


def draw(seed):
    return np.random.default_rng(seed)


def turned(size, seed):
    return linalg.qr(draw(seed).normal(size=(size, size)))[0]


def normal_map(size, seed):
    """Draw a normal matrix of plane rotations with decay."""
    generator = draw(seed)
    blocks = [
        generator.uniform(0.5, 1) * rotation(generator.uniform(0.1, np.pi - 0.1))
        for _ in range(size // 2)
    ]
    q = turned(size, seed)
    return q @ linalg.block_diag(*blocks) @ q.T


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def runs(matrix, steps=16):
    """Follow the map from each axis, both ways: (trial, time, unit) with mean 0.

    The covariance is the sum of A^k (A^k)^T. For normal A it commutes with A, so that white
    coordinates change A by a rotation alone.
    """
    states = [np.concatenate([np.eye(len(matrix)), -np.eye(len(matrix))])]
    for _ in range(steps - 1):
        states.append(states[-1] @ matrix.T)
    return np.stack(states, axis=1)


def best_cosine(a, b):
    """Largest sum of Re(conj(l) m) / |l||m| over pairings of the eigenvalues of a and b."""
    first, second = np.linalg.eigvals(a), np.linalg.eigvals(b)
    inner = (first.conj()[:, None] * second).real
    rows, columns = optimize.linear_sum_assignment(inner, maximize=True)
    scale = np.linalg.norm(first) * np.linalg.norm(second)
    return inner[rows, columns].sum() / scale


def paired_distance(first, second):
    """Root of the least mean square difference over pairings of two sets of eigenvalues."""
    squares = np.abs(first[:, None] - second) ** 2
    return np.sqrt(squares[optimize.linear_sum_assignment(squares)].mean())


def operator(x, delays, rank):
    """Fit the linear map, written out with loops and `lstsq`, up to a change of basis by signs."""
    x = x - x.mean(axis=(0, 1))
    h = [
        [
            np.concatenate([trial[t - d] for d in range(delays)])
            for t in range(delays - 1, len(trial))
        ]
        for trial in x
    ]
    v = linalg.svd(np.concatenate(h), full_matrices=False)[0][:, :rank]
    v = v.reshape(len(x), -1, rank)
    before, after = v[:, :-1].reshape(-1, rank), v[:, 1:].reshape(-1, rank)
    return np.linalg.lstsq(before, after, rcond=None)[0].T


def hopf(frequency, seed, noise, trials=12, steps=120, dt=0.1):
    """Run the Hopf normal form z' = (1 + i w) z - |z|^2 z from random starts: (trial, time, 2)."""
    generator = draw(seed)
    z = generator.normal(size=trials) + 1j * generator.normal(size=trials)
    states = []
    for _ in range(steps):
        states.append(z)
        kick = generator.normal(size=(2, trials))
        z = z + dt * z * (1 + 1j * frequency - np.abs(z) ** 2) + noise * (kick[0] + 1j * kick[1])
    z = np.stack(states, axis=1)
    return np.stack([z.real, z.imag], axis=-1)


@needs_package
@pytest.mark.parametrize("size", [2, 4, 10])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_rotated_shifted_and_scaled_systems_are_equal(size, kind):
    x = runs(normal_map(size, 0))
    other = 3 * x @ turned(size, 1) + 7
    for measure in ("angular", "wasserstein"):
        found = dsa_distance(kind(x), kind(other), delays=1, rank=size, measure=measure)
        assert found == pytest.approx(0, abs=RESOLVED)


@needs_package
@pytest.mark.parametrize(("delays", "seen"), [(1, 6), (3, 6), (3, 12), (6, 2), (8, 1)])
def test_invertible_changes_of_observables_are_not_seen(delays, seen):
    """With enough delays even few observables have the whole state (Takens)."""
    x = runs(normal_map(6, 0), 24)
    first, second = (draw(seed).normal(size=(6, seen)) for seed in (1, 2))
    if seen >= 6:
        a, b = x, x @ second
    else:
        # The same few observables, mixed.
        a, b = x @ first, x @ first @ draw(3).normal(size=(seen, seen))
    assert dsa_distance(a, b, delays=delays, rank=6) == pytest.approx(0, abs=RESOLVED)
    # Eigenvalues are those of the system, whichever observables are seen.
    other = x @ second
    found = dsa_distance(a, other, delays=delays, rank=6, measure="wasserstein")
    assert found == pytest.approx(0, abs=1e-4 if seen == 1 else RESOLVED)


@needs_package
@pytest.mark.parametrize("seed", range(3))
def test_normal_systems_are_as_far_apart_as_their_eigenvalues(seed):
    """Hoffman and Wielandt (1953): no change of basis does better than the best pairing.

    Where the best pairing joins conjugate pairs with conjugate pairs, a real one does as well.
    """
    a, b = normal_map(4, seed), normal_map(4, seed + 10)
    x, y = runs(a, 40), runs(b, 40)
    expected = np.arccos(best_cosine(a, b))
    assert dsa_distance(x, y, delays=1, rank=4) == pytest.approx(expected, abs=RESOLVED)
    assert expected > 0.1
    apart = paired_distance(np.linalg.eigvals(a), np.linalg.eigvals(b))
    found = dsa_distance(x, y, delays=1, rank=4, measure="wasserstein")
    assert found == pytest.approx(apart, abs=RESOLVED)


@needs_package
def test_larger_normal_systems_are_bounded_by_their_eigenvalues():
    a, b = normal_map(8, 0), normal_map(8, 10)
    found = dsa_distance(runs(a), runs(b), delays=1, rank=8)
    assert np.arccos(best_cosine(a, b)) - RESOLVED <= found < np.pi


@needs_package
@pytest.mark.parametrize("seed", range(2))
def test_minimum_over_the_plane_is_that_of_brute_force(seed):
    """Maps that are not normal, of rank 2: rotations and reflections are one angle each."""
    x, y = (draw(s).normal(size=(6, 12, 2)).cumsum(axis=1) for s in (seed, seed + 5))
    a, b = operator(x, 3, 2), operator(y, 3, 2)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    turns = [rotation(angle) @ np.diag([1, sign]) for angle in np.linspace(0, 2 * np.pi, 20001)
             for sign in (1, -1)]  # fmt: skip
    best = max(float((a * (c @ b @ c.T)).sum()) for c in turns)
    # The grid misses the maximum by at most half a step, 1.6e-4; the cosine by its square.
    found = dsa_distance(x, y, delays=3, rank=2)
    assert np.cos(found) == pytest.approx(best, abs=1e-7)


@needs_package
@pytest.mark.parametrize(("delays", "rank"), [(1, 3), (4, 5)])
def test_eigenvalues_are_those_of_the_map_written_out(delays, rank):
    x, y = (draw(seed).normal(size=(8, 30, 3)).cumsum(axis=1) for seed in (0, 1))
    first, second = (np.linalg.eigvals(operator(z, delays, rank)) for z in (x, y))
    found = dsa_distance(x, y, delays=delays, rank=rank, measure="wasserstein")
    assert found == pytest.approx(paired_distance(first, second), abs=RESOLVED)


@needs_package
def test_angle_is_zero_where_the_packages_descent_stops_above():
    """A map that is not normal, and the same in another basis: rank 12, local minima in between."""
    from ctxrnn.analysis import _dsa, _rotations

    a = draw(0).normal(size=(12, 12))
    a /= np.linalg.norm(a)
    q = turned(12, 1)
    b = q @ a @ q.T
    alone = [_rotations.angle(a, b, _rotations.nearest(_dsa.aligned(a, b, s))) for s in range(2)]
    assert max(alone) > 0.01
    starts = _rotations.drawn(12, 40, 0)
    assert _rotations.smallest_angle(a, b, starts) == pytest.approx(0, abs=RESOLVED)


@needs_package
def test_the_packages_descent_aligns_small_systems():
    from ctxrnn.analysis import _dsa, _rotations

    a = draw(0).normal(size=(3, 3))
    a /= np.linalg.norm(a)
    b = turned(3, 1) @ a @ turned(3, 1).T
    found = min(_rotations.angle(a, b, _rotations.nearest(_dsa.aligned(a, b, s))) for s in (0, 1))
    # Single precision resolves cosines to 1e-7, angles to the root of it.
    assert found == pytest.approx(0, abs=1e-3)


def test_starts_are_rotations_and_reflections_by_turns():
    from ctxrnn.analysis import _rotations

    for size in (1, 2, 5):
        starts = _rotations.drawn(size, 4, 0)
        assert np.linalg.det(starts) == pytest.approx([1, -1, 1, -1])
        for c, again in zip(starts, _rotations.drawn(size, 4, 0), strict=True):
            assert c @ c.T == pytest.approx(np.eye(size))
            assert (c == again).all()


def test_refinement_keeps_the_determinant_and_raises_the_cosine():
    from ctxrnn.analysis import _rotations

    a, b = (draw(seed).normal(size=(5, 5)) for seed in (0, 1))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    for c in _rotations.drawn(5, 4, 0):
        found = _rotations.refined(a, b, c)
        assert found @ found.T == pytest.approx(np.eye(5))
        assert np.linalg.det(found) == pytest.approx(np.linalg.det(c))
        assert _rotations.angle(a, b, found) < _rotations.angle(a, b, c)
        # At a maximum of tr(a^T c b c^T) its gradient along every rotation is 0.
        moved = found @ b @ found.T
        slope = a @ moved.T + a.T @ moved
        assert slope == pytest.approx(slope.T, abs=1e-6)


@needs_package
@pytest.mark.parametrize("seed", [1, 8])
def test_never_above_the_package(seed):
    """Pairs for which its descent ends lower than those from the identity and eigenvectors."""
    from ctxrnn.analysis.dsa import _distance, _Options
    from DSA.simdist import SimilarityTransformDist

    a, b = (draw(s).normal(size=(5, 5)) for s in (seed, seed + 100))
    theirs = []
    for pair in ((a, b), (b, a)):
        package = SimilarityTransformDist(iters=1500, lr=5e-3, score_method="angular")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theirs.append(float(package.fit_score(*(torch.tensor(x).float() for x in pair))))
    found = _distance(a, b, _Options(1, 5, "angular", 0, 0, "cpu"))
    # Single precision resolves cosines to 1e-7.
    assert found <= max(theirs) + 1e-6


@needs_package
def test_departure_from_normality_is_seen_by_the_angle_alone():
    x, y = (runs(np.array([[0.9, k], [0.0, 0.5]])) for k in (0.0, 2.0))
    assert dsa_distance(x, y, delays=1, rank=2, measure="wasserstein") == pytest.approx(
        0, abs=RESOLVED
    )
    assert dsa_distance(x, y, delays=1, rank=2) > 0.1


@needs_package
@pytest.mark.parametrize(("slow", "fast"), [(0.2, 0.3), (0.2, 1.0)])
def test_cycles_are_as_far_apart_as_their_turns_a_step(slow, fast):
    """Rotations by w and w' radians a step: |w - w'| rad apart, eigenvalues 2 sin(|w - w'| / 2)."""
    phases = np.linspace(0, 2 * np.pi, 8, endpoint=False)[:, None]
    cycles = [phases + turn * np.arange(20) for turn in (slow, fast)]
    x, y = (np.stack([np.cos(p), np.sin(p)], axis=-1) for p in cycles)
    # A cycle seen through other observables, off the origin, and longer.
    y = y @ draw(0).normal(size=(2, 5)) + 2
    expected = {"angular": fast - slow, "wasserstein": 2 * np.sin((fast - slow) / 2)}
    for measure, value in expected.items():
        for delays in (1, 3):
            found = dsa_distance(x, y, delays=delays, rank=2, measure=measure)
            assert found == pytest.approx(value, abs=RESOLVED)


@needs_package
def test_bumps_on_a_ring_differ_by_their_speed_not_their_width():
    """Unit k of a ring answers tanh(g cos(angle - k)): harmonics 1, 3, 5, ... of the angle.

    Angles and units at equal distances keep harmonics orthogonal, so that the leading six white
    coordinates are the first three, which turn by w, 3 w and 5 w a step. Harmonics of 64 - 1 and
    more, which fall on lower ones, are below 1e-15.
    """
    units = np.linspace(0, 2 * np.pi, 64, endpoint=False)

    def bumps(gain, turn, seed):
        angles = units[:, None] + turn * np.arange(10)
        states = np.tanh(gain * np.cos(angles[:, :, None] - units))
        return states @ turned(64, seed) + 1

    slow, wide, fast = bumps(2.0, 0.1, 0), bumps(0.7, 0.1, 1), bumps(2.0, 0.3, 2)
    assert dsa_distance(slow, wide, delays=1, rank=6) == pytest.approx(0, abs=RESOLVED)
    expected = np.arccos(np.mean(np.cos(0.2 * np.array([1, 3, 5]))))
    assert dsa_distance(wide, fast, delays=1, rank=6) == pytest.approx(expected, abs=RESOLVED)


@needs_package
def test_limit_cycles_are_grouped_by_frequency_not_by_embedding():
    """Noisy Hopf oscillators, settled, each through other nonlinear observables."""
    systems = {
        (frequency, seed): np.tanh(
            hopf(frequency, seed, 0.02)[:, 60:] @ draw(10 + seed).normal(size=(2, 8))
        )
        for frequency in (1.0, 3.0)
        for seed in (0, 1)
    }
    for options in ({"delays": 5, "rank": 4}, {"measure": "wasserstein"}):
        table = dsa_matrix(systems, starts=5, **options).to_numpy()
        assert 3 * max(table[0, 1], table[2, 3]) < table[:2, 2:].min()


@needs_package
def test_noise_of_another_seed_is_near():
    """Autoregressive systems x(t+1) = A x(t) + w, N samples each.

    In white coordinates A is estimated with errors of variance at most 1 / N per entry, and the
    covariance, which whitens, with errors of variance (1 + r^2) / (1 - r^2) / N at most, r the
    largest modulus of an eigenvalue. Two estimates are then about (2 n^2 (1 + (1 + r^2) / (1 -
    r^2)) / N)^(1/2) / |A| rad apart or less, which is allowed.
    """
    matrix, size, samples = 0.9 * normal_map(4, 0), 4, 40 * 1000

    def noisy(matrix, seed):
        w = draw(seed).normal(size=(1100, 40, size))
        states = np.zeros_like(w)
        for t in range(1, len(w)):
            states[t] = states[t - 1] @ matrix.T + w[t]
        return states[100:].transpose(1, 0, 2)

    r = np.abs(np.linalg.eigvals(matrix)).max()
    spread = np.sqrt(2 * size**2 * (1 + (1 + r**2) / (1 - r**2)) / samples)
    allowed = spread / np.linalg.norm(matrix)
    first, second = noisy(matrix, 0), noisy(matrix, 1)
    assert 0 < dsa_distance(first, second, delays=1, rank=4) < allowed
    # Another system at the distance of its eigenvalues, give or take as much.
    other = 0.9 * normal_map(4, 12)
    expected = np.arccos(best_cosine(matrix, other))
    assert expected > 5 * allowed
    found = dsa_distance(first, noisy(other, 2), delays=1, rank=4)
    assert found == pytest.approx(expected, abs=allowed)


@needs_package
@pytest.mark.parametrize("measure", ["angular", "wasserstein"])
def test_a_symmetric_table_with_names_that_the_order_of_trials_does_not_change(measure):
    systems = {("go", n): draw(n).normal(size=(8, 30, 3 + n)).cumsum(axis=1) for n in range(3)}
    options = {"delays": 2, "rank": 4, "measure": measure}
    table = dsa_matrix(systems, **options)
    assert isinstance(table, pd.DataFrame)
    assert list(table.index) == list(table.columns) == list(systems)
    assert (np.diag(table) == 0).all()
    assert (table.to_numpy() == table.to_numpy().T).all()
    apart = table.to_numpy()[np.triu_indices(3, 1)]
    assert (apart > 0.01).all()
    x, y = systems["go", 0], systems["go", 1]
    assert dsa_distance(x, y, **options) == dsa_distance(y, x, **options) == apart[0]
    assert dsa_distance(x, x, **options) == pytest.approx(0, abs=RESOLVED)
    order = draw(0).permutation(8)
    mixed = {name: trials[order] for name, trials in systems.items()}
    assert dsa_matrix(mixed, **options).to_numpy() == pytest.approx(table, abs=RESOLVED)
    # A metric.
    assert (apart[[0, 1, 2]] <= apart[[1, 2, 0]] + apart[[2, 0, 1]] + RESOLVED).all()


@needs_package
def test_trials_of_unequal_lengths_are_taken_one_by_one():
    x = draw(0).normal(size=(8, 30, 3)).cumsum(axis=1)
    other = draw(1).normal(size=(8, 30, 3)).cumsum(axis=1)
    options = {"delays": 2, "rank": 4}
    assert dsa_distance(list(x), other, **options) == dsa_distance(x, other, **options)
    short = [trial[: 20 + n] for n, trial in enumerate(runs(normal_map(4, 0), 30))]
    found = dsa_distance(short, [torch.tensor(s) for s in short[::-1]], delays=2, rank=4)
    assert found == pytest.approx(0, abs=RESOLVED)
    # No step leads from one trial into the next: the map is exact however trials are cut.
    longer = runs(normal_map(4, 0), 30) @ turned(4, 2)
    eigenvalues = {"delays": 2, "rank": 4, "measure": "wasserstein"}
    centred = [*short, *(-s for s in short)]
    assert dsa_distance(centred, longer, **eigenvalues) == pytest.approx(0, abs=RESOLVED)


@needs_package
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_nothing_global_changes_and_nothing_is_said(default, capfd):
    x = torch.tensor(draw(0).normal(size=(8, 30, 3)).cumsum(axis=1), requires_grad=True)
    given, y = x.detach().clone(), draw(1).normal(size=(8, 30, 3)).cumsum(axis=1)
    torch.set_default_dtype(default)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), list(warnings.filters)  # noqa: NPY002
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = [dsa_distance(x, y, rank=3, starts=2, seed=s) for s in (0, 0)]
        assert torch.get_default_dtype() == default
    finally:
        torch.set_default_dtype(torch.float32)
    assert found[0] == found[1]
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[2] == list(warnings.filters)
    assert not said
    assert capfd.readouterr() == ("", "")
    assert torch.equal(x.detach(), given)


@needs_package
@pytest.mark.gpu
def test_singular_vectors_on_the_gpu():
    x, y = (draw(seed).normal(size=(8, 30, 3)).cumsum(axis=1) for seed in (0, 1))
    state = torch.cuda.get_rng_state()
    found = dsa_distance(x, y, delays=2, rank=4, device="cuda")
    assert found == pytest.approx(dsa_distance(x, y, delays=2, rank=4), abs=RESOLVED)
    assert torch.equal(state, torch.cuda.get_rng_state())


@needs_package
def test_delays_and_rank_are_those_of_a_hidden_state():
    """One observable of four dimensions: four delays make them whole, and more add nothing."""
    x = hidden(4)
    chosen = dsa_embedding({"a": x, "b": 2 * x}, delays=(1, 2, 3, 4, 6), ranks=range(1, 7))
    assert (chosen.delays, chosen.rank) == (4, 4)
    table = chosen.errors.set_index(["delays", "rank"])["error"]
    assert (table.groupby("delays").min().loc[[1, 2, 3]] > 0.001).all()
    # Ranks above that of the embedded states are not there.
    assert set(table.index) == {(d, r) for d in (1, 2, 3, 4, 6) for r in range(1, min(d, 4) + 1)}
    y = x + 0.01 * draw(5).normal(size=x.shape)
    chosen = dsa_embedding({"y": y}, delays=(1, 2, 4, 6), ranks=range(1, 7), seed=1)
    assert chosen.rank >= 4
    assert chosen.delays >= 4


def hidden(size, trials=40):
    """Observe one unit of undamped rotations, mixed, from random starts: (trial, time, 1)."""
    q = draw(0).normal(size=(size, size))
    matrix = q @ linalg.block_diag(rotation(0.4), rotation(1.1)) @ np.linalg.inv(q)
    starts = draw(1).normal(size=(trials // 2, size)) @ q.T
    # Both ways: a mean that is not 0 would be one dimension more.
    states = [np.concatenate([starts, -starts])]
    for _ in range(29):
        states.append(states[-1] @ matrix.T)
    return np.stack(states, axis=1)[:, :, :1]


@needs_package
def test_errors_of_prediction_by_hand():
    """Leave one trial out of three; predictions start where the longest embedding allows them."""
    x = draw(0).normal(size=(3, 40, 2)).cumsum(axis=1)
    given = {"delays": (2, 4), "ranks": (3,), "folds": 3}
    table = dsa_embedding({"x": x}, **given).errors.set_index("delays")
    x = x - x.mean(axis=(0, 1))
    for delays in (2, 4):
        ratios = []
        for held in range(3):
            h = np.stack([x[:, delays - 1 - d : 40 - d] for d in range(delays)], axis=2)
            h = h.reshape(3, -1, 2 * delays)
            fitted = np.delete(h, held, axis=0)
            u = linalg.svd(fitted.reshape(-1, 2 * delays).T, full_matrices=False)[0][:, :3]
            before, after = ((fitted[:, cut] @ u).reshape(-1, 3) for cut in (np.s_[:-1], np.s_[1:]))
            step = np.linalg.lstsq(before, after, rcond=None)[0]
            ahead = (h[held, :-1] @ u @ step @ u.T)[4 - delays :, :2]
            wrong = ((ahead - x[held, 4:]) ** 2).sum()
            ratios.append(wrong / ((x[held, 4:] - x[held, 3:-1]) ** 2).sum())
        assert table.loc[delays, "error"] == pytest.approx(np.mean(ratios), rel=1e-6)
        spread = np.std(ratios, ddof=1) / np.sqrt(3)
        assert table.loc[delays, "spread"] == pytest.approx(spread, rel=1e-6)


@needs_package
def test_without_delays_and_rank_the_chosen_ones_are_used():
    x, y = (hidden(4) + 0.01 * draw(s).normal(size=(40, 30, 1)) for s in (1, 2))
    chosen = dsa_embedding({"a": x, "b": y}, seed=3)
    options = {"measure": "wasserstein", "seed": 3}
    expected = dsa_distance(x, y, delays=chosen.delays, rank=chosen.rank, **options)
    assert dsa_distance(x, y, **options) == expected
    assert dsa_matrix({"a": x, "b": y}, **options).loc["a", "b"] == expected


SMALL = np.random.default_rng(0).normal(size=(4, 10, 3))


@needs_package
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dsa_distance(SMALL[0], SMALL), r"a must have shape \(trial, time, unit\): got"),
        (lambda: dsa_distance(SMALL, [SMALL[0], SMALL[0, :, :2]]), "b must hold trials .* same un"),
        (lambda: dsa_distance([], SMALL), r"a must hold trials \(time, unit\)"),
        (lambda: dsa_distance(SMALL * np.nan, SMALL), "40 of 40 samples are not; leave out padded"),
        (lambda: dsa_distance(SMALL, SMALL, delays=10, rank=1), "got 10, and a trial of a with 10"),
        (lambda: dsa_distance(SMALL, SMALL, delays=7, rank=1), "units = 21: got 16; take fewer"),
        (lambda: dsa_distance(SMALL, SMALL, delays=2, rank=7), "rank must be at most 6, .* 2 del"),
        (lambda: dsa_distance(SMALL, SMALL, delays=0, rank=1), "delays must be at least 1: got 0"),
        (
            lambda: dsa_distance(SMALL, SMALL, delays=1, rank=1, starts=-1),
            "starts must be at least",
        ),
        (lambda: dsa_distance(SMALL, SMALL, measure="angle"), "Did you mean 'angular'"),
        (lambda: dsa_distance(SMALL[:1], SMALL), "two or more trials of each system: got 1"),
        (lambda: dsa_distance(np.ones((4, 9, 2)), SMALL), "no rank of"),
        (lambda: dsa_distance(np.ones((4, 9, 2)), SMALL, delays=1, rank=1), "must be at most 0"),
        (lambda: dsa_matrix({"a": SMALL}), "at least two systems must be given: got 1"),
        (lambda: dsa_embedding({}), "two or more trials of each system: got 0"),
        (lambda: dsa_embedding({"a": SMALL}, delays=(10, 20)), r"no delays of \[10, 20\] fit"),
        (lambda: dsa_embedding({"a": SMALL}, delays=(1,), ranks=(9,)), r"no rank of \[9\]"),
        (lambda: dsa_embedding({"a": SMALL}, folds=1), "folds must be at least 2"),
        (lambda: dsa_embedding({"a": SMALL}, tolerance=-1), "tolerance must be zero or more"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: dsa_distance(SMALL, SMALL, delays=1, rank=1),
        lambda: dsa_matrix({"a": SMALL, "b": SMALL}),
        lambda: dsa_embedding({"a": SMALL}),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "DSA", None)
    with pytest.raises(ImportError, match=r"dsa-metric.*pip install 'ctxrnn\[similarity\]'"):
        call()


def test_the_package_is_not_loaded_with_the_analysis():
    code = "import sys, ctxrnn.analysis, ctxrnn.analysis.plots; assert 'DSA' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
