"""A counterexample in its other forms: what holds after a move, keys in a terminal, a diagram, a mail."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import checker
from tlbcore._output.interleaving.diagram import svg
from tlbcore._output.interleaving.held import held, states
from tlbcore._output.interleaving.terminal import Steps, _named
from tlbcore.cli import main

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert(1)</script>\x1b[31m‮"&'


@pytest.fixture(scope="module")
def run() -> tc.Counterexample:
    found = tc.check("coalesce-v7").counterexample
    assert found is not None
    return found


@pytest.fixture(scope="module")
def with_ipi() -> tc.Counterexample:
    found = tc.check("ipi").counterexample
    assert found is not None
    return found


def step(number: int, cpu: int, what: str, *changes: str) -> checker.Step:
    return checker.Step(number=number, cpu=cpu, what=what, source=None, changes=changes, shown=True)


def test_stores_leave_a_buffer_in_order_and_what_is_dropped_is_gone():
    steps = [
        step(1, 1, "a = 1", "buffer1: a=1"),
        step(2, 1, "b = 2", "buffer1: b=2"),
        step(3, 1, "(store visible)", "a=1"),
        step(4, 1, "(walk caches k)", "tlb1: k:v1", "upper1: k:t1"),
        step(5, 1, "invlpg k", "tlb1: -k"),
        step(6, 1, "free table k", "k: t0 is free", "reads 3"),
        step(7, 0, "ipi targets", "IPI to cpu 1"),
        step(8, 1, "(interrupt)"),
    ]
    changes = states(steps)
    assert changes == [
        [("cpu 1 store buffer", "a=1")],
        [("cpu 1 store buffer", "a=1; b=2")],
        [("cpu 1 store buffer", "b=2"), ("a", "1")],
        [("cpu 1 TLB: k", "v1"), ("cpu 1 paging-structure cache: k", "t1")],
        [("cpu 1 TLB: k", None)],
        [("k relied on", "t0 is free")],
        [("cpu 1 interrupt", "waiting for it")],
        [("cpu 1 interrupt", None)],
    ]
    assert held(changes, -1) == {}
    assert held(changes, 2) == {"cpu 1 store buffer": ("b=2", True), "a": ("1", True)}
    assert "cpu 1 TLB: k" not in held(changes, 4)
    assert held(changes, 6)["cpu 1 interrupt"] == ("waiting for it", True)
    assert "cpu 1 interrupt" not in held(changes, 7)


def test_keys_go_from_shown_move_to_shown_move(run):
    at = Steps(run)
    shown = [s.number for s in run.steps if s.shown]

    def number() -> int:
        return run.steps[at.now].number

    assert number() == shown[0] == 6
    at.press("n")
    assert number() == shown[1] == 7
    at.press("p")
    at.press("p")
    assert number() == 6, "there is nothing before the first"
    at.press("G")
    assert number() == 45
    at.press("n")
    assert number() == 45, "nor behind the last"
    at.press("30")
    assert number() == 26, "the last shown move that is not later"
    at.press("a")
    at.press("n")
    assert number() == 27
    at.press("g")
    assert number() == 1
    assert not at.press("x")


def test_a_screen_has_the_move_its_place_and_what_holds(run):
    at = Steps(run)
    at.press("G")
    lines = at.screen(80)
    assert lines[0] == "stale_access (reused): move 45 of 45"
    assert max(map(len, lines)) <= 80
    assert any(re.fullmatch(r">\s*45 +body syscall", line) for line in lines)
    text = "\n".join(lines)
    assert "arch/x86/entry/common.c" in text
    # Worked out by hand from the run in the README.
    for name, value in (
        ("cpu 1 store buffer", "kernel_cr3_loaded[1]=1"),
        ("cpu 1 TLB: va", "v1"),
        ("pte va", "v3"),
        ("cpu 1 CR3", "kernel"),
    ):
        assert re.search(rf"^    {re.escape(name)} +{re.escape(value)}$", text, re.M), name
    assert "its TLB still holds it" in " ".join(text.split())
    at.press("7")
    assert any(line.split() == ["*", "cpu", "1", "store", "buffer", "empty"] for line in at.screen(80))


def test_arrows_and_numbers_are_one_key():
    stream = io.StringIO("n12\n \x1b[C\x1b[D\x1b[1~\x1bOFq\n3")
    pressed = list(_named(lambda: stream.read(1)))
    assert pressed == ["n", "12", "n", "n", "p", "g", "G", "q", "n", "3"]


def test_keys_from_a_pipe(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\nG\nq\nn\n"))
    assert main(["check", "coalesce-v7", "--step"]) == 1
    heads = re.findall(r"move (\d+) of 45", capsys.readouterr().out)
    assert heads == ["6", "7", "45"], "what stands behind q is not read"


def test_the_end_of_a_pipe_ends_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["check", "coalesce-v7", "--step"]) == 1
    assert capsys.readouterr().out.count("move ") >= 1


def test_a_terminal_is_put_back_as_it_was():
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tlbcore", "check", "coalesce-v7", "--step"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    ) as child:  # fmt: skip
        import termios

        before = termios.tcgetattr(theirs)
        shown = b""
        while b"q end" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"\x1b[C")
        while b"move 7 of 45" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"q")
        assert child.wait(timeout=60) == 1
        assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


def test_what_is_verified_has_no_run(capsys, tmp_path):
    file = tmp_path / "x.svg"
    assert main(["check", "coalesce-v7-fixed", "--svg", str(file)]) == 0
    said = capsys.readouterr()
    assert "coalesce-v7-fixed is verified: there is no run to draw" in said.err
    assert not file.exists()
    assert main(["check", "coalesce-v7-fixed", "--step"]) == 0
    assert "no run to step through" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["coalesce-v7", "--json", "--step"], "give one"),
        (["coalesce-v7", "--mail", "--step"], "give one"),
        (["--all", "--svg", "x"], "--svg: of one verdict"),
        (["ipi", "--necessary", "--mail"], "--mail: of one verdict"),
        (["coalesce-v7", "--svg", "/nowhere/x.svg"], "/nowhere/x.svg: no such file or directory"),
    ],
)
def test_forms_that_exclude_each_other_are_refused(words, message, capsys):
    assert main(["check", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_diagram_has_every_shown_move_in_its_lane(run, tmp_path):
    file = tmp_path / "run.svg"
    assert main(["check", "coalesce-v7", "--svg", str(file)]) == 1
    root = ET.fromstring(file.read_text())
    numbers = [t.text for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "end"]
    shown = [s for s in run.steps if s.shown]
    assert numbers == [str(s.number) for s in shown]
    boxes = [r for r in root.iter(f"{SVG}rect") if r.get("rx")]
    assert [int(r.get("x", "")) < 200 for r in boxes] == [s.cpu == 0 for s in shown]
    assert [r.get("class") for r in boxes].count("broken") == 1
    assert boxes[-1].get("class") == "broken"
    arrows = [p for p in root.iter(f"{SVG}path") if p.get("class") == "arrow"]
    # Stores that became visible in moves 7, 25 (locked) and 44, and the read of move 31.
    assert len(arrows) == 4
    words = " ".join(t.text or "" for t in root.iter(f"{SVG}text"))
    assert "its TLB still holds it" in words
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.read_text())
    every = ET.fromstring(run.to_svg(every=True))
    assert sum(t.get("text-anchor") == "end" for t in every.iter(f"{SVG}text")) == 45


def test_an_ipi_is_an_arrow_from_who_sends_to_the_interrupt(with_ipi):
    root = ET.fromstring(with_ipi.to_svg())
    (arrow,) = [p for p in root.iter(f"{SVG}path") if p.get("class") == "arrow ipi"]
    (x0, y0), (x1, y1) = re.findall(r"(\d+) (\d+)", arrow.get("d", ""))
    assert int(x0) < int(x1), "from cpu 0 to cpu 1"
    assert int(y0) < int(y1), "time goes downwards"


def test_a_diagram_keeps_strangers_names_as_text(run):
    import dataclasses

    bad = dataclasses.replace(run.steps[-1], what=HOSTILE, changes=(HOSTILE,))
    found = dataclasses.replace(run, steps=(*run.steps[:-1], bad), closing=HOSTILE, lanes=(HOSTILE, HOSTILE))
    text = svg(found, HOSTILE)
    root = ET.fromstring(text)
    assert "<script" not in text
    assert not any(ord(char) < 32 and char != "\n" for char in text)
    assert "\\u202e" in text
    assert not list(root.iter(f"{SVG}script"))


def test_a_mail_is_ascii_of_72_columns_and_says_how_to_see_it_again(capsys, run):
    assert main(["check", "coalesce-v7", "--nmis", "1", "--assume", "D=none", "--mail"]) == 1
    text = capsys.readouterr().out
    assert text.isascii()
    assert max(map(len, text.split("\n"))) <= 72
    assert text.startswith("Subject: coalesce-v7: violated (")
    assert "  tlbcore check coalesce-v7 --nmis 1 --assume D=none\n" in text
    assert f"tlbcore {tc.__version__}" in text
    verdict = tc.check("coalesce-v7", nmis=1, assume={"D": "none"})
    assert verdict.counterexample is not None
    schedule = text.split("carries it out:\n")[1].split()
    assert " ".join(schedule) == verdict.counterexample.schedule
    for line in verdict.counterexample.text.strip().split("\n"):
        assert line in text, "the lanes stand in it as they are printed"
    assert "(linux.kernel" not in text.split("\n")[0]
    assert tc.check("coalesce-v7-fixed").to_mail().startswith("Subject: coalesce-v7-fixed: verified\n")


def test_a_notebook_draws_a_counterexample(run):
    assert run._repr_svg_() == run.to_svg()


def test_a_file_that_cannot_be_written_is_named(run):
    with pytest.raises(OSError, match="nowhere"):
        run.to_svg(Path("/nowhere/x.svg"))
