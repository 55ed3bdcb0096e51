"""What a verdict says of itself, of made-up ones: text, tables, exit statuses, cells of the table of worlds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import tlbcore as tc
from tlbcore import _core, checker
from tlbcore.checker import verdict as verdicts
from tlbcore.cli import main
from tlbcore.verdicts import Cell, Need, Row, VerdictTable, WorldTable

DEAD = "a CPU held a dead translation"
STALE = "a CPU had fetched text that a sync made dead"


def run(**changes: Any) -> tc.Counterexample:
    usual = {
        "rule": "stale_access", "schedule": "0 1", "steps": (), "lanes": ("CPU 0",), "closing": "It went wrong.",
        "text": "the run\n", "kernel": "Linux 6.12", "assume": {"N": "none"}, "_request": {}, "_store_buffer": 2,
    }  # fmt: skip
    return tc.Counterexample(**(usual | changes))


def made_up(**changes: Any) -> tc.Verdict:
    usual = {
        "policy": "p", "status": "verified", "sentence": "Nothing breaks.", "world": "pti", "inert": (),
        "assume": {"D": "none", "N": "none", "T": "kept"}, "states": 12, "transitions": 34, "depth": 5,
        "counterexample": None, "grade": None, "witnesses": {}, "wrong_gs": None, "bits_per_cpu": (3, 4),
        "bits_shared": 7,
    }  # fmt: skip
    return tc.Verdict(**(usual | changes))


VIOLATED = {"status": "violated", "counterexample": run(), "grade": "window exists"}
ASKED = "purges of vmalloc"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "p: verified\n\nNothing breaks."),
        ({"inert": ("rar",)}, "p: verified, inert in world pti\n\nNothing breaks."),
        (
            {"witnesses": {"a": True, "b": False, "c": False}},
            "p: verified\n\nNothing breaks.\n\nNever seen within these bounds: b; c.",
        ),
        (
            {"status": "inconclusive", "witnesses": {"b": False}},
            "p: inconclusive\n\nNothing breaks.",
        ),
        (
            VIOLATED,
            "p: violated (window exists)\n\nthe run\n\nNothing breaks.\n\n"
            "Assumption core: nothing beyond the interleaving.",
        ),
        (
            {**VIOLATED, "core": ("x", "y")},
            "p: violated (window exists)\n\nthe run\n\nNothing breaks.\n\nAssumption core: x; y.",
        ),
        (
            {"wrong_gs": "0 1"},
            "p: verified\n\nNothing breaks.\n\nBeside the verdict: a %gs-relative access happens while GSBASE is "
            "the\nuser's (wrong_gs_access, S8); `--assume gs=faults` prints how.",
        ),
        (
            {"hypothesis": made_up(**VIOLATED)},
            "p: verified\n\nNothing breaks.\n\nIf a future change touched recycled memory on the entry and "
            "exit paths:\nviolated: stale_access (`--assume D=recycled`).",
        ),
        (
            {"hypothesis": made_up()},
            "p: verified\n\nNothing breaks.\n\nIf a future change touched recycled memory on the entry and "
            "exit paths:\nverified (`--assume D=recycled`).",
        ),
        ({"cases": (made_up(),)}, "p: verified\n\nNothing breaks."),
        (  # of one world and question: what is assumed
            {
                "cases": (
                    made_up(assume={"D": "none", "N": "none", "x": "y"}),
                    made_up(assume={"D": "none", "N": "recycled"}, implied=True),
                    made_up(assume={"T": "kept", "D": "none"}, **VIOLATED),
                )
            },
            "p: verified\n\nNothing breaks.\n\n"
            "  D=none, N=none           verified, 12 states\n"
            "  D=none, N=recycled       verified, implied by a harsher one\n"
            "  T=kept                   violated: stale_access, 12 states",
        ),
        (  # of two questions in two worlds
            {
                "cases": (
                    made_up(asked=ASKED, assume={"range": "full"}),
                    made_up(asked=ASKED, assume={}, world="nopti"),
                    made_up(asked="syncs", assume={}),
                )
            },
            "p: verified\n\nNothing breaks.\n\n"
            "  purges of vmalloc\n"
            "  pti, range=full          verified, 12 states\n"
            "  nopti                    verified, 12 states\n"
            "  syncs\n"
            "  pti                      verified, 12 states",
        ),
    ],
)  # fmt: skip
def test_a_verdict_in_words(changes: dict[str, Any], said: str) -> None:
    assert str(made_up(**changes)) == said


def test_a_verdict_is_no_truth_value_and_names_its_rule() -> None:
    with pytest.raises(TypeError, match=r"compare \.status"):
        bool(made_up())
    assert made_up().rule is None
    assert made_up(**VIOLATED).rule == "stale_access"
    assert repr(made_up()) == "<Verdict p: verified, 12 states>"
    assert repr(run(steps=(1, 2))) == "<Counterexample stale_access in 2 moves>"  # type: ignore[arg-type]
    for witnesses, held in (
        ({}, False),
        ({DEAD: False, STALE: False}, False),
        ({DEAD: True}, True),
        ({STALE: True}, True),
    ):
        assert made_up(witnesses=witnesses).residency is held


def test_what_a_verdict_could_not_run_is_named_world_by_world() -> None:
    cases = (made_up(inert=("rar",)), made_up(world="nopti", inert=("pti", "rar")), made_up(world="other"))
    assert made_up(cases=cases)._inert() == ["p in world pti needs rar", "p in world nopti needs pti, rar"]
    assert made_up(inert=("rar",))._inert() == ["p in world pti needs rar"]
    assert made_up()._inert() == []


def test_the_table_of_a_verdict_has_its_cases_or_itself() -> None:
    alone = made_up()._tables()
    assert set(alone) == {"cases"}
    assert alone["cases"]["states"].tolist() == [12]
    assert alone["cases"]["depth"].tolist() == [5]
    both = made_up(cases=(made_up(states=1), made_up(states=2, implied=True, **VIOLATED)))._tables()["cases"]
    assert both["states"].tolist() == [1, 2]
    assert both["implied"].tolist() == [False, True]
    assert both["rule"].tolist() == ["", "stale_access"]
    step = tc.checker.Step(number=1, cpu=1, what="w", source=None, changes=("c",), shown=True)
    steps = made_up(counterexample=run(steps=(step,)), status="violated")._tables()["counterexample"]
    assert (steps["number"].tolist(), steps["what"].tolist()) == ([1], ["w"])


def test_times_of_the_timed_engine_are_in_nanoseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = ("stale_access", 1_234_500, 7, None)
    monkeypatch.setattr(_core, "check_replay_timed", lambda *_: timed)
    monkeypatch.setattr(_core, "check_replay", lambda *_: "stale_access")
    assert run().replay_timed() == verdicts.TimedReplay(
        rule="stale_access", time_ns=1234.5, moves=7, why_not=None
    )
    assert run().replay() == "stale_access"
    timed = ("freed_table_walk", 0, 7, None)
    with pytest.raises(tc.CheckError, match="rule is 'stale_access', the timed engine's 'freed_table_walk'"):
        run().replay()
    timed = (None, 0, 7, None)
    with pytest.raises(tc.CheckError, match="the timed engine's None"):
        run().replay()
    timed = (None, 0, 0, "user memory")
    assert run().replay() == "stale_access", "what it has no equivalent of it sits out"


# status, known, nmi, nmi_known, inert, and the word.
CELLS = [
    ("verified", "verified", "verified", "verified", "", "ok"),
    ("verified", "verified", "violated", "violated", "", "nmi"),
    ("verified", "verified", "violated", "verified", "", "nmi*"),
    ("verified", "verified", "inconclusive", "verified", "", "?"),
    ("inconclusive", "verified", "inconclusive", "verified", "", "?"),
    ("violated", "violated", "violated", "violated", "", "bad"),
    ("violated", "verified", "violated", "violated", "", "bad*"),
    # Where a limit was met, the star would say more than is known.
    ("violated", "inconclusive", "violated", "inconclusive", "", "bad?"),
    ("verified", "verified", "violated", "inconclusive", "", "nmi?"),
    ("inconclusive", "inconclusive", "violated", "violated", "", "nmi?"),
    ("inconclusive", "verified", "violated", "verified", "", "nmi?"),
    ("violated", "violated", "violated", "violated", "rar", "-"),
]


@pytest.mark.parametrize(("status", "known", "nmi", "nmi_known", "inert", "word"), CELLS)
def test_a_cell_is_the_worst_that_is_known(status, known, nmi, nmi_known, inert, word) -> None:
    cell = Cell(
        policy="p", world="w", linux="6.12", status=status, known=known, nmi=nmi, nmi_known=nmi_known, inert=inert
    )  # fmt: skip
    assert cell.word == word


# The command, with made-up answers.


@pytest.mark.parametrize(("answer", "status"), [({}, 0), (VIOLATED, 1), ({"status": "inconclusive"}, 3)])
@pytest.mark.parametrize("form", [[], ["--json"], ["--mail"]])
def test_the_exit_status_is_the_verdict_s(answer, status, form, monkeypatch, capsys) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(checker, "check", lambda _, **bounds: seen.update(bounds) or made_up(**answer))
    assert main(["check", "ipi", *form]) == status
    text = capsys.readouterr().out
    assert ("No NMI in this scope; --nmis 1 adds one." in text) is (form == [])
    if form == ["--json"]:
        document = json.loads(text)
        assert (document["schema"], document["version"]) == ("tlbcore.check", 1)
        assert document["status"] == made_up(**answer).status
    assert main(["check", "ipi", "--nmis", "1"]) == status
    assert "No NMI" not in capsys.readouterr().out
    assert (seen["nmis"], seen["reduce"], seen["confirm"]) == (1, True, None)


ROW = Row(
    policy="p", world="pti", defers="flush", cpus=2, nmis=0, asids=1, danger="none", bodies="none", text="kept",
    invpcid="ordered", status="verified", rule=None, states=1, unseen=(), stated="verified",
)  # fmt: skip


@pytest.mark.parametrize(
    ("stated", "status"),
    [(["verified", None], 0), (["verified", "violated"], 1), (["inconclusive", "violated"], 1)],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_table_that_differs_from_the_stated_one_has_status_one(
    stated, status, form, monkeypatch, capsys
) -> None:
    rows = tuple(replace(ROW, policy=f"p{i}", stated=one) for i, one in enumerate(stated))
    cell = Cell(policy="p", world="pti", linux="6.12", status="verified", nmi="verified")
    cells = (cell, replace(cell, policy="q"), replace(cell, policy="r", inert="rar"))
    monkeypatch.setattr(checker, "verdict_table", lambda **_: VerdictTable(rows=rows))
    monkeypatch.setattr(checker, "world_table", lambda **_: WorldTable(rows=cells))
    assert main(["check", "--all", *form]) == status
    text = capsys.readouterr().out
    wrong = [row for row in rows if row.stated not in (None, "verified")]
    if form:
        document = json.loads(text)
        assert (document["schema"], document["differing"]) == ("tlbcore.verdicts", len(wrong))
        assert (len(document["rows"]), len(document["cells"])) == (2, 3)
    else:
        for row in wrong:
            assert f"{row.policy}, pti: verified, and the policy table states {row.stated}\n" in text
        assert text.endswith(f"\n6 verdicts, {len(wrong)} differ from the policy table\n"), (
            "2 rows, 2 cells twice"
        )


def test_what_is_needed_is_counted(monkeypatch, capsys) -> None:
    need = Need(
        section="purge", place="f:1", what="fence", needed=True, status="violated", rule="stale_access",
        supplied_by="IRET", states=3,
    )  # fmt: skip
    needs = [
        need,
        replace(need, supplied_by=""),
        replace(need, needed=False, status="verified", rule=None),
        replace(need, needed=False, status="inconclusive", rule=None, supplied_by=""),
    ]
    monkeypatch.setattr(checker, "necessary", lambda *_, **__: needs)
    assert main(["check", "ipi", "--necessary"]) == 0
    head = "purge, f:1: fence\n    "
    assert capsys.readouterr().out == (
        f"{head}needed: stale_access [today: IRET]\n{head}needed: stale_access\n"
        f"{head}not needed within these bounds\n{head}inconclusive\n\n2 of 4 needed\n"
    )
