"""What this room needs to know of a run and its verdict: the parts of `Counterexample` and `Verdict` that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Step(Protocol):
    """One move; see `tlbcore.checker.Step`."""

    @property
    def number(self) -> int: ...
    @property
    def cpu(self) -> int: ...
    @property
    def what(self) -> str: ...
    @property
    def source(self) -> str | None: ...
    @property
    def changes(self) -> Sequence[str]: ...
    @property
    def shown(self) -> bool: ...


class Run(Protocol):
    """A run that breaks a rule; see `tlbcore.checker.Counterexample`."""

    @property
    def rule(self) -> str: ...
    @property
    def schedule(self) -> str: ...
    @property
    def steps(self) -> Sequence[Step]: ...
    @property
    def lanes(self) -> Sequence[str]: ...
    @property
    def closing(self) -> str: ...
    @property
    def kernel(self) -> str: ...


class Found(Protocol):
    """A verdict; see `tlbcore.checker.Verdict`."""

    @property
    def policy(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def counterexample(self) -> Run | None: ...
