import itertools
import re

import numpy as np
import pytest
from hypothesis import strategies as st

from ctxrnn.studies._cells import cell_key, cell_text, checked, expand

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=120)
    | st.sampled_from(["1", "1.0", "yes", "default", "None", ".", "..", "a_b", "a,b", "a/b"])
)


def test_all_combinations_first_axis_outermost():
    axes = {"variant": ["none", "e-add"], "units": (8, 16, 32)}
    wanted = [
        {"variant": v, "units": u} for v, u in itertools.product(axes["variant"], axes["units"])
    ]
    assert expand(axes) == wanted


def test_joint_axes_go_together():
    cells = expand({("order", "seed"): [(0, 5), (1, 6)], "units": [8, 9]})
    assert [(c["order"], c["seed"], c["units"]) for c in cells] == [
        (0, 5, 8), (0, 5, 9), (1, 6, 8), (1, 6, 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"units": []}, "'units' must have at least one value"),
        ({"units": 8}, "'units' must be a list of values: got 8"),
        ({"variant": "none"}, "'variant' must be a list of values: got 'none'"),
        ({"seed": [0], ("order", "seed"): [(0, 0)]}, "named once: got order, seed again"),
        ({("seed", "seed"): [(0, 0)]}, "named once"),
        ({("order", "seed"): [(0, 0, 0)]}, "need 2 values at once"),
    ],
)
def test_bad_axes_are_refused(axes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        expand(axes)


def test_cells_come_once_in_order_with_plain_values():
    given_cells = [{"n": np.int64(2)}, {"n": 1}, {"n": 2}, {"n": np.float64(0.5)}]
    cells = checked(given_cells)
    assert cells == [{"n": 2}, {"n": 1}, {"n": 0.5}]
    assert [type(cell["n"]) for cell in cells] == [int, int, float]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([{}], "at least one axis"),
        ([{"a": 1}, {"b": 1}], "same axes: got a and b"),
        ([{"a": [1]}], "'a' must hold strings, numbers, booleans or None: got [1]"),
        ([{"a": float("nan")}], "'a' must be finite: got nan"),
    ],
)
def test_bad_cells_are_refused(cells, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checked(cells)


def test_key_does_not_depend_on_the_order_of_axes_but_on_types():
    assert cell_key({"a": 1, "b": 2}) == cell_key({"b": 2, "a": 1})
    assert len({cell_key({"a": value}) for value in (1, 1.0, True, "1", None)}) == 5


def test_text_is_for_people():
    cell = {"variant": "s-sym", "units": 16, "clean": True, "tau_e": None}
    assert cell_text(cell) == "variant=s-sym, units=16, clean=yes, tau_e=default"
