import numpy as np
import pytest
import torch
from scipy import stats

from ctxrnn import CTRNN, _kernel
from ctxrnn._noise import RecurrentNoise, draw_key, normals, threefry

WORDS = {
    # Known answers of the authors' Random123 library, Threefry-4x32 with 20 rounds.
    "zeros": (
        (0, 0, 0, 0),
        (0, 0, 0, 0),
        (0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8),
    ),
    "ones": (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 4,
        (0x2A881696, 0x57012287, 0xF6C7446E, 0xA16A6732),
    ),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89),
        (0x59CD1DBB, 0xB8879579, 0x86B5D00C, 0xAC8B6D84),
    ),
}
needs_kernel = pytest.mark.skipif(not _kernel.available(), reason="the kernel is not compiled")


def key(seed=0):
    return draw_key(torch.Generator().manual_seed(seed))


@pytest.fixture(params=[pytest.param("kernel", marks=needs_kernel), "numpy"])
def source(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(_kernel, "library", lambda: None)


@pytest.mark.parametrize("name", WORDS)
def test_the_bits_are_the_published_ones(name):
    counter, words, wanted = (np.array(part, dtype=np.uint32) for part in WORDS[name])
    assert threefry(words, counter[:, None])[:, 0].tolist() == wanted.tolist()


@needs_kernel
@pytest.mark.parametrize("name", WORDS)
def test_the_kernel_makes_the_same_bits(name):
    counter, words, wanted = (np.array(part, dtype=np.uint32) for part in WORDS[name])
    found = np.zeros(4, dtype=np.uint32)
    _kernel.library().threefry_words(
        *(part.ctypes.data_as(_kernel.ctypes.c_void_p) for part in (words, counter, found))
    )
    assert found.tolist() == wanted.tolist()


@needs_kernel
@pytest.mark.parametrize(("trials", "units"), [(1, 1), (3, 17), (64, 64), (5, 100)])
def test_the_kernel_and_numpy_draw_the_same_numbers(trials, units, monkeypatch):
    compiled = normals(key(), 40, trials, units)
    monkeypatch.setattr(_kernel, "library", lambda: None)
    # Single-precision logarithm, root, sine: a few roundings of 6e-8 for numbers up to 6.
    torch.testing.assert_close(compiled, normals(key(), 40, trials, units), rtol=2e-6, atol=6e-6)


def test_numbers_are_standard_normal(source):
    drawn = normals(key(1), 200, 64, 80).double().flatten().numpy()
    n = drawn.size
    # Five standard errors each; the variance of x^k is E x^2k - (E x^k)^2.
    assert abs(drawn.mean()) < 5 / n**0.5
    assert abs(drawn.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((drawn**3).mean()) < 5 * (15 / n) ** 0.5
    assert abs((drawn**4).mean() - 3) < 5 * (96 / n) ** 0.5
    assert stats.kstest(drawn, "norm").pvalue > 1e-6
    # Tails: numbers beyond 4 are Poisson around 65.
    beyond, expected = (abs(drawn) > 4).sum(), n * 2 * stats.norm.sf(4)
    assert abs(beyond - expected) < 5 * expected**0.5
    assert np.isfinite(drawn).all()


def test_numbers_are_independent_across_steps_trials_units_and_keys(source):
    first, second = (normals(key(seed), 60, 32, 48).double() for seed in (2, 3))
    pairs = {
        "steps": (first[1:], first[:-1]),
        "trials": (first[:, 1:], first[:, :-1]),
        "units": (first[..., 1:], first[..., :-1]),
        "the two of a pair": (first[..., 16:32], first[..., :16]),
        "keys": (first, second),
    }
    for name, (one, other) in pairs.items():
        for power in (1, 2):
            x, y = one.flatten() ** power, other.flatten() ** power
            x, y = x - x.mean(), y - y.mean()
            correlation = (x * y).mean() / (x.std() * y.std())
            assert abs(correlation) < 5 / x.numel() ** 0.5, (name, power)


def test_a_later_part_of_a_run_can_be_drawn_alone(source):
    whole = normals(key(), 10, 4, 20)
    torch.testing.assert_close(normals(key(), 3, 4, 20, first=7), whole[7:], rtol=0, atol=0)
    noise = RecurrentNoise(0.5, key())
    later = noise.after(7).current(3, torch.zeros(4, 20, dtype=torch.float64))
    torch.testing.assert_close(later, 0.5 * whole[7:].double(), rtol=0, atol=0)


def test_the_key_depends_on_the_generator_alone():
    assert torch.equal(key(5), key(5))
    assert not torch.equal(key(5), key(6))
    torch.manual_seed(3)
    one = draw_key(None)
    torch.manual_seed(3)
    assert torch.equal(one, draw_key(None))


def test_networks_of_both_precisions_and_all_loops_see_the_same_noise():
    runs = {}
    for dtype in (torch.float32, torch.float64):
        for loop in ("auto", "adjoint", "plain"):
            network = CTRNN(2, 5, 1, "none", seed=0, noise=0.5, dtype=dtype)
            network.loop = loop
            runs[dtype, loop] = network(torch.zeros(3, 6, 2), generator=1).outputs.double()
    for outputs in runs.values():
        # 6 steps of 5 products: fewer than 100 roundings of 6e-8.
        torch.testing.assert_close(outputs, runs[torch.float64, "plain"], rtol=0, atol=6e-6)
