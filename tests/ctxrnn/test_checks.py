import math

import numpy as np
import pytest
import torch

from ctxrnn import derive_seed, make_generator
from ctxrnn._checks import (
    check_count,
    check_finite,
    check_fraction,
    check_not_negative,
    check_number,
    check_positive,
    natural_key,
    unknown_name,
)


def test_derived_seeds_stay_the_same_forever():
    # Networks and results made before must come out again: these numbers may not change.
    assert derive_seed(0) == 3456079177858693020
    assert derive_seed(1, "W") == 8291194833625176504
    assert derive_seed(1, "trials", "e-add", 3, 0.5) == 8804937171186816785


def test_derived_seeds_differ_with_every_key():
    seeds = [
        derive_seed(0),
        derive_seed(1),
        derive_seed(-1),
        derive_seed(0, "a"),
        derive_seed(0, "a", "b"),
        derive_seed(0, "ab"),
        derive_seed(0, "a\x1f'b'"),
        derive_seed(0, "1"),
        derive_seed(0, 1),
        derive_seed(0, 1.0),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_do_not_depend_on_the_type_of_a_number():
    wanted = derive_seed(3, "x", 4, 0.5)
    assert derive_seed(np.int64(3), "x", np.int64(4), np.float64(0.5)) == wanted


def test_generators_repeat_and_a_generator_in_place_of_a_seed_moves_on():
    def draw(source):
        return torch.rand(3, generator=source).tolist()

    assert draw(make_generator(1, "a")) == draw(make_generator(1, "a"))
    assert draw(make_generator(1, "a")) != draw(make_generator(1, "b"))
    source = torch.Generator().manual_seed(0)
    first, second = make_generator(source, "a"), make_generator(source, "a")
    assert draw(first) != draw(second)


def test_names_sort_by_their_numbers():
    names = ["s-add-10", "s-add-2", "s-add-1", "e-add"]
    assert sorted(names, key=natural_key) == ["e-add", "s-add-1", "s-add-2", "s-add-10"]


def test_an_unknown_name_lists_the_known_and_the_nearest():
    error = str(unknown_name("variant", "s-smy", ["s-sym", "e-add"]))
    assert error == "unknown variant 's-smy'. Did you mean 's-sym'? Known: e-add, s-sym"
    assert "Did you mean" not in str(unknown_name("variant", "qqqq", ["s-sym"]))


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (check_positive, 0.0, ValueError, "x must be positive and finite: got 0.0"),
        (check_positive, math.inf, ValueError, "got inf"),
        (check_not_negative, -1e-9, ValueError, "x must be zero or more and finite: got -1e-09"),
        (check_not_negative, math.nan, ValueError, "got nan"),
        (check_fraction, 1.01, ValueError, r"x must lie in \[0, 1\]: got 1.01"),
        (check_fraction, math.nan, ValueError, "got nan"),
        (check_number, "1", TypeError, "x must be a number: got '1'"),
        (check_number, True, TypeError, "x must be a number: got True"),
        (check_number, None, TypeError, "x must be a number: got None"),
        (check_count, 2.0, TypeError, "x must be an integer: got 2.0"),
        (check_count, True, TypeError, "x must be an integer: got True"),
        (check_count, 0, ValueError, "x must be at least 1: got 0"),
    ],
)
def test_wrong_numbers_are_refused(check, value, error, message):
    with pytest.raises(error, match=message):
        check("x", value)


def test_units_are_part_of_the_message():
    with pytest.raises(ValueError, match=r"tau must be positive and finite: got -1 ms$"):
        check_positive("tau", -1, "ms")


def test_numbers_of_other_libraries_are_numbers():
    check_count("x", np.int32(3))
    check_positive("x", np.float32(0.5))
    check_fraction("x", torch.tensor(0.5))


def test_finite_values_whose_sum_overflows_are_finite():
    check_finite("x", torch.full((3,), 3e38), "")
    for bad in (math.nan, math.inf, -math.inf):
        values = torch.tensor([1.0, bad, 3e38, 3e38])
        with pytest.raises(ValueError, match=r"x must be finite: 1 of 4 values .*\. Mend it\."):
            check_finite("x", values, "Mend it.")
