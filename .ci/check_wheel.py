#!/usr/bin/env python3
"""Check the wheels of a folder: small, stripped, without build paths, with what they must carry.

Exit status 1 if one is not as it must be; a line per fault.
"""

from __future__ import annotations

import re
import struct
import sys
import zipfile
from pathlib import Path

MOST_BYTES = 3_750_000
# Of people and build machines; maturin's and rustc's are mapped to /tlbcore, /cargo and /rust.
PATHS = re.compile(rb"(?<![\w.-])/(?:home|root|work|Users|builds?|io|github|tmp)/[\w./-]{3,}")
CARRIED = ("py.typed", "_core.pyi", "data/schemas/check.json", "LICENSE-MIT", "sboms/tlbcore.cyclonedx.json")


def sections(elf: bytes) -> set[str]:
    """Return the names of the sections of a 64-bit little-endian ELF file.

    Rust's own code for backtraces has the names as text, in stripped files, too.
    """
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    (start,) = struct.unpack_from("<Q", elf, headers + names * size + 0x18)
    places = (start + struct.unpack_from("<I", elf, headers + i * size)[0] for i in range(count))
    return {elf[place : elf.index(b"\0", place)].decode() for place in places}


def faults(wheel: Path) -> list[str]:
    """Return what is wrong with a wheel."""
    found = []
    if wheel.stat().st_size > MOST_BYTES:
        found.append(f"has {wheel.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    if "-linux_" in wheel.name:
        found.append("has the tag linux, which the index refuses")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        found += [f"lacks {name}" for name in CARRIED if not any(n.endswith(name) for n in names)]
        for name in names:
            data = files.read(name)
            if name.endswith(".so") and {".debug_info", ".symtab"} & sections(data):
                found.append(f"{name} is not stripped")
            if paths := sorted(set(PATHS.findall(data)))[:3]:
                found.append(f"{name} says where it was built: {b', '.join(paths).decode()}")
    return found


def main() -> int:
    """Check every wheel below the folder that is named."""
    wheels = sorted(Path(sys.argv[1]).glob("*.whl"))
    wrong = [f"{wheel.name}: {fault}" for wheel in wheels for fault in faults(wheel)]
    print("\n".join(wrong) or f"{len(wheels)} wheels are as they must be")
    return 1 if wrong or not wheels else 0


if __name__ == "__main__":
    sys.exit(main())
