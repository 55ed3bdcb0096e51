"""Kernel images: what is read, what is refused, and the census of paths whose accesses were counted by hand."""

from __future__ import annotations

import contextlib
import json
import lzma
import struct
from pathlib import Path

import pytest
from tests import kernel_image as image

import tlbcore as tc
from tlbcore import _core, cli
from tlbcore._input import images

FEATURES = "pti,pcid,pge"
DATA = Path(__file__).parent / "data"


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
    "packed in a way of its own": (
        image.bzimage(b"\x01\x02" + bytes(40)),
        "a compression that is not known here",
    ),
    "old": (image.bzimage(GZIP, protocol=0x207), "boot protocol 2.07"),
    "arm64": (image.elf(machine=183), "machine 183 .arm64.: only x86-64"),
    "no symbols": (image.elf(symtab=False), "no kallsyms and no ELF symbols"),
    "no entry": (image.elf(drop=["entry_SYSCALL_64"]), "none of the entry symbols"),
    "no noinstr": (image.elf(drop=["__noinstr_text_start"]), "no symbol `__noinstr_text_start`"),
    "no alternatives": (image.elf(drop=[".altinstructions"]), "no section .altinstructions"),
    "no instruction": (image.elf(b"\x06"), r"ffffffff8100002\w .entry_SYSCALL_64.0x2\w.*: bytes 06"),
    "no end": (image.elf(b"\xeb\xfe"), "the walk does not end.*entry_SYSCALL_64"),
    # cmp byte [rdi], 0; je over the nop; nop; back: two ways at each turn.
    "ways without end": (
        image.elf(b"\x80\x3f\x00\x74\x01\x90\xeb\xf8"),
        "too many ways to follow: 513 .*entry_SYSCALL_64",
    ),
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
        ("pti,pge,fred", "leave one out"),
        ("ptj", "feature `ptj`"),
        ("call_depth", "not modelled"),
    ],
)
def test_features_that_the_walk_cannot_be_made_for_are_refused(features, message):
    with pytest.raises(tc.ImageError, match=message):
        census(image.elf(), features)


def feature_table() -> bytes:
    """`x86_cap_flags` without a symbol, as in Debian's 7.3; `fpu` is the tail of another text, as linkers make it."""
    names = {0: b"fpu", 1: b"vme", 2: b"de", 3: b"pse", 13: b"pge", 288: b"fsgsbase"}
    texts, places = b"\0x87", {}
    for number, name in names.items():
        places[number] = image.RODATA + len(texts)
        texts += name + b"\0"
    texts += bytes(-len(texts) % 8)
    return texts + b"".join(struct.pack("<Q", places.get(i, 0)) for i in range(400)) + bytes(8)


def test_names_of_features_are_found_by_the_shape_of_their_table():
    found = census(image.elf(rodata=feature_table()), "pti,pge,fsgsbase")

    assert "fsgsbase" in found["features"]
    with pytest.raises(tc.ImageError, match="no feature `fsgsbas`; did you mean `fsgsbase`"):
        census(image.elf(rodata=feature_table()), "pti,pge,fsgsbas")
    with pytest.raises(tc.ImageError, match=r"no table of feature names .x86_cap_flags.*srso"):
        census(image.elf(), "pti,pge,fsgsbase")


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

    kept = ["--features x", "--cpu nosuch", "--this-machine"]
    for words in kept:
        assert cli.main(["census", str(saved), *words.split()]) == 2
        refusal = f"a saved census was walked with features of its own: leave {words.split()[0]} out"
        assert capsys.readouterr().err == f"tlbcore: error: {refusal}\n"
    assert cli.main(["census", str(saved), "--since", str(saved), *kept[0].split()]) == 2
    assert cli.main(["census", str(saved), "--against", str(saved), *kept[0].split()]) == 2
    assert capsys.readouterr().err.count(": leave --features out") == 2
    assert cli.main(["census", str(saved), "--against", mutant, "--features", FEATURES]) == 1
    assert cli.main(["census", str(saved)]) == 0
    packed = tmp_path / "saved.json.xz"
    packed.write_bytes(lzma.compress(saved.read_bytes()))
    assert cli.main(["census", str(packed), *kept[0].split()]) == 2
    assert "of its own" in capsys.readouterr().err
    packed.write_bytes(b"no xz")
    assert cli.main(["census", str(packed), "--features", FEATURES]) == 2
    assert "damaged xz file" in capsys.readouterr().err
    assert cli.main(["census", path, "--json", "--entry", "entry_SYSCALL_64"]) == 2
    assert capsys.readouterr().err == "tlbcore: error: --json holds every entry: leave --entry out\n"

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


def extracted(*, danger: bytes, leave: bytes = image.FLAG_CLEAR, features: str = FEATURES) -> str:
    shadow = {"cpu_tlbstate.cr4": image.SHADOW}
    return _core.binary_extract(image.elf(danger, leave=leave, symbols=shadow), features)


def section(text: str, name: str = "syscall") -> list[str]:
    """The statements of a section without their places."""
    body = text[text.index(f"\n{name} @") :].split("\n\n")[0].splitlines()[2:]
    return [line.split(" @")[0][2:] for line in body]


V7 = image.in_mask(image.INVPCID_ALL) + image.FLAG_STORE


def test_a_kernel_with_the_series_code_has_its_test_flush_and_flag_in_the_text():
    """v7 29/31 and 28/31: the flush on CPUs of the mask, then the flag; cleared before the CR3 write of the way out."""
    assert section(extracted(danger=V7)) == [
        "swapgs",
        "touch entry",
        "mov cr3, kernel noflush",
        "touch percpu",
        "touch stack",
        "touch image",
        "if me in flush_mask",
        "  touch stack",
        "  invpcid all-including-global",
        "touch percpu",
        "kernel_cr3_loaded = 1",
        "touch stack",
        "touch percpu",
        "ct_enter",
        "sti",
        "body syscall",
        "cli",
        "ct_exit",
        "touch stack",
        "touch percpu",
        "kernel_cr3_loaded = 0",
        "mov cr3, user owed",
        "swapgs",
    ]


def test_without_invpcid_the_series_toggles_pge():
    lines = section(extracted(danger=image.in_mask(image.PGE_TOGGLE) + image.FLAG_STORE))

    at = lines.index("if me in flush_mask")
    assert lines[at + 1 : at + 4] == ["  touch percpu", "  mov cr4, pge off", "  mov cr4, pge on"]


def test_a_mask_that_is_read_through_its_pointer_is_the_whole_mask():
    lines = section(extracted(danger=image.in_mask(image.INVPCID_ALL, through=True) + image.FLAG_STORE))

    assert "if me in nohz_full" in lines
    assert "touch directmap" in lines


def where_nothing_decides(then: bytes) -> bytes:
    """`then` where a per-CPU variable that nobody knows is not 0: cmp dword gs:[0x7300], 0; je."""
    return image.gs("65833c25", 0x7300) + b"\0" + bytes([0x74, len(then)]) + then


def test_ways_that_part_at_a_test_of_anything_else_are_undecided():
    lines = section(extracted(danger=where_nothing_decides(image.INVPCID_ALL) + image.FLAG_STORE))

    at = lines.index("if either")
    assert lines[at - 1 : at + 4] == [
        "touch stack",
        "if either",
        "  invpcid all-including-global",
        "  touch percpu",
        "kernel_cr3_loaded = 1",
    ]


@pytest.mark.parametrize(
    ("danger", "status"),
    [
        pytest.param(image.FLAG_XCHG + image.INVPCID_ALL, "verified", id="always"),
        pytest.param(image.FLAG_XCHG + where_nothing_decides(image.INVPCID_ALL), "violated", id="on one way"),
    ],
)
def test_a_flush_on_one_of_two_ways_is_not_enough(danger, status, tmp_path):
    kernel = tmp_path / "series.kernel"
    kernel.write_text(extracted(danger=danger))

    found = tc.check(tc.policies["coalesce-v7-fixed"].on(kernel))

    assert found.status == status
    if status == "violated":
        assert "if either: no" in str(found)


@pytest.mark.parametrize(
    ("danger", "status"),
    [
        pytest.param(V7, "violated", id="INVPCID, then the flag: v7"),
        pytest.param(image.FLAG_STORE + image.in_mask(image.INVPCID_ALL), "violated", id="plain flag first"),
        pytest.param(image.FLAG_XCHG + image.in_mask(image.INVPCID_ALL), "verified", id="XCHG first"),
    ],
)
def test_mutants_of_the_series_code_are_told_apart(danger, status, tmp_path):
    kernel = tmp_path / "series.kernel"
    kernel.write_text(extracted(danger=danger))

    found = tc.check(tc.policies["coalesce-v7-fixed"].on(kernel))

    assert found.status == status
    if status == "violated":
        assert "entry_SYSCALL_64+0x" in str(found)


def test_a_variable_with_another_symbol_is_named():
    data = image.elf(image.FLAG_STORE, symbols={"in_kernel": image.FLAG})

    text = _core.binary_extract(data, FEATURES, [("kernel_cr3_loaded", "in_kernel")])

    assert "kernel_cr3_loaded = 1" in section(text)
    with pytest.raises(tc.ImageError, match="no symbol `in_kernal`; did you mean `in_kernel`"):
        _core.binary_extract(data, FEATURES, [("kernel_cr3_loaded", "in_kernal")])
    with pytest.raises(tc.ImageError, match="NAME=SYMBOL"):
        images.extract("none", FEATURES, ["kernel_cr3_loaded"])


def test_an_operand_that_is_not_known_is_refused_with_its_place():
    """invpcid rdx, [rsp], whose type nothing tells."""
    with pytest.raises(tc.ImageError, match=r"invpcid of unknown type at entry_SYSCALL_64\+0x"):
        extracted(danger=bytes.fromhex("660f38821424"))


def proc(tmp_path: Path, text: bytes, *, slide: int = 0x12000000, kallsyms: str = "") -> Path:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/osrelease").write_text("6.12.1-test\n")
    (tmp_path / "kcore").write_bytes(image.kcore(text, slide))
    _, symbols = image.code(LOADS)
    (tmp_path / "kallsyms").write_text(
        kallsyms or "".join(f"{address + slide:016x} T {name}\n" for name, address in symbols.items())
    )
    return tmp_path


# mov rax, [data]: an absolute address, which KASLR moves.
LOADS = bytes.fromhex("488b0425") + struct.pack("<I", image.DATA & 0xFFFFFFFF)


def moved(text: bytes, slide: int = 0x12000000) -> bytes:
    address = image.DATA & 0xFFFFFFFF
    return text.replace(struct.pack("<I", address), struct.pack("<I", address + slide))


def test_the_running_text_is_compared_with_the_file_wherever_it_lies(tmp_path):
    path = _file(tmp_path, image.elf(LOADS))
    text, _ = image.code(LOADS)

    report, same, live = images.verify(path, FEATURES, proc(tmp_path / "proc", moved(text)))

    assert same, report
    assert "0 of" in report.splitlines()[0]
    assert "moved by 0x12000000" in report
    assert "All 1 entries are in memory as predicted" in report
    assert json.loads(live)["release"] == "6.12.1-test"


def test_what_was_patched_in_memory_is_named_with_its_place(tmp_path):
    path = _file(tmp_path, image.elf(LOADS))
    text, _ = image.code(LOADS)
    patched = moved(text.replace(LOADS, bytes.fromhex("0f1f840000000000")))

    report, same, _ = images.verify(path, FEATURES, proc(tmp_path / "proc", patched))

    assert not same
    assert "entry_SYSCALL_64: only predicted: danger zone: load of" in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "kcore").unlink(), "kcore: there is none"),
        (lambda p: (p / "kcore").write_bytes(b"\x7fELF" + bytes(100)), "no 64-bit ELF core"),
        (lambda p: (p / "kcore").write_bytes(b""), "cannot be read"),
        (lambda p: (p / "kallsyms").write_text("0000000000000000 T _text\n"), "run as root"),
        (lambda p: (p / "kallsyms").write_text(""), "no symbol `_text`"),
        (
            lambda p: (p / "kallsyms").write_text(
                "ffffffff91000000 T _text\nffffffff91000010 T entry_SYSCALL_64\n"
            ),
            "not that of the running kernel",
        ),
        (
            lambda p: (p / "kallsyms").write_text("ffffffffa1000000 T _text\n"),
            "holds no kernel text at 0xffffffffa1000000",
        ),
        (lambda p: (p / "sys/kernel/osrelease").write_text("6.1\n"), "but 6.1 runs"),
    ],
)
def test_a_running_kernel_that_cannot_be_read_is_refused(change, message, tmp_path):
    path = _file(tmp_path, image.elf(LOADS))
    text, _ = image.code(LOADS)
    where = proc(tmp_path / "proc", moved(text))
    change(where)

    with pytest.raises(tc.ImageError, match=message):
        images.verify(path, FEATURES, where)


@pytest.mark.parametrize(
    ("words", "asked", "same"),
    [("", "here", True), ("--features pti", "pti", True), ("--cpu skylake-sp", "of skylake-sp", False)],
)
def test_the_running_text_is_walked_with_the_features_of_this_machine_unless_others_are_named(
    words, asked, same, monkeypatch, capsys
):
    def features(*, given, cpu, this_machine):
        return given or (f"of {cpu}" if cpu else "here" if this_machine else "none")

    monkeypatch.setattr(images, "features", features)
    monkeypatch.setattr(images, "verify", lambda path, on: (f"{path} with {on}\n", same, '{"a":  1}'))
    ask = ["census", "image", "--verify-live", *words.split()]
    assert cli.main(ask) == int(not same)
    assert capsys.readouterr().out == f"image with {asked}\n"
    assert cli.main([*ask, "--json"]) == int(not same)
    assert capsys.readouterr().out == '{\n "a": 1\n}\n'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--features pti --cpu skylake-sp",
            "--features, --cpu and --this-machine each name the whole set: give one",
        ),
        ("--html h --verify-live", "--html has every entry of IMAGE: leave --entry and --verify-live out"),
        ("--html h --entry e", "--html has every entry of IMAGE: leave --entry and --verify-live out"),
        (
            "--since a --verify-live",
            "--entry, --against, --since and --verify-live each ask another question: give one",
        ),
    ],
)
def test_questions_of_a_census_that_exclude_each_other_are_refused(words, said, capsys):
    assert cli.main(["census", "image", *words.split()]) == 2
    assert capsys.readouterr().err == f"tlbcore: error: {said}\n"


def answers(found: tc.Verdict) -> dict[tuple[str, str], tuple[str, str | None]]:
    """What each world and question got, where code that is not modelled touches nothing."""
    cases = [case for case in (found.cases or (found,)) if case.assume.get("D", "none") == "none"]
    return {(case.world, case.asked): (case.status, case.grade) for case in cases}


def same_verdicts(policy: str, text: str, tmp_path: Path) -> None:
    """Hold the paths of a kernel text against those of linux.kernel, in each question that is asked of both."""
    path = tmp_path / "real.kernel"
    path.write_text(text)
    ours, theirs = answers(tc.check(policy)), answers(tc.check(tc.policies[policy].on(path)))
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {key: theirs[key] for key in shared} == {key: ours[key] for key in shared}


@pytest.mark.parametrize("policy", ["ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed", "pending-bit"])
def test_the_paths_of_6_12_give_the_verdicts_of_the_hand_written_ones(policy, tmp_path):
    """The text that `tlbcore extract` wrote of Debian's 6.12.117."""
    same_verdicts(policy, (DATA / "linux-6.12.117.kernel").read_text(), tmp_path)


def test_what_is_no_kernel_text_is_refused(tmp_path, capsys):
    wrong = tmp_path / "ours.policy"
    wrong.write_text(tc.policies["ct-late"].text)

    assert cli.main(["check", "ipi", "--kernel", str(wrong)]) == 2
    assert "ours.policy:1:1: a kernel text starts with `kernel NAME`" in capsys.readouterr().err
