"""Boot lines, read by the rules of kernel/sched/isolation.c of the version, and what is said about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tlbcore as tc
from tlbcore._input.boot_line import Release, boot_cpu_list, boot_line, boot_options, boot_words
from tlbcore._input.cpus import CpuListError, cpu_list, show_cpus
from tlbcore.cli import main

HOSTS = Path(__file__).parents[1] / "data" / "cases" / "hosts"


def cpus(text: str) -> frozenset[int]:
    return cpu_list(text)


def findings(host) -> dict[str, dict[str, str]]:
    table = host.findings
    return {
        str(name): {column: str(table[column][at]) for column in table}
        for at, name in enumerate(table["check"])
    }


# Words and lists.


def test_words_are_cut_as_the_kernel_cuts_them():
    words = list(boot_words('quiet a-b=1 c="x y" "d=e f" g=\'h i\' j="k'))
    assert words == [
        ("quiet", None), ("a-b", "1"), ("c", "x y"), ("d", "e f"), ("g", "'h"), ("i'", None), ("j", "k")
    ]  # fmt: skip
    assert boot_options("a-b=1 a_b=2 -- nohz_full=3") == {"a_b": ["1", "2"]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-3,8", {0, 1, 2, 3, 8}),
        (",2-3,,5,", {2, 3, 5}),
        ("", set()),
        ("2-15:1/2", {2, 4, 6, 8, 10, 12, 14}),
        ("0-3:1/2", {0, 2}),
        ("0-7:2/4", {0, 1, 4, 5}),
        ("0-3:0/2", set()),
        ("N", {15}),
        ("12-N", {12, 13, 14, 15}),
        ("all", set(range(16))),
        ("ALL:1/8", {0, 8}),
    ],
)
def test_lists_are_read_as_bitmap_parselist_does(text, found):
    assert boot_cpu_list(text, 16) == found


@pytest.mark.parametrize(
    "text", ["3-1", "5:1/2", "1-", "-2", "2..3", "0x3", "16", "2-16", "0-3:3/2", "0-3:1/0", "n", "١"]
)
def test_a_list_that_the_kernel_refuses_is_refused(text):
    with pytest.raises(CpuListError, match=r"CPU|group"):
        boot_cpu_list(text, 16)


@given(st.frozensets(st.integers(0, 63)))
def test_a_list_that_the_kernel_prints_is_read_back(found):
    assert boot_cpu_list(show_cpus(found), 64) == found


def test_words_of_newer_versions_are_refused_by_older_ones():
    for release, status in (
        ("4.19", "refused"),
        ("5.10", "refused"),
        ("5.14", "in force"),
        ("6.12", "in force"),
    ):
        for text in ("nohz_full=1-N", "nohz_full=all"):
            made = boot_line(text, release=Release.of(release), possible=8).decisions[0]
            assert made.status == status, (release, text)


@pytest.mark.parametrize(
    ("release", "text", "why"),
    [
        ("5.10", "2,N", "`N` is the last CPU only since Linux 5.13: got 'N' in '2,N'"),
        ("5.10", "1-N:1/2", "`N` is the last CPU only since Linux 5.13: got '1-N:1/2' in '1-N:1/2'"),
        ("4.18.0-240.el8", "1-N", "`N` is the last CPU only since Linux 5.13: got '1-N' in '1-N'"),
        ("5.13", "all", "`all` is every CPU only since Linux 5.14: got 'all' in 'all'"),
        ("5.13", "1,ALL:1/2", "`all` is every CPU only since Linux 5.14: got 'ALL:1/2' in '1,ALL:1/2'"),
        ("5.10", "1-n", "a CPU list is numbers and ranges: got '1-n' in '1-n'"),
        ("5.10", "1-Nx", "a CPU list is numbers and ranges: got '1-Nx' in '1-Nx'"),
        ("6.12", "1-NN", "a CPU list is numbers and ranges: got '1-NN' in '1-NN'"),
        ("5.10", "1-8", "CPU 8 is beyond the last possible CPU, 7: got '1-8' in '1-8'"),
    ],
)
def test_what_a_version_does_not_read_says_since_when(release, text, why):
    (made,) = boot_line(f"nohz_full={text}", release=Release.of(release), possible=8).decisions
    assert (made.status, made.why) == ("refused", why)


def test_a_release_holds_a_version(tmp_path):
    config = tmp_path / ".config"
    config.write_text("CONFIG_X86_64=y\n")
    for ask in (
        lambda text: tc.inspect_host(cmdline="quiet", release=text),
        lambda text: tc.Kernel.from_config(config, release=text),
    ):
        for text in ("", "latest"):
            with pytest.raises(tc.ConfigError, match=f"^release {text!r} holds no version such as 6.12 or"):
                ask(text)
        ask("vmlinuz-6.8.0-rt")


# nohz_full= and isolcpus=. Each row: release, line, (nohz_full, domain, managed_irq), statuses.

READINGS = [
    # A list alone is the scheduler's domains; flags stand first.
    ("6.12", "isolcpus=2-3", ("", "2-3", ""), ["in force"]),
    ("6.12", "isolcpus=managed_irq,2-7", ("", "", "2-7"), ["in force"]),
    ("6.12", "isolcpus=nohz,domain,managed_irq,2-7", ("2-7", "2-7", "2-7"), ["in force"]),
    ("6.12", "isolcpus=2-7,domain", ("", "", ""), ["refused"]),
    # An unknown word is skipped from 5.8 on; before, the option is dropped.
    ("6.12", "isolcpus=nohz_domain,managed_irq,2-7", ("", "", "2-7"), ["in force"]),
    ("6.12", "isolcpus=nohz_domain,2-7", ("", "2-7", ""), ["in force"]),
    ("5.4", "isolcpus=nohz_domain,2-7", ("", "", ""), ["refused"]),
    ("4.18.0-193.el8", "isolcpus=nohz_domain,managed_irq,2-7", ("", "", ""), ["refused"]),
    ("4.18.0-477.el8", "isolcpus=nohz_domain,managed_irq,2-7", ("", "", "2-7"), ["in force"]),
    ("6.12", "isolcpus=no-domain,2-7", ("", "", ""), ["refused"]),
    # managed_irq came with 5.6 and RHEL 8.2.
    ("5.4", "isolcpus=managed_irq,2-7", ("", "", ""), ["refused"]),
    ("4.18.0-240.10.1.el8_3.x86_64", "isolcpus=managed_irq,2-7", ("", "", "2-7"), ["in force"]),
    ("4.18.0-147.el8", "isolcpus=managed_irq,2-7", ("", "", ""), ["refused"]),
    # `all` and `N` begin with a letter: isolcpus= takes them for flags.
    ("6.12", "isolcpus=all", ("", "", ""), ["refused"]),
    ("6.12", "isolcpus=nohz,all", ("", "", ""), ["refused"]),
    ("6.12", "isolcpus=N", ("", "", ""), ["refused"]),
    ("6.12", "isolcpus=nohz,domain,2-N", ("2-7", "2-7", ""), ["in force"]),
    ("6.12", "isolcpus=domain", ("", "", ""), ["refused"]),
    # Lists for one flag must agree; the later is ignored, whatever its name.
    ("6.12", "nohz_full=2-3 isolcpus=nohz,domain,4-5", ("2-3", "", ""), ["in force", "ignored"]),
    ("6.12", "isolcpus=nohz,domain,4-5 nohz_full=2-3", ("4-5", "4-5", ""), ["in force", "ignored"]),
    ("6.12", "isolcpus=2-3 isolcpus=4-5", ("", "2-3", ""), ["in force", "ignored"]),
    ("6.12", "isolcpus=domain,2-3 isolcpus=managed_irq,4-5", ("", "2-3", "4-5"), ["in force", "in force"]),
    # Lists for different flags may differ from 5.18 on.
    ("6.12", "nohz_full=2-3 isolcpus=domain,4-5", ("2-3", "4-5", ""), ["in force", "in force"]),
    ("5.10", "nohz_full=2-3 isolcpus=domain,4-5", ("2-3", "", ""), ["in force", "ignored"]),
    ("4.18.0-477.el8", "isolcpus=managed_irq,2-7 nohz_full=4-7", ("", "", "2-7"), ["in force", "ignored"]),
    # From 6.19 on some CPU must be in neither.
    ("7.3", "nohz_full=0-3 isolcpus=domain,4-7", ("1-3", "", ""), ["in force", "ignored"]),
    ("6.12", "nohz_full=0-3 isolcpus=domain,4-7", ("1-3", "4-7", ""), ["in force", "in force"]),
    # The boot CPU keeps time and house.
    ("6.12", "nohz_full=0-3", ("1-3", "", ""), ["in force"]),
    ("6.12", "nohz_full=all", ("1-7", "", ""), ["in force"]),
    ("6.12", "isolcpus=0-7", ("", "1-7", ""), ["in force"]),
    # A CPU beyond the machine refuses the list.
    ("6.12", "nohz_full=2-63", ("", "", ""), ["refused"]),
    # An empty list takes its flags before 6.9 and so makes a later one disagree.
    ("6.12", "isolcpus=domain, isolcpus=domain,2-3", ("", "2-3", ""), ["empty", "in force"]),
    ("6.1", "isolcpus=domain, isolcpus=domain,2-3", ("", "", ""), ["empty", "ignored"]),
    ("6.12", 'isolcpus="2-3" "nohz_full=2-3"', ("2-3", "2-3", ""), ["in force", "in force"]),
    ("6.12", "isolcpus=domain,2-7:1/2", ("", "2,4,6", ""), ["in force"]),
    ("6.12", "-- isolcpus=2-3", ("", "", ""), []),
]


@pytest.mark.parametrize(("release", "line", "masks", "statuses"), READINGS)
def test_a_line_is_read_as_that_kernel_reads_it(release, line, masks, statuses):
    read = boot_line(line, release=Release.of(release), possible=8)
    assert (read.nohz_full, read.domain, read.managed_irq) == tuple(map(cpus, masks))
    assert [made.status for made in read.decisions] == statuses
    assert not read.not_known


def test_a_kernel_without_full_dynticks_drops_the_whole_option():
    built = {"NO_HZ_FULL": "n"}
    read = boot_line("isolcpus=nohz,domain,2-3", release=Release.of("6.12"), possible=4, settings=built)
    assert [made.status for made in read.decisions] == ["unsupported"]
    assert not read.domain


def test_where_versions_differ_and_none_is_named_it_says_so():
    assert boot_line("nohz_full=2-3 isolcpus=domain,2-3").not_known == ()
    assert boot_line("nohz_full=1-3 isolcpus=domain,2-3").not_known != ()
    assert boot_line("nohz_full=1-3 isolcpus=domain,2-3", release=Release.of("6.12")).not_known == ()
    host = tc.inspect_host(cmdline="isolcpus=nohzz,2-3", release="4.18.0-305.el8", cpus=8)
    assert "boot-line-depends-on-the-kernel" in findings(host)


@given(
    st.lists(st.integers(0, 15), min_size=1, max_size=6),
    st.sampled_from(["4.18", "5.14", "6.1", "6.12", "7.3"]),
)
def test_the_same_list_for_everything_is_in_force_everywhere(listed, release):
    """Where lists agree, every version isolates them alike but for the boot CPU."""
    text = show_cpus(frozenset(listed))
    flags = "nohz,domain" if release == "4.18" else "nohz,domain,managed_irq"
    read = boot_line(f"isolcpus={flags},{text} nohz_full={text}", release=Release.of(release), possible=32)
    assert read.domain == frozenset(listed)
    assert read.nohz_full == frozenset(listed) - {0}
    assert read.settled


@pytest.mark.parametrize(
    ("flags", "meant"),
    [
        ("domain,mangaed_irq", "domain,managed_irq"),
        ("domian,managed_irq", "domain,managed_irq"),
        ("domain,xyz", "domain"),
    ],
)
def test_a_misspelt_flag_is_written_right_in_the_remedy(flags: str, meant: str):
    host = tc.inspect_host(cmdline=f"isolcpus={flags},2-7 nohz_full=2-7", release="6.12.5", cpus=8)

    (finding,) = (f for name, f in findings(host).items() if name == "isolcpus-unknown-flag")
    assert finding["remedy"] == f"write isolcpus={meant},2-7"
    assert finding["severity"] == ("error" if meant != "domain" else "warning")


# The hosts: what is found, what helps, which CPUs.

HOST_FINDINGS = {
    "K-openshift-4.7": {
        "managed-irq-only": ("managed_irq is in force for CPUs 2-23,26-47", "isolcpus=domain,managed_irq,2-23,26-47",
            "2-23,26-47"),
    },
    "C-trading-nohz_domain": {
        "isolcpus-unknown-flag": ("nohz_domain is no flag", "write isolcpus=domain,managed_irq,2-19", "2-19"),
        "tickless-but-balanced": ("CPUs 2-19 run without a tick", "first mend the command line", "2-19"),
    },
    "D-workstation-mismatch": {
        "tick-lists-differ": (
            "the kernel ignores nohz_full=2-15. In force are nohz: 1; domain: 0-1; managed_irq: 0-1",
            "isolcpus=domain,managed_irq,2-15 instead of isolcpus=nohz,domain,managed_irq,0-1",
            "0-15",
        ),
        "irq-default-affinity": ("CPUs 0-1", "first mend the command line", "0-1"),
    },
    "B-oai-cpu0": {
        "boot-cpu-keeps-the-time": ("without a tick run 1-13", "leave it out of nohz_full= and isolcpus=", "0"),
        "option-not-in-mainline": ("kthread_cpus=14-15", "Unknown kernel command line parameters", ""),
    },
    "N9": {
        "boot-list-refused": ("isolcpus=2-15,domain,managed_irq", "write isolcpus=domain,managed_irq,2-15", "2-15"),
        "tickless-but-balanced": ("CPUs 2-15", "first mend the command line", "2-15"),
        "managed-irqs": ("CPUs 2-15", "first mend the command line", "2-15"),
    },
    "N6": {"nohz-off": ("nohz=off", "take nohz=off off the command line", "2-15")},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HOST_FINDINGS))
def test_what_is_said_of_a_public_boot_line(name):
    """Issue 16: `inspect` read boot lines by rules of its own."""
    found = findings(tc.inspect_host(HOSTS / name))
    found.pop("pti-without-pcid")  # of the stand-in CPU, not of the line
    assert set(found) == set(HOST_FINDINGS[name])
    for check, (words, remedy, where) in HOST_FINDINGS[name].items():
        assert words in found[check]["found"]
        assert remedy in found[check]["remedy"]
        assert found[check]["cpus"] == where


def test_what_is_in_force_on_the_hosts():
    masks = {
        name: tuple(
            show_cpus(frozenset(host.isolation["cpu"][host.isolation[column]].tolist()))
            for column in ("nohz_full", "domain", "managed_irq")
        )
        for name in HOST_FINDINGS
        for host in [tc.inspect_host(HOSTS / name)]
    }
    assert masks == {
        "K-openshift-4.7": ("", "", "2-23,26-47"),
        "C-trading-nohz_domain": ("2-19", "", "2-19"),
        "D-workstation-mismatch": ("1", "0-1", "0-1"),
        "B-oai-cpu0": ("1-13", "0-13", "0-13"),
        "N9": ("2-15", "", ""),
        "N6": ("2-15", "2-15", "2-15"),
    }


GOOD = [
    ("6.12.117+deb12-amd64", "8", "nohz_full=2-7 isolcpus=domain,managed_irq,2-7 rcu_nocbs=2-7 irqaffinity=0-1"),
    ("7.3.4-amd64", "64", "isolcpus=nohz,domain,managed_irq,8-63 rcu_nocbs=8-63 irqaffinity=0-7 tsc=reliable"),
    ("5.14.0-503.el9", "48", "skew_tick=1 tsc=reliable rcupdate.rcu_normal_after_boot=1 nohz=on "
     "isolcpus=managed_irq,domain,2-23,26-47 nohz_full=2-23,26-47 rcu_nocbs=2-23,26-47 irqaffinity=0,1,24,25 "
     "tuned.non_isolcpus=00000300,00000003"),
    ("6.1.0-18-amd64", "32", "isolcpus=domain,managed_irq,2-31:1/2 nohz_full=2-31:1/2 irqaffinity=0,1,3-31:1/2"),
    ("4.18.0-553.el8", "16", "isolcpus=managed_irq,domain,1-15 nohz_full=1-15 rcu_nocbs=1-15 irqaffinity=0 nohz=on"),
    ("4.19", "4", "nohz_full=2-3 isolcpus=domain,2-3 rcu_nocbs=2-3 irqaffinity=0-1 nowatchdog"),
    ("6.12", "16", "isolcpus=domain,managed_irq,4-N nohz_full=4-N rcu_nocb_poll irqaffinity=0-3 quiet splash"),
]  # fmt: skip


@pytest.mark.parametrize(("release", "count", "line"), GOOD)
def test_a_well_configured_host_has_no_finding(release, count, line):
    if "non_isolcpus" in line:
        line = line.replace("00000300,00000003", "03000003")
    host = tc.inspect_host(cmdline=line, release=release, cpus=count)
    assert findings(host) == {}
    assert host.isolated


def test_a_well_configured_collected_host_has_no_finding(tmp_path):
    """All files there, nothing to say: notes on what no file can show are no findings."""
    files = {
        "proc/cmdline": GOOD[0][2],
        "proc/version": "Linux version 6.12.117+deb12-amd64 (x) #1 SMP",
        "proc/cpuinfo": "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 17\nstepping : 1\n"
        "flags : pcid invpcid constant_tsc nonstop_tsc tsc_adjust\nbugs : spectre_v2\n",
        "proc/interrupts": "  CPU0 CPU1 CPU2 CPU3 CPU4 CPU5 CPU6 CPU7\n 4: 1 0 0 0 0 0 0 0 IO-APIC ttyS0\n",
        "proc/swaps": "Filename Type Size Used Priority\n",
        "proc/irq/default_smp_affinity": "3",
        "proc/irq/4/effective_affinity_list": "0",
        "proc/sys/kernel/watchdog": "0",
        "proc/sys/kernel/numa_balancing": "0",
        "proc/sys/net/core/bpf_jit_enable": "1",
        "proc/2/comm": "kthreadd",
        "proc/2/status": "Name:\tkthreadd\nKthread:\t1\nCpus_allowed_list:\t0-1\n",
        "config": "CONFIG_NO_HZ_FULL=y\nCONFIG_RCU_NOCB_CPU=y\n",
        "sys/devices/system/cpu/online": "0-7",
        "sys/devices/system/cpu/possible": "0-7",
        "sys/devices/system/cpu/nohz_full": "2-7",
        "sys/devices/system/cpu/isolated": "2-7",
        "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected",
        "sys/devices/system/cpu/vulnerabilities/spectre_v2": "Mitigation: Retpolines; IBPB: conditional",
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list": "2",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
        "sys/devices/virtual/workqueue/cpumask": "3",
        "sys/kernel/rcu_expedited": "0",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "sys/kernel/mm/ksm/run": "0",
        "sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "33",
        "sys/kernel/debug/sched/fair_server/cpu2/runtime": "0",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    host = tc.inspect_host(tmp_path)
    assert findings(host) == {}
    assert [check for check, _ in host.not_checked] == ["firmware-interrupts"]


# Remedies: never what is there already, what contradicts, or what the version lacks.

_LISTS = st.sampled_from(["2-3", "1-7", "0-3", "4-7", "2-7:1/2", "all", "2-N", "6", "0-7", "2-9", "x"])
_OPTIONS = st.one_of(
    st.tuples(st.sampled_from(["nohz_full", "rcu_nocbs", "irqaffinity"]), _LISTS).map("=".join),
    st.tuples(
        st.lists(st.sampled_from(["nohz", "domain", "managed_irq", "nohz_domain", "domian"]), max_size=3), _LISTS
    ).map(lambda pair: "isolcpus=" + ",".join([*pair[0], pair[1]])),
    st.sampled_from(["nohz=off", "tsc=unstable", "nohz=on", "cgroup_disable=cpuset", "quiet",
                     "systemd.unified_cgroup_hierarchy=0", "kthread_cpus=0-1"]),
)  # fmt: skip


@settings(max_examples=300)
@example(["rcu_nocbs=1-7", "isolcpus=1-7", "rcu_nocbs=2-3"], "6.12")
@given(
    st.lists(_OPTIONS, max_size=4),
    st.sampled_from(
        ["4.18.0-147.el8", "4.18.0-240.el8", "4.19", "5.4", "5.14.0-70.el9", "6.1", "6.12", "7.3"]
    ),
)
def test_no_remedy_repeats_the_line_contradicts_it_or_asks_for_what_the_kernel_lacks(options, release):
    line = " ".join(options)
    host = tc.inspect_host(cmdline=line, release=release, cpus=8)
    version = Release.of(release)
    mends = {
        "boot-list-refused",
        "tick-lists-differ",
        "isolcpus-unknown-flag",
        "boot-list-empty",
        "no-isolated-cpu",
    }
    broken = not boot_line(line, release=version, possible=8).settled
    for name, finding in findings(host).items():
        remedy = finding["remedy"]
        if not remedy.startswith("boot with"):
            continue
        offered = re.sub(r" instead of \S+", "", remedy)
        if broken and name not in mends:
            raise AssertionError(f"{line!r}: {name} builds on a line that is broken: {remedy}")
        for word in re.findall(r"(?:nohz_full|isolcpus|rcu_nocbs|irqaffinity)=[\w,:/-]+", offered):
            assert word not in line.split(), (line, name, remedy)
            if "LIST" in word or "REST" in word:
                continue
            # What is offered is read by this very kernel as it is meant.
            option = word.partition("=")[0]
            if option in ("nohz_full", "isolcpus"):
                made = boot_line(word, release=version, possible=8).decisions[0]
                assert (made.status, made.skipped) == ("in force", ()), (line, name, remedy)
        assert (
            "managed_irq" not in offered
            or version >= Release(5, 6)
            or (version.el, version.build) >= (8, 193)
        )
        partition = "cpuset.cpus.partition" in remedy
        assert not partition or (
            version >= Release(6, 1) and "unified_cgroup" not in line and "cgroup_disable" not in line
        )


def test_a_partition_is_offered_only_where_there_are_partitions():
    for line, release, words in [
        ("nohz_full=2-3", "6.12", "cpuset.cpus.partition"),
        ("nohz_full=2-3", "5.10", "boot with isolcpus=domain,managed_irq,2-3"),
        ("nohz_full=2-3 systemd.unified_cgroup_hierarchy=0", "6.12", "sched_load_balance=0"),
        ("nohz_full=2-3", "5.4", "boot with isolcpus=domain,2-3"),
    ]:
        remedy = findings(tc.inspect_host(cmdline=line, release=release, cpus=4))["tickless-but-balanced"][
            "remedy"
        ]
        assert remedy.startswith(words) or words in remedy, (line, release, remedy)
        assert ("partition" in remedy) == (words == "cpuset.cpus.partition")


def test_from_7_0_on_nohz_full_alone_is_said_to_keep_no_threads_away():
    """7.3: kernel threads and unbound work follow the scheduler's domains, not nohz_full=."""
    for release, told in (("6.12", False), ("7.3", True)):
        finding = findings(tc.inspect_host(cmdline="nohz_full=2-3", release=release, cpus=4))[
            "tickless-but-balanced"
        ]
        assert ("no longer keeps them away" in finding["reason"]) is told


@pytest.mark.parametrize(
    ("option", "check"),
    [
        ("nohz=off", "nohz-off"),
        ("nohz=0", "nohz-off"),
        ("tsc=unstable", "tsc-unstable"),
        ("notsc", "tsc-unstable"),
    ],
)
def test_an_option_that_keeps_every_tick_is_found(option, check):
    line = f"nohz_full=2-3 isolcpus=domain,managed_irq,2-3 irqaffinity=0-1 {option}"
    found = findings(tc.inspect_host(cmdline=line, release="6.12", cpus=4))
    assert set(found) == {check}
    assert found[check]["cpus"] == "2-3"
    assert option in found[check]["remedy"]


def test_a_line_that_lists_every_cpu_is_told_who_keeps_house():
    found = findings(
        tc.inspect_host(cmdline="nohz_full=all isolcpus=domain,managed_irq,0-7", release="6.12", cpus=8)
    )
    assert found["no-housekeeping-cpu"]["cpus"] == "0-7"
    assert "boot CPU, 0, was taken out" in found["no-housekeeping-cpu"]["reason"]


def test_findings_offer_one_isolcpus_option_not_two():
    for line in ("nohz_full=1-3", "nohz_full=1-3 isolcpus=nohz,1-3", "isolcpus=1-3"):
        found = findings(tc.inspect_host(cmdline=line, release="7.3", cpus=4))
        offered = {w for f in found.values() for w in re.findall(r"(?<!of )isolcpus=\S+[^;\s]", f["remedy"])}
        assert {word.rstrip(";") for word in offered} == {"isolcpus=domain,managed_irq,1-3"}, (line, offered)


def test_another_clock_on_the_line_is_noticed():
    line = "nohz_full=2-3 isolcpus=domain,managed_irq,2-3 irqaffinity=0-1 clocksource=hpet"
    found = findings(tc.inspect_host(cmdline=line, release="6.12", cpus=4))
    assert set(found) == {"clocksource"}


def test_rcu_nocbs_without_a_list_offloads_nobody_and_a_bad_one_everybody():
    for line, offloaded in (("rcu_nocbs", []), ("rcu_nocbs=2..3", [0, 1, 2, 3]), ("rcu_nocbs=2", [2])):
        host = tc.inspect_host(cmdline=f"isolcpus=domain,2-3 {line}", release="6.12", cpus=4)
        assert host.isolation["cpu"][host.isolation["rcu_offloaded"]].tolist() == offloaded


def test_tuned_and_openshift_are_named_where_the_line_is_to_be_changed():
    host = tc.inspect_host(HOSTS / "K-openshift-4.7")
    assert host.kernel.managed_by == "OpenShift"
    assert "PerformanceProfile" in findings(host)["managed-irq-only"]["remedy"]
    line = "nohz_full=2-3 isolcpus=domain,managed_irq,2-3 tuned.non_isolcpus=00000007"
    host = tc.inspect_host(cmdline=line, release="5.14.0-503.el9", cpus=4)
    assert host.kernel.managed_by == "tuned"
    assert findings(host)["tuned-mask-differs"]["cpus"] == "2"


def test_the_release_is_taken_from_the_image_where_none_is_given():
    line = "BOOT_IMAGE=/vmlinuz-5.4.0-150-generic isolcpus=managed_irq,2-3"
    assert "boot-list-refused" in findings(tc.inspect_host(cmdline=line, cpus=4))


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("(hd0,gpt2)/vmlinuz-5.14.0-427.el9.x86_64", "vmlinuz-5.14.0-427.el9.x86_64 (BOOT_IMAGE)"),
        ("/linux", "not given (--kernel)"),
    ],
)
def test_the_kernel_that_is_used_is_the_one_shown(image: str, shown: str, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", "--cmdline", f"BOOT_IMAGE={image} nohz_full=2-3"]) in (0, 1, None)
    assert shown in capsys.readouterr().out


# An aarch64 machine.


def test_on_aarch64_nothing_of_x86_is_claimed(tmp_path):
    files = {
        "proc/cmdline": "nohz_full=2-3 isolcpus=domain,managed_irq,2-3 irqaffinity=0-1",
        "proc/version": "Linux version 6.12.0-arm64 (x) #1 SMP",
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n",
        "sys/devices/system/cpu/online": "0-3",
        "sys/devices/system/cpu/vulnerabilities/meltdown": "Mitigation: PTI",
        "sys/kernel/debug/x86/tlb_single_page_flush_ceiling": "1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    host = tc.inspect_host(tmp_path)
    assert host.cpu.arch == "aarch64"
    assert set(host.policies["verdict"].tolist()) == {"not modelled"}
    assert "broadcasts" in host.policies["reason"][0]
    assert (host.kernel.pti, host.kernel.lazy_max_pages, host.machine) == (None, None, None)
    assert host.isolated == (2, 3)
    assert findings(host) == {}


# One place: the kernel of a `.config` reads the line alike.


@pytest.mark.parametrize(("release", "line", "masks", "statuses"), READINGS)
def test_a_configuration_reads_the_line_alike(tmp_path, release, line, masks, statuses):
    config = tmp_path / ".config"
    config.write_text("CONFIG_X86_64=y\nCONFIG_NO_HZ_FULL=y\nCONFIG_CONTEXT_TRACKING_USER=y\n")
    if "refused" in statuses:
        version = rf"{re.escape(str(Release.of(release)))}: (isolcpus|nohz_full)="
        with pytest.raises(tc.ConfigError, match=f"^command line of Linux {version}"):
            tc.Kernel.from_config(config, cmdline=line, release=release, cpus=8)
        return
    _, remarks, isolated = tc.Kernel.from_config(config, cmdline=line, release=release, cpus=8)
    assert isolated == tuple(sorted(cpus(masks[0])))
    assert ("ignored" in statuses) == any("is ignored" in remark for remark in remarks)


# The command.


def test_the_command_reads_a_pasted_line(capsys):
    line = (HOSTS / "D-workstation-mismatch/proc/cmdline").read_text()
    assert main(["inspect", "--cmdline", line, "--kernel", "6.12", "--cpus", "16"]) == 0
    text = capsys.readouterr().out
    assert "nohz_full=2-15: ignored" in text
    assert "[tick-lists-differ]" in text
    assert "What each policy would do" not in text
    for arguments in (
        ["--kernel", "6.12"],
        ["--cmdline", "x", "--cpus", "none"],
        ["--cmdline", "x", "--kernel", "new"],
        ["--cmdline", "x", "--root", str(HOSTS / "N6")],
    ):
        assert main(["inspect", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("release", "line", "check", "remedy"),
    [
        # managed_irq came with 5.6.
        ("5.5", "", "no-isolated-cpu", "boot with nohz_full=LIST isolcpus=domain,LIST irqaffinity=REST"),
        ("5.6", "", "no-isolated-cpu", "boot with nohz_full=LIST isolcpus=domain,managed_irq,LIST irqaffinity=REST"),
        # Words that are no flag, before `all` and behind it; `all` is a list of which no part is known.
        ("6.12", "isolcpus=abc,2-7", "isolcpus-unknown-flag", "write isolcpus=domain,2-7"),
        ("6.12", "isolcpus=managed_irq,zz,2-7", "isolcpus-unknown-flag", "write isolcpus=managed_irq,2-7"),
        ("6.12", "isolcpus=all", "boot-list-refused", "write isolcpus= with its flags, then numbers and ranges"),
        # The boot CPU keeps its tick: that is a fault of the line only where no CPU is without.
        ("6.12", "nohz_full=1-3 isolcpus=domain,managed_irq,0-3", "isolated-with-tick", None),
        ("6.12", "isolcpus=domain,0", "isolated-with-tick", "keep CPU 0 out of the isolated CPUs"),
        # An option without a list, beside the other one with its list.
        ("6.12", "nohz_full=2-3 isolcpus", "boot-list-refused", "write isolcpus= with a list of CPUs"),
        ("6.12", "isolcpus=2-3 nohz_full", "boot-list-refused", "write nohz_full= with a list of CPUs"),
        # Who cannot name the kernel is told how, who has named it is not.
        ("4.18.0-305.el8", "isolcpus=nohzz,2-3", "boot-line-depends-on-the-kernel", "compare /sys/devices"),
        (None, "nohz_full=1-3 isolcpus=domain,2-3", "boot-line-depends-on-the-kernel",
         "name the kernel (--kernel), or compare /sys/devices"),
    ],
)  # fmt: skip
def test_a_remedy_on_the_line_alone(release: str | None, line: str, check: str, remedy: str | None) -> None:
    found = findings(tc.inspect_host(cmdline=line, release=release, cpus=8))
    if remedy is None:
        assert check not in found
    else:
        assert found[check]["remedy"].startswith(remedy)
