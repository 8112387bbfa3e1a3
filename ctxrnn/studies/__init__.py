"""Studies: grids of networks that are trained, measured, recorded and drawn."""

from ctxrnn.studies._reproduce import reproduce as reproduce
from ctxrnn.studies._settings import SCALES as SCALES
from ctxrnn.studies._settings import ReproduceSettings as ReproduceSettings
