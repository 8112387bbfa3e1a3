import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxrnn.studies._configured import changed, described, from_dict, to_dict


@dataclass(frozen=True)
class Inner:
    steps: int = 10
    rate: float = 0.1
    keep: Literal["best", "last"] = "best"
    seed: int = 1


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    size: int = 4
    share: float = 0.5
    exact: bool = False
    target: float | None = 0.97
    label: str | None = None
    variants: tuple[str, ...] = ("none", "e-add")
    levels: tuple[float, ...] = (0.0, 1.0)
    pair: tuple[int, float] = (1, 2.0)
    anything: dict[str, Any] = field(default_factory=dict)
    seed: int = 2
    train: Inner = field(default_factory=Inner)
    test: Inner = field(default_factory=lambda: Inner(seed=3))


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INNER = st.builds(Inner, st.integers(), FLOATS, st.sampled_from(["best", "last"]), st.integers())
OUTER = st.builds(
    Outer,
    name=st.text(),
    size=st.integers(),
    share=FLOATS,
    exact=st.booleans(),
    target=st.none() | FLOATS,
    label=st.none() | st.text(),
    variants=st.lists(st.text()).map(tuple),
    levels=st.lists(FLOATS).map(tuple),
    pair=st.tuples(st.integers(), FLOATS),
    train=INNER,
)


@given(OUTER)
def test_settings_survive_json(settings):
    assert from_dict(Outer, json.loads(json.dumps(to_dict(settings)))) == settings


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("name=1", "name", "1"),
        ("name=none", "name", "none"),
        ("size=7", "size", 7),
        ("share=2", "share", 2.0),
        ("share=1e-3", "share", 1e-3),
        ("exact=true", "exact", True),
        ("target=none", "target", None),
        ("target=0.5", "target", 0.5),
        ("label=long words", "label", "long words"),
        # A pathway variant is called none: in a list of text it is not None.
        ("variants=none,s-sym", "variants", ("none", "s-sym")),
        ('variants=["none", "7"]', "variants", ("none", "7")),
        ("variants=none", "variants", ("none",)),
        ("levels=0,0.5", "levels", (0.0, 0.5)),
        ("levels=1", "levels", (1.0,)),
        ("pair=3,4", "pair", (3, 4.0)),
        ("train.steps=5", "train.steps", 5),
        ("test.keep=last", "test.keep", "last"),
        ("seed=9", "seed", 9),
        ("name=a=b", "name", "a=b"),
    ],
)
def test_values_are_changed_by_name(assignment, path, value):
    settings = changed(Outer(), [assignment])
    before, after = dict(described(Outer())), dict(described(settings))
    assert after.pop(path) == value
    assert type(value) is type(dict(described(settings))[path])
    del before[path]
    assert after == before


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("size", "--set takes name=value: got 'size'"),
        ("=3", "--set takes name=value"),
        ("sise=3", "unknown setting 'sise'. Did you mean 'size'"),
        ("steps=3", "'steps' may be train.steps or test.steps: say which"),
        ("size=2.5", "size must be a whole number: got 2.5"),
        ("size=true", "size must be a whole number: got True"),
        ("share=true", "share must be a number: got True"),
        ("exact=1", "exact must be true or false: got 1"),
        ("share=much", "share must be a number: got 'much'"),
        ("pair=1", "pair must be a list of 2"),
        ("levels=[1", "levels must be a list, such as levels=1,2"),
        ("test.keep=beste", "unknown test.keep 'beste'. Did you mean 'best'"),
    ],
)
def test_bad_assignments_are_refused(assignment, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        changed(Outer(), [assignment])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "x"}, "unknown setting 'nam'"),
        ({"train": {"step": 1}}, "unknown setting 'train.step'"),
        ({"train": 3}, "train has settings of its own, such as train.steps=..."),
        ({"levels": 3}, "levels must be a list"),
    ],
)
def test_bad_json_is_refused(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_dict(Outer, values)
