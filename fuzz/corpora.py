"""`python -m fuzz.corpora DIR`: write what the targets of cargo-fuzz start from, a folder each, for `make fuzz`.

The first byte of some inputs chooses how the rest is read: each seed stands once for every choice that matters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from fuzz.targets import ROOT, TARGETS

MOST = 1 << 16


def _chosen(choices: range, *names: str) -> Iterator[bytes]:
    for name in names:
        for seed in TARGETS[name].seeds():
            yield from (bytes([choice]) + seed for choice in choices)


def _images() -> Iterator[bytes]:
    from tests import kernel_image as image

    plain = image.elf(
        image.PGE_TOGGLE + image.in_mask(image.INVPCID_ALL),
        leave=image.FLAG_CLEAR,
    )
    yield plain
    yield image.elf(image.VMALLOC_LOAD, rodata=image.kallsyms("6.12"), symtab=False)
    yield from (image.bzimage(pack(plain)) for pack in image.PACKINGS.values())


def corpora() -> dict[str, Iterator[bytes]]:
    """Return the seeds by target of `fuzz_targets`."""
    return {
        "policies": (seed for name in ("policy", "litmus") for seed in TARGETS[name].seeds()),
        "machines": (seed for name in ("preset", "config", "boot-line") for seed in _machines(name)),
        "images": _images(),
        "checkpoints": (bytes([n] * 8) for n in (0, 7, 48, 200)),
        "importers": _chosen(range(0, 16, 5), "recording", "trace-dat"),
        "addresses": _chosen(range(8), "addresses"),
    }


def _machines(name: str) -> Iterator[bytes]:
    first = {"preset": 0, "config": 2, "boot-line": 3}[name]
    yield from (bytes([first]) + seed for seed in TARGETS[name].seeds())


def main() -> None:
    """Write the seeds below the folder that is named; what is there stays."""
    for target, seeds in corpora().items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            if len(seed) <= MOST:
                (folder / blake2b(seed, digest_size=8).hexdigest()).write_bytes(seed)
        print(f"{target}: {len(list(folder.iterdir()))} seeds")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
