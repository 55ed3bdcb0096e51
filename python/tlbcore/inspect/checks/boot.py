"""The checklist: what the command line asks for, what the kernel made of it, and what is in force."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from tlbcore._input.boot_line import FLAGS, Decision, boot_cpu_list, has
from tlbcore._input.cpus import CpuListError, cpu_list, cpu_mask, show_cpus
from tlbcore.inspect._facts import CPU, NO_CPU, Facts
from tlbcore.inspect.checks import remedies
from tlbcore.inspect.checks.finding import DOC, ISOLATION, PARAMETERS, Finding, check, line_check

# Options of vendors' kernels that mainline does not have, and whose.
_FOREIGN = {"kthread_cpus": "patched kernels (StarlingX, Wind River, some real-time ones)"}


def _how(made: Decision) -> str:
    return f"{made.text}: {', '.join(made.flags)} of CPUs {show_cpus(made.cpus) or 'none'}"


def _in_force(facts: Facts) -> str:
    """Say what is in force, flag by flag."""
    masks = (("nohz", facts.nohz_full), ("domain", facts.domain), ("managed_irq", facts.managed_irq))
    return "; ".join(f"{name}: {show_cpus(cpus) or 'none'}" for name, cpus in masks)


@line_check
def _no_isolated_cpu(facts: Facts) -> Iterator[Finding]:
    if facts.isolated or facts.boot.decisions:
        return
    rest = "keep at least CPU 0 for the rest"
    yield Finding(
        severity="note",
        check="no-isolated-cpu",
        found="no CPU is isolated: no nohz_full=, no isolcpus=, no isolated cpuset partition",
        reason="every CPU does housekeeping; deferral policies concern isolated CPUs only",
        remedy=f"boot with nohz_full=LIST isolcpus={'domain,managed_irq' if _managed(facts) else 'domain'},LIST "
        f"irqaffinity=REST; {rest}",
        source=DOC,
    )


def _managed(facts: Facts) -> bool:
    return has(facts.version, (5, 6), el8=193) is not False


def _flags_in(word: str) -> list[str]:
    """Return the flags that a word holds or, misspelt, was meant to be."""
    found = [flag for flag in FLAGS if flag in word]
    return found or difflib.get_close_matches(word, FLAGS, n=1, cutoff=0.7)


def _repaired(made: Decision, facts: Facts) -> str | None:
    """Guess what a refused or half-read `isolcpus=` was meant to be."""
    words = made.value.split(",")
    flags: list[str] = []
    spans: list[str] = []
    for word in words:
        parts = _flags_in(word)
        if parts:
            flags += parts
        elif re.match(r"[\dN]", word):
            spans.append(word)
        elif word.lower() == "all":
            return None
    try:
        cpus = boot_cpu_list(",".join(spans), facts.boot.possible)
    except CpuListError:
        return None
    if not cpus:
        return None
    if "nohz" in flags and "nohz_full" in facts.options:
        flags.remove("nohz")
    if not _managed(facts) and "managed_irq" in flags:
        flags.remove("managed_irq")
    ordered = [flag for flag in FLAGS if flag in flags] or ["domain"]
    return ",".join([*ordered, show_cpus(cpus)])


@line_check
def _isolation_options(facts: Facts) -> Iterator[Finding]:
    """One finding per `nohz_full=` or `isolcpus=` that the kernel did not take as written."""
    for made in facts.boot.decisions:
        if made.skipped and made.status != "refused":
            meant = _repaired(made, facts)
            lost = [
                flag
                for flag in FLAGS
                if any(flag in _flags_in(word) for word in made.skipped) and flag not in made.flags
            ]
            lost = [flag for flag in lost if flag != "nohz" or not facts.nohz_full]
            yield Finding(
                severity="error" if lost else "warning",
                check="isolcpus-unknown-flag",
                found=f"{made.text}: {' and '.join(made.skipped)} is no flag of isolcpus=, and the kernel skips it; "
                f"in force is {', '.join(made.flags)} of CPUs {show_cpus(made.cpus)}",
                reason=f"a misspelt flag is no error to the kernel: {', '.join(lost)} is not in force"
                if lost
                else "a misspelt flag is no error to the kernel",
                remedy=f"write isolcpus={meant}" if meant else "write the flags as nohz, domain, managed_irq",
                source=f"{ISOLATION} housekeeping_isolcpus_setup",
                cpus=made.cpus,
            )
        if made.status == "refused":
            meant = _repaired(made, facts) if made.option == "isolcpus" else None
            behind = re.search(r"\d,(?:nohz|domain|managed_irq)", made.value)
            yield Finding(
                severity="error",
                check="boot-list-refused",
                found=made.text,
                reason=f"the kernel drops an option whose list does not parse: {made.why}"
                + ("; isolcpus= takes its flags first, then the list" if behind else ""),
                remedy=f"write isolcpus={meant}"
                if meant
                else f"write {made.option}= with {'its flags, then ' if made.option == 'isolcpus' else ''}"
                f"{_numbers(facts)}",
                source=f"{PARAMETERS}; {ISOLATION}",
                cpus=facts.boot.asked if not made.cpus else made.cpus,
            )
        elif made.status == "unsupported":
            yield Finding(
                severity="error",
                check="nohz-full-not-built-in",
                found=f"{made.text}, and {made.why}",
                reason="the kernel drops the whole option",
                remedy="use a kernel with CONFIG_NO_HZ_FULL=y",
                source=f"{ISOLATION} housekeeping_setup",
            )
        elif made.status == "empty":
            yield Finding(
                severity="warning",
                check="boot-list-empty",
                found=f"{made.text} isolates nothing: {made.why}",
                reason="an empty list is taken without a word",
                remedy=f"name the CPUs, or take {made.option}= off the line",
                source=f"{ISOLATION} housekeeping_setup",
            )
        elif made.status == "ignored":
            yield _ignored(made, facts)
        elif made.why:
            yield Finding(
                severity="error",
                check="no-housekeeping-cpu",
                found=f"{made.text} lists every CPU; in force is {', '.join(made.flags)} of CPUs "
                f"{show_cpus(made.cpus)}",
                reason=f"somebody has to do the housekeeping: {made.why}",
                remedy="keep at least CPU 0, better one CPU of each NUMA node, out of the list",
                source=f"{ISOLATION} housekeeping_setup",
                cpus=made.cpus | {0},
            )
    if facts.boot.not_known:
        yield Finding(
            severity="warning",
            check="boot-line-depends-on-the-kernel",
            found=f"{'; '.join(made.text for made in facts.boot.decisions)}: depends on "
            + "; ".join(facts.boot.not_known),
            reason=f"which rule this kernel ({facts.release or 'release not known'}) follows is not known "
            "from here",
            remedy=("name the kernel (--kernel), or " if facts.version is None else "")
            + "compare /sys/devices/system/cpu/{isolated,nohz_full} and `dmesg | grep -i housekeeping`",
            source=ISOLATION,
            cpus=facts.boot.asked,
        )


def _ignored(made: Decision, facts: Facts) -> Finding:
    """Report the second of two lists, which the kernel ignores because it disagrees."""
    lists = [other for other in facts.boot.decisions if other.status in ("in force", "ignored")]
    remedy = "give all of these options the same list"
    # irqaffinity= names the CPUs that are not to be isolated: that tells which of the lists was meant.
    spare = facts.option_cpus("irqaffinity") if "irqaffinity" in facts.options else NO_CPU
    meant = [other for other in lists if spare and not other.cpus & spare]
    once = len({other.option for other in lists}) == len(lists)
    if not once:
        remedy = "keep one of them"
    if once and meant and all(other.cpus == meant[0].cpus for other in meant):
        flags = [
            flag
            for flag in FLAGS
            if any(flag in other.flags for other in lists if other.option == "isolcpus")
        ]
        if "nohz_full" in facts.options and "nohz" in flags:
            flags.remove("nohz")
        cpus = show_cpus(meant[0].cpus)
        new = [("isolcpus", ",".join([*(flags or ["domain"]), cpus])), ("nohz_full", cpus)]
        new = [(name, value) for name, value in new if name in facts.options]
        mended = remedies.boot(facts, new, mending=True)
        remedy = f"{mended}: these are the CPUs that irqaffinity= leaves to be isolated"
    return Finding(
        severity="error",
        check="tick-lists-differ",
        found=f"{' and '.join(other.text for other in lists)}: the kernel ignores {made.text}. "
        f"In force are {_in_force(facts)}",
        reason=f'{made.why}; what comes second is ignored ("nohz_full= must match isolcpus=")',
        remedy=remedy,
        source=f"{ISOLATION} housekeeping_setup",
        cpus=frozenset[int]().union(*(other.cpus for other in lists)),
    )


@line_check
def _other_lists_parse(facts: Facts) -> Iterator[Finding]:
    for name, otherwise in (
        ("rcu_nocbs", "the kernel then takes every CPU"),
        ("irqaffinity", "the kernel then takes what it read so far and the boot CPU"),
    ):
        value = facts.boot.said(name)
        try:
            cpus = boot_cpu_list(value or "", facts.boot.possible)
        except CpuListError as error:
            yield Finding(
                severity="error",
                check="boot-list-refused",
                found=f"{name}={value}",
                reason=f"the list does not parse: {error}; {otherwise}",
                remedy=f"write {name}= with {_numbers(facts)}",
                source=PARAMETERS,
            )
            continue
        if name == "irqaffinity" and value is not None and not cpus & facts.online:
            yield Finding(
                severity="error",
                check="boot-list-refused",
                found=f"{name}={value}",
                reason="it names no CPU that is online, so interrupts go to the boot CPU only",
                remedy=f"irqaffinity={show_cpus(facts.housekeeping) or '0'}",
                source=PARAMETERS,
            )


def _numbers(facts: Facts) -> str:
    """Say how a list is written, with an example that this machine's kernel takes."""
    last = facts.boot.possible - 1
    return "numbers and ranges, such as " + ("2-7,9" if last >= 9 else f"1-{last}" if last > 1 else "1")


@check
def _lists_within_the_machine(facts: Facts) -> Iterator[Finding]:
    for made in facts.boot.decisions:
        beyond = made.cpus - facts.online
        if made.status == "in force" and beyond:
            yield Finding(
                severity="note",
                check="boot-list-beyond-the-machine",
                found=f"{made.text}, but only CPUs {show_cpus(facts.online)} are online",
                reason="the list names CPUs that this machine does not run; a list beyond the possible CPUs is "
                "refused as a whole",
                remedy="shorten the list, or see why those CPUs are offline",
                source=f"{CPU}/online, {CPU}/possible",
                cpus=beyond,
            )


@line_check
def _options_without_a_value(facts: Facts) -> Iterator[Finding]:
    for name in ("nohz_full", "isolcpus"):
        if "" in facts.options.get(name, []) and not any(
            made.option == name for made in facts.boot.decisions
        ):
            yield Finding(
                severity="error",
                check="boot-list-refused",
                found=f"{name} without a list",
                reason="the kernel knows it only with = and a list, and hands the word to init",
                remedy=f"write {name}= with a list of CPUs",
                source=PARAMETERS,
            )
    for name, whose in _FOREIGN.items():
        if name in facts.options:
            yield Finding(
                severity="note",
                check="option-not-in-mainline",
                found=f"{name}={facts.boot.said(name)}",
                reason=f"only {whose} know this option; any other hands it to init and does nothing",
                remedy="see whether `Unknown kernel command line parameters` in dmesg lists it",
                source=PARAMETERS,
            )


@line_check
def _tick_can_stop(facts: Facts) -> Iterator[Finding]:
    keeps = facts.boot.tick_never_stops
    if keeps and facts.boot.nohz_full | facts.nohz_full:
        why = (
            "dynamic ticks are off altogether, whatever nohz_full= says"
            if keeps.startswith("nohz=")
            else "full dynticks needs a stable clock: without one every CPU keeps its tick (dependency CLOCK_UNSTABLE)"
        )
        yield Finding(
            severity="error",
            check="nohz-off" if keeps.startswith("nohz=") else "tsc-unstable",
            found=f"{keeps} is on the command line, and so is nohz_full for CPUs "
            f"{show_cpus(facts.boot.nohz_full | facts.nohz_full)}",
            reason=f"the tick never stops: {why}",
            remedy=f"take {keeps} off the command line",
            source="kernel/time/tick-sched.c; " + PARAMETERS,
            cpus=facts.boot.nohz_full | facts.nohz_full,
        )


@line_check
def _boot_cpu(facts: Facts) -> Iterator[Finding]:
    if facts.boot.boot_cpu_asked and facts.boot.settled:
        others = show_cpus(facts.boot.nohz_full)
        both = 0 in facts.boot.domain
        yield Finding(
            severity="warning",
            check="boot-cpu-keeps-the-time",
            found=f"nohz_full lists CPU 0, and the kernel takes it out; without a tick run {others or 'none'}",
            reason="CPU 0 keeps the time for the others, so its tick never stops; a task placed there is "
            "interrupted all the same, and CPU 0 is no longer housekeeping either",
            remedy="keep CPU 0 for housekeeping: leave it out of nohz_full="
            + (" and isolcpus=" if both else ""),
            source="kernel/time/tick-sched.c tick_nohz_init",
            cpus=frozenset({0}),
        )


_WHY_NOT = "see `dmesg | grep -iE 'housekeeping|dynticks|NO_HZ'` for why nohz_full= is not in force"


@check
def _nohz_full_in_force(facts: Facts) -> Iterator[Finding]:
    asked = facts.boot.nohz_full & facts.online
    missing = asked - facts.nohz_full
    if not missing:
        return
    settings = facts.kernel_settings
    built = settings.get("NO_HZ_FULL", "n") if settings is not None else "unknown"
    yield Finding(
        severity="error",
        check="nohz-full-not-in-force",
        found=f"the command line asks for {show_cpus(asked)} without a tick, "
        f"the kernel runs {show_cpus(facts.nohz_full) or 'none'} so (CONFIG_NO_HZ_FULL: {built})",
        reason="these CPUs keep their tick, and no deferral policy covers them",
        remedy=_WHY_NOT if built == "y" or facts.nohz_full else "use a kernel with CONFIG_NO_HZ_FULL=y",
        source="/sys/devices/system/cpu/nohz_full",
        cpus=missing,
    )


@line_check
def _managed_irq_alone(facts: Facts) -> Iterator[Finding]:
    """`isolcpus=managed_irq,LIST`, which many take for isolation."""
    cpus = facts.boot.managed_irq & facts.online
    if not cpus or facts.isolated or any(made.skipped for made in facts.boot.decisions):
        return
    crio = ""
    if facts.managed_by == "OpenShift":
        crio = " (CRI-O does it for a pod with cpu-load-balancing.crio.io: disable)"
    yield Finding(
        severity="warning",
        check="managed-irq-only",
        found=f"isolcpus=managed_irq is in force for CPUs {show_cpus(cpus)}; no CPU is isolated from the scheduler, "
        "none runs without a tick",
        reason="this flag keeps managed interrupts (queues of NVMe and network devices) away, nothing else: the load "
        f"balancer and the tick reach these CPUs unless a cpuset without load balancing takes them at run time{crio}",
        remedy=remedies.first(
            remedies.boot(
                facts,
                [
                    ("isolcpus", remedies.isolcpus(facts, cpus, "domain", "managed_irq")),
                    ("nohz_full", show_cpus(cpus - {0})),
                ],
            ),
            "name the CPUs in nohz_full= too",
        ),
        source=f"{PARAMETERS}; {ISOLATION}",
        cpus=cpus,
    )


@line_check
def _tickless_but_balanced(facts: Facts) -> Iterator[Finding]:
    shared = (facts.nohz_full - facts.domain) & facts.online
    if shared:
        newer = has(facts.version, (7, 0))
        yield Finding(
            severity="warning",
            check="tickless-but-balanced",
            found=f"CPUs {show_cpus(shared)} run without a tick but stay in the scheduler's domains",
            reason="the load balancer puts other tasks there; with two runnable tasks the tick is back"
            + (
                "; and from 7.0 on kernel threads, unbound work and vmstat follow the domains: nohz_full= alone no "
                "longer keeps them away (on 7.3 a busy CPU got 17 vmstat_update and kcompactd in 20 s, on 6.12 none)"
                if newer
                else ""
            ),
            remedy=remedies.domain(facts, shared),
            source=DOC,
            cpus=shared,
        )


@line_check
def _isolated_with_tick(facts: Facts) -> Iterator[Finding]:
    ticking = (facts.domain - facts.nohz_full) & facts.online
    if facts.boot.boot_cpu_asked:
        ticking -= {0}
    advice = remedies.nohz_full(facts, facts.domain & facts.online)
    if ticking and (ticking != {0} or facts.nohz_full == NO_CPU):
        yield Finding(
            severity="warning",
            check="isolated-with-tick",
            found=f"CPUs {show_cpus(ticking)} are outside the scheduler's domains but keep the tick",
            reason="they take HZ timer interrupts a second, and flush deferral covers nohz_full CPUs only: "
            "isolcpus=domain sets housekeeping_overridden but no kernel-noise mask",
            remedy=(advice or ("keep CPU 0 out of the isolated CPUs" if 0 in ticking else _WHY_NOT))
            + (" (cannot be changed at run time)" if advice and facts.boot.settled else ""),
            source=f"{DOC}; {ISOLATION}",
            cpus=ticking,
        )


@check
def _partition_valid(facts: Facts) -> Iterator[Finding]:
    for name, place in facts.cgroups():
        state = facts.root.text(f"{place}/cpuset.cpus.partition") or ""
        if "invalid" in state:
            yield Finding(
                severity="error",
                check="partition-invalid",
                found=f"{name}: cpuset.cpus.partition is {state!r}",
                reason="an invalid partition isolates nothing",
                remedy="read the reason in the parentheses; its CPUs must be the parent's and no sibling's",
                source="Documentation/admin-guide/cgroup-v2.rst",
            )


@line_check
def _rcu_callbacks(facts: Facts) -> Iterator[Finding]:
    local = facts.meant - facts.rcu_offloaded
    if local:
        built = facts.kernel_settings is None or facts.kernel_settings.get("RCU_NOCB_CPU", "n") == "y"
        yield Finding(
            severity="warning",
            check="rcu-callbacks-local",
            found=f"CPUs {show_cpus(local)} run their RCU callbacks themselves",
            reason="callbacks run in softirq on the CPU that queued them, and keep its tick on",
            remedy=remedies.first(
                remedies.boot(facts, [("rcu_nocbs", show_cpus(facts.meant))]) if built else None,
                "use a kernel with CONFIG_RCU_NOCB_CPU=y",
            ),
            source="Documentation/admin-guide/kernel-per-CPU-kthreads.rst; " + PARAMETERS,
            cpus=local,
        )


@line_check
def _boot_domain_only(facts: Facts) -> Iterator[Finding]:
    for made in facts.boot.decisions:
        plain = made.option == "isolcpus" and made.status == "in force" and not made.value[:1].isalpha()
        if plain and _managed(facts) and facts.boot.settled:
            yield Finding(
                severity="note",
                check="isolcpus-without-flags",
                found=made.text,
                reason="without flags it means domain only: managed interrupts are not kept away",
                remedy=f"isolcpus=domain,managed_irq,{show_cpus(made.cpus)}"
                + ("; or partitions, which can change at run time" if facts.has_partitions else ""),
                source=PARAMETERS,
                cpus=made.cpus,
            )


@line_check
def _tuned_mask(facts: Facts) -> Iterator[Finding]:
    value = facts.boot.said("tuned.non_isolcpus")
    if not value:
        return
    meant = facts.boot.asked & facts.online
    given = facts.online - cpu_mask(value)
    if meant and given != meant:
        yield Finding(
            severity="warning",
            check="tuned-mask-differs",
            found=f"tuned.non_isolcpus={value} leaves CPUs {show_cpus(given) or 'none'} to be isolated, the options on "
            f"the line name {show_cpus(meant)}",
            reason="tuned and the kernel then isolate different CPUs",
            remedy="set isolated_cores in the profile's variables, apply the profile and boot again",
            source="tuned-profiles-cpu-partitioning(7)",
            cpus=given ^ meant,
        )


@line_check
def _systemd_affinity(facts: Facts) -> Iterator[Finding]:
    value = facts.boot.said("systemd.cpu_affinity")
    hit = cpu_list(re.sub(r"[\s,]+", ",", value)) & facts.meant if value else NO_CPU
    if hit:
        yield Finding(
            severity="advice",
            check="systemd-affinity",
            found=f"systemd.cpu_affinity={value} lets services run on CPUs {show_cpus(hit)}",
            reason="every service inherits systemd's own CPUs",
            remedy=f"systemd.cpu_affinity={show_cpus(facts.housekeeping)}",
            source="systemd-system.conf(5), CPUAffinity=",
            cpus=hit,
        )
