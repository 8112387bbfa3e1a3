"""What modulators and gains do: by hand, against scikit-learn and SciPy, and planted structure."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from ctxrnn.analysis import (
    class_noise,
    cosine_similarity,
    discriminability,
    effective_units,
    group_structure,
    label_fidelity,
    linear_cka,
    modulator_noise,
    representation_change,
    share_above_one,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_noise_of_the_modulator_by_hand():
    # Two draws, two images: variances over draws 2 and 8, means 1 and 4, their variance 4.5.
    z = np.array([[[0.0], [2.0]], [[2.0], [6.0]]])
    assert modulator_noise(z) == pytest.approx([5 / 4.5])
    assert modulator_noise(torch.as_tensor(3 * z + 7)) == pytest.approx([5 / 4.5])


def test_noise_of_the_modulator_of_a_planted_ratio():
    draws, images = 200, 2000
    noise, signal = 0.5 * normal(draws, images, 3), normal(images, 3, seed=1)
    # Relative error of the variance of n normal values: sqrt(2 / n), five of them.
    tolerance = 5 * np.sqrt(2 / images)
    expected = 0.25 / (1 + 0.25 / draws)
    assert modulator_noise(noise + signal) == pytest.approx(np.full(3, expected), rel=tolerance)
    assert (modulator_noise(np.broadcast_to(signal, noise.shape)) == 0).all()
    assert np.isnan(modulator_noise(np.full((7, 3, 1), 0.1))).all()


def test_discriminability_by_hand():
    a = np.array([[1.0, 0, 2, 5], [3.0, 0, 2, 5], [6.0, 0, 3, 5], [8.0, 0, 3, 6]])
    found = discriminability(a, [0, 0, 1, 1])
    # Unit 0: means 2 and 7, squares 2 + 2 over n - 2. Units 1 and 2 vary never, and not within.
    assert found[0] == pytest.approx(5 / np.sqrt(2))
    assert found[1] == 0
    assert found[2] == np.inf
    assert found[3] == pytest.approx(0.5 / np.sqrt(0.25))
    assert discriminability(a, [1, 1, 0, 0]) == pytest.approx(-found)


def test_discriminability_is_that_of_the_t_test():
    a, y = normal(50, 4), np.arange(50) % 3 == 0
    t = stats.ttest_ind(a[y], a[~y]).statistic
    ones = y.sum()
    assert discriminability(a, y) == pytest.approx(t * np.sqrt(1 / ones + 1 / (50 - ones)))


def test_each_context_has_its_own_labels():
    a, y = normal(40, 3, 5), (normal(40, 3, seed=1) > 0).astype(int)
    found = discriminability(a, torch.as_tensor(y))
    assert found.shape == (3, 5)
    for k in range(3):
        assert found[k] == pytest.approx(discriminability(a[:, k], y[:, k]))
    one = discriminability(a[:, 0], y)
    assert one[2] == pytest.approx(discriminability(a[:, 0], y[:, 2]))
    order = np.random.default_rng(0).permutation(40)
    assert discriminability(a[order], y[order]) == pytest.approx(found)


def test_a_silent_unit_is_not_told_apart_by_rounding():
    a = np.full((1000, 1), 0.1)
    assert discriminability(a, np.arange(1000) % 7 == 0).tolist() == [0]


def test_noise_within_classes_is_the_inverse_square_of_d():
    z, y = normal(60, 3), (normal(60, 3, seed=1) > 0).astype(int)
    d = [discriminability(z[:, [k]], y[:, k])[0] for k in range(3)]
    assert class_noise(z, y) == pytest.approx(1 / np.square(d))
    # Means 0 and 2, variance (2 + 2) / (4 - 2) = 2.
    assert class_noise([[-1], [1], [1], [3]], [[0], [0], [1], [1]]) == pytest.approx([0.5])
    assert class_noise([[-1], [1], [1], [-1]], [[0], [0], [1], [1]]).tolist() == [np.inf]


def test_fidelity_is_the_rank_correlation_of_scipy():
    c, d = np.abs(normal(4, 30)).round(1), normal(4, 30, seed=1)
    found = label_fidelity(c, torch.as_tensor(d))
    assert found == pytest.approx(
        [stats.spearmanr(x, abs(y)).statistic for x, y in zip(c, d, strict=True)]
    )
    assert label_fidelity(d[0] ** 2, d[0]) == pytest.approx([1])
    assert label_fidelity([3.0, 2.0, 1.0], [0.1, -1.0, np.inf]) == pytest.approx([-1])
    assert np.isnan(label_fidelity(np.ones(5), d[0, :5])).all()


def test_gains_by_hand():
    g = np.array([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [2.0, 1.5, 0.5, 0.0]])
    assert share_above_one(g).tolist() == [0, 0.25, 0.5]
    assert effective_units(torch.as_tensor(g)) == pytest.approx([4, 1, 16 / 6.5])
    assert effective_units(7 * g) == pytest.approx(effective_units(g))
    assert np.isnan(effective_units(np.zeros(3))).all()


def test_change_of_a_representation():
    b = normal(20, 6)
    same = representation_change(b, b + normal(6))
    assert (same.relative, same.cka) == pytest.approx((0, 1), abs=1e-12)
    scaled = representation_change(b, 1.5 * b)
    assert (scaled.relative, scaled.cka) == pytest.approx((0.5, 1))
    a = b + 0.3 * normal(20, 6, seed=1)
    found = representation_change(b, torch.as_tensor(a))
    centred = b - b.mean(0), a - a.mean(0)
    expected = np.linalg.norm(centred[1] - centred[0]) / np.linalg.norm(centred[0])
    assert found.relative == pytest.approx(expected)
    assert found.cka == pytest.approx(linear_cka(b, a))
    assert np.isnan(representation_change(np.ones((3, 2)), normal(3, 2)).relative)


def test_cosines():
    x = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0], [0.0, 0.0]])
    table = cosine_similarity(x, ["a", "b", "c", "d"])
    half = np.sqrt(0.5)
    assert table.loc["a", ["a", "b", "c"]].tolist() == pytest.approx([1, half, 0])
    assert table.loc["b", "c"] == pytest.approx(-half)
    assert table.loc["d"].isna().all()
    rows = 10 + normal(5, 8)
    assert (cosine_similarity(rows).to_numpy() > 0.9).all()
    centred = cosine_similarity(rows, centred=True).to_numpy()
    assert centred == pytest.approx(cosine_similarity(rows - rows.mean(0)).to_numpy())
    assert centred.min() < 0


@pytest.mark.parametrize("seed", range(5))
def test_silhouette_is_that_of_scikit_learn(seed):
    similarity = cosine_similarity(normal(12, 5, seed=seed)).to_numpy()
    groups = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 1, 0])
    apart = np.clip(1 - similarity, 0, None)
    np.fill_diagonal(apart, 0)
    expected = metrics.silhouette_score(apart, groups, metric="precomputed")
    found = group_structure(similarity, groups, permutations=50, seed=seed)
    assert found.silhouette == pytest.approx(expected)
    names = np.array(["w", "x", "y", "z"])[groups]
    assert group_structure(similarity, names, permutations=50, seed=seed) == found


def test_planted_groups_are_found_and_absent_ones_are_not():
    groups = np.repeat(range(4), 5)
    rows = 2 * normal(4, 20)[groups] + normal(20, 20, seed=1)
    found = group_structure(cosine_similarity(rows), groups, permutations=999)
    assert found.p == 1 / 1000
    assert found.silhouette > 0.3
    assert not found.exact
    assert str(found).endswith("p = 0.001 (999 permutations)")
    order = np.random.default_rng(0).permutation(20)
    again = group_structure(cosine_similarity(rows[order]), groups[order], permutations=999)
    assert again.silhouette == pytest.approx(found.silhouette)


def test_p_of_few_contexts_is_exact():
    similarity = cosine_similarity(normal(5, 3)).to_numpy()
    groups = ["a", "a", "b", "b", "b"]
    found = group_structure(similarity, groups)
    every = [
        group_structure(similarity, order, permutations=1).silhouette
        for order in itertools.permutations(groups)
    ]
    assert (found.exact, found.permutations) == (True, 120)
    assert found.p == np.mean(np.array(every) >= found.silhouette - 1e-12)


def test_p_has_its_level_where_there_are_no_groups():
    # The p of a draw of 19 is uniform on 1 / 20, ..., 1: at most one in ten lies at 0.1 or below.
    found = [
        group_structure(
            cosine_similarity(normal(8, 6, seed=s)), [0, 1] * 4, permutations=19, seed=s
        ).p
        for s in range(400)
    ]
    share = np.mean(np.array(found) <= 0.1 + 1e-9)
    assert share < 0.1 + 5 * np.sqrt(0.09 / 400)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modulator_noise(np.zeros((1, 3, 2))), r"two draws and images or more: got \(1, 3"),
        (lambda: modulator_noise(np.full((2, 3, 2), np.nan)), "logits must be finite: 12 of 12"),
        (lambda: discriminability(np.zeros((3, 2)), [0, 1]), r"got \(3, 2\) and \(2,\)"),
        (lambda: discriminability(np.zeros((3, 2, 4)), [0, 1, 1]), "activity must be"),
        (lambda: discriminability(np.zeros((3, 2)), [0, 0, 0]), "all are of one class for 0 of 1"),
        (lambda: discriminability(np.zeros((3, 2)), [0, -1, 1]), "labels must be 0 or 1: got -1"),
        (lambda: discriminability(np.zeros((2, 2)), [0, 1]), "three images or more: got 2"),
        (lambda: class_noise(np.zeros((3, 2)), np.zeros(3)), r"got \(3, 2\) and \(3,\)"),
        (lambda: label_fidelity(np.zeros((2, 3)), np.zeros((2, 4))), "the same contexts and units"),
        (lambda: label_fidelity(np.zeros(3), [0, np.nan, 1]), "not NaN"),
        (lambda: effective_units([1.0, -1.0]), "zero or more: got -1"),
        (lambda: share_above_one(np.zeros((2, 0))), r"gain must be \(context, unit\)"),
        (lambda: representation_change(np.eye(3), np.zeros((3, 4))), "same images and units"),
        (lambda: cosine_similarity(np.zeros((3, 2)), ["a"]), "each of 3 contexts: got 1"),
        (lambda: group_structure(np.eye(3), [0, 0]), r"got \(3, 3\) and 2 groups"),
        (lambda: group_structure(np.eye(3), [0, 0, 0]), "two or more.* got 1"),
        (lambda: group_structure(np.eye(3), [0, 1, 2]), "fewer than the 3 contexts: got 3"),
        (lambda: group_structure([[1, 0, 1], [1, 1, 0], [0, 0, 1]], [0, 0, 1]), "symmetric"),
        (lambda: group_structure(np.full((3, 3), np.nan), [0, 0, 1]), "similarity must be finite"),
    ],
)  # fmt: skip
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
