"""Completion of the command line in bash, zsh and fish.

The names are written down here, and tested against their sources: a shell asks at every press of
the Tab key, and must not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    add_completion_class,
    get_completion_class,
)

SUMMARIES = {
    "learning": "Every variant learns the task set: learning curves, final accuracy per task.",
    "ambiguity": "Robustness to an ambiguous context: all corruptions, on both pathways or one.",
    "packing": "How many tasks fit: f(K, N), K*(N), N*(K) by bisection, under three matchings.",
    "load": "Robustness to an ambiguous context against load K / K*(N).",
    "synergy": "Do the pathways help each other: S with intervals, ablations, conflicts.",
    "timescales": "Time constants of the pathways: cost of a context switch against noise "
    "filtering.",
    "language": "Contexts inferred from the input: character language modelling (quick, paper: "
    "King James Bible; smoke: drawn words).",
    "sequential-images": "Contexts inferred from the input: images read row by row (quick: "
    "Fashion-MNIST, also permuted; smoke: digits; paper: pixel by pixel).",
    "comodulation-encoding": "Poisson neurons with a shared modulator: couplings recovered, five "
    "decoders.",
    "comodulation-fewshot": "Few-shot tuning of Gabor discrimination by weights, gains, stochastic "
    "comodulation.",
    "comodulation-celeba": "Comodulation against attention and controls on binary attributes "
    "(paper: CelebA; quick, smoke: drawn sprites in its place).",
    "comodulation-cifar": "Comodulation against attention and controls, coarse to fine classes "
    "(paper: CIFAR-100; quick: Fashion-MNIST; smoke: drawn textures).",
    "comodulation-architecture": "Comodulation with and without residual connections, per layer "
    "and decoder (paper: CIFAR-100; quick: Fashion-MNIST; smoke: drawn textures).",
    "status": "Tell how far a study is: cells done, failed and left, and who writes to the folder.",
    "export": "Write tables (Parquet, CSV), figures and findings again from the records of a "
    "folder.",
}
"""What `ctxrnn study --help` says of each study, and of the two commands on results folders."""
STUDIES = tuple(SUMMARIES)[:-2]
SCALES = ("smoke", "quick", "paper")
REPRODUCE_SCALES = ("smoke", "quick")
EXECUTORS = ("local", "inline", "ray")
VARIANTS = (
    "none", "e-add", "e-thr", "e-gain", "e-rank2", "s-sym", "s-asym-1", "s-asym-2", "s-gate-1",
    "s-gate-2", "s-lowrankW", "s-mask", "s-add-1", "s-add-2", "s-scalar", "s-full", "es",
    "es-add-sym", "es-gain-asym-1", "es-add-gate-1",
)  # fmt: skip
TASKS = (
    "go", "rtgo", "dlygo", "anti", "rtanti", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2",
    "multidm", "dlydm1", "dlydm2", "ctxdlydm1", "ctxdlydm2", "multidlydm", "dms", "dnms", "dmc",
    "dnmc",
)  # fmt: skip
WITH_DATA = (
    "language", "sequential-images", "comodulation-celeba", "comodulation-cifar",
    "comodulation-architecture",
)  # fmt: skip
"""Studies that read a data set: they take `--data`."""
SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_CTXRNN_COMPLETE"
_SETTINGS = {"variants": VARIANTS, "base.tasks": TASKS}

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of(known: Sequence[str]) -> Completer:
    """Complete one name."""

    def complete(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in known if name.startswith(typed)]

    return complete


def several_of(known: Sequence[str], within: str = ",") -> Completer:
    """Complete the last of several names, with one of the marks `within` between them."""

    def complete(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _continued(known, typed, within)]

    return complete


def setting(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the names in the value of `NAME=VALUE`, where they are variants or tasks."""
    name, equals, value = typed.partition("=")
    if not equals:
        return [CompletionItem(f"{known}=") for known in _SETTINGS if known.startswith(typed)]
    known = _SETTINGS.get(name, ())
    return [CompletionItem(f"{name}={found}") for found in _continued(known, value, ",")]


def _continued(known: Sequence[str], typed: str, within: str) -> list[str]:
    place = 1 + max(typed.rfind(mark) for mark in within)
    before, last = typed[:place], typed[place:]
    given = before.replace(":", ",").split(",") if within == "," else ()
    return [before + name for name in known if name.startswith(last) and name not in given]


def studies(typed: str) -> list[CompletionItem]:
    """Complete a study, or else a file of the user's."""
    names = [name for name in SUMMARIES if name.startswith(typed)]
    return [CompletionItem(name) for name in names] or [CompletionItem(typed, type="file")]


def study_stand_in(name: str) -> click.Command:
    """Return a command with the options of a study (docs/studies.md), to complete them."""
    if name in ("status", "export"):
        params: list[click.Parameter] = [click.Argument(["folder"], type=click.Path())]
        if name == "export":
            params.append(click.Option(["--file"], type=click.Path()))
            params.append(click.Option(["--scale"], shell_complete=one_of(SCALES)))
    else:
        params = [
            click.Option(["--scale"], shell_complete=one_of(SCALES)),
            click.Option(["--set", "assignments"], multiple=True, shell_complete=setting),
            click.Option(["--out"], type=click.Path()),
            click.Option(["--executor"], shell_complete=one_of(EXECUTORS)),
            click.Option(["--address"]),
            click.Option(["--gpus"]),
            click.Option(["--workers"]),
            click.Option(["--dry-run"], is_flag=True),
        ]
        if name in WITH_DATA:
            params.append(click.Option(["--data"], type=click.Path()))
    names = {"help_option_names": ["-h", "--help"]}
    return click.Command(name, params=params, context_settings=names)


@add_completion_class
class Bash(BashComplete):
    """Bash, which cuts words at `=` and `:`; here they stay whole.

    The whole line goes to the program, and of its answers bash is given what follows the cut.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local line=${COMP_LINE:0:COMP_POINT} cuts="" before="" response completion type value
    local last=${line##*[[:space:]]}
    [[ $COMP_WORDBREAKS == *=* ]] && cuts+="="
    [[ $COMP_WORDBREAKS == *:* ]] && cuts+=":"
    [[ -n $cuts && $last == *[$cuts]* ]] && before=${last%%"${last##*[$cuts]}"}
    [[ -z $last ]] && line+="''"
    response=$(env COMP_WORDS="$line" COMP_CWORD=-1 %(complete_var)s=bash_complete $1)
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            [[ $value == *= ]] && compopt -o nospace
            COMPREPLY+=("${value#"$before"}")
        fi
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class Fish(FishComplete):
    """Fish; an answer may hold commas."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split -m 1 ","'
    )


PLACES = {
    "bash": "to have it in every shell: ctxrnn completion bash > ~/.ctxrnn-completion.bash, and "
    "add to ~/.bashrc the line: source ~/.ctxrnn-completion.bash",
    "zsh": "to have it in every shell: ctxrnn completion zsh > ~/.ctxrnn-completion.zsh, and add "
    "to ~/.zshrc, below compinit, the line: source ~/.ctxrnn-completion.zsh",
    "fish": "to have it in every shell: "
    "ctxrnn completion fish > ~/.config/fish/completions/ctxrnn.fish",
}
"""Where each shell wants its script."""


def script(app: click.Command, shell: str) -> str:
    """Return the script that teaches a shell to complete the command."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"unknown shell {shell!r}. Known: {', '.join(SHELLS)}")
    return kind(app, {}, "ctxrnn", _VARIABLE).source()
