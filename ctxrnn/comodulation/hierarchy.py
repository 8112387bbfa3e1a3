"""Parts of the hierarchical network, for studies that train it."""

from __future__ import annotations

from ._hierarchy import HierarchyConfig as HierarchyConfig
from ._hierarchy import Weights as Weights
from ._hierarchy import draw_parameters as draw_parameters
from ._hierarchy import drive_of as drive_of
from ._hierarchy import last_activity as last_activity
from ._hierarchy import log_probabilities as log_probabilities
from ._hierarchy import unpack as unpack
from ._hierarchy_couplings import CouplingStack as CouplingStack
from ._hierarchy_couplings import Member as Member
from ._hierarchy_couplings import NoisePass as NoisePass
from ._hierarchy_training import Examples as Examples
from ._hierarchy_training import Fitted as Fitted
from ._hierarchy_training import examples_of as examples_of
from ._hierarchy_training import fit as fit
from ._hierarchy_training import split_batches as split_batches
from ._hierarchy_weights import OutputStack as OutputStack
from ._hierarchy_weights import WeightStack as WeightStack
from ._local import compiled as compiled
