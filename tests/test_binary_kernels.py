"""The census of real kernels against tables that another walker and a run under emulation gave (sources.md, CENSUS).

Kernels are not part of the repository: those in /boot are taken, and those below the folder that TLBCORE_KERNELS names
(unpack Debian's linux-image-6.1.0-57-amd64-unsigned, linux-image-6.12.117+deb12-amd64-unsigned
there with `dpkg-deb -x`).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import time
from pathlib import Path

import pytest
from tests import kernel_image as image
from tests.test_binary import same_verdicts

import tlbcore as tc
from tlbcore import _core

pytestmark = pytest.mark.slow

# PTI without PCID, as under QEMU's TCG: the machine of the measured census.
FEATURES = "pti,pge,fsgsbase,smap,hypervisor,clear_cpu_buf"
DEFAULT = _core.binary_features()
REGIONS = ("cpu_entry_area", "per-CPU", "kernel rodata", "kernel data", "direct map", "task stack")
ZONES = {
    "E0": "before CR3",
    "E1": "danger zone",
    "E2": "context tracking",
    "X1": "exit",
    "X2": "exit, user CR3",
}

# entry: rows of (zone, cpu_entry_area, per-CPU, rodata, data, direct map, task stack), fewest-most over the ways.
TRACKING = "E2 0 11 0 0 1 7"
TABLES: dict[str, dict[str, list[str]]] = {
    "6.12.117": {
        "entry_SYSCALL_64": ["E0 0 1 0 0 0 0", "E1 0 5 0 0 1 28", TRACKING],
        "entry_SYSENTER_compat": ["E0 1 0 0 0 0 0", "E1 1 5 1 0 5 39-41", TRACKING],
        "entry_SYSCALL_compat": ["E1 0 5 1 0 5 34", TRACKING],
        "asm_int80_emulation": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 26", TRACKING],
        "asm_exc_page_fault": ["E0 19 0 0 0 0 0", "E1 22 4 0 0 1 31", TRACKING, "X1 7 4 0 0 1 34"],
        "asm_exc_general_protection": ["E0 19 0 0 0 0 0", "E1 22 4 0 0 0 32", TRACKING],
        "asm_exc_divide_error": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 27", TRACKING],
        "asm_exc_invalid_op": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 28", TRACKING],
        "asm_exc_int3": ["E0 21 0 0 0 0 0", "E1 22 3 0 0 0 29", TRACKING],
        "asm_exc_debug (from user mode)": ["E0 21 0 0 0 0 0", "E1 22 3 0 0 0 40", TRACKING],
        "asm_sysvec_call_function": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 27", TRACKING, "X1 7 4 0 0 1 34"],
        "asm_common_interrupt": ["E0 19 0 0 0 0 0", "E1 22 3 0 0 0 30", TRACKING],
        # Like other vectors of the APIC; nothing pushes a vector.
        "asm_sysvec_apic_timer_interrupt": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 27", TRACKING],
        # 48 in the measured census.
        "asm_exc_nmi (from kernel code, user CR3)": ["E0 48 0 0 0 0 0", "E1 7 9 3 1 0 0", "E2 2 6 0 0 0 0"],
        "asm_exc_debug (from kernel code, user CR3)": [
            "E0 20 0 0 0 0 0",
            "E1 21 4 1 0 0 0",
            "E2 2 6 0 0 0 0",
        ],
        "asm_exc_machine_check (from user mode)": ["E0 21 0 0 0 0 0", "E1 22 3 0 0 0 26", TRACKING],
    },
    # SYSCALL is counted by hand in the disassembly of 7.3-rc7: 5 pushes of the frame, 16 of registers, the call of
    # do_syscall_64, its 4 pushes, the call of __ct_user_exit.
    "7.3-amd64": {
        "entry_SYSCALL_64": ["E0 0 1 0 0 0 0", "E1 0 4 0 0 0 27", TRACKING],
        "asm_exc_divide_error": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 27", TRACKING],
        "asm_exc_int3": ["E0 21 0 0 0 0 0", "E1 22 3 0 0 0 29", TRACKING],
        "asm_sysvec_call_function": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 27", TRACKING],
        "asm_sysvec_apic_timer_interrupt": ["E0 20 0 0 0 0 0", "E1 22 3 0 0 0 27", TRACKING],
        "asm_common_interrupt": ["E0 19 0 0 0 0 0", "E1 22 3 0 0 0 30", TRACKING],
    },
    "6.1.": {
        "entry_SYSCALL_64": ["E0 0 1 0 0 0 0", "E1 0 5 0 0 1 28", TRACKING],
        "entry_SYSCALL_compat": ["E1 0 6 1 0 5 32", TRACKING],
        "asm_int80_emulation": ["E0 20 0 0 0 0 0", "E1 24 3 0 0 0 26", TRACKING],
        "asm_exc_page_fault": ["E0 19 0 0 0 0 0", "E1 24 4 0 0 1 31", TRACKING],
        "asm_exc_general_protection": ["E0 19 0 0 0 0 0", "E1 24 4 0 0 0 32", TRACKING],
        "asm_exc_divide_error": ["E0 20 0 0 0 0 0", "E1 24 3 0 0 0 27", TRACKING],
        "asm_exc_int3": ["E0 21 0 0 0 0 0", "E1 24 3 0 0 0 29", TRACKING],
        "asm_exc_debug (from user mode)": ["E0 21 0 0 0 0 0", "E1 24 4 0 0 0 34", TRACKING],
        "asm_sysvec_call_function": ["E0 20 0 0 0 0 0", "E1 24 3 0 0 0 27", TRACKING],
        "asm_common_interrupt": ["E0 19 0 0 0 0 0", "E1 24 3 0 0 0 30", TRACKING],
    },
}


def kernels() -> list[Path]:
    found = list(Path("/boot").glob("vmlinuz-*"))
    folder = os.environ.get("TLBCORE_KERNELS")
    if folder:
        found += [*Path(folder).rglob("vmlinuz-*"), *Path(folder).rglob("vmlinuz.unsigned")]
    return sorted({file.resolve() for file in found if file.is_file()})


KERNELS = kernels()


@pytest.fixture(scope="module", params=KERNELS or [None], ids=str)
def census(request) -> dict:
    if request.param is None:
        pytest.skip("no kernel in /boot or below $TLBCORE_KERNELS")
    return json.loads(_core.binary_census(request.param.read_bytes(), FEATURES))


def table(entry: dict) -> list[str]:
    rows = []
    for short, zone in ZONES.items():
        found = next((z["counts"] for z in entry["zones"] if z["zone"] == zone), {})
        cells = []
        for region in REGIONS:
            least, most = found.get(region, (0, 0))
            cells.append(str(most) if least == most else f"{least}-{most}")
        if set(cells) != {"0"}:
            rows.append(f"{short} {' '.join(cells)}")
    return rows


def test_each_count_is_that_of_the_table(census):
    golden = next((t for release, t in TABLES.items() if census["release"].startswith(release)), None)
    if golden is None or "cloud" in census["release"] or "rt" in census["release"]:
        pytest.skip(f"no table of {census['release']}")
    entries = {e["name"]: e for e in census["entries"]}
    for name, expected in golden.items():
        rows = table(entries[name])
        assert [r for r in rows if r.split()[0] in {e.split()[0] for e in expected}] == expected, name


def test_no_entry_leaves_the_known_regions_or_noinstr_before_the_atomic(census):
    assert len(census["entries"]) >= 40
    # A CPU that is stopped for a reboot does not come back (7.3).
    assert {entry["name"] for entry in census["entries"] if entry["gave_up"]} <= {"asm_sysvec_reboot"}
    for entry in census["entries"]:
        assert entry["reaches_tracking"]
        for zone in entry["zones"]:
            if zone["zone"] in ("before CR3", "danger zone", "context tracking"):
                assert not {"unknown", "vmalloc"} & set(zone["counts"]), entry["name"]
                assert not any(a["user_gs"] for a in zone["accesses"]), entry["name"]
                assert not any(op["op"].startswith(("calls", "branches")) for op in zone["ops"]), entry[
                    "name"
                ]


def test_sysret_leaves_by_the_trampoline_stack(census):
    """The exit reads tss.sp0, pushes three words on the entry stack, writes CR3 and pops them."""
    syscall = next(e for e in census["entries"] if e["name"] == "entry_SYSCALL_64")
    left = {z["zone"]: [op["op"] for op in z["ops"]] for z in syscall["zones"]}
    assert "mov cr3, user flush" in left["exit, user CR3"]
    assert "swapgs -> user" in left["exit, user CR3"]


# The way around a call of do_syscall_64 that goes into a gap of the text: bytes before it, and after it.
CALL = "do_syscall_64"
FLAG = "process_counts"  # a per-CPU word that no walked path touches: it stands for kernel_cr3_loaded
VARIABLES = [("kernel_cr3_loaded", FLAG)]


class Mutable:
    """A real kernel whose entry of SYSCALL can be given other bytes."""

    def __init__(self, packed: bytes) -> None:
        names = ["entry_SYSCALL_64", CALL, "tick_nohz_full_mask", FLAG, "vmap_nodes"]
        self.elf, (self.entry, self.callee, self.mask, self.flag, self.nodes) = _core.binary_unpack(
            packed, names
        )
        assert self.entry
        assert self.callee
        (table,), (count,) = (
            struct.unpack_from("<Q", self.elf, 0x28),
            struct.unpack_from("<H", self.elf, 0x3C),
        )
        for i in range(count):
            _, kind, _, address, offset, size = struct.unpack_from("<IIQQQQ", self.elf, table + 64 * i)
            if kind == 1 and address <= self.entry < address + size:
                self.offset = offset - address
                end = address + size
        at = self.elf.index(b"\xcc" * 128, self.entry + self.offset, end + self.offset) - self.offset
        self.gap = at + 16

    def mutant(self, before: bytes, after: bytes = b"") -> bytes:
        out = bytearray(self.elf)
        call = next(
            at
            for at in range(self.entry, self.entry + 0x100)
            if out[at + self.offset] == 0xE8
            and at + 5 + struct.unpack_from("<i", out, at + self.offset + 1)[0] == self.callee
        )
        code = (
            before + b"\xe8" + struct.pack("<i", self.callee - (self.gap + len(before) + 5)) + after + b"\xc3"
        )
        assert len(code) <= 100
        out[self.gap + self.offset : self.gap + self.offset + len(code)] = code
        struct.pack_into("<i", out, call + self.offset + 1, self.gap - (call + 5))
        return bytes(out)


@pytest.fixture(scope="module")
def mutable() -> Mutable:
    usable = []
    for file in KERNELS:
        with contextlib.suppress(ValueError):  # no gap
            found = Mutable(file.read_bytes())
            if found.flag and found.mask and found.flag < 1 << 31:
                usable.append(found)
    if not usable:
        pytest.skip("no kernel before 7.x in /boot or below $TLBCORE_KERNELS")
    return max(usable, key=lambda one: bool(one.nodes))


def extracted(kernel: bytes, variables: list[tuple[str, str]] | None = None) -> str:
    return _core.binary_extract(kernel, DEFAULT, variables or [])


def verdict(policy: str, text: str, tmp_path: Path, **how: object) -> tc.Verdict:
    path = tmp_path / "real.kernel"
    path.write_text(text)
    return tc.check(tc.policies[policy].on(path), **how)


def test_a_real_kernel_as_shipped_has_no_access_that_a_late_flush_would_miss(mutable, tmp_path):
    text = extracted(mutable.elf)

    assert "touch danger" not in text
    assert "touch recycled" not in text
    assert verdict("ct-late", text, tmp_path).status == "verified"


def test_a_real_kernel_with_a_load_of_vmalloc_memory_is_violated(mutable, tmp_path):
    found = verdict("ct-late", extracted(mutable.mutant(image.VMALLOC_LOAD)), tmp_path)

    assert (found.status, found.grade) == ("violated", "an access in the window is known")
    assert f"{mutable.gap + 10:x}" in str(found)


def test_a_load_through_a_pointer_is_asked_about_by_assumption_d(mutable, tmp_path):
    """mov rax, [vmap_nodes]; mov rax, [rax]."""
    if not mutable.nodes:
        pytest.skip("vmap_nodes is of 6.9 and later")
    load = bytes.fromhex("488b0425") + struct.pack("<I", mutable.nodes & 0xFFFFFFFF) + bytes.fromhex("488b00")

    text = extracted(mutable.mutant(load))

    (line,) = (line for line in text.splitlines() if "touch danger" in line)
    assert f"{mutable.gap + 8:x}: vmap_nodes" in line
    assert verdict("ct-late", text, tmp_path).status == "verified"
    assert verdict("ct-late", text, tmp_path, assume={"D": "recycled"}).status == "violated"


@pytest.mark.parametrize(
    ("order", "status"),
    [("flush, flag", "violated"), ("flag, flush", "violated"), ("locked flag, flush", "verified")],
)
def test_orders_of_flag_and_flush_in_a_real_kernel(mutable, tmp_path, order, status):
    """The mutant's SYSCALL path; its other paths have no flag, so they are the policy's own."""
    parts = {
        "flush": image.in_mask(image.INVPCID_ALL, mask=mutable.mask),
        "flag": image.flag_store(1, mutable.flag),
        "locked flag": image.flag_xchg(1, mutable.flag),
    }
    before = b"".join(parts[part] for part in order.split(", "))
    text = extracted(mutable.mutant(before, image.flag_store(0, mutable.flag)), VARIABLES)
    path = text[: text.index("\nsyscall_compat @")]

    found = verdict("coalesce-v7-fixed", path, tmp_path)

    assert found.status == status
    if status == "violated":
        assert "entry_SYSCALL_64" in str(found)
        assert verdict("coalesce-v7-fixed", text, tmp_path).status == "violated"


@pytest.mark.parametrize("policy", sorted(tc.policies))
def test_the_hand_written_paths_and_those_of_the_machine_code_give_one_verdict(policy, texts, tmp_path):
    for text in texts:
        same_verdicts(policy, text, tmp_path)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    found = [_core.binary_extract(file.read_bytes(), DEFAULT) for file in KERNELS]
    if not found:
        pytest.skip("no kernel in /boot or below $TLBCORE_KERNELS")
    return found


def main() -> None:
    """Print what each kernel takes."""
    for file in KERNELS:
        started = time.perf_counter()
        found = json.loads(_core.binary_census(file.read_bytes(), FEATURES))
        took = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"{found['release']}: {len(found['entries'])} entries, {took:.2f} s, {peak} MiB at most")


if __name__ == "__main__":
    main()
