# For type checkers in a checkout, where ctxrnn.analysis is the top-level folder analysis/
# (setup.cfg). A star import brings no sub-modules.
from analysis import *
from analysis import plots as plots
