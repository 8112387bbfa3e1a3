# For type checkers only, in a checkout: ctxrnn.analysis is the folder analysis/ at the top level (see setup.cfg).
from analysis import *
