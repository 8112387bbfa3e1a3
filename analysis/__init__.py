"""Analysis of trained networks: ambiguity, statistics, figures."""

from __future__ import annotations

import sys

if __name__ == "analysis":
    # In a checkout `import analysis` finds this folder; hand out ctxrnn.analysis, not a copy.
    import ctxrnn.analysis

    sys.modules[__name__] = ctxrnn.analysis
else:
    from .ambiguity import ambiguity_curve as ambiguity_curve
    from .ambiguity import ambiguity_sweep as ambiguity_sweep
    from .ambiguity import lambda_50 as lambda_50
    from .ambiguity import mixed_context as mixed_context
    from .ambiguity import robustness_area as robustness_area
    from .statistics import Interval as Interval
    from .statistics import mean_interval as mean_interval
