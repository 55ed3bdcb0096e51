"""`trace.dat` files made here byte by byte: how the kernel's formats print, and which of them are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from test_trace_cli import fails, tlbcore

COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
"""
HEADER_PAGE = b"""\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""
VECTOR = "\tfield:int vector;\toffset:8;\tsize:4;\tsigned:1;\n"


def event(name: str, number: int, fields: str, printed: str) -> str:
    return f"name: {name}\nID: {number}\nformat:\n{COMMON}\n{fields}\nprint fmt: {printed}\n"


def dat(path: Path, formats: list[str], vector: int) -> Path:
    """Write a recording of format 6: on its one CPU, at 1 s, an event of each format, 1 us apart, with that number."""

    def sized(text: bytes, width: str = "<Q") -> bytes:
        return struct.pack(width, len(text)) + text

    page = b""
    for i in range(len(formats)):
        data = struct.pack("<HBBii", 1 + i, 0x09, 0, 7, vector)  # interrupts off, in one; task 7
        page += struct.pack("<I", 1000 << 5 | len(data) // 4) + data
    page = (struct.pack("<QQ", 1_000_000_000, len(page)) + page).ljust(4096, b"\0")
    head = b"\x17\x08\x44tracing6\0" + struct.pack("<BBI", 0, 8, 4096)
    head += b"header_page\0" + sized(HEADER_PAGE) + b"header_event\0" + sized(b"")
    head += struct.pack("<I", 0)
    head += struct.pack("<I", 1) + b"irq_vectors\0" + struct.pack("<I", len(formats))
    head += b"".join(sized(text.encode()) for text in formats)
    head += sized(b"", "<I") + sized(b"", "<I") + sized(b"7 app\n") + struct.pack("<I", 1) + b"flyrecord\0"
    path.write_bytes(head + struct.pack("<QQ", len(head) + 16, len(page)) + page)
    return path


def timer(printed: str, fields: str = VECTOR) -> list[str]:
    return [event(f"local_timer_{edge}", 1 + i, fields, printed) for i, edge in enumerate(("entry", "exit"))]


def lines(path: Path) -> str:
    """Return the raw lines of the timer interrupt."""
    run = tlbcore("explain", str(path), "--isolated", "0", "--lines", "timer")
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(
    ("conversion", "vector", "shown"),
    [
        ("%d", 236, "236"),
        ("%.5d", 236, "00236"),
        ("%.5d", -236, "-00236"),
        ("%+.5d", 236, "+00236"),
        ("%#.5x", 236, "0x000ec"),
        ("%#08x", 236, "0x0000ec"),
        ("%#08X", 236, "0X0000EC"),
        ("%+06d", 236, "+00236"),
        ("%#o", 8, "010"),
        ("%#o", 0, "0"),
        ("%8.5d|", -236, "  -00236|"),
        ("%6.4d|", 236, "  0236|"),
        ("%-6.4d|", 236, "0236  |"),
        ("%06d", -236, "-00236"),
        ("%+d", 236, "+236"),
        ("%#x", 236, "0xec"),
        ("%02x%%", 10, "0a%"),
    ],
)
def test_numbers_print_with_their_width_and_precision(
    tmp_path: Path, conversion: str, vector: int, shown: str
):
    path = dat(tmp_path / "trace.dat", timer(f'"vector={conversion}", REC->vector'), vector)

    assert f"1.000001000: local_timer_entry: vector={shown}\n" in lines(path)


@pytest.mark.parametrize(("pairs", "shown"), [(4096, "name4095"), (4097, "4095")])
def test_a_list_of_names_has_at_most_4096(tmp_path: Path, pairs: int, shown: str):
    """One more, and the format counts as not understood: its fields are printed as they are."""
    names = ", ".join(f'{{ {i}, "name{i}" }}' for i in range(pairs))
    path = dat(tmp_path / "trace.dat", timer(f'"vector=%s", __print_symbolic(REC->vector, {names})'), 4095)

    assert f"1.000001000: local_timer_entry: vector={shown}\n" in lines(path)


def test_a_field_beyond_64_kib_is_refused(tmp_path: Path):
    def of(size: int, offset: int = 12) -> Path:
        far = f"\tfield:char far[{size}];\toffset:{offset};\tsize:{size};\tsigned:0;\n"
        return dat(tmp_path / "trace.dat", timer('"vector=%d", REC->vector', VECTOR + far), 236)

    assert "local_timer_entry: vector=236\n" in lines(of(65_536))
    assert "local_timer_entry: vector=236\n" in lines(of(8, 65_536))
    for place in ((65_537,), (8, 65_537)):
        fails("an event format has a field that is not known", "explain", str(of(*place)))


@pytest.mark.parametrize(
    ("printed", "shown"), [('"vector=%d\\nmore"', "vector=236 more"), ('"vector=%d\\n"', "vector=236")]
)
def test_an_event_that_prints_several_lines_is_one(tmp_path: Path, printed: str, shown: str):
    path = dat(tmp_path / "trace.dat", timer(f"{printed}, REC->vector"), 236)

    assert f"1.000001000: local_timer_entry: {shown}\n" in lines(path)


def test_a_control_character_that_an_event_prints_is_a_space(tmp_path: Path):
    path = dat(tmp_path / "trace.dat", timer('"vector=%c|", REC->vector'), 10)

    assert "1.000001000: local_timer_entry: vector= |\n" in lines(path)
