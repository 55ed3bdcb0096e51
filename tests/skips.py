"""Which tests may be skipped: a pytest plugin that ends with every reason, and fails on one that is not listed.

`--known-skips FILE`, repeatable: a regular expression per line, `#` begins a comment. Without it nothing fails.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--known-skips",
        action="append",
        default=[],
        metavar="FILE",
        help="fail on skips that no line of it matches",
    )


def known(files: list[str]) -> list[re.Pattern[str]]:
    """The patterns of these files."""
    lines = [line.split(" #")[0].strip() for file in files for line in Path(file).read_text().splitlines()]
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def unlisted(reasons: Counter[str], patterns: list[re.Pattern[str]]) -> list[str]:
    """The reasons that no pattern knows."""
    return sorted(reason for reason in reasons if not any(pattern.search(reason) for pattern in patterns))


class Skips:
    """Collects the reasons of one run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons[reason.removeprefix("Skipped: ")] += 1

    def bad(self) -> list[str]:
        files = self.config.getoption("--known-skips")
        return unlisted(self.reasons, known(files)) if files else []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.bad() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.config.getoption("--known-skips"):
            return
        terminalreporter.section(f"{sum(self.reasons.values())} skipped, by reason")
        for reason, count in self.reasons.most_common():
            terminalreporter.line(f"{count:5} {reason}")
        for reason in self.bad():
            terminalreporter.line(f"ERROR: a skip that no list knows: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Skips(config), "tlbcore-skips")
