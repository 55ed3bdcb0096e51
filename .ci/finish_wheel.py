#!/usr/bin/env python3
"""Rewrite the wheels of a folder so that the same sources give the same bytes, and no path of the builder is left.

maturin's list of the crates inside (an SBOM in CycloneDX) has the time, a random serial number and the builder's path.
The time becomes SOURCE_DATE_EPOCH, the number is computed from the content, and the path goes; RECORD follows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import uuid
import zipfile
from datetime import UTC, datetime
from pathlib import Path

STAMP = (1980, 1, 1, 0, 0, 0)


def clean_sbom(data: bytes, epoch: int) -> bytes:
    """Return an SBOM without the builder's path, with a time and a serial number that the content decides."""
    text = re.sub(r"path\+file://[^\"#]*#", "path+file:///#", data.decode())
    document = json.loads(text)
    document.pop("serialNumber", None)
    document.setdefault("metadata", {})["timestamp"] = datetime.fromtimestamp(epoch, UTC).isoformat()
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


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
    beside = wheel.with_name(f".{wheel.name}.tmp")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for name in sorted(files, key=lambda name: (".dist-info/" in name, name == record, name)):
            info = zipfile.ZipInfo(name, STAMP)
            info.external_attr = files[name][1]
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, files[name][0])
    beside.replace(wheel)


if __name__ == "__main__":
    for each in sorted(Path(sys.argv[1]).glob("*.whl")):
        finish(each, int(os.environ.get("SOURCE_DATE_EPOCH", "315532800")))
