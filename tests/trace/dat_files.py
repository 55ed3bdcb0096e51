"""Writes the events of a text recording as a `trace.dat` of format 6, byte by byte, with the formats of Linux 6.12.

`packed` places the records as the ring does: on pages, with time extensions, absolute stamps, padding and lengths in
front of the data, chosen by a seed; every choice says the same.
"""

from __future__ import annotations

import random
import re
import struct
from collections import defaultdict
from pathlib import Path

from test_trace_dat import HEADER_PAGE, event

LINE = re.compile(r"\s*(\S+)-(\d+)\s+\[(\d+)\] (\S+)\s+(\d+)\.(\d{6}): (\w+): ?(.*)")
STATES = {"R": 0, "S": 1, "D": 2, "I": 0x80, "R+": 0x100}
MASK = "((0x0|0x1|0x2|0x4|0x8|0x10|0x20|0x40)+1)<<1"
LETTERS = ", ".join(f'{{ {1 << i:#x}, "{letter}" }}' for i, letter in enumerate("SDTtXZPI"))
ACTIONS = ("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU")
FIELD = "\tfield:{kind} {name};\toffset:{at};\tsize:{size};\tsigned:{signed};\n"
SIZES = {
    "int": 4,
    "pid_t": 4,
    "unsigned int": 4,
    "long": 8,
    "s64": 8,
    "void *": 8,
    "unsigned long": 8,
    "char": 16,
}

# Fields, and how they are printed; the body's text gives the values in this order.
FORMATS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "vector": ([("int", "vector")], '"vector=%d", REC->vector'),
    "hrtimer_expire_entry": (
        [("void *", "hrtimer"), ("s64", "now"), ("void *", "function")],
        '"hrtimer=%p function=%ps now=%llu", REC->hrtimer, REC->function, (unsigned long long) REC->now',
    ),
    "softirq": (
        [("unsigned int", "vec")],
        '"vec=%u [action=%s]", REC->vec, __print_symbolic(REC->vec, '
        + ", ".join(f'{{ {i}, "{name}" }}' for i, name in enumerate(ACTIONS))
        + ")",
    ),
    "sched_switch": (
        [
            ("char", "prev_comm"), ("pid_t", "prev_pid"), ("int", "prev_prio"), ("long", "prev_state"),
            ("char", "next_comm"), ("pid_t", "next_pid"), ("int", "next_prio"),
        ],
        '"prev_comm=%s prev_pid=%d prev_prio=%d prev_state=%s%s ==> next_comm=%s next_pid=%d next_prio=%d", '
        f"REC->prev_comm, REC->prev_pid, REC->prev_prio, (REC->prev_state & (({MASK}) - 1)) ? "
        f'__print_flags(REC->prev_state & (({MASK}) - 1), "|", {LETTERS}) : "R", '
        f'REC->prev_state & ({MASK}) ? "+" : "", REC->next_comm, REC->next_pid, REC->next_prio',
    ),
    "sched_wakeup": (
        [("char", "comm"), ("pid_t", "pid"), ("int", "prio"), ("int", "target_cpu")],
        '"comm=%s pid=%d prio=%d target_cpu=%03d", REC->comm, REC->pid, REC->prio, REC->target_cpu',
    ),
    "user": ([("int", "dummy")], '"%s", ""'),
    "csd_queue_cpu": (
        [("unsigned int", "cpu"), ("void *", "callsite"), ("void *", "func"), ("void *", "csd")],
        '"cpu=%u callsite=%pS func=%ps csd=%p", REC->cpu, REC->callsite, REC->func, REC->csd',
    ),
    "csd_function": (
        [("void *", "func"), ("void *", "csd")],
        '"func=%ps, csd=%p", REC->func, REC->csd',
    ),
}  # fmt: skip


def shape(name: str) -> str:
    if name in FORMATS:
        return name
    for begin in ("softirq", "user", "csd_function"):
        if name.startswith(begin):
            return begin
    return "vector"


def fields(name: str) -> tuple[str, str]:
    """The fields of a format as the kernel lists them, and how to pack them."""
    at, text, pack = 8, "", "<"
    for kind, field in FORMATS[shape(name)][0]:
        size = SIZES[kind]
        at += -at % (1 if kind == "char" else size)
        spelled = f"{field}[16]" if kind == "char" else field
        text += FIELD.format(
            kind=kind, name=spelled, at=at, size=size, signed=int(kind in ("int", "pid_t", "s64"))
        )
        pad = at - 8 - struct.calcsize(pack)
        pack += f"{pad}x" if pad else ""
        pack += {"char": "16s", "unsigned int": "I", "int": "i", "pid_t": "i", "s64": "q", "long": "q"}.get(
            kind, "Q"
        )
        at += size
    return text, pack


def values(name: str, body: str, address) -> list[int | bytes]:
    """What the body says, in the order of the fields."""
    said = dict(re.findall(r"(\w+)=(\S+?)(?:,|\s|$)", body))
    out: list[int | bytes] = []
    for kind, field in FORMATS[shape(name)][0]:
        text = said.get(field, "0")
        if kind == "char":
            out.append(text.encode())
        elif field == "prev_state":
            out.append(STATES[text])
        elif field in ("function", "func", "callsite"):
            out.append(address(text.split("+")[0]) + (5 if "+" in text else 0))
        else:
            out.append(int(text, 16 if kind == "void *" else 10))
    return out


def packed(records: list[tuple[int, bytes]], draw: random.Random) -> bytes:
    """The pages of one CPU: time stamps in nanoseconds, and data."""
    pages, page, begun, last = b"", b"", 0, 0
    for at, data in records:
        data = data.ljust(-(-len(data) // 4) * 4, b"\0")
        room = 4080 if draw.random() < 0.97 else len(page)  # some pages are left early
        if page and len(page) + len(data) + 48 > room:
            pages += (struct.pack("<QQ", begun, len(page)) + page).ljust(4096, b"\xee")
            page = b""
        if not page:
            begun = last = at
        delta, how = at - last, draw.random()
        if how < 0.1:
            page += struct.pack("<II", (at & 0x7FFFFFF) << 5 | 31, at >> 27)  # an absolute stamp
            delta = 0
        elif delta >= 1 << 27 or how < 0.2:
            page += struct.pack("<II", (delta & 0x7FFFFFF) << 5 | 30, delta >> 27)  # a longer delta
            delta = 0
        if delta and draw.random() < 0.2:  # an event that was taken back: its time passes
            passed, size = min(delta, 700), 4 * draw.randrange(1, 5)
            page += struct.pack("<II", passed << 5 | 29, size).ljust(4 + size, b"\xdd")
            delta -= passed
        if draw.random() < 0.1:
            page += struct.pack("<II", delta << 5, len(data) + 4) + data
        else:
            page += struct.pack("<I", delta << 5 | len(data) // 4) + data
        last = at
    return pages + (struct.pack("<QQ", begun, len(page)) + page).ljust(4096, b"\xee")


def write(path: Path, text: str, seed: int) -> Path:
    """Write the events of this text."""
    draw = random.Random(seed)
    rings: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    comms: dict[int, str] = {}
    numbers: dict[str, int] = {}
    symbols: dict[str, int] = {}

    def address(symbol: str) -> int:
        return symbols.setdefault(symbol, 0xFFFFFFFF81000000 + 0x100 * (1 + len(symbols)))

    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        comm, pid, cpu, flags, seconds, us, name, body = match.groups()
        comms[int(pid)] = comm
        number = numbers.setdefault(name, 300 + len(numbers))
        bits = {"h": 0x08, "s": 0x10, ".": 0}[flags[2]] | (0x01 if flags[0] == "d" else 0)
        bits |= 0x04 if flags[1] == "N" else 0
        head = struct.pack("<HBBi", number, bits, 0, int(pid))
        data = head + struct.pack(fields(name)[1], *values(name, body, address))
        rings[int(cpu)].append((int(seconds) * 10**9 + int(us) * 1000, data))

    def sized(content: bytes, width: str = "<Q") -> bytes:
        return struct.pack(width, len(content)) + content

    made = [event(name, number, fields(name)[0], FORMATS[shape(name)][1]) for name, number in numbers.items()]
    kallsyms = "".join(f"{at:016x} T {name}\n" for name, at in sorted(symbols.items(), key=lambda s: s[1]))
    kallsyms += f"{address('_end_'):016x} T _end_\n"
    cpus = max(rings) + 1
    head = b"\x17\x08\x44tracing6\0" + struct.pack("<BBI", 0, 8, 4096)
    head += b"header_page\0" + sized(HEADER_PAGE) + b"header_event\0" + sized(b"")
    head += struct.pack("<I", 0)
    head += (
        struct.pack("<I", 1)
        + b"events\0"
        + struct.pack("<I", len(made))
        + b"".join(sized(m.encode()) for m in made)
    )
    head += sized(kallsyms.encode(), "<I") + sized(b"", "<I")
    head += sized("".join(f"{pid} {comm}\n" for pid, comm in comms.items() if pid).encode())
    head += struct.pack("<I", cpus) + b"flyrecord\0"
    pages = [packed(rings[cpu], draw) if cpu in rings else b"" for cpu in range(cpus)]
    at = -(-(len(head) + 16 * cpus) // 4096) * 4096
    table, where = b"", at
    for ring in pages:
        table += struct.pack("<QQ", where, len(ring))
        where += len(ring)
    path.write_bytes((head + table).ljust(at, b"\0") + b"".join(pages))
    return path
