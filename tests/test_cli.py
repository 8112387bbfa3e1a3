import subprocess
import sys

import pytest

from ctxrnn import VARIANTS
from ctxrnn._cli import main


def run(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_models_lists_every_variant_with_its_count(capsys):
    status, out, _ = run(capsys, "models", "--units", "12", "--inputs", "5", "--outputs", "3")
    assert status == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    for variant in VARIANTS:
        name = {"e-rankR": "e-rank2", "es-*": "es-add-sym"}.get(
            variant.id, variant.id.replace("-R", "-1")
        )
        assert name in lines
    # The check values of the matched comparison.
    assert lines["e-add"][1] == "375"
    assert lines["s-sym"][1] == "375"
    assert lines["s-asym-1"][1] == "495"
    assert lines["es-add-sym"][1] == "495"


def test_tasks_lists_the_twenty(capsys):
    status, out, _ = run(capsys, "tasks", "--dt", "50", "--ring", "8")
    assert status == 0
    assert len(out.strip().splitlines()) == 21
    assert "ctxdlydm2" in out
    assert "dnmc" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "--scale", "huge"], "error: unknown scale 'huge'"),
        (["tasks", "--ring", "3"], "error: ring must be"),
        (["models", "--units", "x"], "Error: Invalid value for '--units'"),
        (["reproduc"], "Error: No such command 'reproduc'"),
        (["reproduce", "--scale", "smoke", "--out", "/proc/x"], "error: "),
        (["reproduce", "--scale", "smoke", "--seeds", "0"], "error: seeds must be at least 1"),
    ],
)
def test_errors_take_one_line_and_no_traceback(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert [line for line in err.splitlines() if line.lower().startswith("error")] == [
        err.splitlines()[-1]
    ]


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="unknown scale"):
        main(["--debug", "reproduce", "--scale", "huge"])


def test_help_teaches_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from ctxrnn._cli import main\n"
        "main(['reproduce', '--help'])\n"
        "print(sorted({'torch', 'neurogym', 'matplotlib', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Example: ctxrnn reproduce --scale quick" in done.stdout


def test_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "ctxrnn", "models", "--bad"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "No such option" in done.stderr
