# ruff: noqa: E501  # a row stands on its line
"""Facts of a machine with few files: the files, and what is taken from them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from test_inspect import CPU, write

from tlbcore.inspect._facts import Facts, signature
from tlbcore.inspect._root import MissingError, Pasted, Root

CPUINFO = "processor : 0\nvendor_id : AuthenticAMD\ncpu family : 25\nmodel : 17\nstepping : 1\n"
MELTDOWN = f"{CPU}/vulnerabilities/meltdown"
V1 = "sys/fs/cgroup/cpuset"
V2 = "sys/fs/cgroup"
CONFIGS = (
    "boot/config-6.1.0", "proc/config.gz", "proc/config", "lib/modules/6.1.0/config", "usr/lib/modules/6.1.0/config",
    "usr/src/linux-headers-6.1.0/.config", "config",
)  # fmt: skip
NOCB = {
    f"{CPU}/online": "0-3",
    f"{CPU}/possible": "0-3",
    "config": "CONFIG_RCU_NOCB_CPU=y\nCONFIG_NO_HZ_FULL=y\n",
}
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
    # What the kernel prints where it has no sample of a clock, and what is no number.
    ({"proc/cpuinfo": f"{CPUINFO}cpu MHz\t\t: Unknown\n"}, {"cpu.mhz": None}),
    ({"proc/cpuinfo": f"{CPUINFO}cpu MHz : 0.000\n"}, {"cpu.mhz": 0.0}),
    ({"proc/cpuinfo": f"{CPUINFO}cpu MHz : 2000\nx cpu MHz : 3\n"}, {"cpu.mhz": 2000.0}),
    # The CPU: vendors by their short names, others as they call themselves; other architectures have no signature.
    (
        {"proc/cpuinfo": f"vendor_id : GenuineIntel\nmodel name\t: A B\n{CPUINFO}flags : hypervisor invpcid\n"},
        {"cpu.vendor": "intel", "cpu.name": "A B", "cpu.hypervisor": True, "cpu.invpcid": True, "cpu.pcid": False},
    ),
    ({"proc/cpuinfo": "vendor_id : HygonGenuine\nflags : x\n"}, {"cpu.vendor": "HygonGenuine", "cpu.hypervisor": False}),
    ({"proc/cpuinfo": "x : y\n"}, {"cpu.arch": "x86", "cpu.vendor": "", "cpu.name": "", "x86": True, "online": set()}),
    ({"proc/cpuinfo": "processor : 0\ncpu family : 6\nisa : rv64\n"}, {"cpu.arch": "x86", "cpu.family": 6}),
    *(
        ({"proc/cpuinfo": f"processor : 0\n{line}\n"}, {
            "cpu.arch": arch, "x86": False, "cpu.signature": "", "kernel.pti": None, "kernel.pti_from": None,
            "kernel.lazy_max_pages": None,
        })
        for line, arch in (
            ("CPU implementer : 0x41", "aarch64"), ("isa\t\t: rv64imafdc", "riscv64"), ("vendor_id : IBM/S390", "s390x"),
            ("cpu : POWER9", "ppc64"),
        )
    ),
    ({"proc/cpuinfo": "x isa : rv64\nmodel name : cpu : POWER\n"}, {"cpu.arch": "x86"}),
    ({MELTDOWN: "Not affected"}, {"cpu.meltdown": "Not affected", "kernel.pti": False, "kernel.pti_from": MELTDOWN}),
    ({}, {"cpu.meltdown": None, "cpu.family": 25, "cpu.model": 17, "cpu.stepping": 1, "cpu.invlpgb": None}),
    # Which kernel: uname's own words before the banner, and the name of the image where there is neither.
    (
        {"proc/sys/kernel/osrelease": "6.15.0-a\n", "proc/version": "Linux version 5.1.0 (x)"},
        {"release": "6.15.0-a", "kernel.release": "6.15.0-a", "kernel.version": "Linux version 5.1.0 (x)",
         "version": (6, 15), "cpu.invlpgb": False},
    ),
    ({"proc/version": "Linux version 6.1.0-9-amd64 (x)"}, {"release": "6.1.0-9-amd64", "version": (6, 1)}),
    (
        {"proc/cmdline": "BOOT_IMAGE=/vmlinuz-6.12.1-rt quiet"},
        {"release": "", "version": (6, 12), "kernel.cmdline": "BOOT_IMAGE=/vmlinuz-6.12.1-rt quiet", "kernel.version": ""},
    ),
    ({"proc/version": "something else"}, {"release": "", "kernel.version": "something else"}),
    # The configuration: the first of these files.
    *(
        ({"proc/sys/kernel/osrelease": "6.1.0", **{name: f"CONFIG_A={i}\n" for i, name in tuple(enumerate(CONFIGS))[at:]}},
         {"kernel.config_from": CONFIGS[at], "kernel.config": f"CONFIG_A={at}", "kernel_settings": {"A": str(at)}})
        for at in range(len(CONFIGS))
    ),
    ({}, {"kernel.config": None, "kernel.config_from": None, "kernel_settings": None, "kernel.settings": None}),
    ({"config": "CONFIG_X=y\n# CONFIG_Y is not set\n"}, {"kernel.settings": {"X": "y", "Y": "n"}}),
    # Full dynticks: the running mask, else what the command line leads to, if the kernel can.
    ({f"{CPU}/online": "0-3", f"{CPU}/nohz_full": "3", "proc/cmdline": "nohz_full=2"}, {"nohz_full": {3}}),
    ({f"{CPU}/online": "0-3", f"{CPU}/nohz_full": "(null)", "proc/cmdline": "nohz_full=2"}, {"nohz_full": set()}),
    ({f"{CPU}/online": "0-3", "proc/cmdline": "nohz_full=2"}, {"nohz_full": {2}, "kernel.context_tracking": True}),
    ({f"{CPU}/online": "0-3", "proc/cmdline": "nohz_full=2", "config": "CONFIG_NO_HZ_FULL=y"}, {"nohz_full": {2}}),
    ({f"{CPU}/online": "0-3", "proc/cmdline": "nohz_full=2", "config": "CONFIG_A=y"},
     {"nohz_full": set(), "kernel.context_tracking": False}),
    # The scheduler's domains: the running mask, else the command line; and partitions.
    ({f"{CPU}/online": "0-3", f"{CPU}/isolated": "3", "proc/cmdline": "isolcpus=2"}, {"boot_domain": {3}, "domain": {3}}),
    ({f"{CPU}/online": "0-3", f"{CPU}/isolated": "", "proc/cmdline": "isolcpus=2"}, {"boot_domain": set()}),
    ({f"{CPU}/online": "0-3", "proc/cmdline": "isolcpus=2"},
     {"boot_domain": {2}, "isolated": {2}, "meant": {2}, "housekeeping": {0, 1, 3}, "managed_irq": set()}),
    ({f"{CPU}/online": "0-3", "proc/cmdline": "isolcpus=managed_irq,2-3"},
     {"isolated": set(), "managed_irq": {2, 3}, "meant": {2, 3}, "housekeeping": {0, 1}}),
    ({f"{CPU}/online": "0-3", f"{CPU}/nohz_full": "1", "proc/cmdline": "isolcpus=managed_irq,2-3"}, {"meant": {1}}),
    ({f"{CPU}/online": "0-3", f"{CPU}/nohz_full": "1,7", f"{CPU}/isolated": "2"},
     {"isolated": {1, 2, 7}, "meant": {1, 2}, "housekeeping": {0, 3}}),
    (
        {f"{CPU}/online": "0-5", f"{CPU}/isolated": "5", f"{V2}/a/cpuset.cpus.partition": "isolated",
         f"{V2}/a/cpuset.cpus.effective": "1", f"{V2}/a/b/cpuset.cpus.partition": "isolated",
         f"{V2}/a/b/cpuset.cpus.exclusive.effective": "2", f"{V2}/a/b/cpuset.cpus.effective": "0-5",
         f"{V2}/c/cpuset.cpus.partition": "isolated invalid (x)", f"{V2}/c/cpuset.cpus.effective": "3",
         f"{V2}/d/cpuset.cpus.partition": "root", f"{V2}/d/cpuset.cpus.effective": "4",
         f"{V2}/e/cpuset.cpus.partition": "isolated"},
        {"partitions": {"/a": {1}, "/a/b": {2}, "/e": set()}, "cpuset_domain": {1, 2}, "domain": {1, 2, 5}},
    ),
    (
        {f"{V2}/cpuset.cpus.isolated": "1-2", f"{V2}/a/cpuset.cpus.partition": "isolated",
         f"{V2}/a/cpuset.cpus.effective": "1"},
        {"partitions": {"/a": {1}, "(unnamed)": {2}}},
    ),
    ({f"{V2}/cpuset.cpus.isolated": "3"}, {"partitions": {"(unnamed)": {3}}, "isolated": {3}}),
    ({f"{V2}/cpuset.cpus.isolated": ""}, {"partitions": {}, "cpuset_domain": set()}),
    # The hybrid layout has version 2 below `unified`; a group of version 2 may be called so, too.
    ({f"{V2}/unified/a/cpuset.cpus.partition": "isolated", f"{V2}/unified/a/cpuset.cpus.effective": "1"},
     {"domain": {1}, "partitions": {"/a": {1}}}),
    ({f"{V2}/unified/{'a/b/c/d/e/f'[:2 * n - 1]}/cpuset.cpus.{file}": text for n in (5, 6)
      for file, text in (("partition", "isolated"), ("effective", str(n)))}, {"partitions": {"/a/b/c/d/e": {5}}}),
    *(({f"{V2}/{mark}": "", f"{V2}/unified/a/cpuset.cpus.partition": "isolated",
        f"{V2}/unified/a/cpuset.cpus.effective": "1", f"{V2}/unifier/cpuset.cpus.partition": "isolated",
        f"{V2}/unifier/cpuset.cpus.effective": "2"}, {"partitions": {"/unified/a": {1}, "/unifier": {2}}})
      for mark in ("cgroup.controllers", "cpuset.cpus.effective")),
    ({f"{V2}/unified/cpuset.cpus.isolated": "3"}, {"partitions": {"(unnamed)": {3}}}),
    ({f"{V2}/cpuset.cpus.partition": "isolated", f"{V2}/cpuset.cpus.effective": "0"}, {"partitions": {"/": {0}}}),
    # Cgroups are looked at down to the fifth level.
    ({f"{V2}/{place}/cpuset.cpus.{file}": text for place, cpu in (("a/b/c/d/e", "1"), ("a/b/c/d/e/f", "2"))
      for file, text in (("partition", "isolated"), ("effective", cpu))}, {"partitions": {"/a/b/c/d/e": {1}}}),
    ({f"{CPU}/online": "0-2", f"{V1}/cpuset.sched_load_balance": "0",
      **{f"{V1}/{place}/cpuset.{file}": text for place, cpu in (("a/b/c/d/e", "1"), ("a/b/c/d/e/f", "2"))
         for file, text in (("sched_load_balance", "1"), ("cpus", cpu))}}, {"cpuset_domain": {0, 2}}),
    # In version 1 what is in no balanced set below one that is not balanced.
    ({f"{CPU}/online": "0-3", f"{V1}/cpuset.sched_load_balance": "1", f"{V1}/a/cpuset.sched_load_balance": "0"},
     {"partitions": {}}),
    ({f"{CPU}/online": "0-3", f"{V1}/cpuset.sched_load_balance": "0", f"{V1}/a/cpuset.sched_load_balance": "1",
      f"{V1}/a/cpuset.cpus": "0-1", f"{V1}/a/b/cpuset.sched_load_balance": "1", f"{V1}/a/b/cpuset.effective_cpus": "2",
      f"{V1}/a/b/cpuset.cpus": "3"},
     {"partitions": {"(cgroup v1, outside every balanced cpuset)": {3}}}),
    ({f"{CPU}/online": "0-1", f"{V1}/cpuset.sched_load_balance": "0", f"{V1}/a/cpuset.sched_load_balance": "1",
      f"{V1}/a/cpuset.cpus": "0-1"}, {"partitions": {}}),
    ({f"{V1}/cpuset.cpus": "0"}, {"cgroup_v1": True, "has_partitions": False}),
    *(({"proc/cmdline": f"systemd.unified_cgroup_hierarchy={no}"}, {"cgroup_v1": True}) for no in ("false", "no", "off")),
    # RCU callbacks: with an offloading kernel those of the list, and every CPU without a tick.
    ({**NOCB, f"{CPU}/nohz_full": "3", "proc/cmdline": "rcu_nocbs=1-2"}, {"rcu_offloaded": {1, 2, 3}}),
    ({**NOCB, f"{CPU}/online": "0-2", "proc/cmdline": "rcu_nocbs=1,3"}, {"rcu_offloaded": {1}}),
    ({**NOCB, "proc/cmdline": "rcu_nocbs=1,9"}, {"rcu_offloaded": {0, 1, 2, 3}}),  # out of range: all
    ({**NOCB, f"{CPU}/nohz_full": "3", "proc/cmdline": "rcu_nocbs"}, {"rcu_offloaded": {3}}),
    ({**NOCB, f"{CPU}/nohz_full": "3"}, {"rcu_offloaded": {3}}),
    ({**NOCB, "proc/cmdline": "rcu_nocbs=3-1"}, {"rcu_offloaded": {0, 1, 2, 3}}),
    ({**NOCB, "config": "CONFIG_A=y", f"{CPU}/nohz_full": "3", "proc/cmdline": "rcu_nocbs=1"}, {"rcu_offloaded": set()}),
    ({f"{CPU}/online": "0-3", f"{CPU}/nohz_full": "3", "proc/cmdline": "rcu_nocbs=1"}, {"rcu_offloaded": {1, 3}}),
    # Interrupts: the running mask of those CPUs that are online, else the option's and the boot CPU.
    ({f"{CPU}/online": "0-3", "proc/irq/default_smp_affinity": "c", "proc/cmdline": "irqaffinity=1"},
     {"default_irq": {2, 3}}),
    ({f"{CPU}/online": "0-3", "proc/cmdline": "irqaffinity=3-1"}, {"default_irq": {0}}),
    ({f"{CPU}/online": "0", "sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "-1"}, {
        "kernel.flush_ceiling_pages": None, "kernel.lazy_max_pages": 8192,
    }),
    ({"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n"}, {"kernel.clocksource": "tsc"}),
    ({"proc/cmdline": "tuned.x=1 ostree=a ignition.platform.id=b"}, {"kernel.managed_by": "OpenShift"}),
    # How many CPUs are possible.
    ({f"{CPU}/online": "0-2", f"{CPU}/possible": "0-7", "dmesg": "nr_cpu_ids:6"}, {"possible": 8}),
    ({"proc/cpuinfo": f"{CPUINFO}processor\t: 4\nx processor : 9\n"}, {"online": {0, 4}, "possible": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("files", "wanted"), FACTS, ids=[" ".join(fact[1]) for fact in FACTS])
def test_a_fact_is_what_its_file_says(files: dict[str, str], wanted: dict[str, object], tmp_path: Path):
    for name, text in {"proc/cpuinfo": CPUINFO, **files}.items():
        if name.endswith(".gz"):
            write(tmp_path, name, "")
            (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        else:
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


@pytest.mark.parametrize(
    ("release", "newer"),
    [("6.12.3-rt", True), ("6.11.9", False), ("7.0", True), ("5.20", False), ("x", None), ("", None)],
)
def test_a_release_is_compared_by_its_two_numbers(release: str, newer: bool | None, tmp_path: Path):
    for name, text in {"proc/cpuinfo": CPUINFO, "proc/sys/kernel/osrelease": release}.items():
        write(tmp_path, name, text)
    facts = Facts(Root(tmp_path))
    assert facts.kernel.at_least(6, 12) is newer
    assert facts.option_cpus("nothing") == set()


def test_an_option_of_the_kernel_s_configuration_is_n_if_it_is_not_there(tmp_path: Path):
    write(tmp_path, "proc/cpuinfo", CPUINFO)
    with pytest.raises(MissingError, match=r"^boot/config-\.\.\. or proc/config\.gz$"):
        Facts(Root(tmp_path)).setting("A")
    write(tmp_path, "proc/sys/kernel/osrelease", "6.1.0")
    with pytest.raises(MissingError, match=r"^boot/config-6\.1\.0 or proc/config\.gz$"):
        Facts(Root(tmp_path)).setting("A")
    write(tmp_path, "config", "CONFIG_A=m\n")
    facts = Facts(Root(tmp_path))
    assert (facts.setting("A"), facts.setting("B")) == ("m", "n")
    assert facts.kernel.options == {}
    write(tmp_path, "proc/cmdline", "a-b=1 a_b=2 c")
    assert Facts(Root(tmp_path)).kernel.options == {"a_b": ["1", "2"], "c": [""]}


def test_of_a_pasted_line_is_known_what_it_says_and_what_else_was_given():
    alone = Facts(Pasted({"proc/cmdline": "nohz_full=2-3 isolcpus=1"}))
    assert alone.cpu is None
    assert alone.x86
    assert alone.online == {0, 1, 2, 3}
    assert (alone.nohz_full, alone.boot_domain, alone.partitions) == ({2, 3}, {1}, {})
    assert (alone.possible, alone.kernel.lazy_max_pages, alone.kernel.pti) == (4, None, None)
    given = Facts(
        Pasted({"proc/cmdline": "nohz_full=2-3", f"{CPU}/online": "0-7", "proc/sys/kernel/osrelease": "6.1"})
    )
    assert (given.online, given.possible, given.kernel.release) == (set(range(8)), 8, "6.1")
    assert given.kernel.managed_by is None


def test_a_live_kernel_without_the_mask_has_no_full_dynticks(tmp_path: Path):
    for name, text in {
        "proc/cpuinfo": CPUINFO,
        f"{CPU}/online": "0-3",
        "proc/cmdline": "nohz_full=2",
    }.items():
        write(tmp_path, name, text)
    root = Root(tmp_path)
    assert Facts(root).nohz_full == {2}
    root.live = True
    assert Facts(root).nohz_full == set()
