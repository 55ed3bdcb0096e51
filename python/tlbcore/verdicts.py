"""What `necessary`, `repair`, `verdict_table` and `world_table` return: rows, and what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tlbcore import _core
from tlbcore._output.result import Listed, rows_table
from tlbcore._output.table import Table
from tlbcore.policy import Policy
from tlbcore.simulation.repair_cost import Cost

__all__ = ["Cell", "Need", "Needs", "Repair", "Repairs", "Row", "VerdictTable", "WorldTable"]


@dataclass(frozen=True, kw_only=True)
class Need:
    """One op or order of a policy, and what becomes of the policy without it.

    Parameters
    ----------
    section, place
        Where it stands; the place is file and line.
    what
        What was taken away or weakened.
    needed
        Whether the policy is violated without it. If not: not needed within these bounds, if the check of what
        is left was conclusive.
    status
        Verdict on what is left: `verified`, `violated`, or `inconclusive` where the weaker policy overflows a
        width.
    rule
        The rule that breaks without it.
    supplied_by
        What supplies it in today's source, where that is known (SEMANTICS L3).
    states
        States explored.
    """

    section: str
    place: str
    what: str
    needed: bool
    status: str
    rule: str | None
    supplied_by: str
    states: int


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Needs(Listed[Need]):
    """The ops and orders of a verified policy, each with what becomes of the policy without it: a sequence of `Need`.

    Parameters
    ----------
    policy
        The policy that was weakened.
    sentence
        The verdict on the whole policy, bounds and assumptions included.
    rows
        One for each op or order, as they stand in the policy.
    version
        What computed it.
    """

    policy: Policy
    sentence: str
    rows: tuple[Need, ...]
    version: str = _core.__version__

    _of = Need

    def _about(self) -> dict[str, Any]:
        return {
            "policy": self.policy.name, "policy_text": self.policy.text, "sentence": self.sentence,
            "version": self.version,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<Needs of {self.policy.name}: {sum(n.needed for n in self)} of {len(self)} needed>"


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A set of edits that makes a policy pass.

    Parameters
    ----------
    edits
        What was changed, in words.
    policy
        The edited policy.
    verdict
        `verified (bounded)`, or what is not bounded: such as `verified (any number of entries, the rest bounded)`.
    states
        States its check explored.
    hypothesis
        Its verdict if a future change touched recycled memory between the CR3 switch and the flush; None if D was
        given, or nothing asked is about flushes of memory that may be recycled.
    cost
        What it costs on a small workload, and what it still defers, as the simulator predicts.
    """

    edits: tuple[str, ...]
    policy: Policy
    verdict: str
    states: int
    hypothesis: str | None
    cost: Cost


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Repairs(Listed[Repair]):
    """The smallest sets of edits that make a policy pass: a sequence of `Repair`, empty if there is none.

    Parameters
    ----------
    policy
        The policy that is violated, or about which the check says nothing.
    edits
        The most edits that were tried together.
    machine
        CPU preset for the costs.
    sentence
        The verdict on the policy as it is, bounds and assumptions included.
    rows
        The repairs.
    version
        What computed it.
    """

    policy: Policy
    edits: int
    machine: str
    sentence: str
    rows: tuple[Repair, ...]
    version: str = _core.__version__

    _of = Repair

    def _tables(self) -> dict[str, Table]:
        # A cost's parts are columns of their own; a policy is its text.
        import numpy as np

        names = ("edits", "verdict", "states", "hypothesis")
        columns = dict(rows_table(self.rows, names))
        columns["policy_text"] = np.array([row.policy.text for row in self.rows], dtype=np.str_)
        costs = ("syscall_extra_ns", "nmi_extra_ns", "deferred", "ipis")
        return {"rows": Table({**columns, **rows_table([row.cost for row in self.rows], costs)})}

    def _units(self) -> dict[str, str]:
        return {"syscall_extra_ns": "ns", "nmi_extra_ns": "ns", "deferred": "1", "ipis": "1"}

    def _about(self) -> dict[str, Any]:
        return {
            "policy": self.policy.name, "policy_text": self.policy.text, "edits": self.edits,
            "machine": self.machine, "sentence": self.sentence, "version": self.version,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<Repairs of {self.policy.name}: {len(self)} with at most {self.edits} edits>"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One verdict of the table: a policy in one world, under one set of bounds and assumptions.

    Parameters
    ----------
    policy, world, defers, cpus, nmis, asids
        What was checked where: its `flush`es or its `sync`s of text; and the bounds.
    danger, bodies, text, invpcid
        Assumptions D, N, T and whether INVPCID publishes.
    status, rule, states
        The verdict.
    unseen
        Witnesses that no run showed (`Verdict.witnesses`).
    stated
        What the policy table says, where it says something.
    """

    policy: str
    world: str
    defers: str
    cpus: int
    nmis: int
    asids: int
    danger: str
    bodies: str
    text: str
    invpcid: str
    status: str
    rule: str | None
    states: int
    unseen: tuple[str, ...]
    stated: str | None


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class VerdictTable(Listed[Row]):
    """The verdicts of every built-in policy at the standard scope: a sequence of `Row`."""

    rows: tuple[Row, ...]
    version: str = _core.__version__

    _of = Row

    def _about(self) -> dict[str, Any]:
        return {"version": self.version}

    def __repr__(self) -> str:
        return f"<VerdictTable of {len(self)} verdicts>"


# What stands behind a violation, by the verdict where code does only what it was seen to do.
_STAR = {"violated": "", "verified": "*", "inconclusive": "?"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What `check` says of a policy in one world, on one version of Linux.

    Parameters
    ----------
    policy, world, linux
        What was checked where.
    status
        The worst verdict without an NMI.
    nmi
        The worst verdict without an NMI and with one.
    known, nmi_known
        The same where code does only what it was seen to do: without the assumptions N and T.
    inert
        The features that the policy needs and the world lacks, so that mainline runs; empty where it runs.
    states
        States of all searches.
    """

    policy: str
    world: str
    linux: str
    status: str = ""
    nmi: str = ""
    known: str = ""
    nmi_known: str = ""
    inert: str = ""
    states: int = 0

    @property
    def word(self) -> str:
        """The cell of the table.

        `ok`: verified, also with an NMI; `nmi`: violated with an NMI only; `bad`: violated without one; `?`: a limit
        was met. A star says that the violation needs code to do what nobody has seen it do; a `?` behind a word that a
        limit was met in the search for a worse one.
        """
        if self.inert:
            return "-"
        if self.status == "violated":
            return f"bad{_STAR[self.known]}"
        if self.nmi == "violated":
            return f"nmi{'?' if self.status == 'inconclusive' else _STAR[self.nmi_known]}"
        return "ok" if self.nmi == "verified" else "?"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class WorldTable(Listed[Cell]):
    """The verdict on every built-in policy in every world and version of Linux: a sequence of `Cell`.

    `print` shows policies by worlds in 80 columns.
    """

    rows: tuple[Cell, ...]
    version: str = _core.__version__

    _of = Cell

    def _about(self) -> dict[str, Any]:
        return {"version": self.version}

    def __repr__(self) -> str:
        return f"<WorldTable of {len(self)} verdicts>"

    def __str__(self) -> str:
        from tlbcore._output.worlds import as_text

        return as_text(self)
