import math

import pytest

from ctxrnn import CTRNN, matched_units, modulation, parameter_count, variant_ids

KAPPA = {
    "none": 0, "e-add": 1, "e-thr": 1, "e-gain": 1, "s-sym": 1, "s-asym-1": 2, "s-asym-3": 6,
    "s-gate-2": 4, "s-add-2": 4, "es-add-sym": 2, "es": 2, "es-gain-asym-2": 5,
}  # fmt: skip
SIZES = {"units": 12, "inputs": 5, "outputs": 3, "contexts": 10}


@pytest.mark.parametrize(
    ("variant", "count"), [("e-add", 375), ("s-sym", 375), ("s-asym-1", 495), ("es-add-sym", 495)]
)
def test_check_values(variant, count):
    assert parameter_count(variant, **SIZES) == count


@pytest.mark.parametrize("variant", KAPPA)
def test_count_is_the_formula(variant):
    n, i, o, k = 23, 7, 4, 6
    wanted = n**2 + n * (i + o + 1) + o + KAPPA[variant] * n * k
    assert parameter_count(variant, units=n, inputs=i, outputs=o, contexts=k) == wanted


def test_counts_of_the_exceptions():
    n, i, o, k, r, masks = 23, 7, 4, 6, 5, 3
    rest = n * (i + o + 1) + o
    sizes = {"units": n, "inputs": i, "outputs": o, "contexts": k}
    assert parameter_count("e-rank5", **sizes) == n**2 + rest + n * r + r * k
    assert parameter_count("s-lowrankW", **sizes, rank=r) == 2 * n * r + rest + r * k + r
    assert parameter_count("s-full", **sizes) == k * n**2 + rest
    assert parameter_count("s-mask", **sizes, masks=masks) == n**2 + rest + masks * k
    learnt = parameter_count("s-mask", **sizes, masks=masks, learn=True)
    assert learnt == n**2 + rest + masks * k + masks * n**2
    assert parameter_count("s-scalar", **sizes) == n**2 + rest + k


@pytest.mark.parametrize("variant", variant_ids())
def test_networks_have_as_many_parameters_as_counted(variant):
    network = CTRNN(5, 12, 3, variant, contexts=10, seed=0)
    assert network.parameter_count() == parameter_count(variant, **SIZES)


@pytest.mark.parametrize("variant", KAPPA)
def test_matched_units_is_the_closed_form(variant):
    i, o, k = 17, 9, 10
    omega = i + o + 1 + KAPPA[variant] * k
    for budget in (500, 1234, 4569, 100_000):
        closed = math.floor((-omega + math.sqrt(omega**2 + 4 * (budget - o))) / 2)
        if closed >= 1:
            found = matched_units(variant, parameters=budget, inputs=i, outputs=o, contexts=k)
            assert found == closed


@pytest.mark.parametrize("variant", variant_ids())
def test_matched_units_undoes_the_count_and_never_exceeds_the_budget(variant):
    sizes = {"inputs": 5, "outputs": 3, "contexts": 10}
    for units in range(1, 70):
        budget = parameter_count(variant, units=units, **sizes)
        assert matched_units(variant, parameters=budget, **sizes) == units
        if units > 1:
            assert matched_units(variant, parameters=budget - 1, **sizes) == units - 1


def test_a_budget_below_one_unit_is_refused():
    with pytest.raises(ValueError, match="parameters must be at least"):
        matched_units("e-add", parameters=5, inputs=5, outputs=3, contexts=10)


def test_options_go_to_the_pathway_that_knows_them():
    chain = modulation(
        "es-gain-asym-2", 5, 3, seed=0, positive=True, interpolation="factor-linear",
        sd_e=0.0, sd_s=2.0,
    )  # fmt: skip
    gain, scaling = chain
    assert gain.positive
    assert float(gain.Gamma.detach().abs().max()) == 0
    assert (scaling.interpolation, scaling.rank, scaling.sd) == ("factor-linear", 2, 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "linear"}, "interpolation must be 'outer-linear' or 'factor-linear'"),
        ({"masks": 3}, "unknown option of variant 's-sym' 'masks'"),
        ({"rank": 3}, "unknown option"),
        ({"sd": -1.0}, "sd must be zero or more"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        modulation("s-sym", 4, 2, seed=0, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CTRNN(2, 3, 1, nois=0.1), r"'nois'\. Did you mean 'noise'\?"),
        (lambda: CTRNN(2, 3, 1, "s-mask", contexts=2, maks=3), r"'maks'\. Did you mean 'masks'\?"),
        (lambda: parameter_count("s-mask", **SIZES, maks=3), r"'maks'\. Did you mean 'masks'\?"),
        (lambda: parameter_count("none", **{**SIZES, "units": 0}), "units must be at least 1"),
    ],
)
def test_misspelt_arguments_are_refused_with_the_nearest(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("units", range(1, 40))
def test_halves_have_as_many_context_parameters_as_one_whole_pathway(units):
    sizes = {**SIZES, "units": units}
    halves = parameter_count("es-add-sym", **sizes, on_e=0.5, on_s=0.5)
    # One unit cannot be split: both act on it.
    spare = sizes["contexts"] if units == 1 else 0
    assert halves - spare == parameter_count("e-add", **sizes) == parameter_count("s-sym", **sizes)
    assert parameter_count("es-add-sym", **sizes, on=0.5) == halves
    drive, scaling = modulation("es-add-sym", units, 10, seed=0, on_e=0.5, on_s=0.5)
    assert (drive.span[0], scaling.span[1]) == (0, units)
    assert drive.span[1] == max(scaling.span[0], 1) == (units + 1) // 2


@pytest.mark.parametrize("percent", [10, 30, 35, 50, 70, 90])
@pytest.mark.parametrize("units", [2, 5, 7, 10, 15, 30])
def test_shares_that_add_up_to_one_split_the_units(units, percent):
    shares = {"on_e": percent / 100, "on_s": (100 - percent) / 100}
    drive, scaling = modulation("es", units, 2, seed=0, **shares)
    # Halves rounded up, in whole numbers; at least one unit of each.
    bound = (2 * units * percent + 100) // 200
    assert drive.span == (0, max(bound, 1))
    assert scaling.span == (min(bound, units - 1), units)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("e-add", {"on": 0.3}),
        ("e-thr", {"on_e": 0.3}),
        ("e-gain", {"on": (2, 9)}),
        ("e-rank2", {"on": 0.6}),
        ("s-sym", {"on_s": 0.3}),
        ("s-asym-2", {"on": (0, 5)}),
        ("s-gate-2", {"on": 0.5}),
        ("s-add-3", {"on": 0.5}),
        ("es-gain-gate-1", {"on_e": 0.3, "on_s": 0.9}),
        ("es-thr-mask", {"on_e": 0.3}),
    ],
)
def test_networks_with_pathways_on_some_units_are_counted(variant, options):
    network = CTRNN(5, 12, 3, variant, contexts=10, seed=0, **options)
    count = parameter_count(variant, **SIZES, **options)
    assert network.parameter_count() == count < parameter_count(variant, **SIZES)


def test_matched_units_knows_halves():
    sizes = {"inputs": 5, "outputs": 3, "contexts": 10}
    for units in range(2, 60):
        budget = parameter_count("e-add", units=units, **sizes)
        assert matched_units("es", parameters=budget, **sizes, on=0.5) == units
        assert matched_units("es", parameters=budget - 1, **sizes, on=0.5) == units - 1
        assert matched_units("es", parameters=budget, **sizes) < units
    with pytest.raises(ValueError, match=r"on_e must be a fraction where N is sought: got the"):
        matched_units("es", parameters=500, **sizes, on_e=(0, 2))


@pytest.mark.parametrize("variant", ["s-scalar", "s-full", "s-mask", "s-lowrankW"])
def test_pathways_that_are_not_by_unit_do_not_know_on(variant):
    with pytest.raises(ValueError, match="unknown option"):
        modulation(variant, 4, 2, seed=0, on=0.5)
