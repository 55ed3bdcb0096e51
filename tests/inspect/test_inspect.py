"""`inspect_host` on directories collected from real machines, and on ones with a fault put in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore._input.boot_line import boot_options
from tlbcore._input.cpus import CpuListError, cpu_list, cpu_mask, show_cpus
from tlbcore.cli import main
from tlbcore.inspect import Host
from tlbcore.inspect._collect import collect
from tlbcore.inspect._facts import Facts
from tlbcore.inspect._root import Root

DATA = Path(__file__).parents[1] / "data"
CPU = "sys/devices/system/cpu"
NAMES = ("p4", "p4b", "k61", "rt4", "v2", "zen4-guest")


def verdicts(host: Host) -> dict[str, str]:
    return dict(zip(host.policies["policy"].tolist(), host.policies["verdict"].tolist(), strict=True))


def checks(host: Host) -> dict[str, str]:
    return dict(zip(host.findings["check"].tolist(), host.findings["severity"].tolist(), strict=True))


@pytest.fixture
def machine(tmp_path: Path):
    """Return a function that copies a collected directory and changes files in it; None removes one."""

    def change(name: str, **_: object) -> Path:
        root = tmp_path / name
        shutil.copytree(DATA / f"host-{name}", root)
        return root

    return change


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


# What the recorded machines are; the expectations are from their own boot messages and notes.


@pytest.mark.parametrize(
    ("name", "isolated", "release", "lazy_max"),
    [
        ("p4", (2, 3), "6.12.117+deb12-amd64", 24576),
        ("p4b", (2, 3), "6.12.117+deb12-amd64", 24576),
        ("k61", (2, 3), "6.1.0-56-amd64", 24576),
        ("rt4", (2, 3), "6.12.117+deb12-rt-amd64", 24576),
        ("v2", (1,), "6.12.117+deb12-amd64", 16384),  # nr_lazy_max in its trace
    ],
)
def test_a_recorded_guest_is_described_as_its_boot_messages_do(name, isolated, release, lazy_max):
    host = tc.inspect_host(DATA / f"host-{name}")
    assert host.isolated == host.nohz_full == isolated
    assert host.kernel.release == release
    assert host.kernel.lazy_max_pages == lazy_max
    assert host.kernel.pti is True
    assert host.kernel.flush_ceiling_pages == 33
    assert (host.cpu.pcid, host.cpu.invpcid, host.cpu.hypervisor) == (False, False, True)
    assert host.cpu.signature == "306C4"
    assert host.machine is not None
    assert host.machine.name == "haswell-e3-1231v3"
    assert "PCID is missing here" in host.machine_fit
    dmesg = (DATA / f"host-{name}" / "dmesg").read_text()
    assert f"Full dynticks CPUs: {show_cpus(frozenset(isolated))}." in dmesg
    assert "page tables isolation: enabled" in dmesg
    offloaded = host.isolation["cpu"][host.isolation["rcu_offloaded"]]
    assert tuple(offloaded.tolist()) == isolated


@pytest.mark.parametrize("name", ["p4", "p4b", "k61", "rt4", "v2"])
def test_on_a_pti_guest_the_series_defers_for_its_isolated_cpus(name):
    host = tc.inspect_host(DATA / f"host-{name}")
    assert verdicts(host)["coalesce-v7"] == "defers"
    at = host.policies["policy"].tolist().index("coalesce-v7")
    assert host.policies["spares"][at] == show_cpus(frozenset(host.isolated))
    # No INVPCID on these: the macro toggles CR4.PGE.
    assert "mov cr4, pge off" in host.policies["entry_ops"][at]
    assert verdicts(host)["ipi"] == "today"
    assert verdicts(host)["invlpgb"] == "impossible"
    assert checks(host)["pti-without-pcid"] == "advice"
    assert checks(host)["managed-irqs"] == "advice"
    assert "error" not in host.findings["severity"]


def test_on_a_zen4_guest_without_pti_the_cr3_policies_are_inert():
    host = tc.inspect_host(DATA / "host-zen4-guest")
    assert host.machine is not None
    assert host.machine.name == "zen4-epyc"
    assert "same CPUID signature A10F11" in host.machine_fit
    assert host.isolated == ()
    assert (host.kernel.pti, host.cpu.pcid, host.cpu.invpcid, host.cpu.invlpgb) == (False, True, True, False)
    found = verdicts(host)
    for name in tc.policies:
        if "pti" in tc.policies[name].needs:
            assert found[name] == "inert", name
    assert found["invlpgb"] == "impossible"
    reasons = dict(zip(host.policies["policy"].tolist(), host.policies["reason"].tolist(), strict=True))
    assert "page-table isolation is off" in reasons["coalesce-v7"]
    assert "not affected by Meltdown" in reasons["coalesce-v7"]
    assert "guest" in reasons["invlpgb"]


def test_the_running_machine_can_be_inspected():
    host = tc.inspect_host()
    assert len(host.policies["policy"]) == sum(p.defers != ("user",) for p in tc.policies.values())
    assert host.isolation["cpu"].dtype == np.int32
    assert host.isolation["cpu"].tolist() == list(host.online)


@pytest.mark.parametrize("name", NAMES)
def test_findings_come_worst_first_and_each_has_reason_remedy_and_source(name):
    findings = tc.inspect_host(DATA / f"host-{name}").findings
    order = ["error", "warning", "advice", "note"]
    ranks = [order.index(severity) for severity in findings["severity"].tolist()]
    assert ranks == sorted(ranks)
    for column in ("found", "reason", "remedy", "source"):
        assert all(findings[column].tolist())


# One fault at a time.


FAULTS = [
    ("clocksource", {"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n"}, "warning"),
    ("nohz-full-not-in-force", {f"{CPU}/nohz_full": "3\n"}, "error"),
    ("isolated-with-tick", {f"{CPU}/nohz_full": "(null)\n"}, "warning"),
    ("tickless-but-balanced", {f"{CPU}/isolated": "2\n"}, "warning"),
    ("bpf-jit-off", {"proc/sys/net/core/bpf_jit_enable": "0\n"}, "warning"),
    ("irq-default-affinity", {"proc/irq/default_smp_affinity": "f\n"}, "warning"),
    (
        "lockup-watchdog",
        {"proc/sys/kernel/watchdog": "1\n", "proc/sys/kernel/watchdog_cpumask": "0-3\n"},
        "warning",
    ),
    ("unbound-workqueues", {"sys/devices/virtual/workqueue/cpumask": "f\n"}, "warning"),
    ("rcu-expedited", {"sys/kernel/rcu_expedited": "1\n"}, "warning"),
    ("numa-balancing", {"proc/sys/kernel/numa_balancing": "1\n"}, "warning"),
    ("khugepaged", {"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n"}, "advice"),
    ("ksm", {"sys/kernel/mm/ksm/run": "1\n"}, "advice"),
    ("swap", {"proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n"}, "advice"),
    ("flush-ceiling", {"sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "1\n"}, "note"),
    ("kfence-static-keys", {"sys/module/kfence/parameters/sample_interval": "100\n"}, "warning"),
    (
        "debug-pagealloc",
        {"config": "CONFIG_DEBUG_PAGEALLOC_ENABLE_DEFAULT=y\nCONFIG_RCU_NOCB_CPU=y\n"},
        "warning",
    ),
    ("smt", {f"{CPU}/cpu2/topology/thread_siblings_list": "2-3\n"}, "warning"),
    ("cpu-frequency", {f"{CPU}/cpu2/cpufreq/scaling_governor": "schedutil\n"}, "advice"),
    ("no-housekeeping-cpu", {f"{CPU}/isolated": "0-3\n"}, "error"),
    ("node-without-housekeeping", {"sys/devices/system/node/node1/cpulist": "2-3\n"}, "advice"),
    (
        "partition-invalid",
        {"sys/fs/cgroup/rt/cpuset.cpus.partition": "isolated invalid (Cpu list empty)\n"},
        "error",
    ),
    ("damon-stat", {"sys/module/damon_stat/parameters/enabled": "Y\n"}, "advice"),
    ("fair-server", {"sys/kernel/debug/sched/fair_server/cpu2/runtime": "50000000\n"}, "advice"),
    (
        "bpf-jit-ibpb",
        {
            "proc/sys/net/core/bpf_jit_enable": "1\n",
            f"{CPU}/vulnerabilities/spectre_v2": "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional\n",
        },
        "note",
    ),
    ("irqbalance-running", {"proc/77/comm": "irqbalance\n"}, "note"),
    (
        "irqs-on-isolated-cpus",
        {"proc/irq/4/effective_affinity_list": "2\n", "proc/irq/9/effective_affinity_list": "0\n"},
        "warning",
    ),
    (
        "kernel-threads",
        {"proc/9/status": "Name:\tkhugepaged\nKthread:\t1\nCpus_allowed_list:\t0-3\n"},
        "advice",
    ),
    (
        "deep-idle-states",
        {
            f"{CPU}/cpuidle/current_driver": "intel_idle\n",
            f"{CPU}/cpu2/cpuidle/state3/name": "C6\n",
            f"{CPU}/cpu2/cpuidle/state3/latency": "133\n",
        },
        "advice",
    ),
    (
        "device-interrupts-seen",
        {"proc/interrupts": "      CPU0 CPU1 CPU2 CPU3\n  4:  10  0  7  0  IO-APIC  4-edge  ttyS0\n"},
        "advice",
    ),
]


@pytest.mark.parametrize(("check", "files", "severity"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_found_and_was_not_there_before(machine, check, files, severity):
    root = machine("p4")
    assert check not in checks(tc.inspect_host(root))
    for name, text in files.items():
        write(root, name, text)
    assert checks(tc.inspect_host(root))[check] == severity


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("boot-list-refused", ("nohz_full=2-3", "nohz_full=2..3")),
        ("tick-lists-differ", ("isolcpus=2-3", "isolcpus=nohz,domain,1-3")),
        ("isolcpus-without-flags", ("isolcpus=2-3", "isolcpus=2,3")),
        # Only CPUs 0-3 are possible: the kernel refuses the whole list.
        ("boot-list-refused", ("nohz_full=2-3", "nohz_full=2-9")),
    ],
)
def test_a_faulty_command_line_is_found(machine, check, change):
    root = machine("p4")
    line = (root / "proc/cmdline").read_text()
    assert change[0] in line
    write(root, "proc/cmdline", line.replace(*change))
    write(root, f"{CPU}/possible", "0-3\n")
    assert check in checks(tc.inspect_host(root))


def test_a_list_of_possible_cpus_that_are_offline_is_noted(machine):
    root = machine("p4")
    write(root, f"{CPU}/possible", "0-15\n")
    line = (root / "proc/cmdline").read_text()
    write(root, "proc/cmdline", line.replace("nohz_full=2-3", "nohz_full=2-9"))
    assert checks(tc.inspect_host(root))["boot-list-beyond-the-machine"] == "note"


def test_a_partition_made_at_run_time_isolates_and_is_told_from_a_boot_option(machine):
    root = machine("zen4-guest")
    write(root, "sys/fs/cgroup/rt/cpuset.cpus.partition", "isolated\n")
    write(root, "sys/fs/cgroup/rt/cpuset.cpus.exclusive.effective", "1\n")
    host = tc.inspect_host(root)
    assert host.isolated == (1,)
    assert host.isolation["cpuset"].tolist() == [False, True]
    assert checks(host)["isolated-with-tick"] == "warning"
    # Isolation by scheduler domain alone gives the deferral nothing to defer for (FACTS 5.2).
    reasons = dict(zip(host.policies["policy"].tolist(), host.policies["reason"].tolist(), strict=True))
    assert "CPUs 1 are isolated from the scheduler only" in reasons["noinstr-c"]


def test_cpus_of_partitions_that_have_no_name_here_are_the_rest_of_the_kernels_list(machine):
    root = machine("p4")
    for name, cpus in (("a", "1"), ("b", "2-3")):
        write(
            root, f"sys/fs/cgroup/{name}/cpuset.cpus.partition", "isolated\n" if name == "a" else "member\n"
        )
        write(root, f"sys/fs/cgroup/{name}/cpuset.cpus.effective", f"{cpus}\n")
    write(root, "sys/fs/cgroup/cpuset.cpus.isolated", "1-2\n")
    facts = Facts(Root(root))
    assert facts.partitions == {"/a": {1}, "(unnamed)": {2}}
    assert facts.cpuset_domain == {1, 2}
    write(root, "sys/fs/cgroup/cpuset.cpus.isolated", "1\n")
    assert Facts(Root(root)).partitions == {"/a": {1}}


def test_a_v1_cpuset_without_load_balancing_isolates(machine):
    root = machine("zen4-guest")
    write(root, "sys/fs/cgroup/cpuset/cpuset.sched_load_balance", "0\n")
    write(root, "sys/fs/cgroup/cpuset/system/cpuset.sched_load_balance", "1\n")
    write(root, "sys/fs/cgroup/cpuset/system/cpuset.effective_cpus", "0\n")
    assert tc.inspect_host(root).isolated == (1,)


def test_under_cgroup_v1_no_partition_is_offered(machine):
    root = machine("p4")
    write(root, "sys/fs/cgroup/cpuset/cpuset.cpus", "0-3\n")
    write(root, f"{CPU}/isolated", "\n")
    host = tc.inspect_host(root)
    remedy = host.findings["remedy"][host.findings["check"].tolist().index("tickless-but-balanced")]
    assert "sched_load_balance" in remedy
    assert "partition" not in remedy


@pytest.mark.parametrize(
    ("release", "advised"), [("6.6.0", False), ("6.12.117", True), ("6.16.1", True), ("7.3.4", False)]
)
def test_the_fair_server_is_a_matter_of_6_12_not_of_7_3(machine, release, advised):
    """7.3 stops the server on a CPU with one fair task: 0 to 2 interrupts in 20 s, 55 on 6.12."""
    root = machine("p4")
    write(root, "proc/sys/kernel/osrelease", f"{release}-amd64\n")
    write(root, "sys/kernel/debug/sched/fair_server/cpu3/runtime", "50000000\n")
    assert ("fair-server" in checks(tc.inspect_host(root))) is advised


@pytest.mark.parametrize("place", ["lib/modules", "usr/lib/modules"])
def test_a_configuration_beside_the_modules_is_found_and_collected(machine, tmp_path, place):
    """Debian's 7.3 keeps it there, not in /boot."""
    root = machine("p4")
    write(root, "proc/sys/kernel/osrelease", "7.3.4+deb13-amd64\n")
    write(root, f"{place}/7.3.4+deb13-amd64/config", "CONFIG_NO_HZ_FULL=y\nCONFIG_RCU_NOCB_CPU=y\n")
    assert tc.inspect_host(root).kernel.config_from == f"{place}/7.3.4+deb13-amd64/config"
    collect(tmp_path / "c", root=root)
    assert tc.inspect_host(tmp_path / "c").kernel.config_from == f"{place}/7.3.4+deb13-amd64/config"


def test_kernel_threads_are_told_by_the_rule_of_the_version(machine):
    """Before 7.0 nohz_full= moves them; from 7.0 on the scheduler's domains do."""
    root = machine("p4")
    for release, words, other in [
        ("6.12.1", "nohz_full= ", "partition"),
        ("7.3.4", "partition", "nohz_full= does"),
    ]:
        write(root, "proc/sys/kernel/osrelease", release)
        write(root, "proc/9/status", "Name:\tkhugepaged\nKthread:\t1\nCpus_allowed_list:\t0-3\n")
        table = tc.inspect_host(root).findings
        remedy = table["remedy"][table["check"].tolist().index("kernel-threads")]
        assert words in remedy
        assert other not in remedy


def test_invlpgb_is_what_a_bare_zen4_does_today(machine):
    root = machine("zen4-guest")
    cpuinfo = (root / "proc/cpuinfo").read_text()
    write(root, "proc/cpuinfo", cpuinfo.replace(" hypervisor", "").replace(" invpcid", " invpcid invlpgb"))
    host = tc.inspect_host(root)
    assert verdicts(host)["invlpgb"] == "today"
    assert verdicts(host)["ipi"] == "inert"


def test_pti_turned_off_at_boot_is_told_from_a_cpu_that_needs_none(machine):
    root = machine("p4")
    cpuinfo = (root / "proc/cpuinfo").read_text()
    write(root, "proc/cpuinfo", cpuinfo.replace(" pti ", " "))
    write(root, f"{CPU}/vulnerabilities/meltdown", "Vulnerable\n")
    host = tc.inspect_host(root)
    assert host.kernel.pti is False
    reasons = dict(zip(host.policies["policy"].tolist(), host.policies["reason"].tolist(), strict=True))
    assert "turned off at boot" in reasons["coalesce-v7"]


def test_a_check_that_lacks_its_file_is_reported_as_not_made():
    host = tc.inspect_host(DATA / "host-p4")
    lacking = dict(host.not_checked)
    assert lacking["workqueues"] == "sys/devices/virtual/workqueue/cpumask"
    assert "unbound-workqueues" not in checks(host)


@pytest.mark.parametrize(
    ("vendor", "family", "model", "stepping", "name", "preset"),
    [
        ("GenuineIntel", 6, 79, 1, "Intel(R) Xeon(R) CPU E5-2699 v4 @ 2.20GHz", "broadwell-ep-e5-2699v4"),
        ("GenuineIntel", 6, 79, 1, "Intel(R) Xeon(R) CPU E7-8890 v4 @ 2.20GHz", "broadwell-ex-e7-8890v4"),
        ("GenuineIntel", 6, 85, 4, "Intel(R) Xeon(R) Platinum 8180 CPU", "skylake-sp"),
        ("GenuineIntel", 6, 85, 7, "Intel(R) Xeon(R) Gold 6248 CPU", "cascade-lake-sp"),
        ("GenuineIntel", 6, 85, 6, "Intel(R) Xeon(R) Gold 6248 CPU", "cascade-lake-sp"),
        ("GenuineIntel", 6, 94, 3, "Intel(R) Core(TM) i7-6700K", "skylake-sp"),
        ("AuthenticAMD", 25, 17, 1, "AMD EPYC 9654", "zen4-epyc"),
        ("AuthenticAMD", 26, 2, 1, "AMD EPYC 9755", "zen5-epyc"),
        ("AuthenticAMD", 16, 2, 3, "AMD Phenom", None),
    ],
)
def test_the_preset_is_found_by_signature(machine, vendor, family, model, stepping, name, preset):
    root = machine("p4")
    cpuinfo = (root / "proc/cpuinfo").read_text()
    for field, value in {
        "vendor_id": vendor, "cpu family": family, "model": model, "stepping": stepping, "model name": name
    }.items():  # fmt: skip
        lines = [
            f"{field}\t: {value}" if line.split("\t")[0] == field else line for line in cpuinfo.splitlines()
        ]
        cpuinfo = "\n".join(lines)
    write(root, "proc/cpuinfo", cpuinfo)
    found = tc.inspect_host(root).machine
    assert (None if found is None else found.name) == preset


# Reading what the kernel writes.


def test_cpu_lists_and_masks_are_read_as_the_kernel_writes_them():
    assert cpu_list("0-3,8") == {0, 1, 2, 3, 8}
    assert cpu_list("") == cpu_list("(null)") == frozenset()
    assert cpu_list("2-N", 7) == {2, 3, 4, 5, 6, 7}
    assert cpu_list("all", 3) == {0, 1, 2, 3}
    assert cpu_mask("00000001,00000000") == {32}
    assert show_cpus(frozenset({0, 1, 2, 5})) == "0-2,5"
    for wrong in ("x", "3-1", "1-", "-2", "0-99999999", "1:2", "١"):
        with pytest.raises(CpuListError, match="CPU"):
            cpu_list(wrong)


def test_boot_options_end_at_the_double_dash_and_treat_dash_as_underscore():
    options = boot_options('a-b=1 quoted="x y" flag -- nohz_full=3')
    assert options == {"a_b": ["1"], "quoted": ["x y"], "flag": [""]}
    assert boot_options('open="x y') == {"open": ["x y"]}  # as next_arg() of the kernel takes it


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (f"{CPU}/online", "0-x\n", "a CPU list is numbers and ranges: got '0-x'"),
        (f"{CPU}/nohz_full", "1-0\n", "a range of CPUs must rise"),
    ],
)
def test_a_file_that_should_list_cpus_and_does_not_is_refused(machine, name, text, message):
    root = machine("p4")
    write(root, name, text)
    with pytest.raises(tc.ConfigError, match=message):
        tc.inspect_host(root)


def test_a_directory_without_a_cpu_is_refused(tmp_path):
    with pytest.raises(tc.ConfigError, match="cannot be inspected without proc/cpuinfo"):
        tc.inspect_host(tmp_path)
    with pytest.raises(tc.ConfigError, match="a directory of collected files is needed"):
        tc.inspect_host(tmp_path / "nothing")


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe\x00garbage", b"flags : \n"])
def test_garbage_in_optional_files_is_survived(machine, garbage):
    root = machine("p4")
    for name in ("proc/version", "dmesg", "proc/interrupts", f"{CPU}/vulnerabilities/meltdown", "config"):
        write(root, name, "")
        (root / name).write_bytes(garbage)
    tc.inspect_host(root)


# Collecting and the command.


def test_a_collected_directory_gives_the_same_answers(tmp_path):
    collect(tmp_path / "c", root=DATA / "host-p4")
    first, second = tc.inspect_host(DATA / "host-p4"), tc.inspect_host(tmp_path / "c")
    assert verdicts(first) == verdicts(second)
    assert checks(first) == checks(second)
    with pytest.raises(FileExistsError):
        collect(tmp_path / "c")


def test_the_command_prints_text_and_json(capsys):
    assert main(["inspect", "--root", str(DATA / "host-p4")]) == 0
    text = capsys.readouterr().out
    assert "isolated  2-3 (no tick: 2-3" in text
    assert "coalesce-v7" in text
    assert "[managed-irqs]" in text
    assert main(["inspect", "--root", str(DATA / "host-p4"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["version"]) == ("tlbcore.inspect", 1)
    assert document["nohz_full"] == [2, 3]
    assert document["machine"] == "haswell-e3-1231v3"


def test_the_command_refuses_a_missing_directory_in_one_line(capsys, tmp_path):
    assert main(["inspect", "--root", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


ONE_FULL_CPU = {"pti", "pcid", "invpcid", "housekeeping_overridden", "context_tracking"}


@pytest.mark.filterwarnings("ignore::tlbcore.InertPolicyWarning")
@pytest.mark.parametrize("name", [*tc.policies])
def test_what_a_system_call_costs_more_is_what_the_simulator_finds(name):
    """One price list. 80,000 calls without refills: the one that the end cuts short weighs less than 0.1 ns."""
    policy = tc.policies[name]
    extra = {need for need in policy.needs if need in ("invlpgb", "rar")}
    if extra:
        pytest.skip("no preset has both PTI and broadcasts")
    load = tc.Scenario(
        name="calls",
        duration_s=0.2,
        cpus=2,
        isolated="1",
        actors=(tc.scenarios.syscalls("isolated", base_ns=2000.0, kernel_pages=0, user_pages=0),),
    )
    kernel = tc.Kernel(pti=True)

    def mean_ns(which: str) -> float:
        found = tc.compare(load, machine="skylake-sp", kernel=kernel, policies=[which]).table
        return float(found["syscall_mean_ns"][found["cpu_class"] == "isolated"][0])

    seen = json.loads(_core.policy_outlook(policy.text, policy.file, sorted(ONE_FULL_CPU), "skylake-sp"))

    assert seen["entry_ns"]["best"] == pytest.approx(mean_ns(name) - mean_ns("ipi"), abs=0.2)
    assert seen["entry_ns"]["low"] <= seen["entry_ns"]["best"] <= seen["entry_ns"]["high"]


def test_policies_are_described_by_what_their_programs_do():
    host = tc.inspect_host(DATA / "host-p4")
    reason = dict(zip(host.policies["policy"].tolist(), host.policies["reason"].tolist(), strict=True))
    ops = dict(zip(host.policies["policy"].tolist(), host.policies["entry_ops"].tolist(), strict=True))

    assert "syncs of patched text" in reason["text-sync-tri-state"]
    assert "user mode or idle are not interrupted by syncs of patched text" in reason["text-defer-v7"]
    assert reason["lazy-tune"].startswith("the same interrupts as today, fewer of them")
    assert "interrupted as today" in reason["fancy-state-indeterminate"]
    assert "user mode or idle are not" in reason["ct-late"]
    assert "user mode are not" in reason["coalesce-v7"]
    assert "fence" in ops["coalesce-v7-fixed"]
    assert "mov cr4" in ops["flush-on-exit"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json"], "leave --json out"),
        (["--kernel", "6.12"], "leave --kernel out"),
        (["--cpus", "4", "--json"], "leave --cpus and --json out"),
    ],
)
def test_who_collects_inspects_nothing(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["inspect", "--collect", str(tmp_path / "c"), "--root", str(DATA / "host-p4")]
    assert main([*where, *words]) == 2
    assert capsys.readouterr().err == f"tlbcore: error: --collect copies files and inspects nothing: {said}\n"
    assert not (tmp_path / "c").exists()
    assert main(where) == 0
    assert (tmp_path / "c").is_dir()
