# ruff: noqa: E501  # texts of findings stand as they are said
"""What a finding says, of which CPUs, and what it advises: one fault at a time on a machine that is otherwise well.

The faults of files are those of `test_inspect`; the machine isolates CPUs 2 and 3 of four.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_inspect import CPU, FAULTS, machine, write  # noqa: F401

import tlbcore as tc
from tlbcore._output.width import wrapped
from tlbcore.cli import main
from tlbcore.cli._common import console
from tlbcore.cli.inspect import _grouped, _show
from tlbcore.inspect.checks import lint

CHECKS = Path(lint.__file__).parent
HERE = Path(__file__).parent

# Check, what was found, on which CPUs, and the remedy.
SAID = {
    "clocksource": ("the clock source is hpet", "", "find out in dmesg why the TSC was given up"),
    "nohz-full-not-in-force": (
        "the command line asks for 2-3 without a tick, the kernel runs 3 so (CONFIG_NO_HZ_FULL: unknown)",
        "2",
        "see `dmesg | grep -iE 'housekeeping|dynticks|NO_HZ'` for why nohz_full= is not in force",
    ),
    "isolated-with-tick": (
        "CPUs 2-3 are outside the scheduler's domains but keep the tick",
        "2-3",
        "see `dmesg | grep -iE 'housekeeping|dynticks|NO_HZ'` for why nohz_full= is not in force",
    ),
    "tickless-but-balanced": (
        "CPUs 3 run without a tick but stay in the scheduler's domains",
        "3",
        "echo isolated > cpuset.cpus.partition in a cgroup with CPUs 3; or boot with isolcpus=domain,managed_irq,3 instead of isolcpus=2-3",
    ),
    "bpf-jit-off": ("net.core.bpf_jit_enable is 0", "", "sysctl net.core.bpf_jit_enable=1"),
    "irq-default-affinity": (
        "new interrupts may go to CPUs 2-3",
        "2-3",
        "write the mask of CPUs 0-1 to /proc/irq/default_smp_affinity",
    ),
    "lockup-watchdog": (
        "the lockup detector runs on CPUs 2-3",
        "2-3",
        "echo 0-1 > /proc/sys/kernel/watchdog_cpumask",
    ),
    "unbound-workqueues": (
        "unbound workqueues may run on CPUs 2-3",
        "2-3",
        "write the housekeeping mask to /sys/devices/virtual/workqueue/cpumask; an isolated partition does it by itself",
    ),
    "rcu-expedited": (
        "rcu_expedited is 1",
        "",
        "echo 0 > /sys/kernel/rcu_expedited; boot with rcupdate.rcu_normal_after_boot=1",
    ),
    "numa-balancing": ("kernel.numa_balancing is on", "", "sysctl kernel.numa_balancing=0"),
    "khugepaged": (
        "transparent huge pages are on for everyone",
        "",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    ),
    "ksm": ("kernel samepage merging runs", "", "echo 2 > /sys/kernel/mm/ksm/run"),
    "swap": ("swap is on: /dev/sda2", "", "mlockall(MCL_CURRENT | MCL_FUTURE) in the workload, or no swap"),
    "flush-ceiling": (
        "tlb_single_page_flush_ceiling is 1 (default 33)",
        "",
        "echo 33 > /sys/kernel/debug/x86/tlb_single_page_flush_ceiling, unless it was meant",
    ),
    "kfence-static-keys": ("KFENCE samples every 100 ms", "2-3", "boot with kfence.sample_interval=0"),
    "debug-pagealloc": ("DEBUG_PAGEALLOC is on", "", "boot with debug_pagealloc=off"),
    "smt": ("CPUs 2 share their core with a sibling", "2", "boot with nosmt, or take the siblings offline"),
    "cpu-frequency": ("frequency governor schedutil", "2", "cpupower -c 2 frequency-set -g performance"),
    "no-housekeeping-cpu": (
        "every online CPU is isolated",
        "",
        "keep at least one CPU per NUMA node out of the lists",
    ),
    "node-without-housekeeping": (
        "node1: all of its CPUs 2-3 are isolated",
        "2-3",
        "leave one CPU of each node for housekeeping",
    ),
    "partition-invalid": (
        "/rt: cpuset.cpus.partition is 'isolated invalid (Cpu list empty)'",
        "",
        "read the reason in the parentheses; its CPUs must be the parent's and no sibling's",
    ),
    "damon-stat": (
        "DAMON_STAT is on",
        "",
        "echo N > /sys/module/damon_stat/parameters/enabled, or boot with damon_stat.enabled=N",
    ),
    "fair-server": (
        "the fair server has a runtime on CPUs 2",
        "2",
        "echo 0 > /sys/kernel/debug/sched/fair_server/cpuN/runtime for CPUs 2; a real-time task there can then starve ordinary ones",
    ),
    "bpf-jit-ibpb": (
        "the BPF JIT is on, and this CPU uses IBPB without retpolines",
        "2-3",
        "attach BPF filters before the isolated work starts; do not load and unload them meanwhile",
    ),
    "irqbalance-running": (
        "irqbalance runs",
        "",
        "see that IRQBALANCE_BANNED_CPULIST is not set, or holds 2-3",
    ),
    "irqs-on-isolated-cpus": (
        "1 interrupts go to isolated CPUs: 4 (ttyS0)",
        "2",
        "echo 0-1 > /proc/irq/N/smp_affinity_list; keep irqbalance off these CPUs",
    ),
    "kernel-threads": (
        "1 kernel threads may run on isolated CPUs: khugepaged",
        "2-3",
        "taskset -pc 0-1 PID, or tuna; those that nohz_full= did not move were placed later or are bound by their owner",
    ),
    "deep-idle-states": (
        "idle state C6 takes 133 us to leave (intel_idle)",
        "2",
        "processor.max_cstate=1 intel_idle.max_cstate=1, or cpupower idle-set -D 20",
    ),
    "device-interrupts-seen": (
        "device interrupts since boot: CPU 2: 7",
        "2",
        "compare two copies of /proc/interrupts taken minutes apart (tlbcore explain takes the pair)",
    ),
}


def row(host: tc.Host, check: str) -> tuple[str, str, str]:
    findings = host.findings
    (at,) = (i for i, name in enumerate(findings["check"].tolist()) if name == check)
    return tuple(str(findings[column][at]) for column in ("found", "cpus", "remedy"))  # type: ignore[return-value]


@pytest.mark.parametrize(("check", "files", "severity"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_finding_says_what_was_found_where_and_what_helps(machine, check, files, severity):  # noqa: F811
    root = machine("p4")
    for name, text in files.items():
        write(root, name, text)
    assert row(tc.inspect_host(root), check) == SAID[check]


LINE = "nohz_full=2-3 isolcpus=domain,managed_irq,2-3"
LINES = {
    "systemd-affinity": (
        f"{LINE} systemd.cpu_affinity=0,1,2",
        ("systemd.cpu_affinity=0,1,2 lets services run on CPUs 2", "2", "systemd.cpu_affinity=0-1"),
    ),
    "rcu-callbacks-local": (
        "isolcpus=domain,managed_irq,2-3",
        ("CPUs 2-3 run their RCU callbacks themselves", "2-3", "boot with rcu_nocbs=2-3"),
    ),
}


@pytest.mark.parametrize("check", LINES)
def test_a_finding_on_the_line_alone(check: str) -> None:
    line, said = LINES[check]
    assert row(tc.inspect_host(cmdline=line, release="6.12.0", cpus=4), check) == said
    well = tc.inspect_host(cmdline=f"{LINE} systemd.cpu_affinity=0,1", release="6.12.0", cpus=4)
    assert check not in well.findings["check"].tolist()


def test_a_kernel_without_full_dynticks_and_a_clock_that_may_stop(machine) -> None:  # noqa: F811
    root = machine("p4")
    before = tc.inspect_host(root).findings["check"].tolist()
    assert "nohz-full-not-built-in" not in before
    assert "clocksource-watched" not in before
    write(root, "config", "CONFIG_NO_HZ_IDLE=y\nCONFIG_RCU_NOCB_CPU=y\n")
    assert row(tc.inspect_host(root), "nohz-full-not-built-in") == (
        "nohz_full=2-3, and CONFIG_NO_HZ_FULL is not set", "", "use a kernel with CONFIG_NO_HZ_FULL=y",
    )  # fmt: skip
    root = machine("p4b")
    line = (root / "proc/cmdline").read_text()
    write(root, "proc/cmdline", line.replace("tsc=reliable", ""))
    info = (root / "proc/cpuinfo").read_text()
    write(root, "proc/cpuinfo", re.sub(r"\b(nonstop_tsc|constant_tsc|tsc_adjust)\b", "", info))
    assert row(tc.inspect_host(root), "clocksource-watched") == (
        "the kernel watches the TSC, for the CPU does not show constant_tsc, nonstop_tsc, tsc_adjust", "",
        "boot with tsc=nowatchdog or tsc=reliable, if the platform's TSC is good",
    )  # fmt: skip


# Two faults of one kind, on two CPUs, that differ in all that is said: check, files, what was found and where.
TWO = [
    (
        "irqs-on-isolated-cpus",
        {
            "proc/irq/12/effective_affinity_list": "0,2\n",
            "proc/irq/4/effective_affinity_list": "3\n",
            "proc/irq/9/effective_affinity_list": "0\n",
        },
        [("2 interrupts go to isolated CPUs: 4 (ttyS0), 12 (i8042)", "2-3")],
    ),
    (
        "kernel-threads",
        {
            "proc/9/status": "Name:\tkhugepaged\nKthread:\t1\nCpus_allowed_list:\t0,2\n",
            "proc/10/status": "Name:\tkswapd0\nCpus_allowed_list:\t0-1,3\n",
            "proc/11/status": "Name:\tkcompactd0\nKthread:\t1\nCpus_allowed_list:\t0-1\n",
            "proc/12/status": "Name:\tapp\nKthread:\t0\nCpus_allowed_list:\t0-3\n",
            "proc/13/status": "Name:\told-app\nVmSize:\t 8 kB\nCpus_allowed_list:\t0-3\n",
            "proc/14/status": "Name:\tmigration/3\nKthread:\t1\nCpus_allowed_list:\t3\n",
        },
        [("2 kernel threads may run on isolated CPUs: khugepaged, kswapd0", "2-3")],
    ),
    (
        "deep-idle-states",
        {
            f"{CPU}/cpuidle/current_driver": "intel_idle\n",
            f"{CPU}/cpu2/cpuidle/state2/name": "C3\n",
            f"{CPU}/cpu2/cpuidle/state2/latency": "40\n",
            f"{CPU}/cpu3/cpuidle/state3/name": "C6\n",
            f"{CPU}/cpu3/cpuidle/state3/latency": "133\n",
            f"{CPU}/cpu3/cpuidle/state4/name": "C10\n",
            f"{CPU}/cpu3/cpuidle/state4/latency": "890\n",
            f"{CPU}/cpu3/cpuidle/state4/disable": "1\n",
        },
        [("idle state C6 takes 133 us to leave (intel_idle)", "2-3")],
    ),
    (
        "deep-idle-states",  # only the second CPU has one
        {
            f"{CPU}/cpuidle/current_driver": "intel_idle\n",
            f"{CPU}/cpu2/cpuidle/state3/latency": "133\n",
            f"{CPU}/cpu2/cpuidle/state3/disable": "1\n",
            f"{CPU}/cpu3/cpuidle/state3/name": "C6\n",
            f"{CPU}/cpu3/cpuidle/state3/latency": "21\n",
        },
        [("idle state C6 takes 21 us to leave (intel_idle)", "3")],
    ),
    (
        "device-interrupts-seen",
        {
            "proc/interrupts": "      CPU0 CPU1 CPU2 CPU3\n  4:  10  0  7  1  IO-APIC  4-edge  ttyS0\n"
            "  9:  3  0  0  40  IO-APIC  9-edge  acpi\n"
        },
        [("device interrupts since boot: CPU 2: 7, CPU 3: 41", "2-3")],
    ),
    (
        "cpu-frequency",
        {
            f"{CPU}/cpu2/cpufreq/scaling_governor": "schedutil\n",
            f"{CPU}/cpu3/cpufreq/scaling_governor": "powersave\n",
        },
        [("frequency governor powersave, schedutil", "2-3")],
    ),
    (
        "swap",
        {
            "proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n/swap file 3 0 -3\n",
        },
        [("swap is on: /dev/sda2, /swap", "")],
    ),
    (
        "partition-invalid",
        {
            "sys/fs/cgroup/rt/cpuset.cpus.partition": "isolated invalid (Cpu list empty)\n",
            "sys/fs/cgroup/dpdk/cpuset.cpus.partition": "root invalid (Parent is not a partition root)\n",
        },
        [
            ("/dpdk: cpuset.cpus.partition is 'root invalid (Parent is not a partition root)'", ""),
            ("/rt: cpuset.cpus.partition is 'isolated invalid (Cpu list empty)'", ""),
        ],
    ),
    (
        "partition-invalid",  # the hybrid layout
        {"sys/fs/cgroup/unified/rt/cpuset.cpus.partition": "isolated invalid (Cpu list empty)\n"},
        [("/rt: cpuset.cpus.partition is 'isolated invalid (Cpu list empty)'", "")],
    ),
    (
        "node-without-housekeeping",
        {
            "sys/devices/system/node/node1/cpulist": "2\n",
            "sys/devices/system/node/node2/cpulist": "0,3\n",
            "sys/devices/system/node/node3/cpulist": "3\n",
        },
        [
            ("node1: all of its CPUs 2 are isolated", "2"),
            ("node3: all of its CPUs 3 are isolated", "3"),
        ],
    ),
]


@pytest.mark.parametrize(("check", "files", "said"), TWO, ids=[two[0] for two in TWO])
def test_two_faults_of_a_kind_are_both_said(machine, check, files, said):  # noqa: F811
    root = machine("p4")
    for name, text in files.items():
        write(root, name, text)
    findings = tc.inspect_host(root).findings
    rows = zip(findings["check"].tolist(), findings["found"].tolist(), findings["cpus"].tolist(), strict=True)
    assert [(found, cpus) for name, found, cpus in rows if name == check] == said


def test_every_finding_has_a_row() -> None:
    names = {
        name for file in CHECKS.glob("*.py") for name in re.findall(r'check="([a-z0-9-]+)"', file.read_text())
    }
    assert set(SAID) == {fault[0] for fault in FAULTS}
    assert set(SAID) <= names
    tests = "".join(file.read_text() for file in HERE.glob("*.py"))
    assert {name for name in names if f'"{name}"' not in tests} == set()
    assert len(names) > 40


THREAD = "Name:\tkhugepaged\nKthread:\t1\nCpus_allowed_list:\t0-{}\n"
POLLED = {"proc/cpuinfo": "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 60\nflags : pcid\n"}
# What depends on the version: check, files, column, words, and for each release whether they are said.
VERSIONS = [
    (
        "unbound-workqueues",
        {"sys/devices/virtual/workqueue/cpumask": "f\n"},
        "remedy",
        "; an isolated partition does it by itself",
        {"6.7.9": False, "6.8.0": True},
    ),
    (
        "unbound-workqueues",  # without partitions none does it
        {"sys/devices/virtual/workqueue/cpumask": "f\n", "sys/fs/cgroup/cpuset/cpuset.cpus": "0-3\n"},
        "remedy",
        "; an isolated partition does it by itself",
        {"6.8.0": False},
    ),
    (
        "clocksource-watched",
        POLLED,
        "remedy",
        "boot with tsc=nowatchdog or tsc=reliable",
        {"5.2.9": False, "5.3.0": True, "4.18.0-147.el8": False, "4.18.0-193.el8": True},
    ),
    ("clocksource-watched", POLLED, "reason", "calls a function on every", {"6.19.0": False, "7.0.0": True}),
    ("clocksource-watched", POLLED, "reason", "twice a second", {"6.19.0": True, "7.0.0": False}),
    (
        "kernel-threads",
        {"proc/9/status": THREAD.format(3)},
        "reason",
        "keep to the CPUs of the scheduler's domains",
        {"6.19.0": False, "7.0.0": True},
    ),
    (
        "kernel-threads",  # of both isolated CPUs
        {"proc/9/status": THREAD.format(3)},
        "remedy",
        "most move by themselves when an isolated partition is made",
        {"6.19.0": False, "7.0.0": True},
    ),
    (
        "kernel-threads",  # of one of them
        {"proc/9/status": THREAD.format(2)},
        "remedy",
        "most move by themselves when an isolated partition is made",
        {"6.19.0": False, "7.0.0": True},
    ),
]


@pytest.mark.parametrize(
    ("check", "files", "column", "words", "said"), VERSIONS, ids=[f"{v[0]}-{v[2]}" for v in VERSIONS]
)
def test_what_depends_on_the_version_changes_at_its_boundary(machine, check, files, column, words, said):  # noqa: F811
    root = machine("p4b")
    line = (root / "proc/cmdline").read_text()
    write(root, "proc/cmdline", line.replace("tsc=reliable", ""))
    for name, text in files.items():
        write(root, name, text)
    found = {}
    for release in said:
        write(root, "proc/sys/kernel/osrelease", release)
        findings = tc.inspect_host(root).findings
        (at,) = (i for i, name in enumerate(findings["check"].tolist()) if name == check)
        found[release] = words in str(findings[column][at])
    assert found == said


WELL = "nohz_full=2-3 isolcpus=domain,managed_irq,2-3 irqaffinity=0-1"


@pytest.mark.parametrize(
    ("line", "count"),
    [(WELL, "0 findings"), (f"{WELL} nohz=off", "1 finding"), ("nohz_full=2-3", "2 findings")],
)
@pytest.mark.parametrize("columns", [60, 100])
def test_the_text_has_every_finding_and_breaks_no_remedy(
    line: str, count: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["inspect", "--cmdline", line, "--kernel", "6.12.0", "--cpus", "4"]) == 0
    text = capsys.readouterr().out
    findings = tc.inspect_host(cmdline=line, release="6.12.0", cpus=4).findings
    assert f"\nIsolation checklist: {count}\n" in text
    for at, check in enumerate(findings["check"].tolist()):
        found = {name: str(findings[name][at]) for name in findings}
        assert f"{found['severity']}: {found['found']} [{check}]" in " ".join(text.split())
        for name in ("reason", "source"):
            assert wrapped(f"    {name:7} {found[name]}", columns) in text
        assert f"\n    remedy  {found['remedy']}\n" in text, "it is copied"


def test_isolation_is_said_way_by_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def said(line: str) -> str:
        assert main(["inspect", "--cmdline", line, "--kernel", "6.12.0", "--cpus", "8"]) == 0
        (found,) = re.findall(r"^isolated +(.*)$", capsys.readouterr().out, re.M)
        return found.rstrip()

    assert said("") == "none"
    assert said("nohz_full=2-3") == "2-3 (no tick: 2-3; RCU callbacks offloaded: 2-3)"
    assert said("isolcpus=domain,managed_irq,4-5 rcu_nocbs=6") == (
        "4-5 (outside scheduler domains: 4-5; no managed interrupts: 4-5; RCU callbacks offloaded: 6)"
    )


def test_isolated_cpus_that_are_not_online_are_named(machine, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    root = machine("p4")  # CPUs 0-3
    write(root, f"{CPU}/nohz_full", "2-5\n")
    main(["inspect", "--root", str(root)])
    assert "isolated  2-5 (not online: 4-5; no tick: 2-3;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "cpus", "remedy"),
    [
        ("nohz_full=2-9", "8", "write nohz_full= with numbers and ranges, such as 1-7"),
        ("nohz_full=2-", "10", "write nohz_full= with numbers and ranges, such as 2-7,9"),
        ("nohz_full=2-", "9", "write nohz_full= with numbers and ranges, such as 1-8"),
        ("nohz_full=2", "2", "write nohz_full= with numbers and ranges, such as 1"),
        ("rcu_nocbs=2-9", "8", "write rcu_nocbs= with numbers and ranges, such as 1-7"),
    ],
)
def test_the_example_of_a_list_is_one_that_this_kernel_takes(line: str, cpus: str, remedy: str) -> None:
    rows = tc.inspect_host(cmdline=line, cpus=cpus).findings
    (at,) = np.flatnonzero(rows["check"] == "boot-list-refused")
    assert rows["remedy"][at] == remedy


def test_what_a_system_call_would_cost_is_said_with_its_mark() -> None:
    nan = float("nan")
    rows = {
        "policy": ["a", "b", "c", "d", "e"],
        "verdict": ["defers", "defers", "defers", "today", "defers"],
        "spares": ["2-3", "2-3", "2-3", "", "2-3"],
        "entry_ops": ["fence", "fence", "fence", "", "fence"],
        "entry_ns": [1.6, 1.6, nan, 0.0, 1.6],
        "owed_ns": [1.6, 420.4, nan, 0.0, 1.6],
        "entry_mark": ["measured", "predicted", "", "", "measured"],
        "reason": ["r"] * 5,
    }
    call = "Each system call there costs 2 ns more"
    assert _grouped({name: np.array(column) for name, column in rows.items()}) == {
        ("defers", "2-3", f" {call} (measured; refills not included).", "r"): ["a", "e"],
        ("defers", "2-3", f" {call}, 420 ns when a flush is owed (predicted; refills not included).", "r"): [
            "b"
        ],
        ("defers", "2-3", " What each entry would cost is not known without a preset.", "r"): ["c"],
        ("today", "", "", "r"): ["d"],
    }


def test_checks_that_were_not_made_are_named_by_what_they_lack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lacking = [
        ("x", "proc/a"),
        *((f"c{i}", "proc/b") for i in range(7)),
        *((f"d{i}", "proc/c") for i in range(8)),
    ]
    host = tc.inspect_host(cmdline=WELL, release="6.12.0", cpus=4)
    _show(console(), replace(host, not_checked=(*lacking, ("y", "proc/a"))))
    assert capsys.readouterr().out.endswith(
        "not checked, and what it would take: x, y: proc/a; c0, c1, c2, c3, c4, c5, c6: proc/b; 8 checks: \nproc/c\n"
    )
