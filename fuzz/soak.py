"""`python -m fuzz.soak`: feed every input of `fuzz.targets` with mutations of its seeds, for as long as is asked.

Each target runs in a process of its own, whose address space is bounded. The input is written to shared memory before
it is read, so that it survives whatever it does to that process: a panic, an abort, a signal, an error that is no
refusal, or no answer within `HANG_SECONDS`. Such inputs are kept in fuzz/crashes, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import mmap
import multiprocessing
import os
import random
import resource
import struct
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fuzz.targets import TARGETS, refused

HANG_SECONDS = 60.0
MOST_BYTES = 1 << 20
ADDRESS_SPACE = 4 << 30
_HEAD = struct.Struct("<QQQ")  # executions, peak memory in KiB, length of the input that runs now
_WORDS = (
    b"0",
    b"-1",
    b"\x00",
    b"\xff" * 8,
    b"18446744073709551616",
    b"\n",
    b" ",
    b"\xe2\x80\xae",
    b"1e999",
    b"nan",
    b"0x",
)


@dataclass
class Tally:
    """What came of one target."""

    executions: int = 0
    peak_kib: int = 0
    crashes: list[str] = field(default_factory=list)


def mutated(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return a seed with a few changes: bytes, words, pieces of itself and of another seed, lines."""
    data = bytearray(seed)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + (1 << rng.randrange(8)))
        kind = rng.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at:to]
        elif kind == 3:
            data[at:at] = data[at:to]
        elif kind == 4:
            data[at:at] = rng.choice(_WORDS)
        elif kind == 5 and other:
            start = rng.randrange(len(other))
            data[at:to] = other[start : start + (1 << rng.randrange(8))]
        elif kind == 6:
            lines = bytes(data).split(b"\n")
            a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[a], lines[b] = lines[b], lines[a]
            data = bytearray(b"\n".join(lines))
        elif kind == 7:
            del data[at:]
    return bytes(data[:MOST_BYTES])


def work(name: str, seed: int, shared: mmap.mmap, end: float, problem: Any) -> None:
    """Run one target until `end`; send the traceback of what is no refusal, and stop there."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a panic's message comes back as an exception
    target = TARGETS[name]
    seeds = target.seeds() or [b""]
    rng = random.Random(f"{name} {seed}")
    executions = _HEAD.unpack_from(shared)[0]
    while time.monotonic() < end:
        data = mutated(rng.choice(seeds), rng.choice(seeds), rng)
        shared[_HEAD.size : _HEAD.size + len(data)] = data
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _HEAD.pack_into(shared, 0, executions, peak, len(data))
        try:
            target.run(data)
        except BaseException as error:
            if not refused(error):
                problem.send(traceback.format_exc())
                return
        executions += 1
    _HEAD.pack_into(shared, 0, executions, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0)


def soak(name: str, seconds: float, seed: int, crashes: Path) -> Tally:
    """Run one target for some time, with a new process after each crash."""
    tally = Tally()
    end = time.monotonic() + seconds
    shared = mmap.mmap(-1, _HEAD.size + MOST_BYTES)
    fork = multiprocessing.get_context("fork")
    while time.monotonic() < end:
        receive, send = fork.Pipe(duplex=False)
        process = fork.Process(target=work, args=(name, seed, shared, end, send))
        process.start()
        send.close()
        why = _watched(process, shared)
        if receive.poll():
            with suppress(EOFError):
                why = receive.recv()
        tally.executions, peak, length = _HEAD.unpack_from(shared)
        tally.peak_kib = max(tally.peak_kib, peak)
        if why:
            data = bytes(shared[_HEAD.size : _HEAD.size + length])
            kept = crashes / f"{name}-{blake2b(data, digest_size=6).hexdigest()}"
            crashes.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            kept.with_suffix(".txt").write_text(why)
            tally.crashes.append(f"{kept}: {why.strip().splitlines()[-1]}")
        elif process.exitcode == 0:
            break
        seed += 1
    return tally


def _watched(process: Any, shared: mmap.mmap) -> str:
    """Wait for a process to end; say what was wrong with its end."""
    seen, since = -1, time.monotonic()
    while process.is_alive():
        process.join(0.2)
        now = _HEAD.unpack_from(shared)[0]
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > HANG_SECONDS:
            process.kill()
            process.join()
            return f"no answer within {HANG_SECONDS:.0f} s"
    return "" if process.exitcode == 0 else f"ended with {process.exitcode}"


def main() -> int:
    """Run the targets one after the other and print what came of each."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.soak", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all if left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--crashes", type=Path, default=Path(__file__).parent / "crashes")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}")
    print(f"seed {given.seed}\n{'target':<12}{'executions':>12}{'per s':>10}{'crashes':>9}{'peak MiB':>10}")
    whole = Tally()
    for name in names:
        started = time.monotonic()
        tally = soak(name, given.seconds / len(names), given.seed, given.crashes)
        rate = tally.executions / max(time.monotonic() - started, 1e-9)
        print(
            f"{name:<12}{tally.executions:>12,}{rate:>10,.0f}{len(tally.crashes):>9}{tally.peak_kib / 1024:>10,.0f}",
            flush=True,
        )
        whole.executions += tally.executions
        whole.crashes += tally.crashes
        whole.peak_kib = max(whole.peak_kib, tally.peak_kib)
    print(f"{'all':<12}{whole.executions:>12,}{'':>10}{len(whole.crashes):>9}{whole.peak_kib / 1024:>10,.0f}")
    print("".join(f"{crash}\n" for crash in whole.crashes), end="")
    return 1 if whole.crashes else 0


if __name__ == "__main__":
    sys.exit(main())
