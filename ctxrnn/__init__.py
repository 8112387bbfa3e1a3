"""Continuous-time recurrent networks with excitability and synaptic context pathways.

Names are imported when they are first used, so that `ctxrnn --help` need not wait for torch.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    __version__: str
    from ctxrnn._catalogue import VARIANTS as VARIANTS
    from ctxrnn._catalogue import matched_units as matched_units
    from ctxrnn._catalogue import modulation as modulation
    from ctxrnn._catalogue import parameter_count as parameter_count
    from ctxrnn._catalogue import variant_ids as variant_ids
    from ctxrnn._checkpoint import CheckpointError as CheckpointError
    from ctxrnn._checkpoint import load as load
    from ctxrnn._checkpoint import load_layer as load_layer
    from ctxrnn._checkpoint import load_notes as load_notes
    from ctxrnn._checkpoint import save as save
    from ctxrnn._checks import derive_seed as derive_seed
    from ctxrnn._checks import make_generator as make_generator
    from ctxrnn._circuit import Circuit as Circuit
    from ctxrnn._circuit import Recurrence as Recurrence
    from ctxrnn._config import TrainConfig as TrainConfig
    from ctxrnn._config import TrainingHistory as TrainingHistory
    from ctxrnn._context import Contexts as Contexts
    from ctxrnn._context import filter_context as filter_context
    from ctxrnn._encoder import ContextEncoder as ContextEncoder
    from ctxrnn._ensemble import Ensemble as Ensemble
    from ctxrnn._excitability import Drive as Drive
    from ctxrnn._excitability import Gain as Gain
    from ctxrnn._excitability import Threshold as Threshold
    from ctxrnn._losses import cross_entropy as cross_entropy
    from ctxrnn._losses import squared_error as squared_error
    from ctxrnn._losses import task_loss as task_loss
    from ctxrnn._modulated_rnn import ModulatedRNN as ModulatedRNN
    from ctxrnn._modulated_rnn import ModulatedState as ModulatedState
    from ctxrnn._modulated_rnn import ModulatedTrace as ModulatedTrace
    from ctxrnn._modulation import AbstractModulation as AbstractModulation
    from ctxrnn._modulation import Chain as Chain
    from ctxrnn._network import CTRNN as CTRNN
    from ctxrnn._synaptic import Additive as Additive
    from ctxrnn._synaptic import Full as Full
    from ctxrnn._synaptic import Hadamard as Hadamard
    from ctxrnn._synaptic import LowRank as LowRank
    from ctxrnn._synaptic import Masks as Masks
    from ctxrnn._synaptic import Scalar as Scalar
    from ctxrnn._training import evaluate as evaluate
    from ctxrnn._training import train as train
    from ctxrnn._trajectory import Trajectory as Trajectory
    from ctxrnn._trials import TrialBatch as TrialBatch
    from ctxrnn._trials import pad_trials as pad_trials

_HOMES = {
    "VARIANTS": "_catalogue",
    "matched_units": "_catalogue",
    "modulation": "_catalogue",
    "parameter_count": "_catalogue",
    "variant_ids": "_catalogue",
    "CheckpointError": "_checkpoint",
    "load": "_checkpoint",
    "load_layer": "_checkpoint",
    "load_notes": "_checkpoint",
    "save": "_checkpoint",
    "derive_seed": "_checks",
    "make_generator": "_checks",
    "Circuit": "_circuit",
    "Recurrence": "_circuit",
    "Contexts": "_context",
    "filter_context": "_context",
    "cross_entropy": "_losses",
    "squared_error": "_losses",
    "task_loss": "_losses",
    "AbstractModulation": "_modulation",
    "Additive": "_synaptic",
    "Chain": "_modulation",
    "Drive": "_excitability",
    "Full": "_synaptic",
    "Gain": "_excitability",
    "Hadamard": "_synaptic",
    "LowRank": "_synaptic",
    "Masks": "_synaptic",
    "Scalar": "_synaptic",
    "Threshold": "_excitability",
    "CTRNN": "_network",
    "ContextEncoder": "_encoder",
    "ModulatedRNN": "_modulated_rnn",
    "ModulatedState": "_modulated_rnn",
    "ModulatedTrace": "_modulated_rnn",
    "Ensemble": "_ensemble",
    "Trajectory": "_trajectory",
    "TrainConfig": "_config",
    "TrainingHistory": "_config",
    "evaluate": "_training",
    "train": "_training",
    "TrialBatch": "_trials",
    "pad_trials": "_trials",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("ctxrnn")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
