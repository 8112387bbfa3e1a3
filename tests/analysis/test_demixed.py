"""Demixed PCA against planted components, scikit-learn, an optimiser and the authors' package."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize
from sklearn import decomposition

from ctxrnn.analysis import condition_averages, fit_dpca, marginalise

AXES = ("context", "stimulus", "time")
NAMES = ["context", "stimulus", "time", "context x stimulus"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def rotation(size, seed=0):
    return linalg.qr(normal(size, size, seed=seed))[0]


def centred(x):
    return x - x.reshape(-1, x.shape[-1]).mean(axis=0)


def objective(x, part, product, ridge, noise):
    """|X_g - B X|^2 + n tr(B C B^T) + mu^2 |B|^2 for B = F D, written out."""
    flat, own = centred(x).reshape(-1, x.shape[-1]), part.reshape(-1, x.shape[-1])
    penalty = (ridge * np.linalg.norm(flat)) ** 2 * (product**2).sum()
    trials = len(flat) * np.trace(product @ noise @ product.T)
    return ((own - flat @ product.T) ** 2).sum() + penalty + trials


def planted(seed=0):
    """Averages with one component per marginalisation, along orthonormal directions."""
    rng = np.random.default_rng(seed)
    context, stimulus, time = rng.normal(size=2), rng.normal(size=3), rng.normal(size=7)
    context, stimulus, time = (v - v.mean() for v in (context, stimulus, time))
    one = np.ones
    courses = {
        "context": np.einsum("i,j,k->ijk", context, one(3), 3 * time),
        "stimulus": np.einsum("i,j,k->ijk", one(2), stimulus, 2 * one(7)),
        "time": np.einsum("i,j,k->ijk", one(2), one(3), time),
        "context x stimulus": np.einsum("i,j,k->ijk", context, stimulus, 0.5 * time),
    }
    directions = dict(zip(NAMES, rotation(6, seed), strict=False))
    mean = rng.normal(size=6)
    x = mean + sum(courses[n][..., None] * directions[n] for n in NAMES)
    return x, courses, directions, mean


def trials_of(averages, number, scale, seed=0):
    """Single trials about averages and their labels."""
    rng = np.random.default_rng(seed)
    rows, context, stimulus = [], [], []
    for i, j in itertools.product(*map(range, averages.shape[:2])):
        own = averages[i, j] + scale * rng.normal(size=(number, *averages.shape[2:]))
        rows.append(own)
        context += [i] * number
        stimulus += ["abcdef"[j]] * number
    order = rng.permutation(len(context))
    labels = {"context": np.array(context)[order], "stimulus": np.array(stimulus)[order]}
    return np.concatenate(rows)[order], labels


sizes = st.lists(st.integers(2, 4), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(1, 4), st.integers(0, 1000))
def test_marginalisations_are_orthogonal_and_add_up(levels, units, seed):
    x = normal(*levels, units, seed=seed)
    axes = ["a", "b", "c"][: len(levels)]
    parts = marginalise(x, axes)
    assert len(parts) == 2 ** len(levels) - 1
    # Sums of at most 64 numbers of order 1: rounding of some 1e-15 each.
    assert sum(parts.values()) == pytest.approx(centred(x), abs=1e-13)
    flats = [part.reshape(-1, units) for part in parts.values()]
    for one, other in itertools.combinations(flats, 2):
        assert one.T @ other == pytest.approx(np.zeros((units, units)), abs=1e-12)
    # Degrees of freedom, hence the identity of the sums of squares.
    for name, flat in zip(parts, flats, strict=True):
        size = np.prod([k - 1 for k, a in zip(levels, axes, strict=True) if a in name.split(" x ")])
        # Rounding of the whole, which may be larger than that of a small part.
        assert np.linalg.matrix_rank(flat, tol=1e-12) <= size
    assert sum((f**2).sum() for f in flats) == pytest.approx((centred(x) ** 2).sum())


def test_marginalisations_by_hand():
    x = np.array([[1.0, 2.0], [3.0, 8.0]])[..., None]
    parts = marginalise(x, ("stimulus", "time"), {"s": ["stimulus"], "t": ["time"],
                                                  "st": [("time", "stimulus")]})  # fmt: skip
    assert parts["s"][..., 0] == pytest.approx(np.array([[-2.0, -2.0], [2.0, 2.0]]))
    assert parts["t"][..., 0] == pytest.approx(np.array([[-1.5, 1.5], [-1.5, 1.5]]))
    assert parts["st"][..., 0] == pytest.approx(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    joined = marginalise(x, ("stimulus", "time"))
    assert list(joined) == ["stimulus", "time"]
    assert joined["stimulus"] == pytest.approx(parts["s"] + parts["st"])


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_planted_components_are_recovered(kind):
    x, courses, directions, mean = planted()
    found = fit_dpca(kind(x), AXES)
    total = (centred(x) ** 2).sum()
    assert list(found.groups) == NAMES
    assert found.mean == pytest.approx(mean)
    assert found.explained == pytest.approx(1.0)
    for place, name in enumerate(NAMES):
        direction = directions[name] * np.sign(directions[name][np.abs(directions[name]).argmax()])
        assert found.encoders[name] == pytest.approx(direction[None])
        assert found.decoders[name] == pytest.approx(direction[None])
        assert found.shares[name] == pytest.approx(np.eye(4)[[place]])
        share = (courses[name] ** 2).sum() / total
        assert found.variances[name] == pytest.approx([share])
        assert found.marginal[name] == pytest.approx(share)
        part = courses[name][..., None] * directions[name]
        assert found.reconstruct(kind(x), name) == pytest.approx(part)
        assert np.abs(found.project(x, name)[..., 0]) == pytest.approx(np.abs(courses[name]))
    assert found.reconstruct(x) == pytest.approx(x)


def test_oblique_components_are_demixed():
    """Directions that are not orthogonal: decoders tell apart what encoders share."""
    x, courses, directions, _ = planted()
    oblique = dict(directions)
    oblique["context"] = 0.6 * directions["context"] + 0.8 * directions["stimulus"]
    x = sum(courses[n][..., None] * oblique[n] for n in NAMES)
    found = fit_dpca(x, AXES)
    for place, name in enumerate(NAMES):
        assert np.abs(found.encoders[name] @ oblique[name]) == pytest.approx([1.0])
        assert found.shares[name] == pytest.approx(np.eye(4)[[place]])
        decoded = [float(found.decoders[name][0] @ oblique[other]) for other in NAMES]
        assert np.abs(decoded) == pytest.approx(np.eye(4)[place], abs=1e-12)
    # cos 0.8 between two encoders, none between the components.
    assert np.abs(found.encoders["context"] @ found.encoders["stimulus"].T) == pytest.approx(0.8)


def test_one_marginalisation_gives_pca():
    x = normal(30, 5) @ np.diag([3, 2, 1.5, 1, 0.5])
    found, reference = fit_dpca(x, ("time",)), decomposition.PCA().fit(x)
    assert list(found.encoders) == ["time"]
    assert found.encoders["time"] == pytest.approx(found.decoders["time"])
    assert np.abs(found.encoders["time"]) == pytest.approx(np.abs(reference.components_))
    assert found.variances["time"] == pytest.approx(reference.explained_variance_ratio_)
    assert found.marginal == pytest.approx({"time": 1.0})


@pytest.mark.parametrize("with_noise", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_regression_of_low_rank_reaches_the_least_objective(ridge, with_noise):
    x = normal(2, 3, 5, 4) @ np.diag([2, 1.5, 1, 0.5])
    root = normal(4, 4, seed=1)
    noise = 0.1 * root @ root.T
    parts = marginalise(x, AXES)
    found = fit_dpca(x, AXES, components=2, ridge=ridge, noise=noise if with_noise else None)
    cost = noise if with_noise else np.zeros((4, 4))
    for name in NAMES:

        def value(flat, part=parts[name]):
            f, d = flat[:8].reshape(4, 2), flat[8:].reshape(2, 4)
            return objective(x, part, f @ d, ridge, cost)

        product = found.encoders[name].T @ found.decoders[name]
        own = objective(x, parts[name], product, ridge, cost)
        runs = [optimize.minimize(value, normal(16, seed=s), method="BFGS") for s in range(4)]
        # The optimiser's gradient is a difference quotient: good to about 1e-8 of the value.
        assert own == pytest.approx(min(run.fun for run in runs), rel=1e-6)


def test_permuted_and_rotated_units_change_nothing_but_the_axes():
    x = normal(2, 3, 5, 6)
    own = fit_dpca(x, AXES, components=3, ridge=0.1)
    order, q = np.random.default_rng(1).permutation(6), rotation(6, seed=2)
    for turn in (np.eye(6)[order], q):
        other = fit_dpca(x @ turn.T, AXES, components=3, ridge=0.1)
        assert other.explained == pytest.approx(own.explained)
        for name in NAMES:
            assert other.variances[name] == pytest.approx(own.variances[name])
            assert other.shares[name] == pytest.approx(own.shares[name])
            product = own.encoders[name].T @ own.decoders[name]
            turned = other.encoders[name].T @ other.decoders[name]
            assert turned == pytest.approx(turn @ product @ turn.T)
    scaled = fit_dpca(10 * x + 3, AXES, components=3, ridge=0.1)
    assert scaled.decoders["time"] == pytest.approx(own.decoders["time"])


def test_shares_and_variances_by_definition():
    x = normal(2, 3, 5, 6)
    found = fit_dpca(x, AXES, components={name: 1 + k for k, name in enumerate(NAMES)}, ridge=0.2)
    parts, flat = marginalise(x, AXES), centred(x)
    total = (flat**2).sum()
    for name, number in zip(NAMES, (1, 2, 3, 4), strict=True):
        f, d = found.encoders[name], found.decoders[name]
        assert f @ f.T == pytest.approx(np.eye(number), abs=1e-12)
        assert (f[np.arange(number), np.abs(f).argmax(axis=1)] > 0).all()
        for k in range(number):
            rest = flat - np.multiply.outer(flat @ d[k], f[k])
            assert found.variances[name][k] == pytest.approx(1 - (rest**2).sum() / total)
            own = np.array([((parts[other] @ d[k]) ** 2).sum() for other in NAMES])
            assert found.shares[name][k] == pytest.approx(own / ((flat @ d[k]) ** 2).sum())
    left = x - found.reconstruct(x)
    assert found.explained == pytest.approx(1 - (left**2).sum() / total)
    table = found.table()
    assert list(table.columns[:4]) == ["group", "component", "variance", "share_context"]
    assert len(table) == 10
    assert table["variance"].is_monotonic_decreasing
    assert table.filter(like="share").sum(axis=1).to_numpy() == pytest.approx(np.ones(10))


def test_components_are_no_more_than_the_marginalisation_has():
    x = normal(2, 3, 5, 20)
    found = fit_dpca(x, AXES, components=20)
    # Ranks: (2 - 1) * 5, (3 - 1) * 5, 5 - 1 and (2 - 1) * (3 - 1) * 5.
    assert [len(found.encoders[name]) for name in NAMES] == [5, 10, 4, 10]
    assert found.explained == pytest.approx(1.0)
    alone = np.broadcast_to(x.mean(axis=0), x.shape)
    assert len(fit_dpca(alone, AXES).encoders["context"]) == 0


def test_averages_of_conditions_and_noise():
    averages = normal(2, 3, 4, 5)
    single, labels = trials_of(averages, 4, 1.0)
    found = condition_averages(
        torch.as_tensor(single), pd.DataFrame(labels), ("stimulus", "context")
    )
    assert found.axes == ("stimulus", "context", "time")
    assert list(found.levels["stimulus"]) == ["a", "b", "c"]
    assert list(found.levels["context"]) == [0, 1]
    assert (found.counts == 4).all()
    noise = np.zeros((5, 5))
    for (j, s), i in itertools.product(enumerate("abc"), range(2)):
        own = single[(labels["stimulus"] == s) & (labels["context"] == i)]
        assert found.states[j, i] == pytest.approx(own.mean(axis=0))
        noise += sum(np.cov(own[:, t], rowvar=False) for t in range(4)) / (6 * 4)
    assert found.noise == pytest.approx(noise)
    once = condition_averages(*trials_of(averages, 1, 1.0), AXES)
    assert once.noise is None
    assert once.axes == AXES


def test_combinations_weigh_the_same_whatever_their_trials():
    """One trial of a, which tells nothing of noise, two of b, five of c."""
    single = normal(8, 3, 4)
    found = condition_averages(single, {"stimulus": list("abbccccc")}, ("stimulus",))
    spans = (slice(0, 1), slice(1, 3), slice(3, 8))
    assert found.counts.tolist() == [1, 2, 5]
    assert found.states == pytest.approx(np.stack([single[span].mean(axis=0) for span in spans]))
    own = [np.cov(single[span, t], rowvar=False) for span in spans[1:] for t in range(3)]
    assert found.noise == pytest.approx(np.mean(own, axis=0))
    assert found.cells.tolist() == [0, 1, 1, 2, 2, 2, 2, 2]


def test_single_trials_give_what_their_averages_and_noise_give():
    single, labels = trials_of(planted()[0], 5, 0.3)
    cells = condition_averages(single, labels, AXES)
    own = fit_dpca(single, AXES, labels=labels, ridge=0.1)
    parted = fit_dpca(cells.states, AXES, ridge=0.1, noise=cells.noise)
    bare = fit_dpca(single, AXES, labels=labels, ridge=0.1, noise=False)
    assert own.decoders["context"] == pytest.approx(parted.decoders["context"])
    assert bare.decoders["time"] == pytest.approx(
        fit_dpca(cells.states, AXES, ridge=0.1).decoders["time"]
    )
    assert not np.allclose(own.decoders["time"], bare.decoders["time"], rtol=0.01)


def test_more_noise_chooses_a_larger_ridge():
    chosen = []
    for scale in (0.03, 1.0):
        single, labels = trials_of(planted()[0], 6, scale)
        found = fit_dpca(single, AXES, labels=labels, noise=False, components=2, seed=3)
        assert found.ridge == min(found.errors, key=found.errors.get)
        assert len(found.errors) == 25
        chosen.append(found.ridge)
    assert chosen[1] > 3 * chosen[0]
    again = fit_dpca(single, AXES, labels=labels, noise=False, components=2, seed=3)
    other = fit_dpca(single, AXES, labels=labels, noise=False, components=2, seed=4)
    assert again.errors == found.errors
    assert other.errors != found.errors


def test_cross_validated_error_by_hand():
    """Two trials per combination, one fold: one is the averages, the other is held out."""
    averages = planted()[0]
    first, labels = trials_of(averages, 1, 0.2, seed=1)
    second, _ = trials_of(averages, 1, 0.2, seed=1)
    second = second + 0.1 * normal(*second.shape, seed=5)
    both = {name: np.tile(values, 2) for name, values in labels.items()}
    errors = fit_dpca(
        np.concatenate([first, second]), AXES, labels=both, noise=False, ridge=(0.1, 0.2), folds=1
    ).errors
    # Which of the two trials is held out is drawn for each combination: one of 2^6 choices.
    by_choice = []
    for choice in itertools.product((0, 1), repeat=6):
        held = np.array(choice, dtype=bool)[:, None, None]
        train = condition_averages(np.where(held, second, first), labels, AXES).states
        test = condition_averages(np.where(held, first, second), labels, AXES).states
        model = fit_dpca(train, AXES, ridge=0.1)
        parts = marginalise(train, AXES)
        left = sum(((parts[n] - model.reconstruct(test, n)) ** 2).sum() for n in NAMES)
        by_choice.append(left / (centred(train) ** 2).sum())
    assert np.abs(np.array(by_choice) / errors[0.1] - 1).min() < 1e-9


def test_noise_in_cross_validation_is_that_of_the_trials_left():
    single, labels = normal(6, 4, 5), {"context": np.array([0, 0, 0, 1, 1, 1])}
    axes, names = ("context", "time"), ("context", "time")
    errors = fit_dpca(single, axes, labels=labels, ridge=(0.1, 0.2), folds=1).errors
    by_choice = []
    for held in itertools.product(range(3), range(3, 6)):
        left = np.delete(np.arange(6), held)
        train = condition_averages(single[left], {"context": labels["context"][left]}, axes)
        model = fit_dpca(train.states, axes, ridge=0.1, noise=train.noise)
        parts = marginalise(train.states, axes)
        test = single[list(held)]
        off = sum(((parts[n] - model.reconstruct(test, n)) ** 2).sum() for n in names)
        by_choice.append(off / (centred(train.states) ** 2).sum())
    assert np.abs(np.array(by_choice) / errors[0.1] - 1).min() < 1e-9


def test_agrees_with_the_authors_package():
    package = pytest.importorskip("dPCA.dPCA", exc_type=ImportError)
    x = normal(3, 4, 20, 12) @ np.diag(np.linspace(3, 0.3, 12))
    keys = dict(zip(NAMES, ("ct", "st", "t", "cst"), strict=True))
    join = {"ct": ["c", "ct"], "st": ["s", "st"], "cst": ["cs", "cst"]}
    flat, turned = centred(x).reshape(-1, 12), np.moveaxis(centred(x), -1, 0)
    for ridge in (0.0, 0.2):
        # Its parameter times |X|^2 is mu; ours times |X|.
        theirs = package.dPCA(
            labels="cst", join=join, n_components=2, n_iter=30,
            regularizer=ridge / np.linalg.norm(flat),
        )  # fmt: skip
        scores = theirs.fit_transform(turned)
        ours = fit_dpca(x, AXES, components=2, ridge=ridge)
        parts = theirs._marginalize(turned)
        for name, part in marginalise(x, AXES).items():
            own = part.reshape(-1, 12).T
            assert own == pytest.approx(parts[keys[name]], abs=1e-12)
        for name, key in keys.items():
            product = theirs.P[key] @ theirs.D[key].T
            assert ours.encoders[name].T @ ours.decoders[name] == pytest.approx(product, abs=1e-9)
            own = np.moveaxis(ours.project(x, name), -1, 0)
            assert np.abs(own) == pytest.approx(np.abs(scores[key]), abs=1e-8)
            captured = (own**2).sum(axis=(1, 2, 3)) / (flat**2).sum()
            assert captured == pytest.approx(theirs.explained_variance_ratio_[key])


GOOD = normal(2, 3, 4, 5)
SINGLE, LABELS = trials_of(GOOD, 2, 1.0)
ONCE = trials_of(GOOD, 1, 1.0)
GAP = GOOD.copy()
GAP[0, 1] = np.nan


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "axes must name every axis", lambda: marginalise(GOOD, ("a", "time"))),
        (ValueError, "axes must differ", lambda: marginalise(GOOD, ("a", "a", "time"))),
        (ValueError, "two levels or more: got 1; drop it", lambda: fit_dpca(GOOD[:1], AXES)),
        (ValueError, "4 of 24 samples are not", lambda: fit_dpca(GAP, AXES)),
        (ValueError, "averages are equal", lambda: fit_dpca(np.full((2, 3, 4, 5), 0.1), AXES)),
        (ValueError, "unknown axis 'tim'", lambda: marginalise(GOOD, AXES, {"t": ["tim"]})),
        (ValueError, "every subset of the axes once", lambda: fit_dpca(
            GOOD, AXES, groups={"t": ["time", "time"]})),
        (TypeError, "must list its marginalisations", lambda: fit_dpca(
            GOOD, AXES, groups={"t": "time"})),
        (ValueError, "components must be at least 1", lambda: fit_dpca(GOOD, AXES, components=0)),
        (ValueError, "missing stimulus", lambda: fit_dpca(
            GOOD, AXES, components={"context": 1})),
        (ValueError, "unknown group", lambda: fit_dpca(GOOD, AXES, components={"contex": 1})),
        (ValueError, "unknown group", lambda: fit_dpca(GOOD, AXES).project(GOOD, "contex")),
        (ValueError, "must have 5 units", lambda: fit_dpca(GOOD, AXES).project(
            GOOD[..., :3], "time")),
        (ValueError, "ridge must be zero or more", lambda: fit_dpca(GOOD, AXES, ridge=-1)),
        (ValueError, "needs single trials", lambda: fit_dpca(GOOD, AXES, ridge=(0.1, 0.2))),
        (ValueError, "noise=True must come with labels", lambda: fit_dpca(GOOD, AXES, noise=True)),
        (ValueError, "finite covariance", lambda: fit_dpca(GOOD, AXES, noise=np.eye(4))),
        (ValueError, "symmetric", lambda: fit_dpca(GOOD, AXES, noise=-np.eye(5))),
        (ValueError, "a combination of three trials", lambda: fit_dpca(
            SINGLE, AXES, labels=LABELS)),
        (ValueError, "unknown condition 'rule'", lambda: condition_averages(
            SINGLE, LABELS, ("rule",))),
        (ValueError, "every combination of context, stimulus must have a trial: 1 of 6",
         lambda: condition_averages(
             SINGLE[(LABELS["context"] == 0) | (LABELS["stimulus"] != "b")],
             pd.DataFrame(LABELS).query("context == 0 or stimulus != 'b'"), AXES)),
        (ValueError, "known in every trial: 1 of 12", lambda: condition_averages(
            SINGLE, {"context": [None, *LABELS["context"][1:]]}, ("context",))),
        (ValueError, r"shape \(trial, time, unit\)", lambda: condition_averages(
            SINGLE[0], LABELS, ("context",))),
        (ValueError, "two trials or more in every combination", lambda: fit_dpca(
            ONCE[0], AXES, labels=ONCE[1])),
    ],
)  # fmt: skip
def test_errors_say_what_must_hold(error, message, call):
    with pytest.raises(error, match=message):
        call()
