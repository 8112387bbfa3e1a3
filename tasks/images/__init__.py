"""Image sets for the convolutional branch: real data, and stand-ins that need no download."""

from __future__ import annotations

import sys

if __name__ == "tasks.images":
    # In a checkout `import tasks.images` finds this folder; hand out ctxrnn.tasks.images.
    import ctxrnn.tasks.images  # type: ignore[import-not-found,unused-ignore]

    sys.modules[__name__] = ctxrnn.tasks.images
else:
    from ._catalogue import image_set as image_set
    from ._catalogue import image_set_names as image_set_names
    from ._catalogue import list_image_sets as list_image_sets
    from ._gabors import GaborBank as GaborBank
    from ._gabors import GaborTask as GaborTask
    from ._gabors import digit_canvases as digit_canvases
    from ._gabors import gabor_task as gabor_task
    from ._gabors import mnist_pools as mnist_pools
    from ._gabors import single_gabors as single_gabors
    from ._image_set import ImageDataset as ImageDataset
    from ._image_set import ImageSet as ImageSet
