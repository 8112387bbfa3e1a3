"""Studies: grids of networks that are trained, measured, recorded and drawn."""

from ctxrnn.studies._analyse import analyse as analyse
from ctxrnn.studies._estimate import estimate as estimate
from ctxrnn.studies._networks import Trained as Trained
from ctxrnn.studies._plan import NetworkSettings as NetworkSettings
from ctxrnn.studies._plan import Plan as Plan
from ctxrnn.studies._plan import plan_network as plan_network
from ctxrnn.studies._recipes import study as study
from ctxrnn.studies._recipes import study_names as study_names
from ctxrnn.studies._reproduce import SCALES as SCALES
from ctxrnn.studies._reproduce import ReproduceSettings as ReproduceSettings
from ctxrnn.studies._reproduce import reproduce as reproduce
from ctxrnn.studies._sequence_models import load_sequence_model as load_sequence_model
from ctxrnn.studies._study import Study as Study
