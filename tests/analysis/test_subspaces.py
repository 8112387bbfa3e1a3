"""Spaces of trajectories against scikit-learn, SciPy and geometry that is known."""

import numpy as np
import pytest
import torch
from scipy import linalg
from sklearn import decomposition

from ctxrnn.analysis import (
    alignment_index,
    captured_variance,
    centroid_distances,
    compare_subspaces,
    fit_pca,
    linear_cka,
    participation_ratio,
    principal_angles,
    procrustes_distance,
    tangling,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def rotation(size, seed=0):
    return linalg.qr(normal(size, size, seed=seed))[0]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_pca_is_that_of_scikit_learn(kind):
    x = normal(4, 10, 6) @ np.diag([3, 2, 1.5, 1, 0.5, 0.1])
    found, reference = fit_pca(kind(x)), decomposition.PCA().fit(x.reshape(-1, 6))
    assert found.variances == pytest.approx(reference.explained_variance_)
    assert found.ratios == pytest.approx(reference.explained_variance_ratio_)
    assert np.abs(found.components) == pytest.approx(np.abs(reference.components_))
    largest = np.abs(found.components).argmax(axis=1)
    assert (found.components[np.arange(6), largest] > 0).all()
    assert found.restore(found.project(x)) == pytest.approx(x)
    few = fit_pca(x, 2)
    assert few.ratios == pytest.approx(reference.explained_variance_ratio_[:2])
    assert few.project(x).shape == (4, 10, 2)


def test_leading_components_hold_the_share_asked_for():
    x = rotation(4) @ np.diag(np.sqrt([6.0, 3.0, 0.9, 0.1]))
    x = np.concatenate([x.T, -x.T])
    found = fit_pca(x)
    assert [len(found.leading(share)) for share in (0.6, 0.61, 0.9, 0.99, 1.0)] == [1, 2, 2, 3, 4]


def test_participation_ratio_in_closed_form():
    for variances in ([1.0], [1.0, 1.0, 1.0], [4.0, 1.0]):
        size = len(variances)
        x = np.sqrt(variances) * np.eye(size)
        x = np.concatenate([x, -x]) @ rotation(size)
        expected = sum(variances) ** 2 / sum(v**2 for v in variances)
        assert participation_ratio(x) == pytest.approx(expected)
    assert np.isnan(participation_ratio(np.ones((3, 2))))


def test_principal_angles_are_those_of_a_rotation():
    q = rotation(5)
    angles = [0.3, 1.1]
    a = q[:2]
    b = np.cos(angles)[:, None] * q[:2] + np.sin(angles)[:, None] * q[2:4]
    assert principal_angles(a, normal(2, 2) @ b) == pytest.approx(angles)
    assert principal_angles(a, q[2:4]) == pytest.approx([np.pi / 2] * 2)
    assert principal_angles(a, q[:1]) == pytest.approx([0.0], abs=1e-7)
    assert principal_angles(a, b) == pytest.approx(linalg.subspace_angles(a.T, b.T)[::-1])


def test_captured_variance_and_alignment_by_hand():
    x = np.sqrt([6.0, 3.0, 1.0]) * np.eye(3)
    x = np.concatenate([x, -x])
    assert captured_variance(x, [[0.0, 2.0, 0.0]]) == pytest.approx(0.3)
    assert alignment_index(x, [[0.0, 2.0, 0.0]]) == pytest.approx(0.5)
    assert alignment_index(x, np.eye(3)[:2]) == pytest.approx(1.0)
    assert captured_variance(x, np.eye(3)) == pytest.approx(1.0)


def test_spaces_of_contexts_are_compared_in_pairs():
    same, apart = normal(50, 2), normal(50, 2, seed=1)
    states = {
        "a": np.pad(same, ((0, 0), (0, 2))),
        "b": np.pad(apart, ((0, 0), (0, 2))),
        "c": np.pad(apart, ((0, 0), (2, 0))),
    }
    table = compare_subspaces(states, share=0.999).set_index(["a", "b"])
    assert len(table) == 6
    assert table.loc[("a", "b"), "captured"] == pytest.approx(1.0)
    assert table.loc[("a", "b"), "largest"] == pytest.approx(0.0, abs=1e-7)
    assert table.loc[("a", "c"), "captured"] == pytest.approx(0.0, abs=1e-12)
    assert table.loc[("a", "c"), "smallest"] == pytest.approx(np.pi / 2)
    assert (table["dimension_a"] == 2).all()


def test_centroids_by_hand():
    a = np.array([[0.0, 1.0], [0.0, -1.0]])
    found = centroid_distances({"x": a, "y": a + np.array([3.0, 4.0]), "z": a}).set_index(
        ["a", "b"]
    )
    assert found.loc[("x", "y")].tolist() == pytest.approx([5.0, np.sqrt(2), 5 / np.sqrt(2)])
    assert found.loc[("x", "z"), "distance"] == 0
    assert len(found) == 3


def test_tangling_of_a_circle_and_of_an_eight():
    """On a circle velocity is a function of the state; where an eight crosses it is not."""
    t = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([np.cos(t), np.sin(t)], axis=1)
    turn = np.stack([-np.sin(t), np.cos(t)], axis=1)
    # |dv|^2 = |dx|^2 on the circle: Q = d / (d + e) with d at most 4.
    assert tangling(circle, turn, epsilon=0.1) == pytest.approx(np.full(400, 4 / 4.1))
    eight = np.stack([np.sin(t), np.sin(2 * t)], axis=1)
    flow = np.stack([np.cos(t), 2 * np.cos(2 * t)], axis=1)
    found = tangling(eight, flow, epsilon=0.1)
    # At the crossing the velocities are (1, 2) and (-1, 2).
    assert found[0] == pytest.approx(4 / 0.1)
    assert found.argmax() in (0, 200)
    other = tangling(circle, turn, others=(circle, -turn), epsilon=0.1)
    assert other == pytest.approx(np.full(400, 4 / 0.1))
    default = tangling(circle, turn)
    assert default == pytest.approx(np.full(400, 4 / 4.1))


def test_similarities_do_not_see_rotation_shift_and_scale():
    x = normal(40, 5)
    turned = 3.0 * x @ rotation(5, seed=1) + 7.0
    wider = np.pad(turned, ((0, 0), (0, 3))) @ rotation(8, seed=2)
    for other in (turned, wider):
        assert linear_cka(x, other) == pytest.approx(1.0)
        assert procrustes_distance(x, other) == pytest.approx(0.0, abs=1e-12)
        assert procrustes_distance(other, x) == pytest.approx(0.0, abs=1e-12)
    unrelated = normal(40, 5, seed=9)
    assert procrustes_distance(x, unrelated) > 0.5
    big = normal(20000, 4), normal(20000, 4, seed=1)
    # Of n independent samples E[CKA] is about p / n for p units each.
    assert linear_cka(*big) < 20 * 4 / 20000


def test_cka_is_that_of_centred_gram_matrices():
    """HSIC(K, L) / (HSIC(K, K) HSIC(L, L))^(1/2), K = x x^T (Kornblith et al. 2019, eq. 3)."""
    x, y = normal(30, 5) + 2, normal(30, 3, seed=1)
    y = y + x[:, :3]
    centring = np.eye(30) - 1 / 30
    k, m = (centring @ z @ z.T @ centring for z in (x, y))
    expected = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert 0.1 < expected < 0.9
    assert linear_cka(x, y) == pytest.approx(expected)
    assert linear_cka(y, x) == pytest.approx(expected)
    assert linear_cka(torch.as_tensor(x).reshape(3, 10, 5), y) == pytest.approx(expected)
    assert np.isnan(linear_cka(np.ones((3, 2)), np.eye(3)))


@pytest.mark.parametrize("width", [5, 3])
def test_procrustes_distance_is_that_of_singular_values(width):
    """1 - (sum of the singular values of x^T y)^2 for centred x and y of norm 1."""
    x, y = normal(30, 5) + 2, normal(30, width, seed=1)
    y = y + x[:, :width]
    first, second = (z - z.mean(axis=0) for z in (x, y))
    inner = first.T @ second / np.linalg.norm(first) / np.linalg.norm(second)
    expected = 1 - linalg.svdvals(inner).sum() ** 2
    assert 0.1 < expected < 0.9
    assert procrustes_distance(x, y) == pytest.approx(expected)
    assert procrustes_distance(y, x) == pytest.approx(expected)
    assert np.isnan(procrustes_distance(np.ones((3, 2)), np.eye(3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_pca(np.zeros(3)), r"states must have shape \(..., unit\): got \(3,\)"),
        (lambda: fit_pca(np.zeros((1, 3))), "at least 2 samples: got 1"),
        (lambda: fit_pca([[1.0], [np.nan]]), "1 of 2 samples are not; leave out padded steps"),
        (lambda: fit_pca(normal(4, 3), 4), "components must be at most 3"),
        (lambda: principal_angles(np.eye(2), np.eye(3)), "one space: got 2 and 3 units"),
        (lambda: compare_subspaces({"a": np.eye(2)}), "at least two contexts"),
        (lambda: tangling(np.eye(2), np.eye(3)), "same shape"),
        (lambda: tangling(np.ones((2, 2)), np.ones((2, 2))), "epsilon must be positive"),
        (lambda: linear_cka(np.eye(2), np.eye(3)), "same conditions and times: got 2 and 3"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_captured_is_the_share_of_the_first_that_the_second_holds():
    line = np.array([[1.0, 0.0], [-1.0, 0.0]])
    states = {"line": line, "plane": np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])}
    table = compare_subspaces(states, share=0.999).set_index(["a", "b"])
    assert table.loc[("line", "plane"), "captured"] == pytest.approx(1.0)
    assert table.loc[("plane", "line"), "captured"] == pytest.approx(0.5)
