"""Image sets for the convolutional branch: real data, and stand-ins that need no download."""

from __future__ import annotations

import sys

if __name__ == "tasks.images":
    # In a checkout `import tasks.images` finds this folder; hand out ctxrnn.tasks.images.
    import ctxrnn.tasks.images  # type: ignore[import-not-found,unused-ignore]

    sys.modules[__name__] = ctxrnn.tasks.images
