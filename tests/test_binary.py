"""Kernel images: what is read, what is refused, and the census of paths whose accesses were counted by hand."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
from tests import kernel_image as image

import tlbcore as tc
from tlbcore import _core, cli

FEATURES = "pti,pcid,pge"


def census(data: bytes, features: str = FEATURES) -> dict:
    return json.loads(_core.binary_census(data, features))


def counts(found: dict, entry: str = "entry_SYSCALL_64") -> dict[str, dict[str, list[int]]]:
    row = next(e for e in found["entries"] if e["name"] == entry)
    return {zone["zone"]: zone["counts"] for zone in row["zones"]}


def ops(found: dict) -> dict[str, list[str]]:
    return {zone["zone"]: [op["op"] for op in zone["ops"]] for zone in found["entries"][0]["zones"]}


# By hand: one store to cpu_tss_rw before the CR3 write; then a load of the stack's address, PUSH and CALL on the task's
# stack; XADD; RET and POP on the way out.
BY_HAND = {
    "before CR3": {"per-CPU": [1, 1]},
    "danger zone": {"per-CPU": [1, 1], "task stack": [2, 2]},
    "context tracking": {"per-CPU": [1, 1]},
    "exit": {"task stack": [2, 2]},
    "exit, user CR3": {},
}


def test_each_access_of_a_path_is_counted_in_its_zone_and_region():
    found = census(image.elf())

    assert counts(found) == BY_HAND
    assert ops(found) == {
        "before CR3": ["swapgs -> kernel", "read cr3"],
        "danger zone": ["mov cr3, kernel flush"],
        "context tracking": [],
        "exit": ["read cr3"],
        "exit, user CR3": ["mov cr3, user flush", "swapgs -> user"],
    }
    stack = found["entries"][0]["zones"][1]["accesses"][0]
    assert (stack["object"], stack["place"]) == ("cpu_current_top_of_stack", "entry_SYSCALL_64+0x19")


def test_without_pti_no_cr3_write_opens_the_danger_zone():
    found = census(image.elf(), "pge")

    assert "danger zone" not in counts(found)
    assert counts(found)["before CR3"] == {"per-CPU": [2, 2], "task stack": [2, 2]}


@pytest.mark.parametrize("packing", image.PACKINGS)
def test_a_packed_kernel_is_the_same_kernel(packing):
    packed = image.bzimage(image.PACKINGS[packing](image.elf()))

    found = census(packed)

    assert found["packing"] == f"bzImage, {packing}"
    assert found["release"] == "6.12.1-test"
    assert counts(found) == BY_HAND


@pytest.mark.parametrize("layout", ["6.1", "6.12", "7.3"])
def test_symbols_come_out_of_kallsyms_where_the_elf_has_none(layout):
    per_cpu = image.PER_CPU_7 if layout == "7.3" else 0
    stripped = image.elf(per_cpu=per_cpu, rodata=image.kallsyms(layout), symtab=False)

    assert counts(census(stripped)) == BY_HAND


def _file(tmp_path: Path, data: bytes, name: str = "vmlinuz") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


GZIP = image.PACKINGS["gzip"](image.elf())
XZ = image.PACKINGS["xz"](image.elf())
REFUSED = {
    "text": (b"hello\n" * 400, "neither a bzImage"),
    "short": (b"\x7fEL", "a file of 3 bytes"),
    "cut ELF": (image.elf()[:300], "damaged ELF|truncated"),
    "cut bzImage": (image.bzimage(GZIP)[:-40], "it is truncated"),
    "damaged": (image.bzimage(XZ[:60] + bytes(40) + XZ[100:]), "the xz payload of the bzImage is damaged"),
    "lzo": (image.bzimage(b"\x89LZO" + bytes(40)), "packed with lzo .*extract-vmlinux"),
    "old": (image.bzimage(GZIP, protocol=0x207), "boot protocol 2.07"),
    "arm64": (image.elf(machine=183), "machine 183 .arm64.: only x86-64"),
    "no symbols": (image.elf(symtab=False), "no kallsyms and no ELF symbols"),
    "no entry": (image.elf(drop=["entry_SYSCALL_64"]), "none of the entry symbols"),
    "no noinstr": (image.elf(drop=["__noinstr_text_start"]), "no symbol `__noinstr_text_start`"),
    "no alternatives": (image.elf(drop=[".altinstructions"]), "no section .altinstructions"),
    "no instruction": (image.elf(b"\x06"), r"ffffffff8100002\w .entry_SYSCALL_64.0x2\w.*: bytes 06"),
    "no end": (image.elf(b"\xeb\xfe"), "the walk does not end.*entry_SYSCALL_64"),
    "warns": (image.elf(b"\x0f\x0b"), "every way warns or panics"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_kernel_that_can_be_walked_is_named(case, tmp_path, capsys):
    data, message = REFUSED[case]

    assert cli.main(["census", _file(tmp_path, data), "--features", FEATURES]) == 2
    with pytest.raises(tc.ImageError, match=message):
        census(data)

    error = capsys.readouterr().err
    assert error.startswith("tlbcore: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("pti,xenpv", "Xen"),
        ("pti,fred", "no feature `fred`|leave one out"),
        ("ptj", "no feature `ptj`"),
        ("call_depth", "not modelled"),
    ],
)
def test_features_that_the_walk_cannot_be_made_for_are_refused(features, message):
    with pytest.raises(tc.ImageError, match=message):
        census(image.elf(), features)


@pytest.mark.slow
def test_a_kernel_that_unpacks_without_an_end_is_refused():
    """A gigabyte of zeros packs into a megabyte."""
    bomb = image.PACKINGS["gzip"](b"\x7fELF" + bytes(600 << 20))

    with pytest.raises(tc.ImageError, match="more than 512 MiB"):
        census(image.bzimage(bomb))


def test_every_truncation_and_every_flipped_byte_ends_in_an_answer_or_an_error():
    whole = image.elf(rodata=image.kallsyms("6.12"), symtab=False)
    for end in range(0, len(whole), 97):
        with pytest.raises(tc.ImageError):
            census(whole[:end])
    for at in range(0, len(whole), 31):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        with contextlib.suppress(tc.ImageError):
            census(bytes(broken))


def test_a_load_of_vmalloc_memory_in_the_danger_zone_is_new_and_has_its_place(tmp_path, capsys):
    old = _file(tmp_path, image.elf(), "old")
    new = _file(tmp_path, image.elf(image.VMALLOC_LOAD), "new")

    assert cli.main(["census", old, "--against", new, "--features", FEATURES]) == 1
    out = capsys.readouterr().out
    assert (
        "! danger zone: region vmalloc\n      entry_SYSCALL_64, at ffffffff8100002d (entry_SYSCALL_64+0x2d)"
        in out
    )

    assert cli.main(["census", new, "--against", old, "--features", FEATURES]) == 0
    assert "No region, object or TLB op is new in a danger zone." in capsys.readouterr().out
    assert cli.main(["census", new, "--features", FEATURES]) == 0
    assert "load of vmalloc memory at 0xffffc90000100000" in capsys.readouterr().out


def test_a_flush_in_the_danger_zone_is_new_too():
    difference = json.loads(
        _core.binary_compare(
            _core.binary_census(image.elf(), FEATURES),
            _core.binary_census(image.elf(image.INVPCID_ALL), FEATURES),
        )[1]
    )

    added = {(c["zone"], c["kind"], c["what"]) for c in difference["added"] if c["danger"]}
    assert added == {("danger zone", "op", "invpcid all-including-global")}


def test_a_saved_census_is_compared_with(tmp_path, capsys):
    path = _file(tmp_path, image.elf())
    assert cli.main(["census", path, "--features", FEATURES, "--json"]) == 0
    saved = tmp_path / "saved.json"
    saved.write_text(capsys.readouterr().out)

    assert cli.main(["census", path, "--since", str(saved), "--features", FEATURES]) == 0
    mutant = _file(tmp_path, image.elf(image.VMALLOC_LOAD), "mutant")
    assert cli.main(["census", mutant, "--since", str(saved), "--features", FEATURES]) == 1

    saved.write_text('{"schema": "tlbcore.replay"}')
    assert cli.main(["census", path, "--since", str(saved), "--features", FEATURES]) == 2
    assert "no saved census" in capsys.readouterr().err


def test_an_unknown_address_is_unknown_and_never_one_of_the_regions():
    """mov rax, gs:[0x7100]; mov rax, [rax]: through a pointer of which nothing is known."""
    load = bytes.fromhex("65488b0425") + struct.pack("<I", 0x7100) + bytes.fromhex("488b00")

    found = census(image.elf(load))

    assert counts(found)["danger zone"]["unknown"] == [1, 1]
    assert "unknown" in _core.binary_report(json.dumps(found))


def test_an_entry_is_shown_access_by_access(tmp_path, capsys):
    path = _file(tmp_path, image.elf())

    assert cli.main(["census", path, "--entry", "entry_SYSCALL_64", "--features", FEATURES]) == 0
    assert "ffffffff81000016 mov cr3, kernel flush  (entry_SYSCALL_64+0x16)" in capsys.readouterr().out
    assert cli.main(["census", path, "--entry", "entry_SYSCALL64", "--features", FEATURES]) == 2
    assert "did you mean `entry_SYSCALL_64`" in capsys.readouterr().err


def test_an_access_of_the_binary_is_in_the_counterexample_with_its_address_and_symbol(tmp_path, capsys):
    """ct-late flushes at the atomic: what is loaded before it may be stale, whatever is assumed of other code."""
    kernel, mutant = tmp_path / "as-built.kernel", tmp_path / "mutant.kernel"
    kernel.write_text(_core.binary_extract(image.elf(), FEATURES))
    mutant.write_text(_core.binary_extract(image.elf(image.VMALLOC_LOAD), FEATURES))
    assert "touch recycled" not in kernel.read_text()

    built = tc.check(tc.policies["ct-late"].on(kernel))
    broken = tc.check(tc.policies["ct-late"].on(mutant))

    assert built.status == "verified"
    assert (broken.status, broken.grade) == ("violated", "an access in the window is known")
    assert "entry_SYSCALL_64+0x2d ffffffff8100002d" in str(broken)
    assert cli.main(["check", "ct-late", "--kernel", str(mutant)]) == 1
    assert "ffffffff8100002d" in capsys.readouterr().out


def test_a_flush_that_the_binary_makes_itself_stands_in_the_text():
    text = _core.binary_extract(image.elf(image.INVPCID_ALL), FEATURES)

    section = text[text.index("\nsyscall") :]
    order = [
        section.index(word)
        for word in (
            "swapgs",
            "to_kernel",
            "touch stack",
            "invpcid all-including-global",
            "ct_enter",
            "to_user",
        )
    ]
    assert order == sorted(order)


def test_what_is_no_kernel_text_is_refused(tmp_path, capsys):
    wrong = tmp_path / "ours.policy"
    wrong.write_text(tc.policies["ct-late"].text)

    assert cli.main(["check", "ipi", "--kernel", str(wrong)]) == 2
    assert "ours.policy:1:1: a kernel text starts with `kernel NAME`" in capsys.readouterr().err
