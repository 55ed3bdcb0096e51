"""Forms of a run that was made up: every coordinate, line and key, worked out by hand from the sizes in the module."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import pytest

import tlbcore as tc
from tlbcore._output.interleaving.diagram import _is_read, _is_shared, svg
from tlbcore._output.interleaving.held import held, states
from tlbcore._output.interleaving.mail import _broken, _shell, mail, quoted
from tlbcore._output.interleaving.terminal import KEYS, Steps, _named, walk

SVG = "{http://www.w3.org/2000/svg}"


def step(number: int, cpu: int, what: str, *changes: str, shown: bool = True, source: str = "") -> Any:
    return SimpleNamespace(number=number, cpu=cpu, what=what, changes=changes, shown=shown, source=source)


def run(
    *steps: Any, closing: str = "The end.", lanes: tuple[str, ...] = ("cpu 0 alone", "cpu 1 isolated")
) -> Any:
    return SimpleNamespace(
        rule="stale_access",
        steps=steps,
        closing=closing,
        lanes=lanes,
        kernel="Linux 6.12",
        schedule="0:1 1:2",
    )


RUN = run(
    step(1, 0, "ipi targets", "IPI to cpu 1"),
    step(2, 1, "(interrupt)"),
    step(3, 1, "let r = a", "reads 0"),
    step(4, 1, "fence", shown=False),
    step(5, 0, "(store visible)", "a=1", "tlb0: k:v1"),
    step(6, 0, "a statement that is longer than the room", "k: v1 is dead", shown=False),
    closing=" ".join(["word"] * 25),
)


def elements(text: str, tag: str, *names: str) -> list[tuple[str | None, ...]]:
    return [
        (*(one.get(name) for name in names), *([one.text] if tag == "text" else []))
        for one in ET.fromstring(text).iter(f"{SVG}{tag}")
    ]


def test_a_diagram_has_each_thing_in_its_place() -> None:
    """Lanes are 230 wide behind 46; memory stands 40 behind them, changes 44 behind it; a line is 15 high.

    A box has 5 above and below its lines, and 6 between it and the next. 27 characters fit a box, 40 stand beside it
    and 114 below all. So the moves are at 60, 91, 122, 153 (two lines of changes) and 199, and lifelines end at 245.
    """
    drawn = svg(RUN)
    assert elements(drawn, "text", "x", "y", "class", "text-anchor") == [
        ("46", "22", "title", None, "stale_access in 6 moves"),
        ("161", "48", "head", "middle", "cpu 0 alone"),
        ("391", "48", "head", "middle", "cpu 1 isolated"),
        ("546", "48", "head", "middle", "memory"),
        ("590", "48", "head", None, "changed"),
        ("46", "265", None, None, " ".join(["word"] * 23)),
        ("46", "280", None, None, "word word"),
        ("38", "76", "quiet", "end", "1"),
        ("161", "76", None, "middle", "ipi targets"),
        ("590", "76", None, None, "IPI to cpu 1"),
        ("38", "107", "quiet", "end", "2"),
        ("391", "107", None, "middle", "(interrupt)"),
        ("38", "138", "quiet", "end", "3"),
        ("391", "138", None, "middle", "let r = a"),
        ("590", "138", None, None, "reads 0"),
        ("38", "169", "quiet", "end", "5"),
        ("161", "169", None, "middle", "(store visible)"),
        ("590", "169", None, None, "a=1"),
        ("590", "184", None, None, "tlb0: k:v1"),
        ("38", "215", "quiet", "end", "6"),
        ("161", "215", None, "middle", "a statement that is longer"),
        ("161", "230", None, "middle", "than the room"),
        ("590", "215", None, None, "k: v1 is dead"),
    ]
    assert elements(drawn, "rect", "class", "x", "y", "width", "height", "rx") == [
        (None, None, None, "100%", "100%", None),
        ("op", "54", "60", "214", "25", "3"),
        ("event", "284", "91", "214", "25", "3"),
        ("op", "284", "122", "214", "25", "3"),
        ("event", "54", "153", "214", "25", "3"),
        ("broken", "54", "199", "214", "40", "3"),
    ]
    assert elements(drawn, "line", "class", "x1", "y1", "x2", "y2") == [
        ("life", x, "60", x, "245") for x in ("161", "391", "546")
    ]
    assert elements(drawn, "path", "class", "d")[1:] == [
        ("arrow ipi", "M268 72L284 103"),
        ("arrow", "M546 134L498 134"),
        ("arrow", "M268 165L546 165"),
    ]
    root = ET.fromstring(drawn)
    assert [root.get(name) for name in ("viewBox", "width", "height", "role", "aria-label")] == [
        "0 0 890 301", "890", "301", "img", "stale_access in 6 moves",
    ]  # fmt: skip
    assert (root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")) == (
        "stale_access in 6 moves",
        RUN.closing,
    )


def test_every_move_is_drawn_if_asked_and_ids_are_kept_apart() -> None:
    every = svg(RUN, "A title", every=True, prefix="p3")
    numbers = [text for _, anchor, text in elements(every, "text", "y", "text-anchor") if anchor == "end"]
    assert numbers == ["1", "2", "3", "4", "5", "6"]
    assert elements(every, "text", "class")[0] == ("title", "A title")
    assert [one.get("id") for one in ET.fromstring(every).iter(f"{SVG}marker")] == ["p3tip"]
    assert "url(#p3tip)" in every
    assert "url(#tip)" in svg(RUN)


def test_an_ipi_to_the_left_leaves_and_comes_at_the_sides_that_face() -> None:
    """From CPU 1 at the left side of its box to the right side of CPU 0's; one that is not taken has no arrow."""
    back = run(
        step(1, 1, "ipi", "IPI to cpu 0", "IPI to cpu 1"),
        step(2, 0, "(interrupt)"),
        step(3, 0, "(interrupt)"),
    )
    assert elements(svg(back), "path", "class", "d")[1:] == [("arrow ipi", "M284 72L268 118")]


@pytest.mark.parametrize(
    ("change", "read", "shared"),
    [
        ("reads 0", True, False),
        ("a=1", False, True),
        ("pte va: none", False, True),
        ("readsome=1", False, True),
        ("buffer0: a=1", False, False),
        ("tlb1: va:v1", False, False),
        ("upper1: va:t1", False, False),
        ("fetched0: 1", False, False),
        ("cr3: user", False, False),
        ("IPI to cpu 1", False, False),
        ("ack", False, False),
        ("acked=1", False, True),
        ("va: v1 is dead", False, False),
        ("va: t1 is free", False, False),
    ],
)
def test_what_goes_to_memory_and_what_comes_from_it(change: str, read: bool, shared: bool) -> None:
    assert (_is_read(change), _is_shared(change)) == (read, shared)


def test_an_interrupt_is_taken_once_for_each_ipi() -> None:
    steps = [
        step(1, 0, "ipi", "IPI to cpu 1"),
        step(2, 2, "ipi", "IPI to cpu 1"),
        step(3, 1, "(interrupt)"),
        step(3, 1, "(a first one)"),
        step(4, 1, "(interrupt)"),
        step(5, 1, "(interrupt)"),
        step(6, 1, "(a later one)", "upper0: -k", "table k: none", "text p: new", "k: older than v2 is dead"),
        step(7, 1, "(store visible)"),
    ]
    assert states(steps) == [
        [("cpu 1 interrupt", "waiting for it")],
        [("cpu 1 interrupt", "waiting for it")],
        [],
        [],
        [("cpu 1 interrupt", None)],
        [],
        [
            ("cpu 0 paging-structure cache: k", None), ("table k", "none"), ("text p", "new"),
            ("k relied on", "older than v2 is dead"),
        ],
        [],
    ]  # fmt: skip
    assert held(states(steps), 1) == {"cpu 1 interrupt": ("waiting for it", True)}


# Lanes of 18 in 47 columns: 7 for the number, 2 between.
HEAD = "     cpu 0 alone         cpu 1 isolated"


def at(number: str, width: int = 47, found: Any = RUN) -> list[str]:
    steps = Steps(found)
    steps.press("a")
    steps.press(number)
    return steps.screen(width)


def test_a_screen_line_by_line() -> None:
    assert at("1") == [
        "stale_access: move 1 of 6", "", HEAD,
        ">  1 ipi targets",
        "", "what holds after it (* changed by this move)",
        "  * cpu 1 interrupt  waiting for it",
    ]  # fmt: skip
    assert at("1", 46)[2].index("cpu 1") == 5 + 17 + 2, "half of 39, less 2"
    assert at("2") == [
        "stale_access: move 2 of 6", "", HEAD,
        "   1 ipi targets",
        ">  2                     (interrupt)",
        "", "what holds after it (* changed by this move)",
        "    nothing has changed yet",
    ]  # fmt: skip
    assert at("6") == [
        "stale_access: move 6 of 6", "", HEAD,
        "   2                     (interrupt)",
        "   3                     let r = a",
        "   4                     fence",
        "   5 (store visible)",
        ">  6 a statement that",
        "     is longer than the",
        "     room",
        "", "what holds after it (* changed by this move)",
        "    a             1",
        "    cpu 0 TLB: k  v1",
        "  * k relied on   v1 is dead",
        "", "word word word word word word word word word",
        "word word word word word word word word word", "word word word word word word word",
    ]  # fmt: skip


def test_a_screen_has_the_place_and_breaks_long_values() -> None:
    found = run(
        step(1, 0, "", "name=" + " ".join(["value"] * 8), source="file.c:1 (a place with many words in it)"),
        step(2, 1, "x"),
        lanes=("a lane whose name is cut", "b", "c"),
    )
    assert at("1", 40, found) == [
        "stale_access: move 1 of 2", "",
        "     a lane whose  b             c",
        ">  1",
        "     at file.c:1 (a place with many",
        "        words in it)",
        "", "what holds after it (* changed by this move)",
        "  * name  value value value value value",
        "          value value value",
    ]  # fmt: skip
    wide = at("1", 300, found)
    assert wide[2] == f"     {'a lane whose name is cut':<29}  {'b':<29}  c", "lanes have 100 columns in all"
    assert wide[-1] == "  * name  " + " ".join(["value"] * 8)
    assert max(len(line) for line in at("1", 12, found)[-2:]) == 39, "what holds has 40 at least"


def test_a_long_run_ends_with_its_sentence() -> None:
    found = run(*(step(n, 0, "a") for n in range(1, 301)))
    assert (at("300", 80, found)[-1], at("299", 80, found)[-1]) == ("The end.", "    nothing has changed yet")


def test_keys_move_between_stops() -> None:
    steps = Steps(RUN)
    seen = []
    for key in [*"nnnnnpppppGg", "4", "a", "4", "p", "a", "n", "99", "0", "a", "G", "a"]:
        assert steps.press(key)
        seen.append(RUN.steps[steps.now].number)
    #   stops are 1 2 3 5 6, and 4 too where all are asked for
    assert seen == [2, 3, 5, 6, 6, 5, 3, 2, 1, 1, 6, 1, 3, 3, 4, 3, 3, 5, 6, 1, 1, 6, 6]
    assert [steps.press(key) for key in ("", "x", "-1", "²")] == [False] * 4
    assert steps.press("9" * 5000)
    assert RUN.steps[steps.now].number == 6
    hidden = run(step(1, 0, "a", shown=False), step(2, 0, "b"), step(3, 0, "c", shown=False))
    first = Steps(hidden)
    assert (first.now, first.every) == (1, False)
    first.press("a")
    first.press("g")
    assert first.now == 0
    first.press("a")
    assert first.now == 1, "it is no stop any more, and there is none before it"


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("12\n3\r\n", ["12", "3", "<"]),
        ("1x2", ["x", "2"]),
        ("\x1b[C\x1b[B\x1b[D\x1b[A", ["n", "n", "p", "p"]),
        ("\x1b[H\x1b[F\x1b[1~\x1b[4~\x1b[5~\x1b[6~", ["g", "G", "g", "G", "p", "n"]),
        ("\x1bOA\x1bOB\x1bOC\x1bOD\x1bOH\x1bOF", ["p", "n", "n", "p", "g", "G"]),
        (" jl\x7f\bkhQ\x03\x04", ["n", "n", "n", "p", "p", "p", "p", "q", "q", "q"]),
        ("\x1b[15~n\x1b[", ["", "n", ""]),
        ("\x1bxq", ["", "q"]),
        ("\x1b[1;5Cn", ["", "n"]),
        ("²3", ["²", "3"]),
    ],
)
def test_names_of_keys(typed: str, keys: list[str]) -> None:
    stream = io.StringIO(typed)
    assert list(_named(lambda: stream.read(1), enter="<")) == keys


def test_a_walk_by_a_pipe_prints_a_screen_for_each_key_that_says_something(
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk(RUN, 47, io.StringIO("nxGqn"))
    shown = capsys.readouterr().out
    steps = Steps(RUN)
    wanted = []
    for key in ("", "n", "G"):
        steps.press(key)
        wanted += [*steps.screen(47), "", "-" * 47]
    assert shown.splitlines() == wanted
    walk(RUN, 90, io.StringIO(""))
    assert capsys.readouterr().out.splitlines()[-1] == "-" * 72
    assert KEYS.startswith("n next  p previous")


def test_a_mail_line_by_line() -> None:
    found = run(step(1, 0, "a"), step(2, 0, "b"))

    class Verdict(SimpleNamespace):
        def __str__(self) -> str:
            return "  a line of " + "words " * 12 + "that is too long\nüber\x1b"

    verdict = Verdict(policy="mine", status="violated", counterexample=found)
    assert mail(verdict).split("\n") == [
        "Subject: mine: violated (stale_access, 2 moves)",
        "",
        "  a line of words words words words words words words words words words",
        "      words words that is too long",
        "\\xfcber\\x1b",
        "",
        f"To see it again (tlbcore {tc.__version__}):",
        "",
        "  tlbcore.check('mine', ...)",
        "",
        "Places in linux.kernel are functions of Linux 6.12. The run, as",
        "Counterexample.replay carries it out:",
        "  0:1 1:2",
        "",
    ]
    found.schedule = "ab-cd " * 13  # 11 and their blanks are 67 with the indent; half of the next would fit
    assert mail(verdict).split("\n")[-3:] == [f"  {' '.join(['ab-cd'] * 11)}", "  ab-cd ab-cd", ""]
    verdict = Verdict(policy="mine", status="verified", counterexample=None)
    assert mail(verdict, "tlbcore check mine").split("\n")[:1] == ["Subject: mine: verified"]
    assert mail(verdict, "tlbcore check mine").split("\n")[-3:] == ["", "  tlbcore check mine", ""]


def test_a_command_line_is_broken_where_a_shell_goes_on() -> None:
    """Six words of ten are 67 with the indent, and 69 with the backslash; a seventh would be 78."""
    word = "w" * 10
    assert _shell(" ".join([word] * 7)) == [f"  {' '.join([word] * 6)} \\", f"    {word}"]
    assert _shell(" ".join(["w" * 68, "x"])) == [f"  {'w' * 68} \\", "    x"]
    assert _shell(" ".join(["w" * 66, "x"])) == [f"  {'w' * 66} x"]
    assert _shell(" ".join(["w" * 67, "x"])) == [f"  {'w' * 67} \\", "    x"]
    assert quoted(["a b", "c", "d'e"]) == "'a b' c 'd'\"'\"'e'"


def test_a_broken_line_is_indented_by_four_more() -> None:
    assert _broken("  " + "a-b " * 20) == ["  " + " ".join(["a-b"] * 17), "      a-b a-b a-b"]
    assert _broken(" " * 80) == [""]
