"""What the recorded machine chose (names of processes, files, markers) cannot steer the terminal that shows it."""

from __future__ import annotations

import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from tlbcore._output.visible import NamedStream, VisibleStream, naming, one_line, visible

DATA = Path(__file__).parents[1] / "data"

# Seven bytes each, as `modloop` has: clear the screen, write from right to left, be nothing, ring, set a colour.
HOSTILE = {
    "mod\x1b[2J": r"mod\x1b[2J",
    "m\u202elpp": r"m\u202elpp",
    "m\u200bxyz": r"m\u200bxyz",
    "mod\x07abc": r"mod\x07abc",
    "m\x9b31mab": r"m\x9b31mab",
}


def tlbcore(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tlbcore", *map(os.fspath, arguments)],
        capture_output=True, timeout=120, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def hidden(text: str) -> list[str]:
    """Characters that a reader does not see, and that are no line structure."""
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text\twith\nlines, é and 漢字", "plain text\twith\nlines, é and 漢字"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J\x7f\x00", r"\x9b2J\x7f\x00"),
        ("a\u202eb\u2066c\u2069", r"a\u202eb\u2066c\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("line\u2028end\u2029", r"line\u2028end\u2029"),
        ("name\udc80\udc7f\udd00", r"name\x80\udc7f\udd00"),
        ("name\udcff", r"name\xff"),
        ("joined\u034fup", r"joined\u034fup"),
        ("tag\U000e0041", r"tag\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str):
    assert visible(text) == shown
    assert visible(shown) == shown, "what is visible stays as it is"


def test_no_control_or_format_character_of_unicode_is_left():
    hidden = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    ends = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) in hidden]
    assert len(ends) > 100_000
    assert [c for c in ends if visible(c) == c] == ["\t", "\n"]
    letters = [chr(c) for c in range(0x20, 0x3000) if unicodedata.category(chr(c))[0] in "LNPS"]
    assert {c for c in letters if visible(c) != c} == {"\u115f", "\u1160"}, "fillers only"


def test_a_message_stays_on_its_line():
    assert one_line("no file a\nb\tc") == r"no file a\nb\tc"


def test_a_stream_shows_what_is_written():
    behind = io.StringIO()
    VisibleStream(behind, "standard output").writelines(["a\x1b", "b\n"])
    assert behind.getvalue() == "a\\x1bb\n"


def test_a_stream_that_fails_names_itself():
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        flush = lambda self: self.write("")  # noqa: E731

    for attempt in (
        lambda: VisibleStream(Full(), "the report").write("x"),
        NamedStream(Full(), "the report").flush,
    ):
        with pytest.raises(OSError, match="No space left on device: 'the report'"):
            attempt()


def test_a_name_that_is_known_is_kept():
    with pytest.raises(OSError, match=r"\[Errno 5\].*'inner'"), naming("outer"):
        raise OSError(5, "Input/output error", "inner")


@pytest.fixture(scope="module")
def recording() -> str:
    return lzma.decompress((DATA / "p4.w7.trace.txt.xz").read_bytes()).decode()


@pytest.mark.parametrize("name", HOSTILE)
def test_process_names_of_a_recording_are_shown_harmless(name: str, recording: str, tmp_path: Path):
    bad = tmp_path / "bad.txt"
    assert "modloop" in recording
    # As the kernel writes it: bytes; the C1 control character is one byte there and no UTF-8.
    raw = name.encode("latin-1") if "\x9b" in name else name.encode()
    bad.write_bytes(recording.encode().replace(b"modloop", raw))

    done = tlbcore("explain", bad)

    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert hidden(text) == []
    if "\x9b" not in name:
        assert HOSTILE[name] in text, "the name is still told apart from others"


def test_json_keeps_the_name_and_escapes_it(recording: str, tmp_path: Path):
    bad = tmp_path / "bad.txt"
    bad.write_text(recording.replace("modloop", "mod\x1b[2J"))
    done = tlbcore("explain", bad, "--json")
    assert hidden(done.stdout.decode()) == []
    assert b'"mod\\u001b[2J"' in done.stdout
    assert json.loads(done.stdout)["schema"] == "tlbcore.explain"


def test_raw_lines_are_shown_harmless(recording: str, tmp_path: Path):
    bad = tmp_path / "bad.txt"
    bad.write_text(recording.replace("modloop", "mod\x1b[2J"))
    done = tlbcore("explain", bad, "--lines", "purges")
    assert rb"mod\x1b[2J" in done.stdout
    assert hidden(done.stdout.decode()) == []


def test_pages_and_timelines_show_names_harmless(recording: str, tmp_path: Path):
    bad = tmp_path / "bad.txt"
    bad.write_text(recording.replace("modloop", "mod\x1b[2J"))
    page, timeline = tmp_path / "page.html", tmp_path / "timeline.pftrace"
    done = tlbcore("explain", bad, "--html", page, "--perfetto", timeline)
    assert done.returncode == 0, done.stderr
    for file in (page, timeline):
        assert b"\x1b" + b"[2J" not in file.read_bytes(), file.name
    assert r"mod\x1b[2J" in page.read_text()


def test_file_names_are_shown_harmless(tmp_path: Path):
    bad = tmp_path / "no\x1b[31mfile\n.txt"
    done = tlbcore("explain", bad)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1
    assert rb"no\x1b[31mfile\n.txt" in done.stderr


def test_a_file_name_that_is_no_utf_8_is_shown_by_its_bytes(tmp_path: Path):
    done = tlbcore("explain", os.fsdecode(os.fsencode(tmp_path) + b"/x\xff.txt"))
    assert done.returncode == 2
    assert rb"x\xff.txt: no such file" in done.stderr


def test_files_of_a_host_directory_are_shown_harmless(tmp_path: Path):
    host = tmp_path / "host"
    shutil.copytree(DATA / "host-p4", host)
    line = (host / "proc/cmdline").read_text().rstrip()
    (host / "proc/cmdline").write_text(f"{line} evil=\x1b]0;x\x07 turn=\u202e\n")
    done = tlbcore("inspect", "--root", host, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert hidden(done.stdout.decode()) == []
    assert rb"evil=\x1b]0;x" in done.stdout


def test_a_terminal_that_lacks_a_character_gets_its_number():
    done = tlbcore(
        "compare",
        "--scenario",
        "rteval",
        "--duration",
        "2000",
        "--replications",
        "2",
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 0, done.stderr
    assert re.search(rb"\\xb1", done.stdout), "the plus-minus sign"


def test_python_prints_a_report_as_the_command_line_does(recording: str, tmp_path: Path):
    import tlbcore as tc

    bad = tmp_path / "bad.txt"
    bad.write_text(recording.replace("modloop", "mod\x1b[2J"))
    trace = tc.read_trace(bad)
    for text in (str(tc.explain(trace)), str(tc.replay(trace))):
        assert hidden(text) == []
    assert r"mod\x1b[2J" in str(tc.explain(trace))
