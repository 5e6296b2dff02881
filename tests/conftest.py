"""Settings of the whole suite."""

import hypothesis
import pytest

from tinycnn import parallel

hypothesis.settings.register_profile("tinycnn", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("tinycnn")


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    """A test may set the number of threads; the next one finds the default again."""
    before = parallel._num_threads
    yield
    if parallel._num_threads != before:
        parallel._num_threads = before
        parallel._forget_pool()
