"""Studies: grids of networks that are trained, measured, recorded and drawn."""

from ctxrnn.studies._reproduce import SCALES as SCALES
from ctxrnn.studies._reproduce import ReproduceSettings as ReproduceSettings
from ctxrnn.studies._reproduce import reproduce as reproduce
