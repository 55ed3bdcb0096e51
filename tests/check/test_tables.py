"""The tables of verdicts, of worlds and of edits: what is asked of the core for each row, and what its answer becomes.

The core is made up here, so that each figure is known; what it says of real policies other tests hold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.checker import edits, table, worlds
from tlbcore.checker.question import Bounds, Question
from tlbcore.checker.table import FLUSH_SCOPES, TEXT_SCOPES, row_of, row_request
from tlbcore.checker.verdict import Verdict
from tlbcore.checker.worlds import WORLDS, cell_of, world_table
from tlbcore.simulation.repair_cost import Cost
from tlbcore.verdicts import Cell, Need, Needs, Repair, Repairs, Row, VerdictTable, WorldTable

IPI = tc.policies["ipi"]
GIB = 1 << 30


def verdict(status: str = "verified", **changes: Any) -> Verdict:
    made = Verdict(
        policy="p", status=status, sentence="As it is.", world="pti", inert=(), assume={}, states=12, transitions=1,
        depth=1, counterexample=None, grade=None, witnesses={}, wrong_gs=None, bits_per_cpu=(), bits_shared=0,
    )  # fmt: skip
    return replace(made, **changes)


# -- the standard scope -----------------------------------------------------------------------------------------


def test_the_standard_scope_is_that_of_the_page() -> None:
    """CPUs, NMIs, ASIDs, D, N, T, INVPCID."""
    two = [
        (2, nmis, asids, danger, bodies, "instr", publishes)
        for nmis, asids, publishes, danger, bodies in [
            (0, 1, "unordered", "none", "none"), (0, 1, "unordered", "recycled", "none"),
            (0, 1, "publishes", "none", "none"), (0, 1, "publishes", "recycled", "none"),
            (0, 2, "unordered", "none", "none"), (0, 2, "unordered", "recycled", "none"),
            (0, 2, "publishes", "none", "none"), (0, 2, "publishes", "recycled", "none"),
        ]
    ]  # fmt: skip
    assert FLUSH_SCOPES[:8] == tuple(two)
    hit = [scope for scope in FLUSH_SCOPES if scope[1] == 1]
    assert len(hit) == len(set(hit)) == 2 * 2 * 2 * 2, "ASIDs, INVPCID, D and N"
    assert {scope[4] for scope in hit} == {"none", "recycled"}
    assert FLUSH_SCOPES[-2:] == (
        (3, 0, 1, "none", "none", "instr", "unordered"),
        (3, 0, 1, "recycled", "none", "instr", "unordered"),
    )
    assert len(FLUSH_SCOPES) == 8 + 16 + 2
    assert (
        tuple(
            (2, nmis, 1, "none", "none", text, "unordered")
            for nmis in (0, 1)
            for text in ("instr", "danger", "noinstr")
        )
        == TEXT_SCOPES
    )


ROW = Row(
    policy="ipi", world="pti", defers="flush", cpus=2, nmis=1, asids=2, danger="recycled", bodies="none", text="instr",
    invpcid="publishes", status="", rule=None, states=0, unseen=(), stated=None,
)  # fmt: skip


def test_a_row_is_asked_as_it_says() -> None:
    asked = row_request(ROW, 77)
    told = {
        name: asked[name]
        for name in ("cpus", "nmis", "asids", "memory", "world", "initiator", "trace", "assume")
    }
    assert told == {
        "cpus": 2, "nmis": 1, "asids": 2, "memory": 77, "world": "pti", "initiator": "purge", "trace": False,
        "assume": [("D", "recycled"), ("N", "none"), ("T", "instr"), ("invpcid", "publishes")],
    }  # fmt: skip
    assert (asked["text"], asked["file"]) == (IPI.text, IPI.file)
    text = row_request(replace(ROW, policy="text-defer-v7", defers="sync", world="nopti@7.3", cpus=3), 1)
    assert (text["initiator"], text["world"], text["cpus"]) == ("text_poke", "nopti", 3)
    assert text["text"] == tc.policies["text-defer-v7"].on("7.3").text


@pytest.mark.parametrize(
    ("name", "initiator", "scope", "stated"),
    [
        # The policy table states verdicts for no NMI, D=recycled, and one NMI whose body touches recycled memory.
        ("coalesce-v7-fixed", "purge", (2, 0, 1, "none", "none", "instr", "unordered"), "verified"),
        ("coalesce-v7-fixed", "purge", (2, 0, 1, "recycled", "none", "instr", "unordered"), "verified"),
        ("coalesce-v7-fixed", "purge", (2, 1, 1, "none", "recycled", "instr", "unordered"), "violated"),
        ("ct-late", "purge", (2, 0, 1, "recycled", "none", "instr", "unordered"), "violated"),
        ("ct-late", "purge", (2, 1, 1, "none", "recycled", "instr", "unordered"), "verified"),
        ("ct-late", "purge", (2, 1, 1, "recycled", "recycled", "instr", "unordered"), None),
        ("ct-late", "purge", (2, 1, 1, "none", "none", "instr", "unordered"), None),
        ("ct-late", "purge", (3, 0, 1, "none", "none", "instr", "unordered"), None),
        ("ct-late", "purge", (2, 0, 2, "none", "none", "instr", "unordered"), None),
        ("ct-late", "purge", (2, 0, 1, "none", "none", "instr", "publishes"), None),
        ("text-defer-v7", "text_poke", (2, 0, 1, "none", "none", "instr", "unordered"), "verified"),
        ("text-defer-v7", "text_poke", (2, 0, 1, "none", "none", "danger", "unordered"), "violated"),
        ("text-defer-v7", "text_poke", (2, 1, 1, "none", "none", "instr", "unordered"), "verified"),
        ("text-defer-v7", "text_poke", (2, 0, 1, "none", "none", "noinstr", "unordered"), None),
        ("text-defer-v7", "text_poke", (2, 1, 1, "none", "none", "danger", "unordered"), None),
    ],
)
def test_a_row_has_what_was_found_beside_what_is_stated(
    monkeypatch: pytest.MonkeyPatch, name: str, initiator: str, scope: Any, stated: str | None
) -> None:
    asked: list[dict[str, Any]] = []

    def check_run(request: dict[str, Any], progress: None) -> dict[str, Any]:
        assert progress is None
        asked.append(request)
        return {
            "status": "violated",
            "rule": "S5",
            "states": 9,
            "witnesses": [("a", True), ("b", False), ("c", False)],
        }

    monkeypatch.setattr(_core, "check_run", check_run)
    row = row_of(name, initiator, scope, 5)
    assert row == Row(
        policy=name, world="pti", defers="sync" if initiator == "text_poke" else "flush", cpus=scope[0],
        nmis=scope[1], asids=scope[2], danger=scope[3], bodies=scope[4], text=scope[5], invpcid=scope[6],
        status="violated", rule="S5", states=9, unseen=("b", "c"), stated=stated,
    )  # fmt: skip
    assert [(r["memory"], r["world"], r["initiator"]) for r in asked] == [(5, "pti", initiator)]
    assert row_of(name, initiator, scope, 5, "nopti@7.3").world == "nopti@7.3"


@pytest.mark.parametrize(("linux", "behind"), [(None, ""), ("6.12", ""), ("7.3", "@7.3")])
def test_the_table_has_every_policy_in_every_world(
    monkeypatch: pytest.MonkeyPatch, linux: str | None, behind: str
) -> None:
    few = {name: tc.policies[name] for name in ("ipi", "coalesce-v7", "text-defer-v7", "latr")}
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(table, "policies", few)
    monkeypatch.setattr(table, "row_of", lambda *of: of)
    found = table.verdict_table(memory=6, linux=linux, progress=lambda *now: told.append(now))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert {row[3] for row in found.rows} == {6}
    seen = list(dict.fromkeys((row[0], row[1], row[4]) for row in found.rows))
    more = [("ipi", "purge", f"nopti+invlpgb{behind}")] if linux == "7.3" else []
    assert seen == [
        ("ipi", "purge", f"pti{behind}"), ("ipi", "purge", f"nopti{behind}"), *more,
        ("coalesce-v7", "purge", f"pti{behind}"),
        ("text-defer-v7", "text_poke", f"pti{behind}"), ("text-defer-v7", "text_poke", f"nopti{behind}"),
        *[("text-defer-v7", *rest) for _, _, world in more for rest in [("text_poke", world)]],
    ]  # fmt: skip
    assert [row[2] for row in found.rows[:26]] == list(FLUSH_SCOPES)
    assert {row[3] for row in table.verdict_table().rows} == {8 * GIB}
    assert [row[2] for row in found.rows[-6:]] == list(TEXT_SCOPES)
    assert len(found) == 26 * (3 + len(more)) + 6 * (2 + len(more))


def test_a_version_that_there_is_not_is_refused_before_anything_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_core, "check_run", None)
    for ask in (tc.verdict_table, tc.world_table):
        with pytest.raises(tc.PolicyError, match=r"no programs of Linux 7\.4; these are: 6\.12, 7\.3"):
            ask(linux="7.4")


# -- worlds --------------------------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Question]:
    """Let a function of NMIs, N and T answer questions; return those that were asked."""
    asked: list[Question] = []

    def answers_to(questions: list[Question], progress: None) -> list[Verdict]:
        assert progress is None
        asked.extend(questions)
        cases = [
            (q.request["nmis"], q.assume.get("N", "none"), q.assume.get("T", "instr")) for q in questions
        ]
        return [replace(answer(*case), assume=q.assume) for case, q in zip(cases, questions, strict=True)]

    monkeypatch.setattr(worlds, "answers_to", answers_to)
    return asked


BAD, CUT = verdict("violated", states=3), verdict("inconclusive", states=5)


@pytest.mark.parametrize(
    ("name", "answer", "found"),
    [
        # N=none without an NMI, and N=none and recycled with one: 12 states each.
        ("coalesce-v7", lambda *_: verdict(), ("verified", "verified", "verified", "verified", 36)),
        ("coalesce-v7", lambda *_: verdict(implied=True), ("verified", "verified", "verified", "verified", 0)),
        ("coalesce-v7", lambda nmis, *_: BAD if nmis else verdict(),
         ("verified", "violated", "verified", "violated", 12 + 3 + 3)),
        ("coalesce-v7", lambda _, n, __: BAD if n == "recycled" else verdict(),
         ("verified", "violated", "verified", "verified", 12 + 12 + 3)),
        ("coalesce-v7", lambda nmis, *_: verdict() if nmis else CUT,
         ("inconclusive", "inconclusive", "inconclusive", "inconclusive", 5 + 12 + 12)),
        ("coalesce-v7", lambda nmis, *_: BAD if nmis else CUT,
         ("inconclusive", "violated", "inconclusive", "violated", 5 + 3 + 3)),
        # Three places of text, with and without an NMI, beside the same with idle CPUs.
        ("text-defer-v7", lambda _, __, t: BAD if t == "danger" else verdict(),
         ("violated", "violated", "verified", "verified", 4 * (12 + 3 + 12))),
        ("text-defer-v7", lambda _, __, t: BAD if t == "instr" else verdict(),
         ("violated", "violated", "violated", "violated", 4 * (3 + 12 + 12))),
    ],
)  # fmt: skip
def test_a_cell_is_the_worst_of_its_questions(
    monkeypatch: pytest.MonkeyPatch, name: str, answer: Any, found: tuple[Any, ...]
) -> None:
    asked = answers(monkeypatch, answer)
    cell = cell_of(name, "pti", "6.12", memory=5)
    assert (cell.status, cell.nmi, cell.known, cell.nmi_known, cell.states) == found
    assert (cell.policy, cell.world, cell.linux, cell.inert) == (name, "pti", "6.12", "")
    assert {q.request["memory"] for q in asked} == {5}
    assert not any(q.hypothetical for q in asked)
    assert sorted({q.request["nmis"] for q in asked}) == [0, 1]


def test_what_an_nmi_touches_in_the_direct_map_is_assumed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rights of the direct map N is tried as none and directmap."""
    asked = answers(monkeypatch, lambda _, n, __: BAD if n == "directmap" else verdict())
    cell = cell_of("invlpgb", "nopti+invlpgb", "6.12")
    assert (cell.status, cell.nmi, cell.known, cell.nmi_known) == (
        "verified",
        "violated",
        "verified",
        "verified",
    )
    assert cell.word == "nmi*"
    assert {q.request["memory"] for q in asked} == {8 * GIB}


def test_a_cell_whose_world_lacks_what_is_needed_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, lambda *_: verdict())
    assert cell_of("coalesce-v7", "nopti+fred", "7.3") == Cell(
        policy="coalesce-v7", world="nopti+fred", linux="7.3", inert="pti"
    )
    assert cell_of("ipi", "nopcid", "7.3").world == "pti+nopcid"
    assert {q.request["world"] for q in asked} == {"pti+nopcid"}
    assert {q.request["text"] for q in asked} == {IPI.on("7.3").text}


def test_what_is_known_from_another_cell_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, lambda *_: verdict())
    known: dict[Any, Verdict] = {}
    first = cell_of("ipi", "pti", "6.12", known=known)
    count = len(asked)
    assert len(known) == count == 3 + 2 * 3, (
        "purges, frees in two forms; and with an NMI each with N both ways"
    )
    # lazy-tune runs the same programs; in another world others run.
    assert cell_of("lazy-tune", "pti", "6.12", known=known) == replace(first, policy="lazy-tune")
    assert len(asked) == count
    cell_of("ipi", "nopti", "6.12", known=known)
    assert len(asked) == 2 * count
    assert cell_of("ipi", "pti", "6.12").states == first.states
    assert len(asked) == 3 * count


def test_keys_tell_bounds_and_assumptions_apart() -> None:
    asked = {"nmis": 0, "text": IPI.text, "file": IPI.file, "world": "pti", "about": "a"}
    full = {**Question(name="p", request=asked, assume={}).request}
    from tlbcore.checker.question import request_of

    request = {**request_of(IPI, Bounds()), **full}

    def key(**changes: Any) -> tuple[object, ...]:
        assume = changes.pop("assume", {})
        return worlds._key(Question(name="p", request={**request, **changes}, assume=assume))

    assert key() == key(about="b") == key(file="other.policy")
    different = [
        key(),
        key(nmis=1),
        key(assume={"D": "none"}),
        key(assume={"D": "recycled"}),
        key(world="nopti"),
    ]
    different += [key(initiator="table_free"), key(asids=2), key(text=tc.policies["ct-late"].text)]
    assert len(set(different)) == len(different)


def test_the_table_of_worlds_has_every_world_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "policies", {"ipi": IPI, "rar": tc.policies["rar"]})
    asked: list[tuple[Any, ...]] = []

    def cell(name: str, world: str, linux: str, memory: int, known: Any) -> Cell:
        asked.append((name, world, linux, memory, id(known)))
        return Cell(policy=name, world=world, linux=linux)

    monkeypatch.setattr(worlds, "cell_of", cell)
    told: list[Any] = []
    found = world_table(memory=7, progress=lambda *now: told.append(now))
    each = [(world, linux) for world in WORLDS.values() for linux in ("6.12", "7.3")]
    assert [(c.policy, c.world, c.linux) for c in found] == [(n, *w) for n in ("ipi", "rar") for w in each]
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert {(memory, known) for *_, memory, known in asked} == {(7, asked[0][-1])}
    assert [c.linux for c in world_table(linux="7.3")] == ["7.3"] * 10
    assert asked[-1][3] == 8 * GIB
    assert WORLDS == {
        "pti": "pti", "nopti": "nopti", "nopcid": "pti+nopcid", "invlpgb": "nopti+invlpgb", "fred": "nopti+fred",
    }  # fmt: skip


# -- edits -----------------------------------------------------------------------------------------------------


def edited(monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict) -> list[Any]:
    """Let `check` answer so, one call after the other; return its calls."""
    calls: list[Any] = []
    left = list(verdicts)

    def checked(policy: tc.Policy, bounds: Any, *, progress: Any) -> Verdict:
        calls.append((policy, bounds))
        return left.pop(0)

    monkeypatch.setattr(edits, "checked", checked)
    return calls


def asks_of(monkeypatch: pytest.MonkeyPatch, found: Verdict, policy: str, **bounds: Any) -> list[Any]:
    edited(monkeypatch, found)
    _, asks = edits._edited(tc.policies[policy], bounds, None)
    for request, _ in asks:
        assert (request["trace"], request["plain"], request["confirm"], request["assume"]) == (
            False,
            False,
            0,
            [],
        )
    return [(r["world"], r["initiator"], r["asids"], [dict(assume) for assume in given]) for r, given in asks]


def case(D: str = "none", N: str = "none", **more: str) -> dict[str, str]:  # noqa: N803
    return {"D": D, "N": N, **more}


def test_edited_forms_are_asked_what_the_policy_is_in_every_world(monkeypatch: pytest.MonkeyPatch) -> None:
    survives = verdict(hypothesis=verdict())
    purge = ("purge", 1)
    # What is harder to survive comes first; the hypothesis is asked if the policy survives it.
    assert asks_of(monkeypatch, survives, "pending-bit") == [
        ("pti", *purge, [case("recycled"), case()]), ("nopti", *purge, [case("recycled"), case()]),
    ]  # fmt: skip
    for lost in (
        verdict(),
        verdict(hypothesis=verdict("violated")),
        verdict(hypothesis=verdict("inconclusive")),
    ):
        assert asks_of(monkeypatch, lost, "pending-bit") == [
            ("pti", *purge, [case()]),
            ("nopti", *purge, [case()]),
        ]
    # The worst world comes first, since most forms fail there.
    assert [ask[0] for ask in asks_of(monkeypatch, verdict(world="nopti"), "pending-bit")] == ["nopti", "pti"]
    found = asks_of(monkeypatch, verdict(world="nopti+invlpgb"), "ipi", world="@7.3")
    assert list(dict.fromkeys(ask[0] for ask in found)) == ["nopti+invlpgb", "pti", "nopti"]
    assert asks_of(monkeypatch, survives, "pending-bit", nmis=1, world="pti") == [
        ("pti", *purge, [case(N="recycled"), case("recycled"), case()])
    ]
    assert asks_of(monkeypatch, survives, "pending-bit", world="pti", assume={"D": "directmap"}) == [
        ("pti", *purge, [case("directmap")])
    ]
    assert asks_of(monkeypatch, survives, "pending-bit", world="pti", assume={"N": "recycled"}, nmis=0) == [
        ("pti", *purge, [case("recycled"), case()])
    ]
    tables = [case(range="full"), case(range="pages")]
    assert asks_of(monkeypatch, verdict(), "ipi", world="pti") == [
        ("pti", *purge, [case()]), ("pti", "table_free", 2, tables)
    ]  # fmt: skip
    text = [case(T="noinstr"), case(T="danger"), case(T="instr")]
    assert asks_of(monkeypatch, verdict(), "text-defer-v7", world="nopti") == [
        ("nopti", "text_poke", 1, text), ("nopti", "text_poke", 1, text)
    ]  # fmt: skip


def test_forms_of_what_does_nothing_are_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    edited(monkeypatch, verdict(inert=("pti", "rar"), world="nopti"))
    with pytest.raises(tc.CheckError, match=r"^ipi is inert in world nopti: it needs pti, rar$"):
        edits._edited(IPI, {}, None)


NEED = {
    "section": "purge", "place": "f:1", "what": "no `fence`", "status": "violated", "rule": "S5",
    "supplied_by": "IRET", "states": 3,
}  # fmt: skip


def test_what_is_needed_is_what_is_violated_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = edited(monkeypatch, verdict())
    rows = [NEED, {**NEED, "status": "verified", "rule": None}, {**NEED, "status": "inconclusive"}]
    monkeypatch.setattr(_core, "check_necessary", lambda *_: rows)
    needs = tc.necessary("ipi", world="pti")
    assert [row.needed for row in needs] == [True, False, False]
    assert needs[0] == Need(needed=True, **NEED)
    assert (needs.policy, needs.sentence) == (IPI, "As it is.")
    assert repr(needs) == "<Needs of ipi: 1 of 3 needed>"
    assert [bounds for _, bounds in calls] == [{"world": "pti"}]
    for status in ("violated", "inconclusive"):
        edited(monkeypatch, verdict(status))
        with pytest.raises(
            tc.CheckError, match=rf"^ipi is {status} to begin with: nothing can be shown needed$"
        ):
            tc.necessary("ipi")


COST = Cost(machine="m", syscall_extra_ns=1.0, nmi_extra_ns=2.0, deferred=0.5, ipis=3.0)


def test_a_repair_is_what_passes_the_whole_check(monkeypatch: pytest.MonkeyPatch) -> None:
    fixes = [tc.policies[name] for name in ("ct-late", "pending-bit", "fancy-state")]
    found = [
        {"text": p.text, "edits": [f"e{n}", "f"], "verdict": "v", "states": n} for n, p in enumerate(fixes)
    ]
    asked: list[Any] = []

    def check_repair(asks: Any, most: int, progress: Any) -> Any:
        asked.append(most)
        return found

    monkeypatch.setattr(_core, "check_repair", check_repair)
    monkeypatch.setattr(
        edits, "cost_of", lambda policy, machine: replace(COST, machine=f"{policy.name} {machine}")
    )
    judged = (verdict(hypothesis=verdict("inconclusive")), verdict("inconclusive"), verdict())
    calls = edited(monkeypatch, verdict("violated"), *judged)
    repairs = tc.repair("ipi", edits=3, machine="zen4-epyc", nmis=1)
    assert asked == [3]
    assert list(repairs) == [
        Repair(
            edits=(f"e{n}", "f"), policy=tc.Policy(text=fixes[n].text), verdict="v", states=n, hypothesis=hypothesis,
            cost=replace(COST, machine=f"{fixes[n].name} zen4-epyc"),
        )
        for n, hypothesis in ((0, "inconclusive"), (2, None))
    ]  # fmt: skip
    assert (repairs.policy, repairs.edits, repairs.machine, repairs.sentence) == (
        IPI,
        3,
        "zen4-epyc",
        "As it is.",
    )
    assert repr(repairs) == "<Repairs of ipi: 2 with at most 3 edits>"
    assert [bounds for _, bounds in calls] == [{"nmis": 1}] * 4
    edited(monkeypatch, verdict("inconclusive"))
    found.clear()
    assert len(tc.repair("ipi")) == 0
    assert asked == [3, 2], "two edits unless said otherwise"
    edited(monkeypatch, verdict())
    with pytest.raises(
        tc.CheckError, match=r"^ipi is verified within these bounds: there is nothing to repair$"
    ):
        tc.repair("ipi")


# -- results of tables -------------------------------------------------------------------------------------------


def test_repairs_are_a_table_with_their_costs() -> None:
    repair = Repair(edits=("a", "b"), policy=IPI, verdict="v", states=4, hypothesis=None, cost=COST)
    repairs = Repairs(
        policy=IPI, edits=2, machine="m", sentence="s", rows=(repair, replace(repair, hypothesis="h"))
    )
    rows = repairs.tables["rows"]
    assert {name: rows[name].tolist() for name in rows} == {
        "edits": ["a; b", "a; b"], "verdict": ["v", "v"], "states": [4, 4], "hypothesis": ["", "h"],
        "policy_text": [IPI.text, IPI.text], "syscall_extra_ns": [1.0, 1.0], "nmi_extra_ns": [2.0, 2.0],
        "deferred": [0.5, 0.5], "ipis": [3.0, 3.0],
    }  # fmt: skip
    assert repairs._units() == {"syscall_extra_ns": "ns", "nmi_extra_ns": "ns", "deferred": "1", "ipis": "1"}
    about = {"policy": "ipi", "policy_text": IPI.text, "sentence": "s", "version": tc.__version__}
    assert repairs._about() == {**about, "edits": 2, "machine": "m"}
    none = replace(repairs, rows=()).tables["rows"]
    assert {len(none[name]) for name in none} == {0}
    needs = Needs(policy=IPI, sentence="s", rows=(Need(needed=True, **NEED),))
    assert needs._about() == about
    assert {name: needs.tables["rows"][name].tolist() for name in ("what", "needed", "states")} == {
        "what": ["no `fence`"], "needed": [True], "states": [3],
    }  # fmt: skip


def test_tables_know_their_rows_and_version() -> None:
    cell = Cell(policy="p", world="w", linux="6.12", status="verified", nmi="verified")
    for found, name in (
        (VerdictTable(rows=(ROW, ROW)), "VerdictTable"),
        (WorldTable(rows=(cell, cell)), "WorldTable"),
    ):
        assert repr(found) == f"<{name} of 2 verdicts>"
        assert found._about() == {"version": tc.__version__}
        assert len(found.tables["rows"]["policy"]) == 2
        assert found[0] in (ROW, cell)
    assert str(WorldTable(rows=(cell,))).splitlines()[2] == "p ok"


def test_no_row_and_no_table_changes() -> None:
    need, cell = Need(needed=True, **NEED), Cell(policy="p", world="w", linux="6.12")
    repair = Repair(edits=(), policy=IPI, verdict="v", states=4, hypothesis=None, cost=COST)
    rows = (need, cell, repair, ROW)
    tables = (
        Needs(policy=IPI, sentence="s", rows=(need,)), VerdictTable(rows=(ROW,)), WorldTable(rows=(cell,)),
        Repairs(policy=IPI, edits=2, machine="m", sentence="s", rows=(repair,)),
    )  # fmt: skip
    for found, name in [*((row, "states") for row in rows), *((each, "rows") for each in tables)]:
        with pytest.raises(AttributeError, match=f"cannot assign to field '{name}'"):
            setattr(found, name, None)
        with pytest.raises(TypeError, match=r"positional arguments? but"):
            type(found)(*vars(found).values())
