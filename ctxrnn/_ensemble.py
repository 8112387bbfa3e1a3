"""Many networks as one computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ctxrnn._context import Contexts
from ctxrnn._network import CTRNN
from ctxrnn._threads import limited, thread_count
from ctxrnn._trajectory import Trajectory

Result = TypeVar("Result")


class Ensemble(nn.Module):
    """Networks that are run and trained together.

    They may differ in everything but their device and type: pathways, size N, number of contexts,
    initial values, time constants. Each keeps its own parameters and its own random numbers, so
    that a member does what it does alone, bit for bit on the CPU, whatever its companions.

    On the CPU the members run one after another through the compiled loop, each wholly within the
    processor's cache, on as many threads as are given; trials are drawn and laid out once for all
    that see the same. There is no padding to a common size.

    Args:
        networks: The members; the ensemble trains these very networks.

    Raises:
        TypeError: If a member is not a `CTRNN`.
        ValueError: If there is none, one is named twice, or they differ in device or type.

    Example:
        >>> import torch
        >>> from ctxrnn import Ensemble
        >>> members = [{"units": 32, "modulation": "e-add"}, {"units": 48, "modulation": "s-sym"}]
        >>> ensemble = Ensemble.of(inputs=3, outputs=2, members=members, contexts=4)
        >>> stimulus, context = torch.randn(4, 50, 3), torch.eye(4)
        >>> runs = ensemble(stimulus, context, generator=0)
        >>> alone = ensemble[1](stimulus, context, generator=0)
        >>> torch.equal(runs[1].outputs, alone.outputs)  # a member does what it does alone
        True
    """

    def __init__(self, networks: Sequence[CTRNN]) -> None:
        super().__init__()
        for network in networks:
            if not isinstance(network, CTRNN):
                raise TypeError(f"members must be CTRNNs: got {type(network).__name__}")
        if not networks:
            raise ValueError("an ensemble must have at least one member: got none")
        if len({id(network) for network in networks}) < len(networks):
            raise ValueError("members must be different networks: one is given twice")
        for name in ("device", "dtype"):
            found = {getattr(network, name) for network in networks}
            if len(found) > 1:
                given = ", ".join(sorted(map(str, found)))
                raise ValueError(f"members must have the same {name}: got {given}")
        self.networks = nn.ModuleList(networks)

    @classmethod
    def of(
        cls,
        inputs: int,
        outputs: int,
        members: Sequence[dict[str, Any]],
        **common: Any,
    ) -> Ensemble:
        """Build the members.

        Args:
            inputs: I.
            outputs: O.
            members: Arguments of `CTRNN` for each, e.g. `{"units": 64, "modulation": "e-add",
                "seed": 3}`.
            common: Arguments that all share, e.g. `contexts=10, dt=20`.
        """
        networks = []
        for index, own in enumerate(members):
            try:
                networks.append(CTRNN(inputs=inputs, outputs=outputs, **(common | own)))
            except (TypeError, ValueError) as error:
                raise type(error)(f"member {index}: {error}") from None
        return cls(networks)

    def __len__(self) -> int:
        return len(self.networks)

    def __iter__(self) -> Iterator[CTRNN]:
        return (network for network in self.networks if isinstance(network, CTRNN))

    def __getitem__(self, index: int) -> CTRNN:
        return list(self)[index]

    @property
    def device(self) -> torch.device:
        """Where the parameters of all members live."""
        return self[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters of all members."""
        return self[0].dtype

    def unstack(self) -> list[CTRNN]:
        """Return the members as ordinary networks, in order; they are the ensemble's own."""
        return list(self)

    def forward(
        self,
        inputs: Tensor | np.ndarray | Sequence[Tensor],
        context: Tensor | np.ndarray | Contexts | Sequence[Any] | None = None,
        *,
        generator: Sequence[torch.Generator | int] | torch.Generator | int | None = None,
        noise: float | None = None,
        threads: int | None = None,
    ) -> list[Trajectory]:
        """Run all members.

        Args:
            inputs: Stimulus, (trial, time, input): one for all, or a list with one for each.
            context: Likewise, (trial, context) or as `CTRNN` takes it.
            generator: Source of the noise of each member, a list of generators or seeds; one seed
                gives all the same numbers, one generator is asked by all in order; None draws from
                torch's generator.
            noise: sigma in place of the members' own.
            threads: Threads to use; None for as many as the process may.

        Returns:
            One trajectory per member.
        """
        count = len(self)
        given = [
            _for_each(name, value, count)
            for name, value in (("inputs", inputs), ("context", context), ("generator", generator))
        ]
        sources = [source for source in given[2] if isinstance(source, torch.Generator)]
        if generator is None or len({id(source) for source in sources}) < len(sources):
            threads = 1  # A generator that several members share must be asked in order.

        def one(index: int) -> Trajectory:
            u, c, source = (values[index] for values in given)
            trajectory: Trajectory = self[index](u, c, generator=source, noise=noise)
            return trajectory

        return map_threads(one, range(count), thread_count(threads, count))


def map_threads(work: Callable[[int], Result], items: Sequence[int], threads: int) -> list[Result]:
    """Call `work` on each item, on several threads with autograd's mode of this one."""
    if threads <= 1:
        with limited():
            return [work(item) for item in items]
    enabled = torch.is_grad_enabled()

    def inner(item: int) -> Result:
        with torch.set_grad_enabled(enabled):
            return work(item)

    with limited(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(inner, items))


def _for_each(name: str, value: Any, count: int) -> list[Any]:
    """Return one value per member of what may be a list of them."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} must be one for all members or {count}: got {len(value)}")
    return list(value)
