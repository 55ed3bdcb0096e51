"""Which tests passed: a pytest plugin that writes them down, and leaves out those that passed before.

`--passed-to FILE` appends the ids of the tests that pass. `--passed-before FILE` does not ask the tests named there
again; the caller answers for it that they would run on the same bytes. At the end it is said how many these were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--passed-to", metavar="FILE", help="append the ids of the tests that pass")
    parser.addoption("--passed-before", metavar="FILE", help="leave out the tests named there")


class Passed:
    """Of one run, or of one worker of it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.ids: list[str] = []
        before = config.getoption("--passed-before")
        self.before = set(Path(before).read_text().splitlines()) if before else set()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.nodeid in self.before]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.nodeid not in self.before]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self.ids.append(report.nodeid)
        elif report.when == "teardown" and report.failed and report.nodeid in self.ids:
            self.ids.remove(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        path = self.config.getoption("--passed-to")
        if path and not hasattr(session.config, "workerinput"):
            with Path(path).open("a") as file:
                file.writelines(f"{name}\n" for name in self.ids)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.before:
            terminalreporter.line(
                f"{len(self.before)} tests are named as passed before; they were not asked again"
            )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Passed(config), "tlbcore-passed")
