"""The verdicts of every built-in policy at the standard scope."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tlbcore import _core
from tlbcore._output.calls import kept
from tlbcore._output.progress import Progress, shown
from tlbcore.checker.question import GIB, Bounds, initiators_of, request_of, tried
from tlbcore.policy import policies
from tlbcore.verdicts import Row, VerdictTable

_Scope = tuple[int, int, int, str, str, str, str]
# What a question assumes of INVPCID where nothing is said.
INVPCID = dict(_core.check_assumptions())["invpcid"][0]
_PURGE, _TEXT = tried("purge"), tried("text_poke")
# CPUs, NMIs, ASIDs, D, N, T, INVPCID.
FLUSH_SCOPES: tuple[_Scope, ...] = (
    *(
        (2, nmis, asids, danger, bodies, "instr", publishes)
        for nmis in (0, 1)
        for asids in (1, 2)
        for publishes in (INVPCID, "publishes")
        for danger in _PURGE["D"]
        for bodies in (_PURGE["N"] if nmis else _PURGE["N"][:1])
    ),
    *((3, 0, 1, danger, "none", "instr", INVPCID) for danger in _PURGE["D"]),
)
# No translation and no INVPCID is part of the question.
TEXT_SCOPES: tuple[_Scope, ...] = tuple(
    (2, nmis, 1, "none", "none", text, INVPCID) for nmis in (0, 1) for text in _TEXT["T"]
)


def _stated(stated: list[str], initiator: str, scope: _Scope) -> str | None:
    cpus, nmis, asids, danger, bodies, text, publishes = scope
    if (cpus, asids, publishes) != (2, 1, INVPCID):
        return None
    if initiator == "text_poke":
        case = {(0, "instr"): 0, (0, "danger"): 1, (1, "instr"): 2}.get((nmis, text))
    else:
        case = {(0, "none", "none"): 0, (0, "recycled", "none"): 1, (1, "none", "recycled"): 2}.get(
            (nmis, danger, bodies)
        )
    return None if case is None else stated[case]


def row_of(name: str, initiator: str, scope: _Scope, memory: int, world: str = "") -> Row:
    """Check one built-in policy within one scope and world: the first one it is asked about, if none is named.

    Behind `@` a world says the version of Linux, if it is not the oldest.
    """
    cpus, nmis, asids, danger, bodies, text, publishes = scope
    stated = ["verified" if v else "violated" for v in _core.policy_stated(name)]
    row = Row(
        policy=name,
        world=world or _core.check_worlds(policies[name].text, policies[name].file)[0],
        defers="sync" if initiator == "text_poke" else "flush",
        cpus=cpus,
        nmis=nmis,
        asids=asids,
        danger=danger,
        bodies=bodies,
        text=text,
        invpcid=publishes,
        status="",
        rule=None,
        states=0,
        unseen=(),
        stated=_stated(stated, initiator, scope),
    )
    found = _core.check_run(row_request(row, memory), None)
    return replace(
        row,
        status=found["status"],
        rule=found["rule"],
        states=found["states"],
        unseen=tuple(what for what, seen in found["witnesses"] if not seen),
    )


def row_request(row: Row, memory: int) -> dict[str, Any]:
    """Return the question of a row."""
    world, _, version = row.world.partition("@")
    policy = policies[row.policy].on(version) if version else policies[row.policy]
    bounds = Bounds(cpus=row.cpus, nmis=row.nmis, asids=row.asids, memory=memory, world=world)
    return {
        **request_of(policy, bounds),
        "initiator": "text_poke" if row.defers == "sync" else "purge",
        "trace": False,
        "assume": [("D", row.danger), ("N", row.bodies), ("T", row.text), ("invpcid", row.invpcid)],
    }


@kept
def verdict_table(
    *, memory: int = 8 * GIB, linux: str | None = None, progress: Progress | bool | None = None
) -> VerdictTable:
    """Return the verdicts of every built-in policy at the standard scope.

    In every world it is asked about: 2 CPUs x {0, 1 NMI} x {D none, recycled} x {N none, recycled} x {1, 2 ASIDs} x
    {INVPCID publishes or not}, and 3 CPUs without NMI. Of a policy that defers syncs of text: 2 CPUs x {0, 1 NMI} x
    {T instr, danger, noinstr}. Policies of user ranges alone have no row: `check` asks them all there is to ask.

    Parameters
    ----------
    memory
        Bytes one search may hold.
    linux
        The version of Linux that the policies stand on, such as `"7.3"`; the one they are written for if left out.
    progress
        Called with (policies done, policies in all).

    Raises
    ------
    PolicyError
        If there are no texts of that version.
    """
    rows: list[Row] = []
    names = list(policies)
    with shown(progress, "checking", "policies") as advance:
        for done, name in enumerate(names):
            if advance is not None:
                advance(done, len(names))
            policy = policies[name] if linux is None else policies[name].on(linux)
            newer = f"@{linux}" if linux is not None and linux != policies[name].linux else ""
            for world in _core.check_worlds(policy.text, policy.file):
                for initiator in initiators_of(policy.text, policy.file):
                    if initiator == "flush_mm":
                        continue  # `check` asks them all there is to ask
                    scopes = TEXT_SCOPES if initiator == "text_poke" else FLUSH_SCOPES
                    rows += [row_of(name, initiator, scope, memory, world + newer) for scope in scopes]
        if advance is not None:
            advance(len(names), len(names))
    return VerdictTable(rows=tuple(rows))
