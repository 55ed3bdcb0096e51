"""Facts of a machine with few files: the files, and what is taken from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_inspect import CPU, write

from tlbcore.inspect._facts import Facts, signature
from tlbcore.inspect._root import Root

CPUINFO = "processor : 0\nvendor_id : AuthenticAMD\ncpu family : 25\nmodel : 17\nstepping : 1\n"
MELTDOWN = f"{CPU}/vulnerabilities/meltdown"
V1 = "sys/fs/cgroup/cpuset"
FACTS = [
    ({"proc/version": "Linux version 6.14.9 x"}, {"cpu.invlpgb": None, "version": (6, 14)}),
    ({"proc/version": "Linux version 6.15.0 x"}, {"cpu.invlpgb": False}),
    ({"proc/version": "Linux version 7.0.0 x"}, {"cpu.invlpgb": False}),
    ({"proc/version": "Linux version 5.20.0 x"}, {"cpu.invlpgb": None}),
    ({"proc/cpuinfo": f"{CPUINFO}flags : invlpgb\n"}, {"cpu.invlpgb": True, "kernel.pti": False}),
    (
        {"proc/cpuinfo": f"{CPUINFO}flags : pti pcid\n", MELTDOWN: "Vulnerable"},
        {"kernel.pti": True, "kernel.pti_from": "proc/cpuinfo flags", "cpu.pcid": True, "cpu.invpcid": False},
    ),
    ({MELTDOWN: "Mitigation: PTI"}, {"kernel.pti": True, "kernel.pti_from": MELTDOWN}),
    ({MELTDOWN: "Vulnerable", "dmesg": "page tables isolation: enabled"}, {"kernel.pti": False}),
    (
        {"dmesg": "Kernel/User page tables isolation: enabled"},
        {"kernel.pti": True, "kernel.pti_from": "dmesg"},
    ),
    ({"dmesg": "Kernel/User page tables isolation: disabled"}, {"kernel.pti": None, "kernel.pti_from": None}),
    (
        {"proc/cpuinfo": "processor : 0\nflags : fpu\nmodel : x\n"},
        {"cpu.family": 0, "cpu.model": 0, "cpu.stepping": 0, "cpu.signature": "0"},
    ),
    (  # of version 1: what is in no balanced set
        {
            f"{CPU}/online": "0-2",
            f"{V1}/cpuset.sched_load_balance": "0",
            f"{V1}/a/cpuset.sched_load_balance": "1",
            f"{V1}/a/cpuset.effective_cpus": "0",
            f"{V1}/b/cpuset.sched_load_balance": "0",
            f"{V1}/b/cpuset.effective_cpus": "1",
        },
        {"cpuset_domain": {1, 2}},
    ),
    ({"proc/cpuinfo": f"{CPUINFO}bugs : cpu_meltdown spectre_v1\n"}, {"cpu.affected_by_meltdown": True}),
    ({"proc/cpuinfo": f"{CPUINFO}bugs : spectre_v1\n"}, {"cpu.affected_by_meltdown": False}),
    ({}, {"cpu.affected_by_meltdown": None, "cpu.signature": "A10F11", "cpu.vendor": "amd", "cpu.mhz": None}),
    ({"proc/cpuinfo": f"{CPUINFO}cpu MHz : 2400.5\n"}, {"cpu.mhz": 2400.5, "online": {0}}),
    ({f"{CPU}/online": "0-2", f"{CPU}/possible": "0-7"}, {"online": {0, 1, 2}, "possible": 8}),
    ({f"{CPU}/online": "0-2", "dmesg": "x nr_cpu_ids:6 y"}, {"possible": 6}),
    ({f"{CPU}/online": "0-2", "dmesg": "smpboot: Allowing 12 CPUs, 8 hotplug"}, {"possible": 12}),
    ({f"{CPU}/online": "0-2", "dmesg": "smpboot: Allowing 12 present CPUs"}, {"possible": 12}),
    ({f"{CPU}/online": "0-2", "proc/cmdline": "nohz_full=2"}, {"possible": 3}),
    ({f"{CPU}/online": "0-2", "proc/cmdline": "nohz_full=3"}, {"possible": None}),
    # The lazy limit is as many times 32 MiB as the number of CPUs has bits: 3 have two, 4 have three.
    ({f"{CPU}/online": "0-2"}, {"kernel.lazy_max_pages": 2 * 8192}),
    ({f"{CPU}/online": "0-3"}, {"kernel.lazy_max_pages": 3 * 8192}),
    ({"sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "33"}, {"kernel.flush_ceiling_pages": 33}),
    ({"sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "no"}, {"kernel.flush_ceiling_pages": None}),
    ({"config": "CONFIG_X=y\n"}, {"kernel.context_tracking": False, "kernel.config_from": "config"}),
    ({"config": "CONFIG_CONTEXT_TRACKING_USER_FORCE=y\n"}, {"kernel.context_tracking": True}),
    ({f"{CPU}/online": "0-2", f"{CPU}/nohz_full": "2"}, {"kernel.context_tracking": True, "meant": {2}}),
    ({"config": "CONFIG_RCU_NOCB_CPU=y\nCONFIG_RCU_NOCB_CPU_DEFAULT_ALL=y\n"}, {"rcu_offloaded": {0}}),
    ({"config": "CONFIG_RCU_NOCB_CPU_DEFAULT_ALL=y\n"}, {"rcu_offloaded": set()}),
    ({"proc/irq/default_smp_affinity": "5", f"{CPU}/online": "0-1"}, {"default_irq": {0}}),
    ({"proc/cmdline": "irqaffinity=1", f"{CPU}/online": "0-1"}, {"default_irq": {0, 1}}),
    ({}, {"default_irq": None, "has_partitions": True, "cgroup_v1": False, "managed_by": None}),
    ({"proc/cmdline": "cgroup_disable=memory,cpuset"}, {"has_partitions": False}),
    ({"proc/cmdline": "cgroup_disable=memory"}, {"has_partitions": True}),
    ({"proc/version": "Linux version 6.0.9 x"}, {"has_partitions": False}),
    ({"proc/version": "Linux version 6.1.0 x"}, {"has_partitions": True}),
    ({"proc/cmdline": "systemd.unified_cgroup_hierarchy=0"}, {"cgroup_v1": True, "has_partitions": False}),
    ({"proc/cmdline": "systemd.unified_cgroup_hierarchy=1"}, {"cgroup_v1": False}),
    ({"proc/cmdline": "tuned.non_isolcpus=3"}, {"managed_by": "tuned"}),
    ({"proc/cmdline": "ostree=x ignition.platform.id=y"}, {"managed_by": "OpenShift"}),
    ({"proc/cmdline": "ostree=x"}, {"managed_by": None}),
]


@pytest.mark.parametrize(("files", "wanted"), FACTS, ids=[" ".join(fact[1]) for fact in FACTS])
def test_a_fact_is_what_its_file_says(files: dict[str, str], wanted: dict[str, object], tmp_path: Path):
    for name, text in {"proc/cpuinfo": CPUINFO, **files}.items():
        write(tmp_path, name, text)
    facts = Facts(Root(tmp_path))
    for name, value in wanted.items():
        found: object = facts
        for part in name.split("."):
            found = getattr(found, part)
        if name == "version":
            found = (found.major, found.minor)  # type: ignore[attr-defined]
        assert found == value, name


@pytest.mark.parametrize(
    ("family", "model", "stepping", "shown"),
    [(6, 85, 7, "50657"), (14, 1, 2, "E12"), (15, 2, 9, "F29"), (16, 4, 2, "100F42"), (26, 2, 1, "B00F21")],
)
def test_a_signature_is_leaf_1_of_cpuid(family: int, model: int, stepping: int, shown: str):
    """Families from 15 on have an extended one, models of 16 and more an extended one."""
    assert signature(family, model, stepping) == shown
