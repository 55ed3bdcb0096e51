#!/usr/bin/env python3
"""Rewrite the wheels of a folder so that the same sources give the same bytes, and no path of the builder is left.

Zopfli packs, where it is at hand (`pip install zopfli`): half a minute for 3 % that zlib does not find. Maturin lists
the crates inside in an SBOM (CycloneDX), with the time, a random serial number and the builder's path. The time becomes
SOURCE_DATE_EPOCH, the number is computed from the content, and the path goes; RECORD follows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
import sys
import uuid
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

try:
    from zopfli.zlib import compress
except ImportError:

    def compress(data: bytes, **_: int) -> bytes:
        """Pack by zlib."""
        return zlib.compress(data, 9)


DEFLATED = 8
STAMP = (0, 1 << 5 | 1)  # midnight on the first day that a zip can tell, 1980-01-01


def clean_sbom(data: bytes, epoch: int) -> bytes:
    """Return an SBOM without the builder's path, with a time and a serial number that the content decides."""
    text = re.sub(r"path\+file://[^\"#]*#", "path+file:///#", data.decode())
    document = json.loads(text)
    document.pop("serialNumber", None)
    document.setdefault("metadata", {})["timestamp"] = datetime.fromtimestamp(epoch, UTC).isoformat()
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def archive(files: list[tuple[str, bytes, int]]) -> bytes:
    """Return a zip of files: name, content, external attributes. `zipfile` cannot be given what is packed already."""
    out, directory = bytearray(), bytearray()
    for name, data, mode in files:
        packed = compress(data, numiterations=15)[2:-4]  # without zlib's head and sum
        about = (DEFLATED, *STAMP, zlib.crc32(data), len(packed), len(data), len(name.encode()))
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, 0, *about, 0, 0, 0, 0, mode, len(out)
        )
        directory += name.encode()
        out += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, *about, 0) + name.encode() + packed
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(files), len(files), len(directory), len(out), 0)
    return bytes(out + directory + end)


def finish(wheel: Path, epoch: int) -> None:
    """Rewrite one wheel in place."""
    with zipfile.ZipFile(wheel) as source:
        files = {info.filename: (source.read(info), info.external_attr) for info in source.infolist()}
    for name, (data, mode) in files.items():
        if name.endswith(".cyclonedx.json"):
            files[name] = (clean_sbom(data, epoch), mode)
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    lines = []
    for name, (data, _) in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},," if name == record else f"{name},sha256={digest},{len(data)}")
    files[record] = ("".join(f"{line}\n" for line in lines).encode(), files[record][1])
    order = sorted(files, key=lambda name: (".dist-info/" in name, name == record, name))
    beside = wheel.with_name(f".{wheel.name}.tmp")
    beside.write_bytes(archive([(name, *files[name]) for name in order]))
    beside.replace(wheel)


if __name__ == "__main__":
    for each in sorted(Path(sys.argv[1]).glob("*.whl")):
        finish(each, int(os.environ.get("SOURCE_DATE_EPOCH", "315532800")))
