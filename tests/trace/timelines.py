"""Random recordings whose truth is known before they are written: what happens on CPUs, and what is to be told.

A `Timeline` decides what takes each CPU from its task and adds up what that comes to, by the rules of docs/tracing.md
alone; the events follow from it. Nothing here reads a recording.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

VECTORS = {
    "local_timer": "timer",
    "reschedule": "reschedule",
    "irq_work": "irq_work",
    "thermal_apic": "other_vector",
    "x86_platform_ipi": "platform_ipi",
}
FUNCTIONS = {
    "ipi_mb": "membarrier",
    "do_sync_core": "text_sync",
    "rcu_exp_handler": "rcu_expedited",
    "rcu_barrier_handler": "rcu_barrier",
    "drain_local_pages": "percpu_drain",
    "some_driver_call": "call_other",
}
THREADS = {
    "kworker/{cpu}:1": "kworker",
    "ksoftirqd/{cpu}": "ksoftirqd",
    "migration/{cpu}": "stop_machine",
    "rcuc/{cpu}": "rcu_thread",
    "kcompactd0": "kernel_thread",
    "backup": "other_task",
}
HRTIMERS = {"tick_nohz_handler": "scheduler_tick", "hrtick": "hrtick", "hrtimer_wakeup": "hrtimer"}
SOFTIRQS = {"TIMER": 1, "NET_RX": 3, "SCHED": 7, "RCU": 9}


@dataclass
class Call:
    """One remote call."""

    sender: int
    comm: str
    function: str
    queued_us: int
    ran_us: int
    took_us: int
    mode: str


@dataclass
class Truth:
    """What is true of one CPU; times in microseconds."""

    vectors: Counter[str] = field(default_factory=Counter)
    idle: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    interrupts: list[tuple[int, int]] = field(default_factory=list)
    """When they began and ended."""
    lengths: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of interrupts by cause, whether or not they took anything."""
    hrtimers: Counter[str] = field(default_factory=Counter)
    entries: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    """Rows of the table of what took the CPU: how often."""
    taken: Counter[str] = field(default_factory=Counter)
    longest: dict[str, tuple[int, set[int]]] = field(default_factory=dict)
    """Of each cause: how long, and when those began that were as long."""
    calls: list[Call] = field(default_factory=list)
    by: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Who displaced the task, or which soft interrupt ran."""

    def interrupted(
        self, vector: str, cause: str, begun: int, us: int, first: bool, ran: int | None = None
    ) -> None:
        self.vectors["other_vector" if vector == "thermal_apic" else vector] += 1
        self.causes[cause] += 1
        self.interrupts.append((begun, begun + us))
        self.lengths[cause].append(us)
        self.take(cause, begun if ran is None else ran, us, first)

    def take(self, cause: str, begun: int, us: int, first: bool, by: str = "") -> None:
        self.counted[cause] += 1
        self.taken[cause] += us if first else 0
        longest, when = self.longest.get(cause, (0, set()))
        if us >= longest:
            self.longest[cause] = (us, {begun} | (when if us == longest else set()))
        if by:
            self.by[cause][by] += 1


class Timeline:
    """CPUs `isolated` run one task each; `others` send them calls. The seed decides everything."""

    def __init__(self, seed: int, isolated: tuple[int, ...] = (2, 3, 5), others: tuple[int, ...] = (0, 1)):
        self.draw = random.Random(seed)
        self.truth = {cpu: Truth() for cpu in isolated}
        self.others = others
        self.events: list[tuple[int, int, str, str, str]] = []
        self.senders = {cpu: (f"sender{cpu}", 900 + cpu) for cpu in others}
        self.tracked = self.draw.random() < 0.7
        """Entries and returns are recorded."""
        self.mode = "unknown"
        begin = 100_000_000 + self.draw.randrange(1_000_000)
        ends = [self._live(cpu, begin) for cpu in isolated]
        # Every CPU and every kind is seen: what is zero is zero because nothing happened.
        self._mark(begin - 50, others[0])
        self.first_us, self.last_us = begin - 50, max(ends)
        self._mark(self.last_us, others[0])

    def text(self) -> str:
        rows = sorted(self.events, key=lambda event: event[0])
        return "".join(
            f"{task:>23} [{cpu:03}] {flags} {at // 10**6:5}.{at % 10**6:06}: {body}\n"
            for at, cpu, task, flags, body in rows
        )

    # --- what happens ---

    def _say(self, at: int, cpu: int, task: str, body: str, flags: str = "d.h..") -> None:
        self.events.append((at, cpu, task, flags, body))

    def _mark(self, at: int, cpu: int) -> None:
        self._say(at, cpu, "init-1", "sched_wakeup: comm=a pid=1 prio=120 target_cpu=000", "dNs..")

    def _live(self, cpu: int, begin: int) -> int:
        """Let one CPU live; return when it ends."""
        truth, draw = self.truth[cpu], self.draw
        task = f"app{cpu}-{40 + cpu}"
        now = begin + 7 * cpu
        kinds = (self._interrupt, self._soft, self._displaced, self._asleep, self._called)
        self._cross(cpu, begin, task, "enter")
        for _ in range(draw.randrange(20, 60)):
            now += draw.choice((draw.randrange(100, 900), draw.randrange(1_000, 90_000)))
            self.mode = "user" if self.tracked else "unknown"
            kind, at = draw.choice(kinds), now
            # A system call that the interrupt finds, or the interrupt's own entry.
            inside = self.tracked and kind in (self._interrupt, self._called) and draw.random() < 0.4
            if inside:
                self.mode = "kernel"
                now += 60
            end = kind(truth, cpu, task, now)
            self._cross(cpu, at - (0 if inside else 1), task, "exit")
            truth.entries += self.tracked
            now = end + draw.randrange(3, 20)
            self._cross(cpu, now, task, "enter")
        return now + draw.randrange(10, 1000)

    def _cross(self, cpu: int, at: int, task: str, which: str) -> None:
        if self.tracked:
            self._say(at, cpu, task, f"user_{which}: ", ".....")

    def _interrupt(
        self, truth: Truth, cpu: int, task: str, at: int, first: bool = True, idle: bool = False
    ) -> int:
        vector = self.draw.choice(list(VECTORS))
        cause, us = VECTORS[vector], self.draw.randrange(2, 90)
        self._say(at, cpu, task, f"{vector}_entry: vector=1")
        if vector == "local_timer" and self.draw.random() < 0.6:
            function, cause = self.draw.choice(list(HRTIMERS.items()))
            self._say(at + 1, cpu, task, f"hrtimer_expire_entry: hrtimer=0 function={function} now=1")
            truth.hrtimers[function] += 1
        self._say(at + us, cpu, task, f"{vector}_exit: vector=1")
        truth.idle += idle
        truth.interrupted(vector, cause, at, us, first)
        return at + us

    def _soft(self, truth: Truth, cpu: int, task: str, at: int) -> int:
        """A soft interrupt, in which other interrupts may come."""
        action = self.draw.choice(list(SOFTIRQS))
        said = f"vec={SOFTIRQS[action]} [action={action}]"
        self._say(at, cpu, task, f"softirq_entry: {said}", "..s..")
        now = at + self.draw.randrange(2, 30)
        for _ in range(self.draw.randrange(3)):
            now = self._interrupt(truth, cpu, task, now, first=False) + self.draw.randrange(2, 30)
        self._say(now, cpu, task, f"softirq_exit: {said}", "..s..")
        truth.take("softirq", at, now - at, True, by=action)
        return now

    def _switch(self, cpu: int, at: int, prev: str, state: str, following: str) -> None:
        (a, _, i), (b, _, j) = prev.rpartition("-"), following.rpartition("-")
        self._say(
            at,
            cpu,
            "<idle>-0" if i == "0" else prev,
            f"sched_switch: prev_comm={a} prev_pid={i} prev_prio=120 prev_state={state} ==> "
            f"next_comm={b} next_pid={j} next_prio=120",
            "d....",
        )

    def _displaced(self, truth: Truth, cpu: int, task: str, at: int) -> int:
        """Others run in the place of the task, which wants to run."""
        before, state, now = task, self.draw.choice(("R", "R+")), at
        for _ in range(self.draw.randrange(1, 4)):
            choices = [c for c in THREADS if f"{c.format(cpu=cpu)}-" not in before]
            name = self.draw.choice(choices)
            comm = name.format(cpu=cpu)
            intruder = f"{comm}-{1000 + 100 * cpu + list(THREADS).index(name)}"
            self._switch(cpu, now, before, state, intruder)
            begun, now = now, now + self.draw.randrange(5, 4000)
            for _ in range(self.draw.randrange(2)):
                now = self._interrupt(truth, cpu, intruder, now, first=False) + self.draw.randrange(2, 500)
            truth.take(THREADS[name], begun, now - begun, True, by=comm)
            before, state = intruder, self.draw.choice(("S", "I", "R"))
        self._switch(cpu, now, before, state, task)
        return now

    def _asleep(self, truth: Truth, cpu: int, task: str, at: int) -> int:
        """The task leaves by itself: an idle CPU, and a worker on it, are kept from nobody."""
        idle = f"swapper/{cpu}-0"
        self._switch(cpu, at, task, self.draw.choice(("S", "D")), idle)
        now = at + self.draw.randrange(5, 4000)
        for _ in range(self.draw.randrange(3)):
            now = self._interrupt(truth, cpu, "<idle>-0", now, first=False, idle=True)
            now += self.draw.randrange(5, 500)
        if self.draw.random() < 0.5:
            worker = f"kworker/{cpu}:1-{1000 + 100 * cpu}"
            self._switch(cpu, now, idle, "R", worker)
            now += self.draw.randrange(5, 500)
            self._switch(cpu, now, worker, "I", task)
        else:
            self._switch(cpu, now, idle, "R", task)
        return now

    def _called(self, truth: Truth, cpu: int, task: str, at: int) -> int:
        """Another CPU has a function run here; one interrupt runs one to three of them."""
        sender = self.draw.choice(self.others)
        comm, pid = self.senders[sender]
        vector = self.draw.choice(("call_function", "call_function_single"))
        waiting = self.draw.sample(list(FUNCTIONS), self.draw.randrange(1, 4))
        wait = self.draw.randrange(4, 40)
        calls = []
        for k, function in enumerate(waiting):
            queued = at - wait + k
            csd = f"{at * 8 + k:x}"
            body = f"csd_queue_cpu: cpu={cpu} callsite=x+0x1/0x2 func={function} csd={csd}"
            self._say(queued, sender, f"{comm}-{pid}", body, "d....")
            calls.append((function, csd, queued))
        self._say(at, cpu, task, f"{vector}_entry: vector=251")
        now = at
        for function, csd, queued in calls:
            now += self.draw.randrange(1, 9)
            took = self.draw.randrange(1, 30)
            self._say(now, cpu, task, f"csd_function_entry: func={function}, csd={csd}")
            self._say(now + took, cpu, task, f"csd_function_exit: func={function}, csd={csd}")
            truth.calls.append(Call(sender, comm, function, queued, now, took, self.mode))
            now += took
        now += self.draw.randrange(1, 9)
        self._say(now, cpu, task, f"{vector}_exit: vector=251")
        # A call's time is when its function began.
        truth.interrupted(vector, FUNCTIONS[calls[0][0]], at, now - at, True, truth.calls[-len(calls)].ran_us)
        return now
