"""The parts of `analyse`, in the order in which the page shows them.

A part is a function of a `View` that returns a `Part`; it is registered in `PARTS` by one line.
"""

from __future__ import annotations

from collections.abc import Callable

from ctxrnn.studies._analyse_behaviour import accuracy, psychometric
from ctxrnn.studies._analyse_demixed import demixed
from ctxrnn.studies._analyse_epochs import separation
from ctxrnn.studies._analyse_geometry import geometry, tangled, vector_fields
from ctxrnn.studies._analyse_paths import continuation
from ctxrnn.studies._analyse_points import epoch_points, fixed_points, trajectories
from ctxrnn.studies._analyse_units import lesions, units, weights
from ctxrnn.studies._analyse_view import Part as Part
from ctxrnn.studies._analyse_view import View as View

PARTS: tuple[tuple[str, Callable[[View], Part], bool], ...] = (
    ("accuracy", accuracy, False),
    ("psychometric", psychometric, False),
    ("trajectories", trajectories, False),
    ("fixed_points", fixed_points, False),
    ("epoch_points", epoch_points, False),
    ("continuation", continuation, True),
    ("vector_field", vector_fields, True),
    ("geometry", geometry, False),
    ("separation", separation, False),
    ("tangling", tangled, False),
    ("demixed", demixed, True),
    ("units", units, False),
    ("lesions", lesions, False),
    ("weights", weights, True),
)
"""Name, function, and whether the part needs contexts."""
