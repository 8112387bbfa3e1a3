import json
import math
import pickle

import pytest
import torch

from ctxrnn import CTRNN, TrainConfig, make_generator, train
from ctxrnn._step import Prepared
from ctxrnn.studies._ambiguous import AmbiguousTasks
from ctxrnn.tasks import task_set

NAMES = ("go", "anti", "dm1", "dm2")
K = len(NAMES)


@pytest.fixture(scope="module")
def tasks():
    return task_set(NAMES)


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("source", ["seed", "generator"])
def test_trials_are_those_of_the_clean_tasks(tasks, source, reused):
    clean = tasks.bank(6, generator=2) if reused else tasks
    ambiguous = AmbiguousTasks(clean)
    for seed in range(3):
        one, other = (
            seed if source == "seed" else torch.Generator().manual_seed(seed) for _ in range(2)
        )
        got, wanted = ambiguous.sample(10, generator=one), clean.sample(10, generator=other)
        for name in ("inputs", "targets", "mask", "task", "lengths"):
            assert torch.equal(getattr(got, name), getattr(wanted, name)), name
        assert got.names == wanted.names
        assert not torch.equal(got.context, wanted.context)
        assert got.context.dtype == wanted.context.dtype


def test_each_task_of_a_batch_has_one_mixture_of_two_contexts(tasks):
    seen = set()
    for seed in range(40):
        batch = AmbiguousTasks(tasks, levels=(0.1, 0.4)).sample(13, generator=seed)
        assert len(batch.context.unique(dim=0)) == K
        for context, task in zip(batch.context.tolist(), batch.task.tolist(), strict=True):
            assert 0.6 <= context[task] <= 0.9
            (other,) = [j for j in range(K) if j != task and context[j]]
            assert sum(context) == pytest.approx(1, abs=1e-6)
            seen.add((task, other))
    # A pair is missed in all 40 batches with probability (2/3)^40 = 1e-7.
    assert len(seen) == K * (K - 1)


def test_levels_and_other_tasks_are_uniform_and_differ_between_tasks(tasks):
    ambiguous, draws = AmbiguousTasks(tasks, levels=(0.2, 0.8)), 4000
    source = torch.Generator().manual_seed(1)
    found = torch.stack([ambiguous.mixtures(source) for _ in range(draws)])
    level = 1 - found.diagonal(dim1=1, dim2=2)
    # Five standard errors of the mean and of the variance of U(0.2, 0.8), over draws and tasks.
    variance = 0.6**2 / 12
    error = math.sqrt(variance / (draws * K))
    assert abs(float(level.mean()) - 0.5) < 5 * error
    spread = math.sqrt((0.6**4 / 80 - variance**2) / (draws * K))
    assert abs(float(level.var()) - variance) < 5 * spread
    # Tasks draw for themselves: a correlation has standard error 1 / sqrt(draws).
    correlation = torch.corrcoef(level.T) - torch.eye(K)
    assert correlation.abs().max() < 5 / math.sqrt(draws)
    chosen = (found > 0).double().mean(0)[~torch.eye(K, dtype=torch.bool)]
    share = 1 / (K - 1)
    assert (chosen - share).abs().max() < 5 * math.sqrt(share * (1 - share) / draws)


def test_level_zero_is_the_clean_context(tasks):
    got = AmbiguousTasks(tasks, levels=(0, 0)).sample(9, generator=4)
    assert torch.equal(got.context, tasks.sample(9, generator=4).context)


def test_mixtures_differ_from_batch_to_batch_and_come_again_with_the_seed(tasks):
    ambiguous = AmbiguousTasks(tasks)
    source = make_generator(1)
    first, second = (ambiguous.sample(8, generator=source).context for _ in range(2))
    again = ambiguous.sample(8, generator=make_generator(1)).context
    assert torch.equal(first, again)
    assert len(set(map(tuple, first.tolist())) & set(map(tuple, second.tolist()))) == 0


def test_the_compiled_loop_groups_the_trials_by_task(tasks):
    network = CTRNN(tasks.inputs, 8, tasks.outputs, "es", contexts=K, seed=0)
    groups = {}
    for name, source in (("clean", tasks), ("mixed", AmbiguousTasks(tasks))):
        batch = source.sample(32, generator=0)
        prepared = Prepared(batch, device=network.device, dtype=network.dtype)
        groups[name] = prepared.groups(prepared.contexts_for(network))
    assert groups["mixed"].order is None
    assert torch.equal(groups["mixed"].first, groups["clean"].first)
    assert torch.equal(groups["mixed"].row, groups["clean"].row)


@pytest.mark.parametrize("variant", ["e-add", "s-sym"])
def test_networks_are_trained_on_mixtures_and_judged_on_clean_contexts(tasks, variant):
    config = TrainConfig(steps=3, batch=8, evaluate_every=3, evaluation_trials=8)
    found = {}
    for name, source in (("clean", tasks), ("mixed", AmbiguousTasks(tasks))):
        network = CTRNN(tasks.inputs, 8, tasks.outputs, variant, contexts=K, seed=0)
        history = train(network, source, config, seed=1, evaluation_tasks=tasks, progress=False)
        assert history.stopped == "steps"
        found[name] = network.bias.detach()
    assert not torch.equal(found["clean"], found["mixed"])


def test_accuracies_are_those_of_the_tasks(tasks):
    ambiguous = AmbiguousTasks(tasks)
    batch = ambiguous.sample(12, generator=0)
    outputs = torch.randn(*batch.inputs.shape[:2], tasks.outputs)
    accuracy = tasks.accuracy(outputs, batch)
    assert ambiguous.accuracy(outputs, batch) == accuracy
    assert ambiguous.relative(accuracy) == tasks.relative(accuracy)
    assert (ambiguous.names, ambiguous.inputs, ambiguous.chance, ambiguous.dt) == (
        tasks.names, tasks.inputs, tasks.chance, tasks.dt,
    )  # fmt: skip
    with pytest.raises(AttributeError, match="no attribute 'bank'"):
        ambiguous.bank  # noqa: B018


def test_it_is_described_and_pickled(tasks):
    ambiguous = AmbiguousTasks(tasks.bank(4, generator=0), levels=(0.1, 0.3))
    config = json.loads(json.dumps(ambiguous.config()))
    assert config["mixture"] == {"kind": "mix2", "levels": [0.1, 0.3], "pathway": "both"}
    assert task_set(**config["tasks"]).names == ambiguous.names
    again = pickle.loads(pickle.dumps(ambiguous))
    one, other = (source.sample(8, generator=5) for source in (ambiguous, again))
    assert torch.equal(one.context, other.context)
    assert torch.equal(one.inputs, other.inputs)
    assert repr(ambiguous).endswith("levels=(0.1, 0.3))")


class Nameless:
    names = ("a", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pathway": "synaptic"}, "pathway must be 'both' in training, as a batch holds one"),
        ({"pathway": "excitability"}, "use ctxrnn.analysis.ambiguity_sweep"),
        ({"pathway": "bth"}, "unknown pathway 'bth'. Did you mean 'both'"),
        ({"levels": (0.5, 0.1)}, "levels must run from the smallest to the largest: got 0.5 to"),
        ({"levels": (0.0, 1.5)}, r"the largest level must lie in \[0, 1\]: got 1.5"),
        ({"levels": (float("nan"), 1.0)}, "the smallest level must lie in"),
        ({"levels": 0.5}, "levels must be the smallest and the largest level: got 0.5"),
        ({"levels": (0.1, 0.2, 0.3)}, "levels must be the smallest and the largest level"),
    ],
)
def test_bad_mixtures_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AmbiguousTasks(Nameless(), **options)


def test_a_mixture_needs_two_tasks_and_a_description_needs_a_config():
    with pytest.raises(ValueError, match="at least two tasks: got 1"):
        AmbiguousTasks(task_set(["go"]))
    with pytest.raises(TypeError, match=r"must have a method config.*got Nameless"):
        AmbiguousTasks(Nameless()).config()
