"""`tlbcore check`: what reaches the checker, what is printed and what is refused. Answers are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_verdict_words import ROW, VIOLATED, made_up, run

import tlbcore as tc
from tlbcore import checker
from tlbcore.checker.worlds import cell_of
from tlbcore.cli import main
from tlbcore.verdicts import Cell, Need, Row, VerdictTable, WorldTable

USUAL = {
    "nmis": None, "cpus": 2, "mces": 0, "asids": 1, "pages": 1, "entries": 2, "rounds": 1, "assume": {}, "roles": "",
    "world": "", "reduce": True, "confirm": None, "threads": None, "memory": 1 << 30,
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the checker was asked; it answers with what stands under `answer`."""
    seen: dict[str, Any] = {"answer": {}}

    def check(policy: Any, **bounds: Any) -> tc.Verdict:
        seen.update(bounds, policy=policy)
        return made_up(**seen["answer"])

    def necessary(policy: Any, **bounds: Any) -> tuple[Need, ...]:
        seen.update(bounds, policy=policy)
        return (NEED,)

    monkeypatch.setattr(checker, "check", check)
    monkeypatch.setattr(checker, "necessary", necessary)
    return seen


NEED = Need(
    section="purge", place="f:1", what="fence", needed=True, status="violated", rule="stale_access",
    supplied_by="IRET", states=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ([], {}),
        (["--cpus", "3"], {"cpus": 3}),
        (["--nmis", "0"], {"nmis": 0}),
        (["--nmis", "2"], {"nmis": 2}),
        (["--mces", "1"], {"mces": 1}),
        (["--asids", "2"], {"asids": 2}),
        (["--pages", "3"], {"pages": 3}),
        (["--entries", "unbounded"], {"entries": "unbounded"}),
        (["--entries", "-1"], {"entries": -1}),
        (["--rounds", "4"], {"rounds": 4}),
        (["--assume", "D=none", "--assume", "N=none"], {"assume": {"D": "none", "N": "none"}}),
        (["--assume", "D=none", "--assume", "D=none"], {"assume": {"D": "none"}}),
        (["--assume", "a=b=c"], {"assume": {"a": "b=c"}}),
        (["--roles", "purge"], {"roles": "purge", "cpus": None, "entries": None, "rounds": None}),
        (["--world", "nopti"], {"world": "nopti"}),
        (["--no-reduce"], {"reduce": False}),
        (["--confirm"], {"confirm": True}),
        (["--no-confirm"], {"confirm": False}),
        (["--threads", "1"], {"threads": 1}),
        (["--memory", "512k"], {"memory": 512 << 10}),
        (["--memory", "3M"], {"memory": 3 << 20}),
        (["--memory", "4096"], {"memory": 4096}),
    ],
)
def test_every_option_reaches_the_checker(
    words: list[str], changes: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert main(["check", "ipi", "--memory", "1G", *words]) == 0
    assert asked["policy"] == "ipi"
    assert {name: asked.get(name) for name in USUAL} == USUAL | changes


def test_a_policy_stands_on_the_version_and_the_paths_that_are_named(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    main(["check", "ipi", "--kernel-version", "7.3"])
    assert asked["policy"] == tc.policies["ipi"].on("7.3")
    text = tmp_path / "own.kernel"
    text.write_text((Path(__file__).parents[1] / "data" / "linux-6.12.117.kernel").read_text())
    main(["check", "ipi", "--kernel", str(text)])
    assert asked["policy"] == tc.policies["ipi"].on(text)


@pytest.mark.parametrize(
    ("words", "again"),
    [
        ([], ""),
        (["--nmis", "1", "--memory", "1G", "--threads", "1"], " --nmis 1"),
        (["--assume", "D=none", "--assume", "N=none"], " --assume D=none --assume N=none"),
        (["--no-reduce"], " --no-reduce"),
        (["--confirm"], " --confirm"),
        (["--reduce", "--no-confirm"], " --reduce --no-confirm"),
        (["--roles", "purge; isolated 2"], " --roles 'purge; isolated 2'"),
        (["--kernel-version", "7.3"], " --kernel-version 7.3"),
        (["--html", "x.html", "--svg", "x.svg"], ""),
    ],
)
def test_a_mail_has_the_command_without_its_form_and_its_resources(
    words: list[str], again: str, asked: dict[str, Any], capsys, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "ipi", "--mail", *words]) == 0
    lines = capsys.readouterr().out.split("\n")
    at = lines.index(f"To see it again (tlbcore {tc.__version__}):")
    assert lines[at + 1 : at + 3] == ["", f"  tlbcore check ipi{again}"]


def test_a_report_ends_with_its_words_if_asked(asked: dict[str, Any], capsys) -> None:
    head = "Words (`tlbcore words` has all)"
    main(["check", "ipi"])
    assert (
        capsys.readouterr().out
        == "p: verified\n\nNothing breaks.\n\nNo NMI in this scope; --nmis 1 adds one.\n"
    )
    main(["check", "ipi", "--nmis", "1"])
    assert capsys.readouterr().out == "p: verified\n\nNothing breaks.\n"
    main(["check", "ipi", "--nmis", "1", "--legend"])
    assert capsys.readouterr().out.startswith(f"p: verified\n\nNothing breaks.\n\n{head}\n")


@pytest.mark.parametrize(
    ("answer", "form", "said", "svg"),
    [
        ({}, ["--svg"], "p is verified: there is no run to draw", False),
        ({}, ["--step"], "p is verified: there is no run to step through", False),
        (
            {"status": "inconclusive"},
            ["--step", "--svg"],
            "p is inconclusive: there is no run to step through or draw",
            False,
        ),
        ({}, [], "", False),
        (VIOLATED, ["--svg"], "", True),
        (VIOLATED, [], "", False),
    ],
)
def test_a_drawing_is_of_a_run_and_its_lack_is_said(
    answer, form, said, svg, asked: dict[str, Any], capsys, tmp_path
) -> None:
    step = checker.Step(number=1, cpu=0, what="w", source=None, changes=(), shown=True)
    if answer is VIOLATED:
        answer = VIOLATED | {"counterexample": run(steps=(step, step))}
    asked["answer"] = answer
    file = tmp_path / "x.svg"
    main(
        ["check", "ipi", *(word for one in form for word in ([one, str(file)] if one == "--svg" else [one]))]
    )
    assert capsys.readouterr().err == (f"tlbcore: {said}\n" if said else f"{file}: written\n" if svg else "")
    assert file.exists() is svg
    if svg:
        assert "p: stale_access in 2 moves" in file.read_text()


def test_a_page_is_written_beside_each_form(asked: dict[str, Any], capsys, tmp_path) -> None:
    for form in ([], ["--json"], ["--mail"]):
        file = tmp_path / "x.html"
        assert main(["check", "ipi", "--html", str(file), *form]) == 0
        assert capsys.readouterr().err == f"{file}: written\n"
        assert "Nothing breaks." in file.read_text()
        file.unlink()


ONE_LEGEND = "--legend explains the words of the report: leave --json, --mail, --step and --necessary out"
EMPTY = (
    "--world is a set of features such as nopti+invlpgb; left out, every one that matters is asked about: got"
)
ONE_FORM = "--json, --mail and --step each print it their way: give one"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a policy, or ask for --all"),
        (["--all", "ipi"], "--all checks every policy: leave the policy and --necessary out"),
        (["--all", "--necessary"], "--all checks every policy: leave the policy and --necessary out"),
        (["--all", "--html", "x"], "--html: of one verdict, and --all is a table"),
        (["--all", "--svg", "x"], "--svg: of one verdict, and --all is a table"),
        (["--all", "--mail", "--step"], "--mail, --step: of one verdict, and --all is a table"),
        (["--all", "--cpus", "2"], "--all has its own bounds: leave --cpus out"),
        (["--all", "--kernel-version", "7.4"], "--kernel-version takes 6.12 or 7.3: got '7.4'"),
        (["ipi", "--json", "--mail"], ONE_FORM),
        (["ipi", "--json", "--step"], ONE_FORM),
        (["ipi", "--mail", "--step"], ONE_FORM),
        (["ipi", "--json", "--mail", "--step"], ONE_FORM),
        (["ipi", "--necessary", "--html", "x"], "--html: of one verdict, and --necessary asks about every op"),
        (["ipi", "--necessary", "--svg", "x"], "--svg: of one verdict, and --necessary asks about every op"),
        (["ipi", "--necessary", "--mail"], "--mail: of one verdict, and --necessary asks about every op"),
        (["ipi", "--necessary", "--step"], "--step: of one verdict, and --necessary asks about every op"),
        (["ipi", "--necessary", "--reduce"], "--necessary chooses its own search: leave --reduce out"),
        (["ipi", "--necessary", "--no-reduce"], "--necessary chooses its own search: leave --no-reduce out"),
        (["ipi", "--necessary", "--no-confirm", "--reduce"],
         "--necessary chooses its own search: leave --no-confirm and --reduce out"),
        (["--all", "--no-reduce", "--cpus", "2"], "--all has its own bounds: leave --cpus and --no-reduce out"),
        (["ipi", "--legend", "--json"], ONE_LEGEND),
        (["ipi", "--legend", "--mail"], ONE_LEGEND),
        (["ipi", "--legend", "--step"], ONE_LEGEND),
        (["ipi", "--legend", "--necessary"], ONE_LEGEND),
        (["--all", "--legend"], "--all has its own bounds: leave --legend out"),
        (["ipi", "--necessary", "--confirm"], "--necessary chooses its own search: leave --confirm out"),
        (["ipi", "--necessary", "--threads", "1"], "--necessary chooses its own search: leave --threads out"),
        (["ipi", "--no-reduce", "--confirm"], "--no-reduce leaves nothing to confirm: leave --confirm out"),
        (["ipi", "--no-reduce", "--no-confirm"], "--no-reduce leaves nothing to confirm: leave --no-confirm out"),
        (["ipi", "--world", ""], f"{EMPTY} ''"),
        (["ipi", "--world", " ", "--necessary"], f"{EMPTY} ' '"),
        (["ipi", "--world", "pti@6.12", "--kernel-version", "7.3"],
         "--kernel-version 7.3, and --world names Linux 6.12: leave one out"),
    ],
)  # fmt: skip
def test_what_leaves_nothing_to_say_is_refused(
    words: list[str], said: str, asked: dict[str, Any], capsys
) -> None:
    assert main(["check", *words]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"tlbcore: error: {said}\n")


def test_threads_are_at_least_one(asked: dict[str, Any], capsys) -> None:
    assert main(["check", "ipi", "--threads", "0"]) == 2
    assert capsys.readouterr().err == (
        "tlbcore: error: invalid value for '--threads': Input should be greater than or equal to 1: got '0'\n"
    )


def test_what_is_needed_as_json_and_within_which_bounds(asked: dict[str, Any], capsys) -> None:
    assert main(["check", "ipi", "--necessary", "--json", "--cpus", "3", "--memory", "1G"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": "tlbcore.necessary", "version": 1, "policy": "ipi",
        "ops": [{
            "section": "purge", "place": "f:1", "what": "fence", "needed": True, "status": "violated",
            "rule": "stale_access", "supplied_by": "IRET", "states": 3,
        }],
    }  # fmt: skip
    assert (asked["policy"], asked["cpus"], asked["memory"]) == ("ipi", 3, 1 << 30)
    assert main(["check", "ipi", "--necessary", "--json", "--kernel-version", "7.3"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "ipi"


def test_the_table_is_asked_within_the_memory_and_of_the_version(monkeypatch, capsys) -> None:
    seen: list[dict[str, Any]] = []
    row = Row(
        policy="p", world="pti", defers="flush", cpus=2, nmis=0, asids=1, danger="none", bodies="none", text="kept",
        invpcid="ordered", status="verified", rule=None, states=1, unseen=(), stated="violated",
    )  # fmt: skip
    cell = Cell(policy="p", world="pti", linux="7.3", status="verified", nmi="verified")
    monkeypatch.setattr(checker, "verdict_table", lambda **of: seen.append(of) or VerdictTable(rows=(row,)))
    monkeypatch.setattr(checker, "world_table", lambda **of: seen.append(of) or WorldTable(rows=(cell,)))
    assert main(["check", "--all", "--memory", "2G", "--kernel-version", "7.3", "--json"]) == 1
    assert [(of["memory"], of["linux"]) for of in seen] == [(2 << 30, "7.3")] * 2
    assert all(callable(of["progress"]) for of in seen)
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"], document["differing"]) == ("tlbcore.verdicts", 1, 1)
    assert document["rows"][0]["stated"] == "violated"
    assert document["cells"][0]["linux"] == "7.3"


def test_a_cell_that_is_inert_was_not_searched() -> None:
    cell = cell_of("coalesce-v7", "nopti", "6.12")
    assert (cell.inert, cell.status, cell.nmi, cell.known, cell.nmi_known, cell.states) == (
        "pti",
        "",
        "",
        "",
        "",
        0,
    )
    assert cell.word == "-"


@pytest.mark.parametrize(
    ("rows", "live", "inert", "searched"), [(0, 0, 1, 0), (1, 0, 2, 1), (1, 3, 1, 7), (3, 1, 0, 5)]
)
def test_a_row_is_one_verdict_and_a_cell_that_is_not_inert_two(
    rows: int, live: int, inert: int, searched: int, monkeypatch, capsys
) -> None:
    # The core's words are strings of their own, equal to those of the policy table and not the same objects.
    row = replace(ROW, status="".join(ROW.status))
    cell = Cell(policy="p", world="pti", linux="6.12", status="verified", nmi="verified")
    cells = [replace(cell, policy=f"p{i}") for i in range(live)]
    cells += [replace(cell, policy=f"q{i}", inert="rar") for i in range(inert)]
    monkeypatch.setattr(checker, "verdict_table", lambda **_: VerdictTable(rows=(row,) * rows))
    monkeypatch.setattr(checker, "world_table", lambda **_: WorldTable(rows=tuple(cells)))
    assert main(["check", "--all"]) == 0
    assert capsys.readouterr().out.endswith(f"\n{searched} verdicts, 0 differ from the policy table\n")


OWN = """policy own
  "A program that nothing uses."
  source "a test"

leave_me
  sti
"""


@pytest.mark.parametrize("command", ["check", "repair"])
@pytest.mark.parametrize("version", ["6.12", "7.3"])
def test_a_policy_stands_on_the_version_that_is_named(
    command: str, version: str, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file also where only `--roles` runs one of its programs, and where the world says the same."""

    def repair(policy: Any, **bounds: Any) -> tuple[()]:
        asked.update(bounds, policy=policy)
        return ()

    monkeypatch.setattr(checker, "repair", repair)
    main([command, "ipi", "--kernel-version", version, "--world", f"pti@{version}"])
    assert (asked["policy"].name, asked["policy"].linux) == ("ipi", version)
    file = tmp_path / "own.policy"
    file.write_text(OWN)
    main([command, str(file), "--kernel-version", version, "--roles", "purge; isolated leave_me"])
    assert (asked["policy"].name, asked["policy"].linux) == ("own", version)


def test_a_repair_is_printed_or_is_json(capsys) -> None:
    assert main(["repair", "coalesce-v7", "--json", "--show"]) == 2
    assert capsys.readouterr().err == "tlbcore: error: --json holds every repaired policy: leave --show out\n"
