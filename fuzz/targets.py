"""What is fuzzed: each text or binary input that tlbcore reads, with the seeds it starts from.

A target takes bytes and returns, or refuses them as `refused` says; anything else is a crash.
"""

from __future__ import annotations

import gzip
import lzma
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.programs import agree

ROOT = Path(__file__).parent.parent
SEED_BYTES = 4096  # of a long recording its beginning will do
_SCRATCH = (
    Path("/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir()) / f"tlbcore-soak-{os.getuid()}"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of input."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


def refused(error: BaseException) -> bool:
    """Say whether an error is a refusal: one of ours, a file that is not there, or a `TypeError` that says its rule."""
    from tlbcore import TlbcoreError

    if isinstance(error, TypeError):
        return " must " in str(error)
    return isinstance(error, (TlbcoreError, OSError, UnicodeDecodeError))


def _file(data: bytes, name: str) -> Path:
    path = _SCRATCH.with_name(f"{_SCRATCH.name}-{os.getpid()}-{name}")
    path.write_bytes(data)
    return path


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _recording(data: bytes) -> None:
    import tlbcore as tc

    trace = tc.read_trace(_file(data, "recording"), isolated="2-3")
    str(tc.explain(trace))
    str(tc.replay(trace, policies=["ipi", "coalesce-v7-fixed"]))


def _policy(data: bytes) -> None:
    from tlbcore.policy import Policy

    Policy.read(_file(data, "fuzzed.policy"))


def _litmus(data: bytes) -> None:
    import tlbcore as tc

    tc.litmus(_text(data) + "\n", memory=1 << 22)


def _preset(data: bytes) -> None:
    import tlbcore as tc

    tc.machine(_file(data, "fuzzed.toml"))


def _config(data: bytes) -> None:
    from tlbcore import _core

    _core.kernel_parse(data, "config", "", None)


def _boot_line(data: bytes) -> None:
    import tlbcore as tc

    tc.inspect_host(cmdline=_text(data), release="6.12.0", cpus=8)


def _interrupts(data: bytes) -> None:
    from tlbcore.trace.interrupts import read_interrupts

    read_interrupts(_file(data, "interrupts"))


def _cpus(data: bytes) -> None:
    from tlbcore._input.cpus import CpuListError, cpu_list, cpu_mask

    for read in (cpu_list, cpu_mask):
        with suppress(CpuListError):
            read(_text(data))


def _checkpoint(data: bytes) -> None:
    import tlbcore as tc

    _simulate(tc, _file(data, "checkpoint"))


def _simulate(tc: Any, checkpoint: Path, progress: Any = None) -> None:
    load = tc.scenarios.syscall_heavy(duration_s=60.0)  # long enough to be stopped on its way
    tc.simulate(load, machine="skylake-sp", skip=False, checkpoint=checkpoint, progress=progress)


def _addresses(data: bytes) -> None:
    import tlbcore as tc
    from tlbcore.address_traces import addresses

    tc.miss_curve(addresses(_file(data, "addresses"), limit=100_000), sets=[16], ways=4)


def _grid(data: bytes) -> None:
    from tlbcore.cli import _common
    from tlbcore.cli.sweep import _read

    with suppress(_common._FailureError):
        _read(_file(data, "grid.toml"))


def _folder(*patterns: str) -> list[bytes]:
    return [
        file.read_bytes()[:SEED_BYTES]
        for each in patterns
        for file in sorted(ROOT.glob(each))
        if file.is_file()
    ]


def _recordings() -> list[bytes]:
    packed = sorted((ROOT / "tests/data").glob("*.txt.xz"))
    texts = [lzma.decompress(file.read_bytes())[:SEED_BYTES] for file in packed]
    texts += [file.read_bytes()[1:] for file in sorted((ROOT / "fuzz/corpus/importers").iterdir())]
    short = texts[0]
    return [*texts, gzip.compress(short), lzma.compress(short)]


def _address_seeds() -> list[bytes]:
    text = lzma.decompress((ROOT / "tests/data/addresses/walk.lackey.txt.xz").read_bytes())[:SEED_BYTES]
    whole = text[: text.rindex(b"\n") + 1]
    csv = b"kind,address\nload,0x1000\nstore,0x2008\nfetch,4096\n"
    return [whole, csv, gzip.compress(whole)]


def _dat() -> list[bytes]:
    return [file.read_bytes() for file in sorted((ROOT / "tests/data").glob("*.trace.dat"))]


def _checkpoints() -> list[bytes]:
    import tlbcore as tc

    path = _file(b"", "seed")
    path.unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        _simulate(tc, path, stop)
    return [path.read_bytes()]


TARGETS: dict[str, Target] = {
    "policy": Target(
        run=_policy, seeds=lambda: _folder("src/kernel/policy/*.policy", "tests/data/checker/*.policy")
    ),
    "litmus": Target(
        run=_litmus, seeds=lambda: _folder("tests/litmus/**/*.litmus", "tests/data/herd/*.litmus")
    ),
    # Seeds that run: bytes of about every other seed are refused as text.
    "program": Target(run=agree, seeds=lambda: [b"seed6", b"seed8", b"seed11"]),
    "preset": Target(run=_preset, seeds=lambda: _folder("src/hw/presets/[!_]*.toml")),
    "recording": Target(run=_recording, seeds=_recordings),
    "trace-dat": Target(run=_recording, seeds=_dat),
    "config": Target(
        run=_config,
        seeds=lambda: [b"CONFIG_X86_64=y\n" + text for text in _folder("tests/data/host-*/config")],
    ),
    "boot-line": Target(run=_boot_line, seeds=lambda: _folder("tests/data/host-*/proc/cmdline")),
    "interrupts": Target(run=_interrupts, seeds=lambda: _folder("tests/data/host-*/proc/interrupts")),
    "addresses": Target(run=_addresses, seeds=_address_seeds),
    "cpus": Target(run=_cpus, seeds=lambda: [b"0-3,8", b"0-15:2/4", b"all", b"ffffffff,00000003"]),
    "checkpoint": Target(run=_checkpoint, seeds=_checkpoints),
    "grid": Target(
        run=_grid,
        seeds=lambda: [
            b'scenario = "quiet"\nreplications = 2\n[fixed]\nduration_s = 0.01\n[grid]\nspawn_hz = [1, 2]\n',
            b'scenario = "trading"\npolicies = ["ipi"]\n[kernel]\npti = true\n[[zip]]\ncpus = [4]\nseed = [1]\n',
        ],
    ),
}
