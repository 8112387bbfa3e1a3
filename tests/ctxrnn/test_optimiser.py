import torch
from torch import nn

from ctxrnn._optimiser import Adam, Flat


def parameters(dtype=torch.float64):
    source = torch.Generator().manual_seed(0)
    shapes = {"W": (4, 3), "b": (3,), "scalar": ()}
    return {
        name: nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64).to(dtype))
        for name, shape in shapes.items()
    }


def test_adam_is_that_of_torch():
    mine, theirs = parameters(), parameters()
    flat = Flat(mine)
    adam, reference = Adam(flat), torch.optim.Adam(theirs.values(), lr=1.0)
    source = torch.Generator().manual_seed(1)
    for step in range(200):
        rate = 1e-2 * (0.5 if step > 100 else 1.0)
        for name, parameter in theirs.items():
            # Sizes from tiny to large, and exact zeros.
            size = 10.0 ** (step % 7 - 5) * (step % 11 > 0)
            drawn = torch.randn(parameter.shape, generator=source, dtype=torch.float64) * size
            parameter.grad = drawn
            mine[name].grad.copy_(drawn)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        adam.take_step(rate)
    for name, parameter in theirs.items():
        # 200 steps of a few roundings of 1e-16 each, numbers up to 3.
        torch.testing.assert_close(mine[name], parameter, rtol=0, atol=1e-12)


def test_parameters_stay_what_they_are_and_get_their_memory_back():
    mine, before = parameters(), parameters()
    flat = Flat(mine)
    assert all(torch.equal(mine[name], before[name]) for name in mine)
    flat.values += 1
    (mine["W"].sum() * 2).backward()
    assert torch.equal(mine["b"], before["b"] + 1)
    assert flat.gradient.tolist() == [2.0] * 12 + [0.0] * 4
    flat.release()
    flat.values += 1
    assert torch.equal(mine["b"], before["b"] + 1)
    assert mine["W"].grad is None
    assert mine["W"].untyped_storage().nbytes() == 12 * 8
