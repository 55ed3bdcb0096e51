"""Which CPU preset fits a CPU: by signature, then by model, then by core."""

from __future__ import annotations

import re

from tlbcore.hardware import Machine, machines
from tlbcore.inspect._facts import Cpu

# (vendor, family, models, preset): parts with the core of a preset whose own signature is another one. Model
# numbers as in Linux arch/x86/include/asm/intel-family.h and AMD's revision guides.
_CORES: tuple[tuple[str, int, frozenset[int], str], ...] = (
    ("intel", 6, frozenset({0x3C, 0x3F, 0x45, 0x46}), "haswell-ep-e5-2699v3"),
    ("intel", 6, frozenset({0x3D, 0x47, 0x4F, 0x56}), "broadwell-ep-e5-2699v4"),
    ("intel", 6, frozenset({0x4E, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6}), "skylake-sp"),
    ("intel", 6, frozenset({0x6A, 0x6C, 0x7D, 0x7E}), "ice-lake-sp"),
    ("intel", 6, frozenset({0x97, 0x9A}), "golden-cove"),
    ("intel", 6, frozenset({0xB7, 0xBA, 0xBF}), "raptor-cove"),
    ("intel", 6, frozenset({0xAD, 0xAE}), "granite-rapids"),
    ("amd", 0x17, frozenset({*range(0x30, 0x40), *range(0x60, 0x80), *range(0x90, 0xB0)}), "zen2-epyc"),
    ("amd", 0x19, frozenset(range(0x10)), "zen3-epyc"),
    ("amd", 0x19, frozenset({*range(0x20, 0x60)}), "zen3-client"),
    ("amd", 0x19, frozenset({*range(0x10, 0x20), *range(0xA0, 0xB0)}), "zen4-epyc"),
    ("amd", 0x19, frozenset(range(0x60, 0x80)), "zen4-client"),
    ("amd", 0x1A, frozenset(range(0x20)), "zen5-epyc"),
    ("amd", 0x1A, frozenset(range(0x20, 0x80)), "zen5-client"),
)


def fitting_machine(cpu: Cpu) -> tuple[Machine | None, str]:
    """Return the preset for this CPU and how well it fits; None if none does."""
    presets = [row for row in machines.values() if row.vendor == cpu.vendor]
    exact = [row for row in presets if cpu.signature in _signatures(row)]
    if exact:
        chosen = _by_name(exact, cpu.name)
        return chosen, f"same CPUID signature {cpu.signature}{_differences(chosen, cpu)}"
    stem = int(cpu.signature, 16) >> 4
    same_model = [
        (abs((int(text, 16) & 15) - cpu.stepping), row)
        for row in presets
        for text in _signatures(row)
        if int(text, 16) >> 4 == stem
    ]
    if same_model:
        nearest = min(distance for distance, _ in same_model)
        chosen = _by_name([row for distance, row in same_model if distance == nearest], cpu.name)
        how = f"same family and model, stepping {cpu.stepping} instead of {_steppings(chosen)}"
        return chosen, how + _differences(chosen, cpu)
    for vendor, family, models, name in _CORES:
        if (vendor, family) == (cpu.vendor, cpu.family) and cpu.model in models:
            chosen = machines[name]
            return chosen, f"same core, another part (model {cpu.model:#x}){_differences(chosen, cpu)}"
    return (
        None,
        f"no preset for {cpu.vendor} family {cpu.family:#x} model {cpu.model:#x}; tlbcore calibrate makes "
        "one",
    )


def _signatures(row: Machine) -> list[str]:
    return [text for text in re.split(r"[,\s]+", row.signature) if re.fullmatch(r"[0-9A-Fa-f]+", text)]


def _steppings(row: Machine) -> str:
    return ", ".join(sorted({str(int(text, 16) & 15) for text in _signatures(row)}))


def _by_name(rows: list[Machine], name: str) -> Machine:
    """Of parts with one signature (E5 and E7 v4), the one whose alias the CPU's name contains."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for row in rows:
        if any(re.sub(r"[^a-z0-9]", "", alias) in plain for alias in row.aliases):
            return row
    if "e7" in plain:
        return next((row for row in rows if "e7" in row.name), rows[0])
    return rows[0]


def _differences(row: Machine, cpu: Cpu) -> str:
    lacks = [flag.upper() for flag in ("pcid", "invpcid") if getattr(row, flag) and not getattr(cpu, flag)]
    if row.invlpgb_extra is not None and cpu.invlpgb is False:
        lacks.append("INVLPGB")
    if not lacks:
        return ""
    return f"; but {', '.join(lacks)} {'is' if len(lacks) == 1 else 'are'} missing here" + (
        ": the hypervisor hides it" if cpu.hypervisor else ""
    )
