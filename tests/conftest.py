"""Settings and guards shared by all tests."""

import importlib.util
import signal
from collections.abc import Iterator

import hypothesis
import pytest

# The default deadline of 200 ms a case fails at random on a busy machine.
hypothesis.settings.register_profile("ctxrnn", deadline=None)
hypothesis.settings.load_profile("ctxrnn")

# A shell gives its background jobs an ignored SIGINT, which would pass to the processes that tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests of packaging and of who imports whom run without torch, too.
if importlib.util.find_spec("torch") is not None:
    import torch

    # Networks in tests are small: more threads make them slower, and let sums differ between runs.
    torch.set_num_threads(1)

    @pytest.fixture(autouse=True)
    def _default_dtype_stays() -> Iterator[None]:
        """Fail a test that leaves another global default dtype to the tests after it."""
        before = torch.get_default_dtype()
        yield
        after = torch.get_default_dtype()
        torch.set_default_dtype(before)
        if after != before:
            pytest.fail(f"the test left torch's default dtype at {after}; it was {before}")

    def pytest_runtest_setup(item: pytest.Item) -> None:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
