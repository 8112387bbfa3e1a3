import pytest
import torch

from ctxrnn import CTRNN, make_generator
from ctxrnn._connectivity import connection_mask, dale_signs, initial_weight


def weight(**options):
    settings = {"kind": "gaussian", "g": 1.0, "generator": make_generator(0, "W")}
    return initial_weight(options.pop("units", 40), **{**settings, **options})


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 5), (0.75, 8), (1.0, 10)])
def test_excitatory_neurons_come_first(share, count):
    signs = dale_signs(10, share)
    assert signs.tolist() == [1.0] * count + [-1.0] * (10 - count)


def test_mask_has_the_density_and_the_diagonal_as_asked():
    units = 200
    mask = connection_mask(units, density=0.3, self_connections=False, generator=make_generator(0))
    assert (mask.diagonal() == 0).all()
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    # Five standard errors of a share of independent draws.
    error = (0.3 * 0.7 / (units * (units - 1))) ** 0.5
    assert abs(mask.sum().item() / (units * (units - 1)) - 0.3) < 5 * error
    full = connection_mask(9, density=1.0, self_connections=True, generator=make_generator(0))
    assert (full == 1).all()


def test_sparse_weights_grow_so_that_a_neuron_receives_as_much():
    mask = connection_mask(300, density=0.25, self_connections=True, generator=make_generator(1))
    sparse = weight(units=300, mask=mask)
    assert (sparse[mask == 0] == 0).all()
    # Rows keep the variance 1; five standard errors of a variance.
    variance = sparse.square().sum(1).mean().item()
    assert abs(variance - 1) < 5 * (2 / mask.sum().item()) ** 0.5


def test_identity_is_half_and_does_not_grow():
    mask = torch.ones(4, 4).tril()
    found = weight(units=4, kind="identity", g=1.0, mask=mask)
    assert torch.equal(found, 0.5 * torch.eye(4))
    assert torch.equal(weight(units=3, kind="identity", g=2.0), torch.eye(3))


def test_excitation_and_inhibition_balance():
    signs = dale_signs(40, 0.8)
    found = weight(sign=signs)
    assert (found * signs >= 0).all()
    # Float32 sum of 1,600 entries near 0.1.
    assert abs(found.sum().item()) < 1600 * 0.1 * 6e-8 * 40
    only = weight(sign=dale_signs(40, 1.0))
    assert (only >= 0).all()


@pytest.mark.parametrize("sign", [None, 0.7])
@pytest.mark.parametrize("density", [1.0, 0.4])
def test_spectral_radius_is_the_one_asked_for(sign, density):
    mask = connection_mask(40, density=density, self_connections=False, generator=make_generator(2))
    signs = None if sign is None else dale_signs(40, sign)
    found = weight(mask=mask, sign=signs, spectral_radius=1.7)
    radius = torch.linalg.eigvals(found.double()).abs().max().item()
    # The weights are rounded to float32; an eigenvalue moves by at most their norm times that,
    # times its condition number, below 20 here.
    assert abs(radius - 1.7) < 20 * 6e-8 * found.norm().item()


@pytest.mark.parametrize("nonlinearity", ["relu", "softplus"])
def test_every_connection_is_learnt_under_dales_law(nonlinearity):
    network = CTRNN(2, 6, 1, nonlinearity=nonlinearity, excitatory=0.5, g=0.1, noise=0.0, seed=0)
    with torch.no_grad():
        network.bias.fill_(5.0)
    before = network.weight.detach().clone()
    assert (before != 0).all()
    network(torch.ones(3, 8, 2)).outputs.square().sum().backward()
    (raw,) = (p for name, p in network.named_parameters() if "weight.original" in name)
    assert (raw.grad != 0).all()


def test_missing_connections_stay_missing_without_dales_law():
    network = CTRNN(2, 12, 1, density=0.4, self_connections=False, seed=0)
    missing = network.weight.detach() == 0
    before = network.weight.detach().clone()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.ones(3, 4, 2), generator=0).outputs.square().sum().backward()
        optimizer.step()
    assert missing.diagonal().all()
    assert (network.weight[missing] == 0).all()
    assert (network.weight != before)[~missing].all()


def test_identity_under_dales_law_is_refused():
    with pytest.raises(ValueError, match=r"initial must be 'gaussian' under Dale's law"):
        CTRNN(1, 4, 1, initial="identity", excitatory=0.5)


def test_weights_that_break_dales_law_are_refused():
    network = CTRNN(1, 4, 1, excitatory=0.5, seed=0)
    with pytest.raises(ValueError, match="weights must obey Dale's law"):
        network.weight = -network.weight.detach()


def test_assigned_weights_are_kept_and_masked():
    network = CTRNN(1, 4, 1, excitatory=0.5, self_connections=False, seed=0)
    wanted = torch.rand(4, 4) * dale_signs(4, 0.5)
    with torch.no_grad():
        network.weight = wanted
    torch.testing.assert_close(
        network.weight.detach(), wanted - torch.diag(wanted.diagonal()), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weight(kind="uniform"), "must be 'gaussian' or 'identity': got 'uniform'"),
        (lambda: weight(g=-1.0), "g must be zero or more and finite: got -1.0"),
        (lambda: weight(g=0.0, spectral_radius=1.0), "the initial weights are all zero"),
        (lambda: weight(spectral_radius=0.0), "spectral_radius must be positive"),
        (lambda: dale_signs(4, 1.5), r"excitatory must lie in \[0, 1\]: got 1.5"),
        (
            lambda: connection_mask(4, density=0.0, self_connections=True, generator=None),
            "density must be positive",
        ),
    ],
)
def test_wrong_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
