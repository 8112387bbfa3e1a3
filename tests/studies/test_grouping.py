import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxrnn.studies._cells import cell_key
from ctxrnn.studies._grouping import ROUNDS, TOGETHER, grouped


class Costs:
    """Cells of one network share `net`, those of one set of trials `pool`."""

    def unit(self, cell):
        return cell["pool"], cell["net"]

    def shared(self, cell):
        return cell["pool"]

    def cost(self, cell):
        return cell["cost"]


CELLS = st.lists(
    st.builds(
        lambda pool, net, label, cost: {"pool": pool, "net": net, "label": label, "cost": cost},
        st.integers(0, 3),
        st.integers(0, 40),
        st.integers(0, 2),
        st.floats(0.0, 100.0),
    ),
    min_size=1,
    max_size=120,
    unique_by=lambda cell: (cell["pool"], cell["net"], cell["label"]),
)


def units_of(group):
    return {Costs().unit(cell) for cell in group}


@given(CELLS, st.integers(1, 8))
def test_every_cell_once_units_together_groups_bounded_and_of_one_pool(cells, workers):
    groups = grouped(Costs(), cells, workers)
    keys = Counter(cell_key(cell) for group in groups for cell in group)
    assert keys == Counter(map(cell_key, cells))
    places = Counter(unit for group in groups for unit in units_of(group))
    assert set(places.values()) == {1}
    for group in groups:
        assert 1 <= len(units_of(group)) <= TOGETHER
        assert len({cell["pool"] for cell in group}) == 1
    assert grouped(Costs(), cells, workers) == groups


@given(CELLS, st.integers(1, 8))
def test_dearest_groups_come_first(cells, workers):
    dearest = {}
    for cell in cells:
        unit = Costs().unit(cell)
        dearest[unit] = max(dearest.get(unit, 0.0), cell["cost"])
    costs = [
        sum(dearest[unit] for unit in units_of(group)) for group in grouped(Costs(), cells, workers)
    ]
    assert costs == pytest.approx(sorted(costs, reverse=True), abs=1e-9)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_equal_cells_fill_all_workers_alike(workers):
    cells = [{"pool": 0, "net": net, "label": 0, "cost": 2.0} for net in range(60)]
    groups = grouped(Costs(), cells, workers)
    # ROUNDS groups per worker, unless TOGETHER asks for more; sizes differ by one at most.
    assert len(groups) == max(workers * ROUNDS, -(-60 // TOGETHER))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1


def test_parts_of_one_pool_are_about_as_dear():
    source = random.Random(0)
    cells = [
        {"pool": 0, "net": net, "label": 0, "cost": source.uniform(1, 10)} for net in range(100)
    ]
    costs = [sum(cell["cost"] for cell in group) for group in grouped(Costs(), cells, 2)]
    # The dearest first, each to the cheapest part: parts differ by one cell's cost at most.
    assert max(costs) - min(costs) <= 10


def test_cells_without_cost_are_grouped_too():
    cells = [{"pool": 0, "net": net, "label": 0, "cost": 0.0} for net in range(TOGETHER + 1)]
    assert sorted(map(len, grouped(Costs(), cells, 2)))[-1] <= TOGETHER
