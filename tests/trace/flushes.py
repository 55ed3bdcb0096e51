"""Random recordings of user shootdowns whose truth is known before they are written.

Two processes on four CPUs unmap, protect and hand back memory, one call after the other; a `Story` decides whom each
flush interrupts and what these CPUs were doing, and keeps what is to be told. Nothing here reads a recording.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

CPUS = 4
PROCESSES = {"db": ("db-10", "worker-11", "writer-12"), "web": ("web-20", "helper-21")}
# Name, system call number, arguments after the address and the length.
CALLS = {
    "munmap": (11, "0, 0, 0, 0"),
    "mprotect": (10, "1, 0, 0, 0"),
    "madvise(MADV_DONTNEED)": (28, "4, 0, 0, 0"),
    "madvise(MADV_FREE)": (28, "8, 0, 0, 0"),
}
SIZES = {1: (1, 1), 2: (2, 8), 3: (9, 33), 4: (34, 512), 5: (513, 4000)}


@dataclass
class Victim:
    """A CPU that a flush interrupted."""

    cpu: int
    comm: str
    pid: int
    state: str
    handler_us: int


@dataclass
class Flush:
    """One flush, and what came of it."""

    process: str
    comm: str
    pid: int
    cpu: int
    call: str
    pages: int
    wait_us: int | None = None
    victims: list[Victim] = field(default_factory=list)

    @property
    def bucket(self) -> int:
        return next(k for k, (low, high) in SIZES.items() if low <= self.pages <= high)


class Story:
    """So many system calls, each behind the other; the seed decides everything."""

    def __init__(self, seed: int, calls: int = 60):
        self.draw = random.Random(seed)
        self.lines: list[tuple[int, str]] = []
        self.flushes: list[Flush] = []
        self.us = 0
        self._threads()
        for _ in range(calls):
            self._call()
        self._say(self.us + 500, 0, "db-10", "sys_enter: NR 231 (0, 0, 0, 0, 0, 0)")

    def text(self) -> str:
        return f"# tracer: nop\n#   #P:{CPUS}\n" + "".join(
            text for _, text in sorted(self.lines, key=lambda x: x[0])
        )

    def of(self, process: str) -> list[Flush]:
        return [flush for flush in self.flushes if flush.process == process]

    # --- what happens ---

    def _say(self, us: int, cpu: int, task: str, event: str, flags: str = ".....") -> None:
        self.lines.append((us, f"{task:>20} [{cpu:03}] {flags} {100 + us / 1e6:.6f}: {event}\n"))

    def _threads(self) -> None:
        for first, *others in PROCESSES.values():
            for other in others:
                comm, pid = first.split("-")
                child = other.split("-")[1]
                self._say(self.us, 0, first, "sys_enter: NR 56 (3d0f00, 0, 0, 0, 0, 0)")
                fork = f"comm={comm} pid={pid} child_comm={comm} child_pid={child}"
                self._say(self.us + 1, 0, first, f"sched_process_fork: {fork}")
                self._say(self.us + 2, 0, first, "sys_exit: NR 56 = 0")
                self._say(self.us + 3, 1, other, "sys_exit: NR 56 = 0")
                self.us += 10

    def _call(self) -> None:
        draw = self.draw
        process = draw.choice(list(PROCESSES))
        task, cpu = draw.choice(PROCESSES[process]), draw.randrange(CPUS)
        comm, pid = task.split("-")
        name = draw.choice(list(CALLS))
        number, arguments = CALLS[name]
        low, high = SIZES[draw.choice(list(SIZES))]
        pages = draw.choice((low, high, draw.randint(low, high)))
        now = self.us + draw.randrange(100, 3000)
        said = f"(7f0000000000, {pages * 4096:x}, {arguments})"
        self._say(now, cpu, task, f"sys_enter: NR {number} {said}")
        flush = Flush(process, comm, int(pid), cpu, name, pages)
        self.flushes.append(flush)
        now += draw.randrange(2, 20)
        asked = draw.sample([c for c in range(CPUS) if c != cpu], draw.randrange(CPUS))
        shown = pages if pages <= 33 else -1
        own = draw.random() < 0.5
        end = now
        if asked:
            self._say(now, cpu, task, f"tlb_flush: pages:{shown} reason:remote ipi send (4)")
            csds = {}
            for target in asked:
                now += draw.randrange(1, 3)
                csds[target] = f"{self.us * 16 + target:016x}"
                site = "callsite=flush_tlb_mm_range+0x31b/0x820 func=flush_tlb_func"
                self._say(now, cpu, task, f"csd_queue_cpu: cpu={target} {site} csd={csds[target]}")
            waits_from = now
            if own:  # as the kernel does it behind queueing: it runs the function itself
                run = f"func=flush_tlb_func, csd={0:016x}"
                local = f"tlb_flush: pages:{shown} reason:local mm shootdown (3)"
                for event in (f"csd_function_entry: {run}", local, f"csd_function_exit: {run}"):
                    waits_from = now = now + draw.randrange(1, 3)
                    self._say(now, cpu, task, event, "d..1.")
            done = [
                self._victim(flush, target, csds[target], now + draw.randrange(3, 40)) for target in asked
            ]
            flush.wait_us = max(ran for ran, _ in done) - waits_from
            end = max(ended for _, ended in done)
        else:
            self._say(now, cpu, task, f"tlb_flush: pages:{shown} reason:local mm shootdown (3)")
        self.us = end + draw.randrange(2, 20)
        self._say(self.us, cpu, task, f"sys_exit: NR {number} = 0")

    def _victim(self, flush: Flush, cpu: int, csd: str, at: int) -> tuple[int, int]:
        """One CPU is interrupted; return when its function and its interrupt ended."""
        draw = self.draw
        mine = [t for t in PROCESSES[flush.process] if t != f"{flush.comm}-{flush.pid}"]
        others = [t for process, tasks in PROCESSES.items() if process != flush.process for t in tasks]
        state = draw.choice(("running", "running", "idle", "lazy", "elsewhere"))
        task, reason = {
            "running": (draw.choice(mine), "remote shootdown (1)"),
            "idle": ("<idle>-0", None),
            "lazy": (f"kworker/{cpu}:1-{50 + cpu}", None),
            "elsewhere": (draw.choice(others), draw.choice((None, "remote wrong CPU (5)"))),
        }[state]
        steps = [draw.randrange(1, 6) for _ in range(4)]
        begins, ends, over = at + steps[0], at + sum(steps[:3]), at + sum(steps)
        self._say(at, cpu, task, "call_function_entry: vector=252", "d.h..")
        self._say(begins, cpu, task, f"csd_function_entry: func=flush_tlb_func, csd={csd}", "d.h..")
        if reason:
            self._say(begins + steps[1], cpu, task, f"tlb_flush: pages:1 reason:{reason}", "d.h..")
        self._say(ends, cpu, task, f"csd_function_exit: func=flush_tlb_func, csd={csd}", "d.h..")
        self._say(over, cpu, task, "call_function_exit: vector=252", "d.h..")
        comm, _, pid = task.rpartition("-")
        flush.victims.append(Victim(cpu, comm, int(pid), state, over - at))
        return ends, over


def by(flushes: list[Flush], key) -> dict:
    """Flushes by what `key` gives."""
    out = defaultdict(list)
    for flush in flushes:
        out[key(flush)].append(flush)
    return dict(out)
