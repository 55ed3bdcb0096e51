"""What commands say, word by word, without another process and without a recording."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlbcore.cli import main
from tlbcore.cli.causes import _DEFERRAL, _escaped, _facts
from tlbcore.trace import causes
from tlbcore.trace.recorder import process, run, settings


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that no screen cuts, whatever the width of the one that the tests run on."""
    monkeypatch.setenv("COLUMNS", "400")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status = main(list(arguments))
    out = capsys.readouterr()
    assert status == 0, out.err
    return out.out


def test_one_cause_is_told_whole(capsys: pytest.CaptureFixture[str]) -> None:
    for cause in causes.values():
        text = said(capsys, "causes", cause.id)
        assert text.splitlines()[0] == f"{cause.id}: {cause.title}"
        plain = " ".join(text.split())
        for field, words in _facts(cause):
            assert f"{field} {words}" in plain.replace("  ", " "), (cause.id, field)
        fields = [field for field, _ in _facts(cause)]
        assert ("kernels" in fields) == (cause.kernels != "any")
        assert dict(_facts(cause))["deferrable"] == f"{_DEFERRAL[cause.deferral]}: {cause.because}"
        assert fields[fields.index("helps") + 1 :] == [f"on {kernels}" for kernels, _ in cause.remedies]


def test_causes_as_a_table_and_as_documents(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "causes").splitlines()
    assert [line.split()[0] for line in lines] == ["cause", *causes]
    first = next(iter(causes.values()))
    assert lines[1].split() == [first.id, first.call_class, first.deferral, *first.title.split()]
    whole = json.loads(said(capsys, "causes", "--json"))
    assert [row["id"] for row in whole["causes"]] == list(causes)
    one = json.loads(said(capsys, "causes", "vmalloc_purge", "--json"))
    assert [row["id"] for row in one["causes"]] == ["vmalloc_purge"]
    assert one["causes"][0]["remedies"] == [
        {"kernels": kernels, "helps": helps} for kernels, helps in causes["vmalloc_purge"].remedies
    ]
    schema = json.loads(said(capsys, "causes", "--schema"))
    assert schema["properties"]["version"] == {"const": whole["version"]}
    text = schema["properties"]["causes"]["items"]["properties"]["title"]
    assert text == {"type": "string", "minLength": 1}
    assert said(capsys, "causes", "--schema").startswith('{\n  "$schema"')


@pytest.mark.parametrize(
    "both", [("--json", "--schema"), ("--json", "--markdown"), ("--schema", "--markdown")]
)
def test_causes_are_printed_in_one_form(both: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["causes", *both]) == 2
    assert "each print something else: give one" in capsys.readouterr().err


def test_the_page_has_an_entry_per_cause(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "causes", "vmalloc_purge", "--markdown").splitlines()
    cause = causes["vmalloc_purge"]
    assert lines[0] == "# What interrupts an isolated CPU"
    at = lines.index("| cause | kind | class | what | deferrable |")
    assert lines[at + 2 : at + 6] == [
        f"| [`vmalloc_purge`](#vmalloc_purge) | {cause.kind} | {cause.call_class} | {cause.title} | "
        f"{cause.deferral.replace('_', ' ')} |",
        "",
        "## vmalloc_purge",
        "",
    ]
    assert lines[at + 6] == f"{cause.title[0].upper()}{cause.title[1:]}."
    assert lines[at + 8 :] == [
        f"- **{field.capitalize()}**: {_escaped(text)}." for field, text in _facts(cause)
    ]
    assert _escaped("a_b <- *c<d") == "a\\_b &larr; \\*c&lt;d"


WORDS = [
    (["record", "--dur"], ["--duration"]),
    (["record", "--no-k"], ["--no-kprobes"]),
    (["record", "--duration", ""], []),
    (["record", "--flight", "--pro"], ["--process", "--prometheus"]),
    (["record", "--out", "x", "--", "ls", "--"], []),
    (["causes", "--sch"], ["--schema"]),
    (["causes", "--help"], ["--help"]),
    (["compare", "--scenario", "rt"], ["rteval"]),
    (["completion", "z"], ["zsh"]),
    (["policy", "show", "ct-la"], ["ct-late"]),
    (["policy", "sh"], ["show"]),
    (["machines", "zen4-e"], ["zen4-epyc"]),
    (["calibrate", "--base", "zen4-e"], ["zen4-epyc"]),
    (["schema", "cau"], ["causes"]),
    (["--he"], ["--help"]),
    (["nonsense", "x"], []),
]


@pytest.mark.parametrize(("words", "names"), WORDS)
def test_what_may_come_next(
    words: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TLBCORE_COMPLETE", "1")
    lines = said(capsys, *words).splitlines()
    assert [line.split("\t")[0] for line in lines] == names
    assert all(line.count("\t") == 1 for line in lines)


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean 'bash'?" in capsys.readouterr().err
    assert said(capsys, "completion", "bash").startswith("# bash completion of tlbcore")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what `record` was called with; it records nothing."""
    seen: dict[str, Any] = {
        "done": {
            "bytes": 1234567, "seconds": 2.0, "cpu_s": 0.25, "lost": 1000, "snapshots": 3, "refused": [], "unset": [],
            "left": [], "status": 0,
        }
    }  # fmt: skip

    def record(what: Any, tracefs: Any, **more: Any) -> SimpleNamespace:
        seen.update(what=what, more=more)
        return SimpleNamespace(**seen["done"])

    monkeypatch.setattr(run, "record", record)
    monkeypatch.setattr(settings.Tracefs, "find", classmethod(lambda _: "tracefs"))
    monkeypatch.setattr(settings, "isolated_cpus", lambda: (2, 3))
    monkeypatch.setattr(process, "find_processes", lambda _: (7, 8))
    return seen


def test_a_recording_is_summed_up(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "record", "--out", "a b.txt").splitlines() == [
        "a b.txt: 1,234,567 bytes in 2.0 s, CPUs 2-3",
        "  1,000 events lost; the recorder took 0.25 s of CPU time (12.5%)",
        "  tlbcore explain 'a b.txt'",
    ]
    what = asked["what"]
    assert (what.out, what.isolated, what.seconds, what.command) == (Path("a b.txt"), (2, 3), None, ())
    assert (what.kprobes, what.stacks, what.flight, what.noise_us) == (True, False, False, None)
    assert (what.snapshots, what.buffer_kb, what.processes) == (0, 4096, ())
    assert asked["more"] == {}


def test_what_was_asked_for_is_recorded(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = "--duration 2m --isolated 1,4-5 --noise 20us --snapshots 4 --stacks --no-kprobes --buffer-kb 64"
    text = said(capsys, "record", "--out", "o", *words.split(), "--", "ls", "-l")
    assert text.splitlines()[0].endswith("CPUs 1,4-5")
    assert text.splitlines()[2] == "  3 snapshots"
    what = asked["what"]
    assert (what.seconds, what.isolated, what.noise_us, what.snapshots) == (120.0, (1, 4, 5), 20.0, 4)
    assert (what.stacks, what.kprobes, what.buffer_kb, what.command) == (True, False, 64, ("ls", "-l"))


def test_a_process_is_recorded_from_every_cpu(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "record", "--out", "o", "--process", "my db").splitlines()
    assert lines[0].endswith("2.0 s, shootdowns for my db")
    assert lines[-1] == "  tlbcore explain o --process 'my db'"
    assert (asked["what"].isolated, asked["what"].processes) == ((), (7, 8))


def test_what_could_not_be_recorded_is_told(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked["done"] |= {"seconds": 0.0, "refused": ["a", "b"], "unset": ["c"], "left": ["d"], "status": 3}
    assert main(["record", "--out", os.devnull]) != 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:5] == [
        "  1,000 events lost; the recorder took 0.25 s of CPU time (0.0%)",
        "  not recorded, for this kernel lacks or refuses it: a, b",
        "  not set, for this kernel lacks or refuses it: c",
        "  still there, others use it: d",
    ]
    assert "the command ended with status 3" in err


def test_top_records_into_nothing_and_shows_the_counts(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked["done"] |= {"left": ["d", "e"]}
    assert main(["top"]) == 0
    assert capsys.readouterr().err == "still there, others use it: d, e\n"
    what = asked["what"]
    assert (what.out, what.isolated, what.seconds, what.command) == (Path(os.devnull), (2, 3), None, ())
    assert (what.kprobes, what.stacks, what.flight, what.buffer_kb) == (False, False, False, 4096)
    watch = asked["more"]["watch"]
    assert (watch._cpus, watch._interval) == ((2, 3), 1.0)
    watch._show(watch.reading(), None)
    assert not capsys.readouterr().out.startswith("{"), "a table"
    asked["done"] |= {"left": [], "status": 4}
    words = ["--duration", "90s", "--isolated", "1,4-5", "--interval", "2s", "--buffer-kb", "64"]
    assert main(["top", *words, "--", "ls", "-l"]) == 2
    assert capsys.readouterr().err == "tlbcore: error: the command ended with status 4\n"
    what = asked["what"]
    assert (what.isolated, what.seconds, what.command, what.buffer_kb) == ((1, 4, 5), 90.0, ("ls", "-l"), 64)
    assert asked["more"]["watch"]._interval == 2.0


@pytest.mark.parametrize(
    ("terminal", "json", "live", "wanted"),
    [
        (False, False, True, "table"),
        (False, False, False, ""),
        (False, True, True, "json"),
        (True, True, False, "json"),
        (True, False, False, ""),
        (True, False, True, "live"),
    ],
)
def test_readings_are_shown_as_a_table_a_line_or_live(
    terminal: bool,
    json: bool,
    live: bool,
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rich.console import Console

    from tlbcore.cli import _common, top
    from tlbcore.trace.recorder.watch import KINDS, Reading

    monkeypatch.setattr(_common, "console", lambda: Console(force_terminal=terminal, width=80))
    reading = Reading(time=7.0, seconds=2.0, cpus=(2,), recorded=dict.fromkeys(KINDS, True), rows=())
    metrics = tmp_path / "m.prom"
    with top.shown((2,), 0.5, metrics, json=json, live=live) as watch:
        watch._show(reading, None)
    out = capsys.readouterr().out
    kind = "" if not out else "json" if out.startswith("{") else "live" if "\x1b[" in out else "table"
    assert kind == wanted
    assert metrics.read_text().startswith("# HELP ")
    with top.shown((2,), 0.5, None) as watch:  # left out, a table, and live
        watch._show(reading, None)
    assert ("\x1b[" in capsys.readouterr().out) is terminal
    with (
        pytest.raises(Exception, match=r"none/m.prom: its directory is not there"),
        top.shown((), 1, tmp_path / "none" / "m.prom"),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "missing option '--out'"),
        ("--clean --out o", "--clean records nothing"),
        ("--clean -- true", "--clean records nothing"),
        ("--out o --snapshots 2", "--snapshots needs a flight recorder: --flight or --noise TIME"),
        ("--out o --flight --watch", "a flight recorder cannot be watched"),
        ("--out o --noise 20us --prometheus m", "a flight recorder cannot be watched"),
        ("--out o --process a --isolated 2", "--process records shootdowns of every CPU"),
        ("--out o --process a --flight", "--process records shootdowns of every CPU"),
        ("--out o --process a --noise 20us", "--process records shootdowns of every CPU"),
        ("--out o --process a --watch", "--process records shootdowns of every CPU"),
    ],
)
def test_what_does_not_go_together_is_refused(
    asked: dict[str, Any], words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", *words.split()]) == 2
    assert said in capsys.readouterr().err
    assert "what" not in asked


@pytest.mark.parametrize(
    ("terminal", "words", "said"),
    [
        (True, "", "recording CPUs 2-3 until Ctrl-C\n"),
        (True, "--process db", "recording shootdowns for db until Ctrl-C\n"),
        (True, "--duration 1s", ""),
        (True, "-- true", ""),
        (False, "", ""),
    ],
)
def test_who_waits_is_told_until_when(
    asked: dict[str, Any],
    terminal: bool,
    words: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert main(["record", "--out", "o", *words.split()]) == 0
    assert capsys.readouterr().err == said


TWICE = """
scenario = "syscall-heavy"
[[zip]]
cpus = [8]
duration_s = [1]
[[zip]]
cpus = [16]
duration_s = [1]
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("calibrate --cpu -1", "cpu must be an integer from 0 to 65535: got -1"),
        ("calibrate --cpu 99999999999999999999", "cpu must be an integer from 0 to 65535: got 9999999"),
        ("calibrate --out .", ".: is a directory"),
        ("calibrate --out none/machine.toml", "none/machine.toml: no such file or directory"),
        ("tlb grid.toml --out none/table.parquet", "none/table.parquet: no such file or directory"),
        ("check ipi --entries=--5", "entries must be an integer from 0 to 15 or unbounded: got '--5'"),
        ("check ipi --assume D=none --assume D=recycled", "`D` is assumed to be `none` and `recycled`"),
        ("check ipi --assume D=recycled --assume D=none", "`D` is assumed to be `recycled` and `none`"),
        ("check ipi --assume D", "an assumption is NAME=VALUE: got `D`"),
        ("check ipi --entries=-5", "entries must be an integer from 0 to 15: got -5"),
        ("litmus t.litmus --show --json", "--json has every run that was found: leave --show out"),
        ("policy show ipi --ops --kernel", "--ops shows the kernel's own paths, too: leave --kernel out"),
        (
            "sweep grid.toml --out o",
            "grid.toml: two [[zip]] are of cpus, duration_s: put their values into one",
        ),
        (
            "sweep grid.toml --out o --dask x:1 --threads 2",
            "--threads are of this process, and --dask computes in others: leave --threads out",
        ),
        ("sweep grid.toml --out o --dask=", "--dask is the address of a scheduler, such as tcp://10.0"),
        ("sweep grid.toml --out=", "--out names a file or a directory: got ''"),
        ("compare --html=", "--html names a file or a directory: got ''"),
        ("inspect --root=", "--root names a file or a directory: got ''"),
        ("calibrate -o= --json", "-o names a file or a directory: got ''"),
        ("check ipi --kernel=", "--kernel names a file or a directory: got ''"),
        ("check ipi --memory 0", "memory is a number with K, M or G, or auto: got `0`"),
        ("record --clean --snapshots 0", "--clean records nothing: leave --snapshots out"),
        ("causes timer --schema", "--schema is of every cause: leave timer out"),
        ("check ipi --roles=", "--roles name a CPU each, such as 'purge; isolated 2': got ''"),
        ("repair ipi --roles=", "--roles name a CPU each, such as 'purge; isolated 2': got ''"),
        ("repair ipi --world=", "--world is a set of features such as nopti+invlpgb; left out, every one"),
    ],
)
def test_what_changes_nothing_or_cannot_be_is_refused(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text(TWICE)
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.startswith(f"tlbcore: error: {said}")) == ("", True), shown.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.toml"]


def test_an_address_that_a_cluster_does_not_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster`")
    grid = tmp_path / "grid.toml"
    grid.write_text('scenario = "syscall-heavy"\n[grid]\ncpus = [8]\n')
    assert main(["sweep", str(grid), "--out", str(tmp_path / "o"), "--dask", "nope"]) == 2
    assert capsys.readouterr().err == "tlbcore: error: --dask: missing port number in address 'nope'\n"


def test_a_path_without_a_name_is_not_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a word of its own, too; what a command behind `--` is given is its own affair."""
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "--collect", "", "--json"]) == 2
    assert capsys.readouterr().err == "tlbcore: error: --collect names a file or a directory: got ''\n"
    assert main(["record", "--process", "no such", "--out", "o", "--", "touch", "--out", ""]) == 2
    assert capsys.readouterr().err == "tlbcore: error: no process 'no such' on this machine\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["explain", ""], "TRACES"),
        (["explain", "grid.toml", ""], "TRACES"),
        (["replay", ""], "TRACE"),
        (["litmus", ""], "PATHS"),
        (["tlb", ""], "FILE"),
        (["census", ""], "IMAGE"),
        (["sweep", "", "--out", "o"], "GRID"),
        (["explain", "--interrupts", "a", ""], "--interrupts"),
        (["explain", "--interrupts", "", "a"], "--interrupts"),
    ],
)
def test_an_empty_word_is_no_file(words: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A path takes it for this directory: `tlbcore litmus ''` ran every test below it."""
    assert main(words) == 2
    assert capsys.readouterr().err == f"tlbcore: error: {name} names a file or a directory: got ''\n"


@pytest.mark.parametrize(
    "words", [["explain", "--process", "", "no.txt"], ["replay", "no.txt", "--isolated", "2"]]
)
def test_an_empty_word_that_names_no_file_is_left_to_its_option(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == "tlbcore: error: no.txt: no such file or directory\n"
