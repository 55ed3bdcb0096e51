"""What the subcommands about recordings share: reading one, and failing after printing what can be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlbcore.cli import _common

if TYPE_CHECKING:
    from tlbcore.trace import Trace


def read(
    path: str | list[str], isolated: str | None, between: tuple[str, str] | None = None
) -> tuple[Trace, str | None]:
    """Read a recording; if only part of it is usable, return that and the reason."""
    from tlbcore.trace import PartialTraceError, read_trace

    with _common.progress("reading", "bytes") as advance:
        try:
            whole = read_trace(
                path,
                isolated=isolated,
                between=between,
                progress=advance,
            )
        except PartialTraceError as partial:
            return partial.partial, str(partial)
    return whole, None


def finish(trace: Trace, damage: str | None) -> None:
    """Fail, after everything that can be said is printed, if the recording does not answer the question."""
    if damage is not None:
        _common.fail(damage)
    missing = [m for m in trace.figures["report"]["cannot_say"] if m["essential"]]
    if missing:
        said = "; ".join(f"cannot say {m['question']} ({m['because']})" for m in missing)
        _common.fail(f"{trace.path}: {said}")
