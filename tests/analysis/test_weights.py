"""Effects of contexts in the weights, against networks whose parameters are set by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from ctxrnn.analysis.similarity import similarity_of_tasks
from ctxrnn.analysis.weights import (
    context_effects,
    context_similarity,
    effective_rank,
    modulation_rank,
    readout_alignment,
)
from scipy import stats

from ctxrnn import CTRNN, Contexts, Ensemble

EPS = np.finfo(float).eps


def made(variant, units=4, contexts=2, outputs=1, **values):
    """A network with some of its parameters set by hand."""
    network = CTRNN(2, units, outputs, variant, contexts=contexts, seed=0, dtype=torch.float64)
    known = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            (full,) = [key for key in known if key.split(".")[-1] == name]
            known[full].copy_(torch.as_tensor(value, dtype=torch.float64))
    return network


def test_effects_are_the_parameters_set():
    drive = np.array([[1.0, 0.0], [2.0, -1.0], [0.0, 0.0], [0.0, 3.0]])
    w, h = np.arange(16.0).reshape(4, 4), np.array([[[1.0, 2.0, 0.0, 0.0]], [[0.0, 0.0, 3.0, 1.0]]])
    network = made("es-add-sym", E=drive, h=h, weight=w)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = context_effects(network)
    assert np.array_equal(found.drive, drive.T)
    assert np.array_equal(found.threshold, np.zeros((2, 4)))
    assert np.array_equal(found.gain, np.ones((2, 4)))
    assert np.array_equal(found.base, w)
    for k in range(2):
        assert np.array_equal(found.weight[k], w * (1 + np.outer(h[k, 0], h[k, 0])))
    assert found.acting == ("drive", "weight")
    mixed = context_effects(network, Contexts(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 2]])))
    assert np.array_equal(mixed.drive[0], drive.mean(axis=1))
    assert np.array_equal(mixed.weight[0], w * (1 + 2 * np.outer(h[1, 0], h[1, 0])))
    assert np.array_equal(context_effects(network, [0.0, 0.0]).change("drive"), np.zeros((1, 4)))
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_threshold_and_gain_count_from_their_neutral_value():
    theta, gamma = np.arange(8.0).reshape(4, 2), np.arange(8.0, 16).reshape(4, 2)
    found = context_effects(made("e-thr", Theta=theta))
    assert found.acting == ("threshold",)
    assert np.array_equal(found.change("threshold"), theta.T)
    found = context_effects(made("e-gain", Gamma=gamma))
    assert np.array_equal(found.gain, 1 + gamma.T)
    assert np.array_equal(found.change("gain"), gamma.T)


def test_drive_leaves_the_weights_alone():
    found = context_effects(made("e-add"))
    assert not (found.weight - found.base).any()
    with pytest.raises(ValueError, match=r"must set the weight: this network's set drive"):
        found.change("weight")
    with pytest.raises(ValueError, match="must set the weight"):
        modulation_rank(made("e-add"))
    with pytest.raises(ValueError, match="must set the drive: this network's set weight"):
        readout_alignment(made("s-sym"))


def test_matrices_without_a_base_count_from_their_mean():
    w = np.random.default_rng(0).normal(size=(3, 4, 4))
    found = context_effects(made("s-full", contexts=3, W=w))
    assert found.base is None
    assert found.change("weight") == pytest.approx(w - w.mean(axis=0))
    with pytest.raises(ValueError, match="reference='mean'"):
        found.change("weight", reference="base")
    with pytest.raises(ValueError, match="unknown reference 'bas'"):
        found.change("weight", reference="bas")
    # Equal matrices have no change, though their mean rounds.
    same = context_effects(made("s-full", contexts=3, W=np.stack([w[0]] * 3)))
    assert not same.change("weight").any()


def test_bad_networks_and_contexts_are_refused():
    with pytest.raises(ValueError, match="'none'"):
        context_effects(CTRNN(2, 4, 1))
    with pytest.raises(ValueError, match="must have a context pathway"):
        context_effects(CTRNN(2, 4, 1, contexts=3))
    members = [CTRNN(2, 4, 1, "e-add", contexts=3, seed=seed) for seed in (0, 1)]
    together = Ensemble(members)
    with pytest.raises(TypeError, match=r"ensemble\.unstack"):
        context_effects(together)
    for one, member in zip(together.unstack(), members, strict=True):
        assert np.array_equal(context_effects(one).drive, context_effects(member).drive)
    with pytest.raises(ValueError, match=r"\(context, 3\)"):
        context_effects(members[0], torch.eye(2))
    with pytest.raises(ValueError, match="finite"):
        context_effects(members[0], [1.0, np.nan, 0.0])
    with pytest.raises(ValueError, match="equally many"):
        context_effects(members[0], Contexts(torch.eye(3), torch.eye(3)[:1]))


def test_similarity_is_the_cosine_of_effects():
    drive = np.array([[1.0, 0.0, -2.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0, 0, 0]])
    # h h^T of unit vectors: the cosine of W * h h^T with equal weights is (h_k . h_j)^2.
    h = np.array([[[1.0, 0, 0, 0]], [[0.6, 0.8, 0, 0]], [[0, 0, 1.0, 0]]])
    network = made("es-add-sym", contexts=3, E=drive, h=h, weight=np.ones((4, 4)))
    found = context_similarity(network, names=["go", "anti", "dly"])
    assert list(found) == ["drive", "weight"]
    assert list(found["drive"].index) == list(found["drive"].columns) == ["go", "anti", "dly"]
    expected = np.array([[1, 0, -1], [0, 1, 0], [-1, 0, 1]])
    assert found["drive"].to_numpy() == pytest.approx(expected, abs=4 * EPS)
    weight = found["weight"]
    # W * (1 + h h^T) - W loses digits of h h^T to the ones: a few eps each.
    assert weight.loc["go", "anti"] == pytest.approx(0.36, abs=50 * EPS)
    assert weight.loc["go", "dly"] == 0
    with pytest.raises(ValueError, match="different, one for each of 3"):
        context_similarity(network, names=["a", "a", "b"])
    silent = context_similarity(made("e-add", E=[[0.0, 1.0]] * 4))["drive"]
    assert np.isnan(silent.loc[0, 1])
    assert silent.loc[1, 1] == pytest.approx(1)


def spearman_mantel(a, b):
    """Mantel test by brute force, by scipy's rank correlation."""
    pairs = np.triu_indices(len(a), 1)
    rho = stats.spearmanr(a[pairs], b[pairs]).statistic
    others = [
        stats.spearmanr(a[pairs], b[np.ix_(order, order)][pairs]).statistic
        for order in map(list, itertools.permutations(range(len(a))))
    ]
    return rho, np.mean(np.abs(others) >= abs(rho) - 1e-12)


def symmetric(count, seed):
    drawn = np.random.default_rng(seed).normal(size=(count, count))
    return drawn + drawn.T


def test_mantel_test_is_that_of_brute_force():
    a, b = symmetric(5, 0), symmetric(5, 1)
    a[0, 1] = a[1, 0] = a[0, 2]
    a[2, 0] = a[0, 2]
    found = similarity_of_tasks(a, b)
    rho, p = spearman_mantel(a, b)
    assert found.correlation == pytest.approx(rho)
    assert found.p == pytest.approx(p)
    assert (found.exact, found.permutations, found.contexts) == (True, 120, 5)
    assert "exact" in str(found)


def test_mantel_test_finds_what_is_there():
    a = symmetric(6, 0)
    found = similarity_of_tasks(a, np.exp(a))
    assert found.correlation == pytest.approx(1)
    assert found.p == pytest.approx(1 / 720)
    drawn = similarity_of_tasks(a, -a, permutations=200, seed=3)
    assert drawn.correlation == pytest.approx(-1)
    assert not drawn.exact
    # At most two of 720 orders tie; 200 draws hardly hit one.
    assert drawn.p == pytest.approx(1 / 201, abs=2.5 / 201)
    assert drawn == similarity_of_tasks(a, -a, permutations=200, seed=3)


def test_drawn_permutations_keep_the_level():
    ps = [
        similarity_of_tasks(symmetric(5, 2 * n), symmetric(5, 2 * n + 1), permutations=99, seed=n).p
        for n in range(300)
    ]
    # p <= 0.2 in a fifth of cases: 300 * 0.2 = 60, sd 6.9; four sd.
    assert abs(np.mean(np.array(ps) <= 0.2) - 0.2) < 4 * np.sqrt(0.16 / 300)


def test_tables_are_matched_by_their_labels():
    names = ["a", "b", "c", "d"]
    table = pd.DataFrame(symmetric(4, 0), index=names, columns=names)
    turned = table.loc[names[::-1], ["c", "a", "d", "b"]]
    assert similarity_of_tasks(table, turned).correlation == pytest.approx(1)
    assert similarity_of_tasks(turned, table).correlation == pytest.approx(1)
    skew = table + np.array([[0, 9, 0, 0], [-9, 0, 0, 0], [0] * 4, [0] * 4])
    assert similarity_of_tasks(skew, table).correlation == pytest.approx(1)
    with pytest.raises(ValueError, match="labelled by the same contexts"):
        similarity_of_tasks(table, table.rename(index={"a": "z"}))
    with pytest.raises(ValueError, match="finite off the diagonal"):
        similarity_of_tasks(table.replace(table.iloc[0, 1], np.nan), table)
    with pytest.raises(ValueError, match="one shape"):
        similarity_of_tasks(np.eye(3), np.eye(4))
    with pytest.raises(ValueError, match="three contexts"):
        similarity_of_tasks(np.eye(2), np.eye(2))
    assert np.isnan(similarity_of_tasks(np.eye(4), table).p)


def test_null_share_of_drives_set_by_hand():
    # C sees the first unit alone.
    drive = np.array([[3.0, 0.0, 1.0], [4.0, 2.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    network = made("e-add", contexts=3, E=drive, output_weight=[[2.0, 0, 0, 0]])
    table = readout_alignment(network, names=["a", "b", "c"])
    # The third unit is never driven: three are left.
    assert (table["units"] == 3).all()
    assert (table["rank"] == 1).all()
    assert table["expected"].to_numpy() == pytest.approx(2 / 3)
    shares = table.set_index(["a", "b"])["share"]
    assert shares.iloc[:3].to_numpy() == pytest.approx([16 / 25, 1, 2 / 3])
    # a - b = (3, 2, 0), a - c = (2, 3, -1), b - c = (-1, 1, -1).
    assert shares.iloc[3:].to_numpy() == pytest.approx([4 / 13, 10 / 14, 2 / 3])
    assert table["norm"].iloc[0] == pytest.approx(5)
    # With one seen direction of three, the part along it is even in [-1, 1] (Archimedes), so that
    # the share s has the distribution 1 - sqrt(1 - s).
    place = 1 - np.sqrt(9 / 25)
    assert table["percentile"].iloc[0] == pytest.approx(place)
    assert table["p"].iloc[0] == pytest.approx(2 * min(place, 1 - place))
    assert table["p"].iloc[1] == pytest.approx(0, abs=1e-7)


def test_null_share_of_random_drives_has_its_distribution():
    network = CTRNN(2, 20, 3, "e-add", contexts=150, seed=0)
    table = readout_alignment(network)
    own = table[table["b"].isna()]
    assert (own["rank"] == 3).all()
    # Percentiles are uniform: Kolmogorov-Smirnov at a level of 1e-3 for a fixed seed.
    assert stats.kstest(own["percentile"], "uniform").pvalue > 1e-3
    assert own["share"].mean() == pytest.approx(17 / 20, abs=4 * own["share"].std() / 150**0.5)


def test_read_outs_that_see_everything_or_nothing():
    for weight, share in ((np.eye(4), 0.0), (np.zeros((4, 4)), 1.0)):
        row = readout_alignment(made("e-add", outputs=4, output_weight=weight)).iloc[0]
        assert row["share"] == row["expected"] == share
        assert np.isnan(row["p"])
    table = readout_alignment(made("e-add", E=np.zeros((4, 2))))
    assert table["share"].isna().all()
    assert table["b"].tolist() == [None, None, 1]
    assert isinstance(table["b"].iloc[2], int)


def test_effective_ranks_of_known_spectra():
    rotate = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    found = effective_rank(rotate @ np.diag([2.0, 2, 2, 0, 0]))
    assert found == pytest.approx((3, 3))
    found = effective_rank(rotate @ np.diag([3.0, 1, 0, 0, 0]))
    assert found.participation == pytest.approx(100 / 82)
    assert found.entropy == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))
    assert effective_rank(np.zeros((2, 3))) == (0, 0)
    assert effective_rank(1e-200 * np.eye(2)) == pytest.approx((2, 2))
    with pytest.raises(ValueError, match=r"\(row, column\)"):
        effective_rank(np.ones(3))


def test_rank_of_a_modulation_set_by_hand():
    e = np.eye(4)
    # Contexts 0 and 1 share a direction, 2 has its own of the same size.
    network = made("s-add-1", contexts=3, m=e[[0, 0, 1]][:, None], n=e[[2, 2, 3]][:, None])
    found = modulation_rank(network, names=list("abc"))
    # Singular values sqrt(2) and 1.
    assert found.across.participation == pytest.approx(9 / 5)
    assert list(found.single["context"]) == list("abc")
    # W + m n^T - W leaves the rounding of W: eps |W| N in singular values of size 1.
    assert found.single[["participation", "entropy", "norm"]].to_numpy() == pytest.approx(
        1, abs=1e-11
    )


def test_scaling_all_weights_is_one_pattern_of_full_rank():
    found = modulation_rank(made("s-scalar", contexts=3, f=[0.5, -1.0, 2.0], weight=np.eye(4)))
    assert found.across == pytest.approx((1, 1), abs=1e-11)
    assert found.single["participation"].to_numpy() == pytest.approx(4)
    assert found.single["norm"].to_numpy() == pytest.approx([1, 2, 4])
    # From their mean, three contexts leave at most two patterns.
    network = made("s-full", contexts=3, W=np.eye(16)[:3].reshape(3, 4, 4))
    assert modulation_rank(network).across == pytest.approx((2, 2))
    still = made("s-sym", h=np.zeros((2, 1, 4)))
    assert modulation_rank(still).across == (0, 0)
