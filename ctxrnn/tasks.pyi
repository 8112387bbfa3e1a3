# For type checkers in a checkout, where ctxrnn.tasks is the top-level folder tasks/ (setup.cfg).
from tasks import *
