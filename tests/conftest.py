"""Options and profiles of the test suite."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

pytest_plugins = ["tests.skips", "tests.passed"]

# A shell that starts the suite in the background has Ctrl-C ignored; the tests of Ctrl-C want it as usual.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two dozen examples while typing, a thousand at night: `TLBCORE_HYPOTHESIS=slow pytest`.
settings.register_profile("fast", max_examples=24, deadline=None)
settings.register_profile("slow", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("TLBCORE_HYPOTHESIS", "fast"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))
