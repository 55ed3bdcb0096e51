"""Where a check must not speak, or must speak otherwise: one file or one word of the command line decides each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_inspect import CPU, machine, write  # noqa: F401

import tlbcore as tc

TSC = "sys/devices/system/clocksource/clocksource0/current_clocksource"
FLAGS = "constant_tsc nonstop_tsc tsc_adjust"
IDLE = {
    f"{CPU}/cpuidle/current_driver": "intel_idle\n",
    f"{CPU}/cpu2/cpuidle/state3/name": "C6\n",
    f"{CPU}/cpu2/cpuidle/state3/latency": "133\n",
}
CONFIG = "CONFIG_NO_HZ_FULL=y\nCONFIG_RCU_NOCB_CPU=y\n"
KFENCE = f"{CONFIG}CONFIG_KFENCE=y\nCONFIG_KFENCE_SAMPLE_INTERVAL=100\nCONFIG_KFENCE_STATIC_KEYS=y\n"
PAGEALLOC = f"{CONFIG}CONFIG_DEBUG_PAGEALLOC=y\n"
BY_DEFAULT = f"{PAGEALLOC}CONFIG_DEBUG_PAGEALLOC_ENABLE_DEFAULT=y\n"
IBPB = f"{CPU}/vulnerabilities/spectre_v2"


def found(root: Path, files: dict[str, str], words: str = "") -> dict[str, dict[str, Any]]:
    """Return the findings by check after these files are written and these words added to the command line."""
    for name, text in files.items():
        write(root, name, text)
    line = (root / "proc/cmdline").read_text()
    write(root, "proc/cmdline", f"{line.strip()} {words}\n")
    table = tc.inspect_host(root).findings
    rows = [
        dict(zip(table, row, strict=True)) for row in zip(*(c.tolist() for c in table.values()), strict=True)
    ]
    return {row["check"]: row for row in rows}


# check, files, words of the command line, and what is found; None: nothing.
CASES: list[tuple[str, dict[str, str], str, str | None]] = [
    # The last debug_pagealloc= that kstrtobool takes decides, against the configuration's default, too.
    ("debug-pagealloc", {"config": PAGEALLOC}, "", None),
    ("debug-pagealloc", {"config": PAGEALLOC}, "debug_pagealloc=on", "DEBUG_PAGEALLOC is on"),
    ("debug-pagealloc", {"config": PAGEALLOC}, "debug_pagealloc=Y", "DEBUG_PAGEALLOC is on"),
    ("debug-pagealloc", {"config": PAGEALLOC}, "debug_pagealloc", None),
    ("debug-pagealloc", {"config": PAGEALLOC}, "debug_pagealloc=on debug_pagealloc=off", None),
    ("debug-pagealloc", {"config": PAGEALLOC}, "debug_pagealloc=off debug_pagealloc=1", "DEBUG_PAGEALLOC is on"),
    ("debug-pagealloc", {"config": PAGEALLOC}, "debug_pagealloc=1 debug_pagealloc=maybe", "DEBUG_PAGEALLOC is on"),
    ("debug-pagealloc", {"config": BY_DEFAULT}, "", "DEBUG_PAGEALLOC is on"),
    ("debug-pagealloc", {"config": BY_DEFAULT}, "debug_pagealloc=off", None),
    ("debug-pagealloc", {"config": BY_DEFAULT}, "debug_pagealloc=0", None),
    (
        "debug-pagealloc",
        {"config": f"{CONFIG}# CONFIG_DEBUG_PAGEALLOC is not set\n"},
        "debug_pagealloc=on",
        None,
    ),
    ("debug-pagealloc", {}, "debug_pagealloc=on", "DEBUG_PAGEALLOC is on"),
    # Without the running value the command line comes before the configuration's default.
    ("kfence-static-keys", {"config": KFENCE}, "", "KFENCE samples every 100 ms"),
    ("kfence-static-keys", {"config": KFENCE}, "kfence.sample_interval=0", None),
    ("kfence-static-keys", {"config": KFENCE}, "kfence.sample_interval=7", "KFENCE samples every 7 ms"),
    ("kfence-static-keys", {"config": KFENCE.replace("STATIC_KEYS=y", "STATIC_KEYS=n")}, "", None),
    # rcu_normal overrides rcu_expedited.
    ("rcu-expedited", {"sys/kernel/rcu_expedited": "1\n", "sys/kernel/rcu_normal": "1\n"}, "", None),
    (
        "rcu-expedited",
        {"sys/kernel/rcu_expedited": "1\n", "sys/kernel/rcu_normal": "0\n"},
        "",
        "rcu_expedited is 1",
    ),
    # What a CPU has is not what the kernel does.
    ("bpf-jit-ibpb", {IBPB: "Vulnerable; IBPB: disabled; STIBP: disabled\n"}, "", None),
    ("bpf-jit-ibpb", {IBPB: "Mitigation: Retpolines; IBPB: conditional\n"}, "", None),
    ("bpf-jit-ibpb", {IBPB: "Mitigation: Enhanced IBRS\n"}, "", None),
    (
        "bpf-jit-ibpb",
        {IBPB: "Mitigation: Enhanced IBRS; IBPB: conditional\n"},
        "",
        "the BPF JIT is on, and this CPU uses IBPB without retpolines",
    ),
    ("swap", {"proc/swaps": "Filename Type Size Used Priority\n"}, "", None),
    ("swap", {"proc/swaps": "Filename\n\n/dev/a partition 1\n\n/dev/b file 1\n"}, "", "swap is on: /dev/a, /dev/b"),
    ("flush-ceiling", {"sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "\n"}, "", None),
    ("flush-ceiling", {"sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "33\n"}, "", None),
    # The states that are there are those that the command line left.
    ("deep-idle-states", IDLE, "intel_idle.max_cstate=9", "idle state C6 takes 133 us to leave (intel_idle)"),
    ("deep-idle-states", IDLE | {f"{CPU}/cpu2/cpuidle/state3/latency": "20\n"}, "", None),
    ("deep-idle-states", IDLE | {f"{CPU}/cpu2/cpuidle/state3/latency": "?\n"}, "", None),
    ("deep-idle-states", IDLE | {f"{CPU}/cpuidle/current_driver": "none\n"}, "", None),
    ("deep-idle-states", IDLE, "idle=poll", None),
    ("clocksource", {TSC: "kvm-clock\n"}, "", "the clock source is kvm-clock"),
    # A sibling that is offline takes nothing.
    ("smt", {f"{CPU}/cpu2/topology/thread_siblings_list": "2,7\n"}, "", None),
    ("smt", {f"{CPU}/cpu2/topology/core_cpus_list": "1-2\n"}, "", "CPUs 2 share their core with a sibling"),
    ("bpf-jit-off", {"proc/sys/net/core/bpf_jit_enable": "2\n"}, "", None),
    ("clocksource", {TSC: "tsc\n"}, "", None),
]  # fmt: skip


@pytest.mark.parametrize(("check", "files", "words", "said"), CASES)
def test_one_word_or_file_decides(machine, check, files, words, said) -> None:  # noqa: F811
    root = machine("p4")
    write(root, "proc/sys/net/core/bpf_jit_enable", "1\n")
    row = found(root, files, words).get(check)
    assert (row and row["found"]) == said


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ("6.12.116", False),
        ("6.12.117", True),
        ("6.13.200", False),
        ("5.12.200", False),
        ("7.2.9", False),
        ("7.3.0", True),
        ("8.0.0", True),
    ],
)
def test_versions_that_run_ibpb_on_reuse(machine, release: str, said: bool) -> None:  # noqa: F811
    files = {
        IBPB: "Mitigation: Enhanced IBRS; IBPB: conditional\n",
        "proc/sys/net/core/bpf_jit_enable": "1\n",
        "proc/sys/kernel/osrelease": f"{release}\n",
    }
    assert ("bpf-jit-ibpb" in found(machine("p4"), files)) is said


@pytest.mark.parametrize(
    ("flags", "words", "remedy"),
    [
        ("fpu pti", "", "a CPU, or a hypervisor setting, with PCID"),
        ("fpu pti", "nopcid", "remove nopcid"),
        ("fpu pti pcid", "", None),
        ("fpu", "", None),
        ("fpu pcid", "", None),
    ],
)
def test_page_table_isolation_without_pcids(machine, flags, words, remedy) -> None:  # noqa: F811
    root = machine("p4")
    cpuinfo = re.sub(r"(?m)^(flags\s*: ).*", rf"\1{flags}", (root / "proc/cpuinfo").read_text())
    row = found(root, {"proc/cpuinfo": cpuinfo}, words).get("pti-without-pcid")
    assert (row and row["remedy"]) == remedy


# Who vouches for the TSC: flags of the CPU, the kernel's version, words of the command line.
WATCHED = [
    (FLAGS, "6.12.0", "", None),
    (
        "constant_tsc nonstop_tsc",
        "6.12.0",
        "",
        "the kernel watches the TSC, for the CPU does not show tsc_adjust",
    ),
    (
        "constant_tsc tsc_known_freq",
        "6.12.0",
        "",
        "the kernel watches the TSC, for the CPU does not show nonstop_tsc, tsc_adjust",
    ),
    ("constant_tsc tsc_reliable", "6.12.0", "", None),
    ("constant_tsc", "6.12.0", "tsc=nowatchdog", None),
    (FLAGS, "4.19.0", "", "a kernel this old watches the TSC on every CPU (commit b50db7095fe0)"),
    (FLAGS, "5.10.0", "", None),  # it was taken over into long-term versions
    (FLAGS, "4.18.0-553.el8.x86_64", "", None),
]


@pytest.mark.parametrize(("flags", "release", "words", "said"), WATCHED)
def test_who_vouches_for_the_tsc(machine, flags, release, words, said) -> None:  # noqa: F811
    root = machine("p4")
    cpuinfo = (root / "proc/cpuinfo").read_text()
    write(root, "proc/cpuinfo", cpuinfo.replace("constant_tsc", flags))
    line = (root / "proc/cmdline").read_text()
    write(root, "proc/cmdline", line.replace("tsc=reliable", ""))
    files = {"proc/sys/kernel/osrelease": f"{release}\n"}
    row = found(root, files, words).get("clocksource-watched")
    assert (row and row["found"]) == said


def test_a_clock_of_the_hypervisor_is_no_sign_of_a_bad_tsc(machine) -> None:  # noqa: F811
    row = found(machine("p4"), {TSC: "kvm-clock\n"})["clocksource"]
    assert row["severity"] == "advice"
    assert "the hypervisor's clock" in row["reason"]
    assert "unreliable" not in row["reason"]


def test_a_clock_that_the_command_line_asked_for_is_taken_off_it(machine) -> None:  # noqa: F811
    row = found(machine("p4"), {TSC: "kvm-clock\n"}, "clocksource=kvm-clock")["clocksource"]
    assert (row["severity"], row["remedy"]) == ("warning", "take clocksource= off the command line")


def test_idle_states_are_not_limited_by_an_option_that_is_there(machine) -> None:  # noqa: F811
    remedies = {
        "": "processor.max_cstate=1 intel_idle.max_cstate=1, or cpupower idle-set -D 20",
        "intel_idle.max_cstate=9": "processor.max_cstate=1 intel_idle.max_cstate=1, or cpupower idle-set -D 20",
        "intel_idle.max_cstate=9 intel_idle.max_cstate=1": "cpupower idle-set -D 20",
    }
    root = machine("p4")
    line = (root / "proc/cmdline").read_text()
    for words, remedy in remedies.items():
        row = found(root, IDLE, words)["deep-idle-states"]
        write(root, "proc/cmdline", line)
        assert row["remedy"] == remedy
        assert "/dev/cpu_dma_latency" in row["reason"]


def test_irqbalance_keeps_off_what_the_boot_line_isolates(machine) -> None:  # noqa: F811
    running = {"proc/77/comm": "irqbalance\n"}
    row = found(machine("p4"), running)["irqbalance-running"]
    assert (row["severity"], row["remedy"]) == (
        "note",
        "see that IRQBALANCE_BANNED_CPULIST is not set, or holds 2-3",
    )
    partition = {
        "sys/fs/cgroup/rt/cpuset.cpus.partition": "isolated\n",
        "sys/fs/cgroup/rt/cpuset.cpus.exclusive.effective": "1\n",
    }
    row = found(machine("zen4-guest"), running | partition)["irqbalance-running"]
    assert (row["severity"], row["remedy"]) == (
        "advice",
        "IRQBALANCE_BANNED_CPULIST=1, or stop it and set affinities by hand",
    )


def test_a_grace_period_is_made_normal_by_one_alone(machine) -> None:  # noqa: F811
    root = machine("p4")
    row = found(root, {"sys/kernel/rcu_expedited": "1\n"}, "rcupdate.rcu_normal_after_boot=0")[
        "rcu-expedited"
    ]
    assert row["remedy"].endswith("boot with rcupdate.rcu_normal_after_boot=1")
    row = found(root, {}, "rcupdate.rcu_normal_after_boot=1")["rcu-expedited"]
    assert row["remedy"] == "echo 0 > /sys/kernel/rcu_expedited"


def test_on_another_architecture_no_tsc_is_asked_for(tmp_path) -> None:
    files = {
        "proc/cmdline": "nohz_full=2-3",
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp\nCPU implementer\t: 0x41\n",
        f"{CPU}/online": "0-3",
        f"{CPU}/nohz_full": "2-3",
        TSC: "arch_sys_counter",
        f"{CPU}/cpuidle/current_driver": "psci_idle\n",
        f"{CPU}/cpu2/cpuidle/state1/latency": "900\n",
    }
    rows = found_in(tmp_path, files)
    assert "clocksource" not in rows
    assert rows["deep-idle-states"]["remedy"] == "cpupower idle-set -D 20"


def found_in(root: Path, files: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the findings on a machine of these files alone."""
    for name, text in files.items():
        write(root, name, text)
    return found(root, {})


def line(root: Path, text: str) -> None:
    write(root, "proc/cmdline", f"{text}\n")


def test_managed_interrupts_of_a_partition_need_no_domain_flag(machine) -> None:  # noqa: F811
    root = machine("p4")
    line(root, "isolcpus=managed_irq,2")
    files = {
        f"{CPU}/nohz_full": "(null)\n",
        f"{CPU}/isolated": "\n",
        "sys/fs/cgroup/rt/cpuset.cpus.partition": "isolated\n",
        "sys/fs/cgroup/rt/cpuset.cpus.exclusive.effective": "2-3\n",
    }
    row = found(root, files)["managed-irqs"]
    assert (row["cpus"], row["remedy"]) == (
        "3",
        "boot with isolcpus=managed_irq,2-3 instead of isolcpus=managed_irq,2",
    )


@pytest.mark.parametrize(
    ("words", "isolated", "remedy"),
    [
        ("", "2-3", "boot with irqaffinity=0-1"),
        ("irqaffinity=0-1", "2-3", "write the mask of CPUs 0-1 to /proc/irq/default_smp_affinity"),
        ("irqaffinity=0-2", "2-3", "boot with irqaffinity=0-1 instead of irqaffinity=0-2"),
        ("", "0-3", "write the mask of CPUs 0 to /proc/irq/default_smp_affinity"),
    ],
)
def test_where_new_interrupts_are_sent_instead(machine, words, isolated, remedy) -> None:  # noqa: F811
    root = machine("p4")
    line(root, f"nohz_full=2-3 isolcpus=domain,managed_irq,2-3 {words}")
    files = {"proc/irq/default_smp_affinity": "4\n", f"{CPU}/isolated": f"{isolated}\n"}
    row = found(root, files)["irq-default-affinity"]
    assert (row["found"], row["remedy"]) == ("new interrupts may go to CPUs 2", remedy)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, None),
        ({f"{CPU}/nohz_full": "3\n"}, "the lockup detector runs on CPUs 2"),
        ({f"{CPU}/nohz_full": "3\n", "proc/sys/kernel/watchdog": "0\n"}, None),
        ({"proc/sys/kernel/watchdog_cpumask": "1,3\n"}, "the lockup detector runs on CPUs 3"),
    ],
)
def test_without_a_mask_the_watchdog_keeps_off_cpus_without_a_tick(machine, files, said) -> None:  # noqa: F811
    row = found(machine("p4"), {"proc/sys/kernel/watchdog": "1\n"} | files).get("lockup-watchdog")
    assert (row and row["found"]) == said
