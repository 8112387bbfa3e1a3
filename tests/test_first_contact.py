"""What a newcomer meets: `ctxrnn` alone, doctor, completion, examples in the help, pages."""

import contextlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.shell_completion import get_completion_class
from packaging.requirements import Requirement as TheirRequirement
from packaging.specifiers import SpecifierSet

import ctxrnn
from ctxrnn import _cli_completion as names
from ctxrnn import _cli_contact, _cli_doctor, _kernel
from ctxrnn._cli import app, main
from ctxrnn._cli_doctor import Check, fits, installed, loaded, parsed, without_names

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-contact.md"


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def python(code, **environment):
    """Run code in a new interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def parse(monkeypatch, words):
    """Let click read a command line and return the command that it would run."""
    meant = []
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: meant.append(ctx.info_name))
    status = main(words)
    monkeypatch.undo()
    return status, meant[-1]


# ctxrnn alone


def test_alone_it_says_what_there_is_and_what_to_type_next(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) <= 25
    assert max(map(len, out.splitlines())) <= 100
    assert out.splitlines()[-1] == "Next, type: ctxrnn reproduce --scale quick"
    for name in set(app.commands) - {"version"}:
        assert f"ctxrnn {name}" in out
    networks = tmp_path / "results" / "reproduce-quick" / "networks"
    networks.mkdir(parents=True)
    (networks / "s-sym_0.safetensors").touch()
    (networks.parent / "report.html").touch()
    _, out, _ = run(capsys)
    assert out.splitlines()[-1].endswith(
        "Next, type: ctxrnn analyse results/reproduce-quick/networks/s-sym_0.safetensors"
    )


def test_every_command_of_the_overview_can_be_typed(monkeypatch, capsys):
    typed = re.findall(r"^  (ctxrnn .+?)(?:  |$)", _cli_contact.overview(), re.MULTILINE)
    assert len(typed) >= 9
    for line in typed:
        words = line.replace("COMMAND", "models").replace("NETWORK", "x").split()[1:]
        if "--help" in words:
            assert run(capsys, *words)[0] == 0
        else:
            assert parse(monkeypatch, words)[0] == 0


@pytest.mark.parametrize(
    "code",
    [
        "main([])",
        "main(['completion', 'bash'])",
        "main(['--help'])",
        "main(['study', '--help'])",
        "app.main(['study'], 'ctxrnn', complete_var='X')",
    ],
)
def test_it_answers_without_loading_libraries(code):
    completing = {"X": "bash_complete", "COMP_WORDS": "ctxrnn study ''", "COMP_CWORD": "-1"}
    out = python(
        "import sys, atexit\n"
        "heavy = {'torch', 'numpy', 'neurogym', 'matplotlib', 'pandas'}\n"
        "atexit.register(lambda: print('loaded:', sorted(heavy & set(sys.modules))))\n"
        f"from ctxrnn._cli import app, main\n{code}\n",
        **(completing if "complete_var" in code else {}),
    )
    assert out.splitlines()[-1] == "loaded: []"
    assert len(out.splitlines()) > 10


# Examples in the help


def commands(group=app, before=("ctxrnn",)):
    """List all commands, with the words that call them."""
    found = [(before, group)]
    ctx = click.Context(group, info_name=before[-1])
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        words = (*before, name)
        found += (
            commands(command, words) if isinstance(command, click.Group) else [(words, command)]
        )
    return found


COMMANDS = commands()


def examples(capsys, words):
    """Return the command lines at the end of a help text."""
    status, out, _ = run(capsys, *words[1:], "--help")
    assert status == 0
    last = re.search(r"^  Examples?:\s+(ctxrnn .*)\Z", out, re.MULTILINE | re.DOTALL)
    assert last, f"{' '.join(words)} --help must end with an example"
    return [" ".join(part.split()) for part in re.split(r"\n\s*(?=ctxrnn )", last[1])]


def test_all_commands_are_seen():
    called = {" ".join(words) for words, _ in COMMANDS}
    assert called >= {"ctxrnn", "ctxrnn study", "ctxrnn study status", "ctxrnn study packing"}
    assert len(called) >= 22


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=" ".join)
def test_help_ends_with_an_example_that_is_read(words, monkeypatch, capsys):
    for example in examples(capsys, words):
        given = shlex.split(example)
        assert given[: len(words)] == list(words)
        status, meant = parse(monkeypatch, given[1:])
        assert status == 0, example
        assert meant in given
        for word in given:
            if word.startswith("docs/"):
                assert (ROOT / word).is_file()


CHEAP = ("models", "tasks", "version", "completion", "doctor")


@pytest.mark.parametrize("name", CHEAP)
def test_cheap_examples_run(name, capsys):
    (example,) = examples(capsys, ("ctxrnn", name))
    status, out, _ = run(capsys, *shlex.split(example)[1:])
    assert status == 0
    assert out


@pytest.mark.parametrize("name", names.STUDIES)
def test_examples_of_studies_can_be_planned(name, capsys, monkeypatch):
    monkeypatch.setattr("ctxrnn.studies._estimate.machine_speed", lambda: 1.0)
    (example,) = examples(capsys, ("ctxrnn", "study", name))
    status, out, err = run(capsys, *shlex.split(example)[1:], "--dry-run")
    assert status == 0, err
    assert "cells" in out


def test_models_can_be_named(capsys):
    status, out, _ = run(capsys, "models", "s-sym", "es-gain-asym-2", "--units", "12")
    assert status == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["s-sym", "es-gain-asym-2"]
    assert lines[3] == ""
    count = ctxrnn.parameter_count("es-gain-asym-2", units=12, inputs=17, outputs=9, contexts=10)
    assert lines[2].split()[1] == str(count)
    status, _, err = run(capsys, "models", "s-sim")
    assert status == 2
    assert "unknown variant 's-sim'. Did you mean 's-sym'?" in err


# Completion


def completed(shell, *words):
    kind = get_completion_class(shell)
    found = kind(app, {}, "ctxrnn", "_CTXRNN_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


def test_names_are_those_of_their_sources():
    from ctxrnn.studies import SCALES, study_names
    from ctxrnn.studies._command import command
    from ctxrnn.studies._recipes import SCALE_NAMES, recipe
    from ctxrnn.studies._study import EXECUTORS
    from ctxrnn.tasks import YANG19

    assert study_names() == names.STUDIES
    for name, summary in names.SUMMARIES.items():
        found = command(name)
        # `status` and `export` go on with what they need.
        assert found.help.replace("\n", " ").startswith(summary), name
    assert names.SCALES == SCALE_NAMES
    assert {scale for name in study_names() for scale in recipe(name).scales} <= set(names.SCALES)
    assert tuple(SCALES) == names.REPRODUCE_SCALES
    assert names.EXECUTORS == EXECUTORS
    assert ctxrnn.variant_ids() == names.VARIANTS
    assert names.TASKS == YANG19


@pytest.mark.parametrize("name", [*names.STUDIES, "status", "export", "my_study.py"])
def test_stand_ins_have_the_options_of_the_commands(name):
    from ctxrnn.studies._command import command

    def options(made):
        return {(type(one).__name__, *one.opts) for one in made.params}

    assert options(names.study_stand_in(name)) == options(command(name))


@pytest.mark.parametrize("shell", names.SHELLS)
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("doc",), ["doctor"]),
        (("study", "comodulation-c"), ["comodulation-celeba", "comodulation-cifar"]),
        (("study", "packing", "--scale", ""), ["smoke", "quick", "paper"]),
        (("study", "mine.py", "--scale", "q"), ["quick"]),
        (("study", "nonsense", "--sc"), ["--scale"]),
        (("reproduce", "--scale", ""), ["smoke", "quick"]),
        (("study", "learning", "--executor", "r"), ["ray"]),
        (("study", "learning", "--set", "var"), ["variants="]),
        (
            ("study", "learning", "--set", "variants=s-sym,s-as"),
            ["variants=s-sym,s-asym-1", "variants=s-sym,s-asym-2"],
        ),
        (("study", "learning", "--set", "base.tasks=go,anti,rt"), [
            "base.tasks=go,anti,rtgo", "base.tasks=go,anti,rtanti"]),
        (("study", "learning", "--set", "seeds="), []),
        (("models", "es-g"), ["es-gain-asym-1"]),
        (("analyse", "x", "--tasks", "go,g"), []),
        (("analyse", "x", "--tasks", "go,dms,dn"), ["go,dms,dnms", "go,dms,dnmc"]),
        (("analyse", "x", "--pairs", "go:anti,dms:dnm"), [
            "go:anti,dms:dnms", "go:anti,dms:dnmc"]),
        (("analyse", "x", "--pairs", "go:anti,go:rtg"), ["go:anti,go:rtgo"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)  # fmt: skip
def test_names_complete(shell, words, wanted):
    assert completed(shell, *words) == wanted


def test_files_complete_where_no_study_has_the_name():
    kind = get_completion_class("bash")(app, {}, "ctxrnn", "X")
    (item,) = kind.get_completions(["study"], "my_st")
    assert item.type == "file"


@pytest.mark.parametrize("shell", names.SHELLS)
def test_completion_prints_the_script_and_says_where_it_belongs(shell, capsys):
    status, out, err = run(capsys, "completion", shell)
    assert status == 0
    assert f"_CTXRNN_COMPLETE={shell}_complete" in out
    assert "ctxrnn" in out
    assert err.startswith(f"to have it in every shell: ctxrnn completion {shell} > ~/.")
    assert len(err.splitlines()) == 1
    status, _, err = run(capsys, "completion", "csh")
    assert status == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in err


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_with_the_script(tmp_path):
    command = tmp_path / "ctxrnn"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ctxrnn "$@"\n')
    command.chmod(0o755)
    lines = {
        "ctxrnn study pack": "packing",
        "ctxrnn study packing --scale ": "smoke quick paper",
        # Bash takes what follows the last = or : for the word.
        "ctxrnn study packing --scale=q": "quick",
        "ctxrnn study packing --set variants=s-sc": "s-scalar",
        "ctxrnn analyse x --pairs go:dnmc,go:anti,go:ctxdl": "ctxdlydm1 ctxdlydm2",
        "ctxrnn study packing 'a b' --sc": "--scale",
    }
    script = tmp_path / "try.sh"
    script.write_text(
        "compopt() { :; }\n"
        'source <(ctxrnn completion bash 2>/dev/null)\n'
        'try() { COMP_LINE="$1"; COMP_POINT=${#1}; _ctxrnn_completion ctxrnn; '
        'echo "${COMPREPLY[*]}"; }\n'
        + "".join(f"try {shlex.quote(line)}\n" for line in lines)
    )  # fmt: skip
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", script], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.stdout.splitlines() == list(lines.values()), done.stderr


# Doctor: packages


@pytest.mark.parametrize("bounds", [
    ">=2.0", "<3,>=2.0", "==2.2.*", "==2.2", "!=2.2.*", "!=8.3.*,>=5.3.0", "~=2.2", "~=2.2.1",
    ">2.2", "<=2.2.6", ">=3.11,<3.14", "", "==1.1.1", "<2.3", ">2.2.6,!=2.3.0",
])  # fmt: skip
@pytest.mark.parametrize("version", [
    "2.2.6", "2.2", "2.2.0", "2.3.0", "3.0.0rc1", "3.11.7", "3.14.0", "1.1.1", "2.10.1", "8.3.1",
    "2.2.6+cu121", "2.3.0.dev20260101", "2.0.0a0+git1234", "10",
])  # fmt: skip
def test_bounds_mean_what_they_mean_to_pip(version, bounds):
    assert fits(version, bounds) == SpecifierSet(bounds).contains(version, prereleases=True)


@pytest.mark.parametrize("text", [
    "torch>=2.6", 'pytest>=8; extra == "test"', "pillow (!=8.3.*,>=5.3.0)", "natsort",
    "gdown (>=4.7.3) ; extra == 'gdown'", 'coverage[toml]; extra == "dev"',
    'dsa-metric<3,>=2.0; extra == "similarity"', 'tomli>=1 ; python_version < "3.11"',
])  # fmt: skip
def test_requirements_are_read_as_pip_reads_them(text):
    mine, theirs = parsed(text), TheirRequirement(text)
    assert mine.name == theirs.name
    assert set(filter(None, mine.bounds.split(","))) == {str(one) for one in theirs.specifier}
    assert bool(mine.marker) == (theirs.marker is not None)
    extra = re.search(r"extra == .(\w+)", text)
    assert mine.extra == (extra[1] if extra else None)


def packages(monkeypatch, requires=(), versions=None):
    """Check made-up packages: what ctxrnn asks for, and what is there."""
    versions = {"ctxrnn": "0.1", **(versions or {})}
    needs = {"ctxrnn": list(requires), "neurogym": ["numpy==2.2.*", 'x; extra == "dev"']}

    class Distribution:
        def __init__(self, name):
            if name not in versions:
                raise _cli_doctor.metadata.PackageNotFoundError(name)
            self.version, self.requires = versions[name], needs.get(name)
            self.metadata = {"Requires-Python": ">=3.11"}

    monkeypatch.setattr(_cli_doctor.metadata, "distribution", Distribution)
    monkeypatch.setattr(_cli_doctor.metadata, "version", lambda name: Distribution(name).version)
    found = {check.what: check for check in installed()}
    monkeypatch.undo()
    return found


def test_old_and_missing_packages_are_broken_and_the_remedy_is_told(monkeypatch):
    asked = ["torch>=2.6", "numpy>=2.0", "click>=8.1", "tqdm>=4", 'ray>=2.52; extra == "cluster"']
    found = packages(monkeypatch, asked, {"torch": "2.5.1", "click": "8.2", "ray": "2.1"})
    assert found["torch"].state == "broken"
    assert found["torch"].found == "2.5.1; ctxrnn needs >=2.6"
    assert found["torch"].remedy == 'pip install "torch>=2.6"'
    assert found["numpy"].state == "broken"
    assert found["numpy"].found == "is not installed"
    assert found["tqdm"].state == "broken"
    assert found["others"].found == "click 8.2"
    assert found["[cluster]"].state == "doubtful"
    assert found["[cluster]"].found == "ray 2.1 (needs >=2.52)"
    lines = str(found["torch"]).splitlines()
    assert lines[0].split()[:2] == ["FAIL", "torch"]
    assert lines[1].strip() == '-> pip install "torch>=2.6"'
    assert "broken: torch, numpy" in _cli_doctor.verdict(list(found.values()))


def test_packages_that_do_not_fit_each_other_are_told(monkeypatch):
    found = packages(
        monkeypatch, ["neurogym>=2.3", "numpy>=2"], {"neurogym": "2.3.1", "numpy": "2.3.0"}
    )
    assert found["conflict"].found == "neurogym 2.3.1 needs numpy==2.2.*, found 2.3.0"
    assert found["conflict"].state == "doubtful"
    assert found["conflict"].remedy == 'pip install "numpy==2.2.*"'
    found = packages(
        monkeypatch, ["neurogym>=2.3", "numpy>=2"], {"neurogym": "2.3.1", "numpy": "2.2.9"}
    )
    assert "conflict" not in found


def test_extras_are_absent_or_there(monkeypatch):
    asked = ['ray>=2.52; extra == "cluster"', 'a>=1; extra == "images"', 'b; extra == "images"']
    found = packages(monkeypatch, asked, {"ray": "2.60", "a": "1.2"})
    assert (found["[cluster]"].state, found["[cluster]"].found) == ("fine", "ray 2.60")
    assert found["[images]"].state == "absent"
    assert found["[images]"].found == 'without b; if you want it: pip install "ctxrnn[images]"'


def test_a_library_that_cannot_be_loaded_is_a_finding(tmp_path, monkeypatch):
    assert loaded(["json"]) is None
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: no such file')")
    code = "from ctxrnn._cli import main; print('status', main(['doctor', '--json', 'X']))"
    code = code.replace("X", str(tmp_path / "report.json"))
    out = python(code, PYTHONPATH=str(tmp_path))
    assert "FAIL import" in out
    assert "torch cannot be loaded: ImportError: libtorch_cpu.so: no such file" in out
    assert "-> pip install --force-reinstall torch" in out
    assert "status 1" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["checks"][-1]["state"] == "broken"
    code = "from ctxrnn._cli import main; print('status', main(['models']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
    )
    assert done.stdout == "status 2\n"
    told = "error: libtorch_cpu.so: no such file; `ctxrnn doctor` tells what is installed\n"
    assert done.stderr == told


# Doctor: machine, folders, data, speed


def doctor(capsys, *arguments):
    status, out, err = run(capsys, "doctor", "--quick", *arguments)
    assert err == ""
    return status, out


def checks(function, *arguments):
    return {check.what: check for check in function(*arguments)}


def test_doctor_finds_this_machine_well(capsys, tmp_path, monkeypatch):
    for variable in ("CTXRNN_DATA", "CTXRNN_THREADS", "CTXRNN_KERNEL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    status, out = doctor(capsys)
    assert status == 0, out
    assert "FAIL" not in out
    for word in ("torch", "neurogym", "compiled loops", "cores", "threads", "memory", "GPU"):
        assert re.search(rf"^  (ok|-|!) +{word} +\S", out, re.MULTILINE), word
    assert re.search(r"images +here: .*digits.*attr-sprites", out)
    assert re.search(r"texts +here: .*words", out)
    assert "results can be made" in out
    assert "Speed" not in out
    assert not list(tmp_path.iterdir())
    assert out.splitlines()[-1].startswith("everything needed works")


@pytest.mark.parametrize(
    ("state", "status"), [("fine", 0), ("absent", 0), ("doubtful", 0), ("broken", 1)]
)
def test_only_what_is_broken_makes_it_fail(state, status, capsys, monkeypatch):
    from ctxrnn.studies import _doctor

    only = [Check("Machine", "thing", "found", state)]
    monkeypatch.setattr(_doctor, "examine", lambda **_: iter(only))
    assert doctor(capsys)[0] == status


def test_a_results_folder_that_cannot_be_written_is_broken(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, out = doctor(capsys, "--out", tmp_path / "file" / "results")
    assert status == 1
    assert re.search(r"^  FAIL results folder ", out, re.MULTILINE)
    assert f"{tmp_path / 'file'} is a file" in " ".join(out.split())
    assert "-> start ctxrnn in a folder of your own, or choose one with --out" in out
    assert out.splitlines()[-1].startswith("broken: results folder")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_the_right_to_write_is_told(tmp_path):
    from ctxrnn.studies._doctor import not_writable

    (tmp_path / "closed").mkdir(mode=0o500)
    assert not_writable(tmp_path / "closed") == "Permission denied"


def test_folders_are_tried_and_left_as_they_were(tmp_path):
    from ctxrnn.studies._doctor import images_folder, not_writable, results_folder

    assert not_writable(tmp_path / "new" / "results") is None
    assert not_writable(tmp_path) is None
    assert not list(tmp_path.iterdir())
    found = checks(results_folder, tmp_path)
    assert found["results folder"].found == f"{tmp_path} can be written"
    assert found["disk"].values["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert checks(images_folder, tmp_path / "gone")["data folder"].state == "doubtful"
    assert "can be read and written" in checks(images_folder, tmp_path)["data folder"].found


def test_little_space_and_memory_are_told(tmp_path, monkeypatch):
    from ctxrnn.studies import _doctor

    monkeypatch.setattr(_doctor, "_LEAST_DISK", 1e30)
    monkeypatch.setattr(_doctor, "_LEAST_MEMORY", 1e30)
    assert checks(_doctor.results_folder, tmp_path)["disk"].state == "doubtful"
    if Path("/proc/meminfo").exists():
        assert checks(_doctor.memory)["memory"].state == "doubtful"


@pytest.mark.parametrize(
    ("given", "state", "found"),
    [
        (None, "fine", r"\d+ \(CTXRNN_THREADS is not set\)"),
        ("1", "fine", r"1 \(CTXRNN_THREADS is 1\)"),
        ("none", "broken", r"CTXRNN_THREADS must be a whole number of at least 1: got 'none'"),
        ("9999", "doubtful", r"9999 \(CTXRNN_THREADS is 9999\), more than the \d+ cores"),
    ],
)
def test_threads_are_told(given, state, found, monkeypatch):
    from ctxrnn.studies._doctor import threads

    monkeypatch.delenv("CTXRNN_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("CTXRNN_THREADS", given)
    check = checks(threads)["threads"]
    assert check.state == state
    assert re.fullmatch(found, check.found)
    assert bool(check.remedy) == (state != "fine")


def test_limits_of_a_container_are_told(tmp_path, monkeypatch):
    from ctxrnn.studies import _doctor

    monkeypatch.setattr(_doctor, "_CGROUP", tmp_path)
    monkeypatch.setattr(_doctor.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(_doctor.os, "cpu_count", lambda: 64)
    monkeypatch.delenv("CTXRNN_THREADS", raising=False)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    found = checks(_doctor.threads)
    assert found["cores"].found == "8 of 64 may be used; this container may use 1.5 at a time"
    assert found["threads"].remedy.startswith("export CTXRNN_THREADS=2:")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert checks(_doctor.threads)["threads"].state == "fine"
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "memory.current").write_text("1500000000\n")
    if Path("/proc/meminfo").exists():
        assert checks(_doctor.memory)["memory"].found == "0.5 of 2.0 GB free"


def test_compiled_loops_are_told_and_how_to_get_them(monkeypatch):
    from ctxrnn.studies import _doctor

    if _kernel.available():
        check = checks(_doctor.compiled_loops)["compiled loops"]
        assert check.state == "fine"
        assert check.found.startswith("_kernel_")
    monkeypatch.setattr(_doctor._kernel, "library", lambda: None)
    monkeypatch.delenv("CTXRNN_KERNEL", raising=False)
    for compiler, remedy in (
        (None, "install a C compiler"),
        ("/usr/bin/cc", "install ctxrnn again"),
    ):
        monkeypatch.setattr(_doctor.shutil, "which", lambda _, found=compiler: found)
        check = checks(_doctor.compiled_loops)["compiled loops"]
        assert check.state == "doubtful"
        assert check.remedy.startswith(remedy)
    monkeypatch.setenv("CTXRNN_KERNEL", "off")
    check = checks(_doctor.compiled_loops)["compiled loops"]
    assert check.found == "left out by CTXRNN_KERNEL=off"


@pytest.mark.parametrize(
    ("names_", "built", "found"),
    [
        (["A100", "A100"], "12.4", "A100, A100 (CUDA 12.4)"),
        ([], "12.4", "none (torch is built for CUDA 12.4); none is needed"),
        ([], None, "none (torch is built without CUDA); none is needed"),
    ],
)
def test_gpus_are_told_and_none_is_no_error(names_, built, found, monkeypatch):
    from ctxrnn.studies import _doctor

    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names_))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: names_[i])
    monkeypatch.setattr(torch.version, "cuda", built)
    check = checks(_doctor.gpu)["GPU"]
    assert check.found == found
    assert check.state == ("fine" if names_ else "absent")

    def broken():
        raise RuntimeError("driver too old")

    monkeypatch.setattr(torch.cuda, "device_count", broken)
    check = checks(_doctor.gpu)["GPU"]
    assert check.state == "absent"
    assert "driver too old" in check.found


def test_a_check_that_fails_is_a_finding(monkeypatch, tmp_path):
    from ctxrnn.studies import _doctor

    def broken():
        raise ZeroDivisionError("of\nthis")
        yield

    monkeypatch.setattr(_doctor, "memory", broken)
    found = list(_doctor.examine(quick=True, results=tmp_path, data=None))
    (check,) = [check for check in found if check.what == "memory"]
    assert (check.state, check.found) == ("broken", "ZeroDivisionError: of this")
    assert any(check.what == "disk" for check in found)


LAYOUTS = {
    "bible-kjv": ["bible.data", "bible-kjv/bible.data"],
    "jargon": ["jargon.txt", "jargon.txt.gz", "jargon/jargon.txt.gz"],
    "text8": ["text8", "text8/text8"],
    "ptb": ["ptb.{}.txt", "ptb.char.{}.txt", "ptb/ptb.{}.txt", "simple-examples/data/ptb.{}.txt"],
}


@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name, layouts in LAYOUTS.items() for layout in layouts]
)
def test_texts_are_found_where_their_readers_find_them(name, layout, tmp_path, monkeypatch):
    from ctxrnn.studies import _doctor_data
    from ctxrnn.tasks import text_corpus

    wanted = re.escape(f"{name}: missing ")
    with pytest.raises(FileNotFoundError, match=wanted) as raised:
        text_corpus(name, tmp_path)
    assert _doctor_data.missing_text(name, tmp_path) == str(raised.value)
    parts = ("train", "valid", "test") if "{}" in layout else ("",)
    for part in parts:
        file = tmp_path / layout.format(part)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    # The reader finds the files, and stumbles over what they hold; the check does not read them.
    with pytest.raises(ValueError, match="is empty"):
        text_corpus(name, tmp_path)
    monkeypatch.setattr(_doctor_data, "text_corpus", None)
    assert _doctor_data.missing_text(name, tmp_path) == ""


def test_data_that_are_missing_are_told_with_the_remedy(tmp_path):
    from ctxrnn.studies._doctor_data import data_sets

    found = checks(data_sets, tmp_path)
    assert {"digits", "attr-sprites"} <= set(found["images"].values["here"])
    assert found["texts"].values["here"] == ["words"]
    assert found["text8"].state == "absent"
    assert found["text8"].found == f"missing text8 in {tmp_path}"
    assert found["text8"].remedy.startswith("get text8.zip from ")
    assert found["celeba"].state == "absent"


def test_the_speed_check_takes_its_time_and_compares(monkeypatch):
    from ctxrnn.studies import _doctor_speed

    rounds, used = [], []

    def three_times(steps, seconds):
        rounds.append([step() for step in steps])
        used.append(torch.get_num_threads())
        return [[0.002] * 3, [0.006] * 3], 1.0

    monkeypatch.setattr(_doctor_speed, "in_turns", three_times)
    monkeypatch.setattr(_doctor_speed, "_loop", lambda: "avx512")
    before = torch.get_num_threads()
    (check,) = _doctor_speed.speed(0.1)
    assert len(rounds[0]) == 2
    assert check.values["steps_per_second"] == 500.0
    assert check.values["ratio"] == 3.0
    assert "500 steps/s of one core (s-sym, 64 units), 3 times torch.nn.RNN's 167" in check.found
    assert check.state == "fine"
    monkeypatch.setattr(_doctor_speed, "in_turns", lambda *_: ([[1.0] * 3, [0.001] * 3], 0.4))
    (check,) = _doctor_speed.speed(0.1)
    assert check.state == "doubtful"
    assert "other programs left 40% of a core" in check.found
    monkeypatch.undo()
    assert (used, torch.get_num_threads()) == ([1], before)
    (check,) = _doctor_speed.speed(0.2)
    assert check.values["rounds"] >= 3
    assert 0 < check.values["share"] <= 1.1


def test_both_networks_of_the_speed_check_learn():
    from ctxrnn import make_generator, task_loss
    from ctxrnn.studies import _doctor_speed
    from ctxrnn.studies._plan import NetworkSettings
    from ctxrnn.tasks import task_set

    base = NetworkSettings()
    tasks = task_set(list(base.tasks), dt=base.dt, ring=base.ring)
    batch = tasks.sample(64, generator=make_generator(0))
    ours = _doctor_speed._ours(base, tasks, batch)
    for _ in range(60):
        ours()
    losses = ours.__closure__[1].cell_contents.losses
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    theirs = _doctor_speed._theirs(tasks, batch)
    values = []
    original = task_loss

    def kept(*arguments):
        values.append(original(*arguments))
        return values[-1]

    _doctor_speed.task_loss = kept
    try:
        for _ in range(60):
            theirs()
    finally:
        _doctor_speed.task_loss = original
    assert values[-1].item() < 0.8 * values[0].item()


def test_the_report_names_nobody(capsys, tmp_path, monkeypatch):
    home = tmp_path / "alice"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CTXRNN_DATA", str(home / "faces"))
    monkeypatch.setattr(_cli_doctor.getpass, "getuser", lambda: "alice")
    monkeypatch.setattr(_cli_doctor.platform, "node", lambda: "lab-pc.uni.example")
    monkeypatch.chdir(home / "work")
    status, out = doctor(capsys, "--json", "r.json", "--out", home / "work" / "o")
    assert status == 0, out
    text = (home / "work" / "r.json").read_text()
    for private in ("alice", "lab-pc", str(tmp_path), str(home)):
        assert private not in text
    report = json.loads(text)
    assert report["environment"]["CTXRNN_DATA"] == "~/faces"
    shown = {check["what"] for check in report["checks"]}
    assert {"torch", "GPU", "compiled loops", "disk", "images"} <= shown
    for check in report["checks"]:
        assert set(check) == {"group", "what", "state", "found", "remedy", "values"}
    status, _, err = run(capsys, "doctor", "--quick", "--json", "nowhere/r.json")
    assert status == 2
    assert "cannot write nowhere/r.json: No such file or directory. Choose another --json" in err


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("in /home/bob/x/y.so: bad", "in .../y.so: bad"),
        ("/home/bob", ".../USER"),
        ("/mnt/lab of bob", ".../lab of USER"),
        ("/usr/lib/x.so", "/usr/lib/x.so"),
        ("C:/Users/bob/x", "C:.../x"),
        ("ratio 3/4, bobsled", "ratio 3/4, bobsled"),
        ("pc7 and bob", "HOST and USER"),
        ("results/first", "results/first"),
    ],
)
def test_names_are_cut_out(text, clean, monkeypatch):
    monkeypatch.setattr(_cli_doctor.getpass, "getuser", lambda: "bob")
    monkeypatch.setattr(_cli_doctor.platform, "node", lambda: "pc7")
    assert without_names({"a": [text]}) == {"a": [clean]}


# Pages of errors


def error_of(function, *arguments, **options):
    with pytest.raises((ValueError, OSError, RuntimeError, ImportError)) as raised:
        function(*arguments, **options)
    return raised.value


def real_errors(folder, monkeypatch):
    """Provoke each error that a page explains; return pairs of error and page."""
    from ctxrnn._threads import available_threads
    from ctxrnn.studies._ray_cluster import import_ray
    from ctxrnn.studies._results import ResultsFolder
    from ctxrnn.studies._store import Store
    from ctxrnn.tasks import image_set, text_corpus

    found = []

    def add(page, function, *arguments, **options):
        found.append((error_of(function, *arguments, **options), f"docs/{page}.md"))

    # Data sets.
    for name in ("text8", "ptb", "jargon", "bible-kjv"):
        add("text", text_corpus, name, folder)
    (folder / "text8").write_bytes(b"A")
    add("text", text_corpus, "text8", folder)
    add("text", text_corpus, "file")
    for name in ("fashion-mnist", "celeba", "cifar100"):
        add("images", image_set, name, folder)
    for name in ("train", "test", "meta"):
        (folder / name).touch()
    add("images", image_set, "cifar100", folder)
    (folder / "cifar-100-python").mkdir()
    for name in ("train", "test", "meta"):
        (folder / name).rename(folder / "cifar-100-python" / name)
    add("images", image_set, "cifar100", folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    add("images", image_set, "celeba", folder)
    monkeypatch.undo()

    # Results folders.
    def claim(name, settings):
        with ResultsFolder(folder / name).claimed(settings):
            pass

    claim("ours", {"study": "a", "n": 1})
    add("studies", claim, "ours", {"study": "a", "n": 2})
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").touch()
    add("studies", claim, "full", {"study": "a"})
    add("studies", ResultsFolder(folder / "gone").settings)
    with ResultsFolder(folder / "ours").claimed({"study": "a", "n": 1}):
        add("studies", claim, "ours", {"study": "a", "n": 1})
    (folder / "damaged.sqlite").write_bytes(b"not a database, but longer than a header" * 99)
    add("studies", Store, folder / "damaged.sqlite")
    with contextlib.closing(sqlite3.connect(folder / "foreign.sqlite")) as foreign:
        foreign.execute("CREATE TABLE a (b)")
    add("studies", Store, folder / "foreign.sqlite")
    monkeypatch.setitem(sys.modules, "ray", None)
    add("cluster", import_ray)
    monkeypatch.undo()

    # Networks in files.
    path = folder / "network.safetensors"
    add("first-contact", ctxrnn.load, path)
    ctxrnn.save(ctxrnn.CTRNN(2, 3, 1, seed=0), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    add("first-contact", ctxrnn.load, path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    add("first-contact", ctxrnn.load, path)
    torch.save({"a": torch.zeros(1)}, path)
    add("first-contact", ctxrnn.load, path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    add("first-contact", ctxrnn.load, path)
    save_file({"a": torch.zeros(1)}, path, {"ctxrnn": "{"})
    add("first-contact", ctxrnn.load, path)
    save_file({"a": torch.zeros(1)}, path, {"ctxrnn": '{"format": 99, "digest": ""}'})
    add("first-contact", ctxrnn.load, path)

    # Installation.
    monkeypatch.setattr(_kernel, "library", lambda: None)
    one = torch.ones(1, 1)
    add("speed", _kernel.loss, one[None], one.long(), one, one[None])
    monkeypatch.undo()
    monkeypatch.setenv("CTXRNN_THREADS", "two")
    add("first-contact", available_threads)
    monkeypatch.undo()
    add("first-contact", __import__, "no_such_library")
    return found


def test_errors_name_the_page_that_explains_them(tmp_path, monkeypatch):
    matched = set()
    for error, page in real_errors(tmp_path, monkeypatch):
        line = _cli_contact.told(error)
        assert line.endswith(f" (see {page})"), line
        assert "\n" not in line
        matched |= {pattern for pattern, _ in _cli_contact.PAGES if re.search(pattern, line)}
    # Every pattern belongs to an error that exists.
    assert matched == {pattern for pattern, _ in _cli_contact.PAGES}


def test_pages_exist():
    for _, page in _cli_contact.PAGES:
        assert (ROOT / page).is_file()


def test_other_errors_name_no_page_and_none_twice():
    assert _cli_contact.told(ValueError("dt must be\npositive")) == "dt must be positive"
    named = ValueError("no study in x: docs/studies.md says")
    assert _cli_contact.told(named) == str(named)


def test_the_command_line_names_the_page(capsys, tmp_path):
    status, _, err = run(capsys, "study", "status", tmp_path / "gone")
    assert status == 2
    assert err == (
        f"error: no study in {tmp_path / 'gone'}: settings.json is missing (see docs/studies.md)\n"
    )
    status, _, err = run(capsys, "analyse", tmp_path / "gone.safetensors")
    assert status == 2
    assert err.endswith("(see docs/first-contact.md)\n")


# The page


def test_the_page_explains_every_line_of_doctor(capsys):
    text = PAGE.read_text(encoding="utf-8")
    _, out = doctor(capsys)
    shown = set(re.findall(r"^  (?:ok|-|!|FAIL) +(.+?)(?:  |$)", out, re.MULTILINE))
    ours = shown & {"compiled loops", "cores", "threads", "memory", "GPU", "images", "texts",
                    "results folder", "disk", "data folder", "others"}  # fmt: skip
    assert len(ours) == 11
    for what in (*ours, "conflict", "training", "import"):
        assert f"`{what}`" in text


def test_the_page_knows_every_variable():
    text = PAGE.read_text(encoding="utf-8")
    sources = [
        p for folder in ("ctxrnn", "tasks", "analysis") for p in (ROOT / folder).rglob("*.py")
    ]
    used = set()
    for source in sources:
        used |= set(re.findall(r"\"(CTXRNN_[A-Z_]+)\"", source.read_text(encoding="utf-8")))
    assert {"CTXRNN_THREADS", "CTXRNN_DATA", "CTXRNN_KERNEL"} <= used
    for variable in used:
        assert f"`{variable}" in text


def test_the_page_links_to_pages_that_exist():
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w./-]+\.md)", text)
    assert links
    for link in links:
        assert (PAGE.parent / link).is_file()
