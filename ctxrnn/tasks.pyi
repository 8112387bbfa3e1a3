# For type checkers only, in a checkout: ctxrnn.tasks is the folder tasks/ at the top level (see setup.cfg).
from tasks import *
