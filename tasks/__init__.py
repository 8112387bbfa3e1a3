"""Tasks as batches of trials, with the stimulus and the context kept apart."""

from __future__ import annotations

import sys

if __name__ == "tasks":
    # In a checkout `import tasks` finds this folder; hand out ctxrnn.tasks, not a copy.
    import ctxrnn.tasks

    sys.modules[__name__] = ctxrnn.tasks
else:
    from ._bank import TrialBank as TrialBank
    from ._catalogue import REPAIRS as REPAIRS
    from ._catalogue import YANG19 as YANG19
    from ._factory import task_set as task_set
    from ._listing import list_tasks as list_tasks
    from ._listing import neurogym_ids as neurogym_ids
    from ._task_set import TaskSet as TaskSet
    from .images import ImageDataset as ImageDataset
    from .images import ImageSet as ImageSet
    from .images import image_set as image_set
    from .images import image_set_names as image_set_names
    from .images import list_image_sets as list_image_sets
    from .sequences import SequenceSet as SequenceSet
    from .sequences import sequence_set as sequence_set
    from .text import TextCorpus as TextCorpus
    from .text import text_corpus as text_corpus
    from .text import text_corpus_names as text_corpus_names
