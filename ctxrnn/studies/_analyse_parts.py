"""The parts of `analyse`, in the order in which the page shows them.

A part is a function of a `View` that returns a `Part`; it is registered in `PARTS` by one line.
"""

from __future__ import annotations

from collections.abc import Callable

from ctxrnn.studies._analyse_demixed import demixed
from ctxrnn.studies._analyse_geometry import geometry, vector_fields
from ctxrnn.studies._analyse_points import continuation, fixed_points, trajectories
from ctxrnn.studies._analyse_units import accuracy, units, weights
from ctxrnn.studies._analyse_view import Part as Part
from ctxrnn.studies._analyse_view import View as View

PARTS: tuple[tuple[str, Callable[[View], Part], bool], ...] = (
    ("accuracy", accuracy, False),
    ("fixed_points", fixed_points, False),
    ("trajectories", trajectories, False),
    ("continuation", continuation, True),
    ("geometry", geometry, False),
    ("demixed", demixed, True),
    ("vector_field", vector_fields, True),
    ("units", units, False),
    ("weights", weights, True),
)
"""Name, function, and whether the part needs contexts."""
