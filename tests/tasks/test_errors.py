"""What is refused, and how; the package as imported."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import pytest
from ctxrnn.tasks._neurogym import quiet

from ctxrnn.tasks import task_set

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"names": "dlyantii"}, ValueError, "unknown task 'dlyantii'. Did you mean 'dlyanti'"),
        ({"names": "Reaching"}, ValueError, r"Known: AnnubesEnv, .*multidlydm"),
        ({"names": ["go", "yang19.go-v0"]}, ValueError, "only once: got go more than once"),
        ({"names": []}, ValueError, "at least one task"),
        ({"names": 3}, TypeError, "names must be the name of a task"),
        ({"names": ["go", 3]}, TypeError, "must be a string: got 3"),
        (
            {"names": ["go", "GoNogo"]},
            ValueError,
            r"go: 33 inputs, 17 outputs \(class\); GoNogo: 3 inputs, 2 outputs \(class\)",
        ),
        ({"names": "Bandit"}, ValueError, "'Bandit' gives no ground truth"),
        ({"names": "Null-v0"}, ValueError, "gives no ground truth"),
        ({"names": "DawTwoStep"}, ValueError, "gives no ground truth"),
        ({"names": "AnnubesEnv"}, ValueError, "neurogym refuses to build task 'AnnubesEnv'"),
        ({"names": "Reaching1D"}, ValueError, "not one of its 3 actions"),
        ({"dt": 0}, ValueError, "dt must be positive and finite: got 0 ms"),
        ({"dt": -1.0}, ValueError, "dt must be positive"),
        ({"dt": 250}, ValueError, r"dt=250.0 ms, but period 'decision'.*choose dt <= 200 ms"),
        ({"names": "go", "dt": 501}, ValueError, "choose dt <= 500 ms"),
        ({"names": "dm1", "timing": {"decision": 10}}, ValueError, "as short as 10 ms"),
        ({"names": "dm1", "timing": {"stimulus": ("choice", [9, 90])}}, ValueError, "as 9 ms"),
        ({"names": "dm1", "timing": {"fixation": lambda: 5.0}}, ValueError, "as short as 5 ms"),
        ({"names": "dm1", "timing": {"decision": 0}}, ValueError, "at least one step of 20.0 ms"),
        ({"names": "go", "timing": {"delay": -20}}, ValueError, "at least one step"),
        ({"names": "go", "timing": {"sample": 300}}, ValueError, "unknown period 'sample'"),
        ({"timing": 5}, TypeError, "timing must map periods to durations in ms"),
        ({"timing": {"delay": "long"}}, TypeError, r"timing\['delay'\] must be a duration in ms"),
        ({"timing": {"delay": ("normal", (1, 2))}}, TypeError, "a pair of a distribution"),
        ({"ring": 5}, ValueError, "ring must be even.*got 5"),
        ({"ring": 2}, ValueError, "ring must be at least 4: got 2"),
        ({"noise": -0.1}, ValueError, "noise must be zero or more"),
        ({"names": "GoNogo", "noise": 0.5}, ValueError, "has no noise that could be scaled"),
        ({"response_grace": -1}, ValueError, "response_grace must be zero or more.*ms"),
        ({"encoding": "rings"}, ValueError, "unknown encoding 'rings'. Did you mean 'ring'"),
        ({"names": "GoNogo", "encoding": "vector"}, ValueError, "exists for yang19 tasks only"),
        ({"repairs": {"tie"}}, ValueError, "unknown repair 'tie'. Did you mean 'ties'"),
        ({"repairs": "ties"}, TypeError, r"e.g. \{'go-cue'\}: got 'ties'"),
        ({"repairs": 3}, TypeError, "repairs must be True, False or a set of names"),
        ({"names": "go", "sigma": 2.0}, ValueError, "'sigma' is set through noise="),
        ({"names": "go", "dim_ring": 8}, ValueError, "'dim_ring' is set through ring="),
        ({"names": "go", "cohs": [0.1]}, ValueError, "neurogym refuses .*cohs"),
    ],
)  # fmt: skip
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        task_set(**arguments)
    assert "\n" not in str(caught.value)


def test_names_may_be_given_in_any_form():
    assert task_set("yang19.go-v0").names == task_set("go").names == task_set("yang19.go").names
    assert task_set(["yang19"]).names == task_set().names
    assert len(task_set().names) == 20
    assert repr(task_set("go")) == "TaskSet(go; dt=20 ms, class)"


def test_importing_the_package_leaves_neurogym_alone():
    code = (
        "import sys, ctxrnn.tasks as t\nassert 'neurogym' not in sys.modules\n"
        "assert 'gymnasium' not in sys.modules\nimport tasks\nassert tasks is t\n"
        "t.task_set('go').sample(1, generator=0)\nassert 'tasks._task_set' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)


def test_only_gymnasiums_warnings_about_wrappers_are_silenced():
    with quiet(), warnings.catch_warnings(record=True):
        gymnasium.make("yang19.go-v0")
    with pytest.warns(UserWarning, match="something else"), quiet():
        warnings.warn("something else", UserWarning, stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet():
            gymnasium.logger.warn("env.seed to get variables from other wrappers is deprecated")
        with pytest.raises(UserWarning, match="to get variables"):
            gymnasium.logger.warn("env.seed to get variables from other wrappers is deprecated")
        with pytest.raises(UserWarning, match="another"), quiet():
            gymnasium.logger.warn("another warning of gymnasium")
