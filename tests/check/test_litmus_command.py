"""What `tlbcore litmus` prints of tests that are as stated, differ, came to no verdict or were not understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore.checker.litmus_file import LitmusResult
from tlbcore.cli import litmus as command
from tlbcore.cli import main

# Store buffering: both may read 0. Each of two stores and two loads; by hand, the ends are 00, 01, 10 and 11.
SB = """litmus SB
  var x : 1 bit, shared, starts 0
  var y : 1 bit, shared, starts 0
  exists "0:r=0 and 1:r=0"

cpu 0
  x = 1
  let r = y

cpu 1
  y = 1
  let r = x
"""
ENDS = [
    "4 final states:",
    "  0:r=0 1:r=0",
    "  0:r=0 1:r=1",
    "  0:r=1 1:r=0",
    "  0:r=1 1:r=1",
]


def stated(verdict: str, states: str = "") -> str:
    lines = f'  verdict "{verdict}"\n' + (f'  states "{states}"\n' if states else "")
    return SB.replace("  exists", f"{lines}  exists")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    status = main(["litmus", *words])
    shown = capsys.readouterr()
    return status, shown.out.splitlines(), shown.err


@pytest.mark.parametrize(
    ("text", "status", "note", "summary"),
    [
        (stated("allowed"), 0, "", "1 test, 1 as stated"),
        (stated("forbidden"), 1, "  MISMATCH: stated `forbidden`", "1 test, 0 as stated"),
        (stated("allowed", "7"), 1, "  MISMATCH: stated `allowed`, 7 states", "1 test, 0 as stated"),
        (SB, 1, "  MISMATCH: no verdict is stated (--bless writes it)", "1 test, 0 as stated"),
    ],
)
def test_a_verdict_beside_the_stated_one(
    text: str, status: int, note: str, summary: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("buffering.litmus").write_text(text)
    states = tc.litmus(text).states
    line = f"{'SB':<9}  {'allowed':<34} {states:>8} states{note}"
    assert run(capsys, "buffering.litmus") == (status, [line, summary], "")
    got = run(capsys, "buffering.litmus", "--states")
    assert got == (
        status,
        [line.replace(str(states), got[1][0].split()[2]), *(f"{'':11}{end}" for end in ENDS), summary],
        "",
    )
    shown = run(capsys, "buffering.litmus", "--show")[1]
    assert (shown[0], shown[1], shown[-1]) == (line, "", summary)
    assert shown[2:-1] == [*tc.litmus(Path("buffering.litmus")).text.splitlines(), ""]


def made(**changes: object) -> LitmusResult:
    fields = {
        "name": "a", "doc": "", "source": (), "file": "a.litmus", "stated": "verified", "found": "verified",
        "states": 12, "stated_states": None, "text": "", "schedule": "",
    }  # fmt: skip
    return LitmusResult(**{**fields, **changes})  # type: ignore[arg-type]


LIMITED = {"found": "inconclusive: memory", "note": "more than 9 bytes are needed"}


@pytest.mark.parametrize(
    ("changes", "ok", "inconclusive", "note"),
    [
        ({}, True, False, ""),
        ({"stated_states": 12}, True, False, ""),
        ({"stated_states": 13}, False, False, "  MISMATCH: stated `verified`, 13 states"),
        ({"stated": "forbidden", "stated_states": 12}, False, False, "  MISMATCH: stated `forbidden`"),
        (LIMITED, False, True, "  stated `verified`"),
        ({**LIMITED, "stated": "inconclusive: memory"}, True, True, ""),
        ({**LIMITED, "stated": ""}, False, True, "  no verdict is stated (--bless writes it)"),
        ({"herd": True, "stated": ""}, True, False, ""),
        ({**LIMITED, "herd": True, "stated": ""}, False, True, ""),
    ],
)
def test_a_search_that_met_a_limit_is_no_mismatch(
    changes: dict[str, object], ok: bool, inconclusive: bool, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = made(**changes)
    assert (result.ok, result.inconclusive) == (ok, inconclusive)
    command._print(result, 3, show=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"a    {result.found:<34}       12 states{note}"
    assert lines[1:] == ([f"     {LIMITED['note']}"] if inconclusive else [])


@pytest.mark.parametrize(
    ("found", "status", "summary", "counts"),
    [
        ("=", 0, "1 test, 1 as stated", (0, 0, 0)),
        ("==", 0, "2 tests, 2 as stated", (0, 0, 0)),
        ("=?", 3, "2 tests, 1 as stated, 1 inconclusive", (0, 1, 0)),
        ("?!=", 1, "3 tests, 1 as stated, 1 inconclusive", (1, 1, 0)),
        ("!!", 1, "2 tests, 0 as stated", (2, 0, 0)),
        ("x?!=", 2, "4 tests, 1 as stated, 1 inconclusive, 1 not understood", (1, 1, 1)),
        ("x=", 2, "2 tests, 1 as stated, 1 not understood", (0, 0, 1)),
    ],
)
def test_a_folder_is_summed_up(
    found: str,
    status: int,
    summary: str,
    counts: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`=` as stated, `!` differs, `?` met a limit, `x` is not understood."""
    results = {"=": made(), "!": made(found="allowed"), "?": made(**LIMITED)}
    asked: list[object] = []

    def litmus(file: Path, **options: object) -> LitmusResult:
        asked.append(options)
        if (kind := found[int(file.stem)]) == "x":
            raise tc.PolicyError(f"{file}: what?")
        return results[kind]

    monkeypatch.setattr(tc.checker, "litmus", litmus)
    Path("deep").mkdir()
    for i in range(len(found)):
        (Path("deep") / f"{i}.litmus").write_text("")
    (Path("deep") / "README").write_text("")
    got, out, err = run(capsys, ".", "--memory", "3M")
    assert (got, out[-1]) == (status, summary)
    assert err == "".join(
        f"tlbcore: error: deep/{i}.litmus: what?\n" for i, kind in enumerate(found) if kind == "x"
    )
    assert asked[0] == {"memory": 3 << 20, "reduce": True, "bless": False, "ends": False}
    got, out, _ = run(capsys, ".", "--json", "--no-reduce", "--states")
    whole = json.loads("\n".join(out))
    assert (got, tuple(whole[key] for key in ("mismatches", "inconclusive", "errors"))) == (status, counts)
    assert [test.get("ok") for test in whole["tests"]] == [
        {"=": True, "x": None}.get(kind, False) for kind in found
    ]
    assert whole["tests"][0]["error"] == (None if found[0] != "x" else "deep/0.litmus: what?")
    assert asked[-1] | {"memory": 0} == {"memory": 0, "reduce": False, "bless": False, "ends": True}


def test_a_verdict_is_not_written_over_by_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    """A search of 64 KiB or less comes to no end here; the file keeps what it stated."""
    file = Path("a.litmus")
    text = (Path(__file__).parents[1] / "litmus" / "history" / "b21-pebs-buffer-deferred.litmus").read_text()
    file.write_text(text)
    status, out, _ = run(capsys, "a.litmus", "--memory", "16K", "--bless")
    assert (status, out[-1], file.read_text()) == (3, "1 test, 0 as stated, 1 inconclusive", text)
    assert "inconclusive: memory" in out[0]
    assert out[0].endswith("states  stated `violated: stale_access (reused)`")
    file.write_text(text.replace("violated: stale_access (reused)", "verified"))
    assert run(capsys, "a.litmus", "--bless")[0] == 0
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["a.litmus", "--bless", "--no-reduce"],
            "--bless writes what the reduced search finds: leave --no-reduce out",
        ),
        (
            ["a.litmus", "--bless", "--states"],
            "--bless writes verdicts and --states lists ends: leave one of them out",
        ),
        (["a.litmus", "--json", "--show"], "--json has every run that was found: leave --show out"),
        (["."], ".: no file ends in .litmus"),
        (["a.litmus", "--memory", "0"], "memory is a number with K, M or G, or auto: got `0`"),
    ],
)
def test_what_it_cannot_do_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *words) == (2, [], f"tlbcore: error: {said}\n")


def test_a_file_that_is_not_there_is_one_test_not_understood(capsys: pytest.CaptureFixture[str]) -> None:
    said = "tlbcore: error: no.litmus: no such file or directory\n"
    assert run(capsys, "no.litmus") == (2, ["1 test, 0 as stated, 1 not understood"], said)
