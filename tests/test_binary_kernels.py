"""The census of real kernels against tables that another walker and a run under emulation gave (sources.md, CENSUS).

Kernels are not part of the repository: those in /boot are taken, and those below the folder that TLBCORE_KERNELS names
(unpack Debian's linux-image-6.1.0-57-amd64-unsigned, linux-image-6.12.117+deb12-amd64-unsigned
there with `dpkg-deb -x`).
"""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore import _core

pytestmark = pytest.mark.slow

# PTI without PCID, as under QEMU's TCG: the machine of the measured census.
FEATURES = "pti,pge,fsgsbase,smap,hypervisor,clear_cpu_buf"
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
        "asm_exc_debug (from kernel code, user CR3)": [
            "E0 20 0 0 0 0 0",
            "E1 21 4 1 0 0 0",
            "E2 2 6 0 0 0 0",
        ],
        "asm_exc_machine_check (from user mode)": ["E0 21 0 0 0 0 0", "E1 22 3 0 0 0 26", TRACKING],
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
    try:
        return json.loads(_core.binary_census(request.param.read_bytes(), FEATURES))
    except tc.ImageError as error:
        if "no feature `fsgsbase`" in str(error):
            pytest.skip("the names of 7.x features are not read yet")
        raise


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
    for entry in census["entries"]:
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


def main() -> None:
    """Print what each kernel takes."""
    for file in KERNELS:
        if "7.3" in str(file):
            continue
        started = time.perf_counter()
        found = json.loads(_core.binary_census(file.read_bytes(), FEATURES))
        took = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"{found['release']}: {len(found['entries'])} entries, {took:.2f} s, {peak} MiB at most")


if __name__ == "__main__":
    main()
