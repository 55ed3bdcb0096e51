"""A kernel image of a few instructions, assembled by hand, and the packings that a real one comes in."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable, Mapping, Sequence

TEXT = 0xFFFFFFFF81000000
RODATA = 0xFFFFFFFF82000000

SWAPGS = bytes.fromhex("0f01f8")
VMALLOC = 0xFFFFC90000100000
# mov rax, VMALLOC; mov rax, [rax]
VMALLOC_LOAD = b"\x48\xb8" + struct.pack("<Q", VMALLOC) + bytes.fromhex("488b00")
# mov eax, 2; xor ecx, ecx; invpcid rax, [rsp]: type 2, its descriptor on the stack
INVPCID_ALL = bytes.fromhex("b802000000") + bytes.fromhex("660f38820424")


DATA = RODATA + 0x200000
MASK, FLAG, SHADOW = DATA, 0x7100, 0x7200  # tick_nohz_full_mask, kernel_cr3_loaded, cpu_tlbstate.cr4


def gs(opcode: str, offset: int) -> bytes:
    """An instruction with a per-CPU operand of 32 bits."""
    return bytes.fromhex(opcode) + struct.pack("<I", offset & 0xFFFFFFFF)


def flag_store(value: int, flag: int = FLAG) -> bytes:
    """mov dword gs:[kernel_cr3_loaded], value."""
    return gs("65c70425", flag) + struct.pack("<I", value)


def flag_xchg(value: int, flag: int = FLAG) -> bytes:
    """mov eax, value; xchg gs:[kernel_cr3_loaded], eax."""
    return b"\xb8" + struct.pack("<I", value) + gs("65870425", flag)


FLAG_STORE, FLAG_CLEAR, FLAG_XCHG = flag_store(1), flag_store(0), flag_xchg(1)
# mov rax, gs:[cr4 shadow]; xor rax, 0x80; mov cr4, rax; xor rax, 0x80; mov cr4, rax
PGE_TOGGLE = gs("65488b0425", SHADOW) + bytes.fromhex("483580000000 0f22e0 483580000000 0f22e0")


def in_mask(then: bytes, through: bool = False, mask: int = MASK) -> bytes:
    """`then` on CPUs of tick_nohz_full_mask: BT of its bits, or through the pointer (CPUMASK_OFFSTACK)."""
    if through:
        test = bytes.fromhex("488b0c25") + struct.pack("<I", mask & 0xFFFFFFFF)  # mov rcx, [mask]
        test += bytes.fromhex("480fa301")  # bt [rcx], rax
    else:
        test = bytes.fromhex("480fa30425") + struct.pack("<I", mask & 0xFFFFFFFF)  # bt [mask], rax
    return test + bytes([0x73, len(then)]) + then  # jae


PER_CPU_7 = 0xFFFFFFFF82300000  # since 6.15 per-CPU symbols are addresses of the image


def code(danger: bytes = b"", per_cpu: int = 0, leave: bytes = b"") -> tuple[bytes, dict[str, int]]:
    """The text, with bytes put in before the call into context tracking, and before the CR3 write; and its symbols."""

    def _gs(opcode: str, offset: int) -> bytes:
        return bytes.fromhex(opcode) + struct.pack("<I", per_cpu + offset & 0xFFFFFFFF)

    entry = SWAPGS
    entry += _gs("6548892425", 0x6014)  # mov gs:[cpu_tss_rw+0x14], rsp
    entry += bytes.fromhex("0f20dc")  # mov rsp, cr3
    entry += bytes.fromhex("4881e4ffe7ffff")  # and rsp, ~0x1800
    entry += bytes.fromhex("0f22dc")  # mov cr3, rsp
    entry += _gs("65488b2425", 0x5000)  # mov rsp, gs:[cpu_current_top_of_stack]
    entry += bytes.fromhex("50")  # push rax
    entry += danger
    calls = len(entry)
    tail = bytes.fromhex("59") + leave  # pop rcx
    tail += bytes.fromhex("0f20df4881cf001800000f22df")  # mov rdi, cr3; or rdi, 0x1800; mov cr3, rdi
    tail += SWAPGS + bytes.fromhex("480f07")  # sysretq
    end = calls + 10 + len(tail)
    into = end + (-end) % 16
    out = into + 16
    entry += b"\xe8" + struct.pack("<i", into - (calls + 5))
    entry += b"\xe8" + struct.pack("<i", out - (calls + 10))
    entry = (entry + tail).ljust(into, b"\xcc")
    # mov eax, N; lock xadd gs:[context_tracking.state], eax; ret
    for change in (2, -2):
        entry += b"\xb8" + struct.pack("<i", change) + _gs("f0650fc10425", 0x7000) + b"\xc3"
        entry = entry.ljust(out if change == 2 else out + 16, b"\xcc")
    symbols = {
        "_text": TEXT,
        "__entry_text_start": TEXT,
        "entry_SYSCALL_64": TEXT,
        "__entry_text_end": TEXT + into,
        "__noinstr_text_start": TEXT + into,
        "__ct_user_exit": TEXT + into,
        "__ct_user_enter": TEXT + out,
        "__noinstr_text_end": TEXT + out + 16,
        "cpu_current_top_of_stack": per_cpu + 0x5000,
        "cpu_tss_rw": per_cpu + 0x6000,
        "context_tracking.state": per_cpu + 0x7000,
    }
    if leave:  # a kernel with the series' code
        symbols |= {"kernel_cr3_loaded": per_cpu + FLAG, "tick_nohz_full_mask": MASK}
    return entry, symbols


def elf(
    danger: bytes = b"",
    *,
    leave: bytes = b"",
    symbols: Mapping[str, int] | None = None,
    per_cpu: int = 0,
    rodata: bytes = b"",
    symtab: bool = True,
    machine: int = 62,
    drop: Sequence[str] = (),
) -> bytes:
    """An ELF of that text; `drop` leaves sections or symbols out."""
    text, names_of = code(danger, per_cpu, leave)
    all_symbols = names_of | dict(symbols or {})
    release = b"Linux version 6.12.1-test (by hand)\0"
    sections: list[tuple[str, int, int, int, bytes, int, int, int]] = [
        (".text", 1, 6, TEXT, text, 0, 0, 0),
        (".rodata", 1, 2, RODATA, rodata + release, 0, 0, 0),
        (".altinstructions", 1, 2, RODATA + 0x100000, b"", 0, 0, 0),
        (".data", 1, 3, RODATA + 0x200000, bytes(16), 0, 0, 0),
        (".data..percpu", 8, 3, per_cpu, bytes(0), 0, 0, 0),
    ]
    if symtab:
        names, table = b"\0", bytes(24)
        for name, address in all_symbols.items():
            if name not in drop:
                table += struct.pack("<IBBHQQ", len(names), 0x12, 0, 1, address, 0)
                names += name.encode() + b"\0"
        sections.append((".symtab", 2, 0, 0, table, len(sections) + 2, 1, 24))
        sections.append((".strtab", 3, 0, 0, names, 0, 0, 0))
    sections = [s for s in sections if s[0] not in drop]
    shstr = b"\0" + b"".join(s[0].encode() + b"\0" for s in sections) + b".shstrtab\0"
    sections.append((".shstrtab", 3, 0, 0, shstr, 0, 0, 0))
    body, headers = b"", bytes(64)
    for name, kind, flags, address, content, link, info, entsize in sections:
        at = 64 + len(body)
        place = shstr.index(b"\0" + name.encode() + b"\0") + 1
        size = 0x8000 if kind == 8 else len(content)
        headers += struct.pack("<IIQQQQIIQQ", place, kind, flags, address, at, size, link, info, 8, entsize)
        body += content + bytes(-len(content) % 8)
    start = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,
        machine,
        1,
        TEXT,
        0,
        64 + len(body),
        0,
        64,
        56,
        0,
        64,
        len(sections) + 1,
        len(sections),
    )
    return start + body + headers


def _lz4(data: bytes) -> bytes:
    """lz4's legacy frame, literals only, and the size that the kernel's build appends."""
    length = len(data)
    rest = length - 15
    block = b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + data
    return struct.pack("<II", 0x184C2102, len(block)) + block + struct.pack("<I", length)


def _zstd(data: bytes) -> bytes:
    """A zstd frame of one raw block, and the size that the kernel's build appends."""
    assert len(data) < 1 << 17
    block = (1 | len(data) << 3).to_bytes(3, "little") + data
    return struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data)) + block + struct.pack("<I", len(data))


PACKINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32) + struct.pack("<I", len(data)),
    "lz4": _lz4,
    "zstd": _zstd,
}


def bzimage(packed: bytes, *, protocol: int = 0x20F, length: int | None = None) -> bytes:
    """A bzImage around a payload."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<II", setup, 0x248, 16, len(packed) if length is None else length)
    return bytes(setup) + bytes(16) + packed


def kallsyms(layout: str) -> bytes:
    """kallsyms of the hand-made text, at the start of .rodata, as scripts/kallsyms.c of that version writes it.

    Each byte is a token of its own, so that a name is its own packed form.
    """
    _, symbols = code(per_cpu=PER_CPU_7 if layout == "7.3" else 0)
    ordered = sorted(symbols.items(), key=lambda item: item[1])
    tokens = [bytes([i]) if 32 < i < 127 else b"@%d" % i for i in range(256)]
    table = b"".join(token + b"\0" for token in tokens)
    index, at = b"", 0
    for token in tokens:
        index += struct.pack("<H", at)
        at += len(token) + 1
    names = b"".join(bytes([len(name) + 1]) + b"T" + name.encode() for name, _ in ordered)
    markers = struct.pack("<I", 0)
    count = struct.pack("<I", len(ordered))

    def pad(data: bytes, to: int = 8) -> bytes:
        return data + bytes(-len(data) % to)

    base = struct.pack("<Q", TEXT)
    absolute = b"".join(
        struct.pack("<i", address if address < 1 << 31 else TEXT - 1 - address) for _, address in ordered
    )
    if layout == "6.1":
        return b"".join(map(pad, (absolute, base, count, names, markers, table, index)))
    if layout == "6.12":
        return b"".join(map(pad, (count, names, markers, table, index, absolute, base)))
    first = b"".join(pad(part, 4) for part in (count, names, markers, table, index))
    relative = b""
    for i, (_, address) in enumerate(ordered):
        place = RODATA + len(first) + 4 * i
        relative += struct.pack("<i", address - place)
    return first + relative


def kcore(text: bytes, slide: int) -> bytes:
    """An ELF core that holds the kernel's text at its place, as /proc/kcore does."""
    start = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    note = struct.pack("<IIQQQQQQ", 4, 4, 0, 0, 0, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, TEXT + slide, 0, len(text), len(text), 0x1000)
    return (start + note + load).ljust(0x1000, b"\0") + text
