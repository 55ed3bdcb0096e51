"""What a machine is: its CPU, its kernel, and which of its CPUs are isolated in which way.

A running value (sysfs, /proc) always wins over the boot option that asked for it; where both exist the linter
compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tlbcore._input.boot_line import Release, boot_cpu_list, boot_line, boot_options, has
from tlbcore._input.cpus import CpuListError, cpu_list, cpu_mask
from tlbcore.inspect._root import MissingError, Root, config_options

CPU = "sys/devices/system/cpu"
NO_CPU: frozenset[int] = frozenset()
_CGROUPS = "sys/fs/cgroup"
_UNIFIED = f"{_CGROUPS}/unified"


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The CPU model, as the kernel (under a hypervisor: as the hypervisor) describes it.

    `arch` is x86, aarch64 or what else /proc/cpuinfo looks like; only x86 has the fields below it. `signature` is
    leaf 1 EAX of CPUID in hex; `invlpgb` is None where /proc/cpuinfo of that kernel could not show it; `meltdown`
    is the kernel's own words.
    """

    arch: str
    vendor: str
    name: str
    signature: str
    family: int
    model: int
    stepping: int
    mhz: float | None
    hypervisor: bool
    pcid: bool
    invpcid: bool
    invlpgb: bool | None
    affected_by_meltdown: bool | None
    meltdown: str | None


@dataclass(frozen=True, kw_only=True)
class HostKernel:
    """The kernel and how it was started.

    `config` is the text of its `.config` (None where it was not found), `pti_from` names what `pti` was read
    from, `lazy_max_pages` is the limit at which lazily freed vmalloc areas are purged (FACTS 8: fls(online) *
    32 MiB), None where the size of a page is not known. `managed_by` names what writes the command line on such
    a system (OpenShift, tuned), if it shows.
    """

    release: str
    version: str
    cmdline: str
    config: str | None
    config_from: str | None
    pti: bool | None
    pti_from: str | None
    context_tracking: bool | None
    flush_ceiling_pages: int | None
    lazy_max_pages: int | None
    clocksource: str | None
    managed_by: str | None

    @cached_property
    def options(self) -> dict[str, list[str]]:
        """Boot options by name, `-` written as `_`, each with its values in order."""
        return boot_options(self.cmdline)

    @cached_property
    def settings(self) -> dict[str, str] | None:
        """Options of `config` without `CONFIG_`; None where it was not found."""
        return None if self.config is None else config_options(self.config)

    def at_least(self, major: int, minor: int) -> bool | None:
        """Tell whether the release is that version or newer; None if the release cannot be read."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return None if found is None else (int(found[1]), int(found[2])) >= (major, minor)


class Facts:
    """Everything the linter and the policy table ask about one machine."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.cmdline = root.text("proc/cmdline") or ""
        self.options = boot_options(self.cmdline)
        self.version = Release.of(self.release) or Release.of(" ".join(self.options.get("BOOT_IMAGE", [])))
        self.cpu = None if root.pasted else _cpu(root, self.version)
        self.online = self._online()
        self.possible = self._possible()
        present = root.text(f"{CPU}/present")
        self.boot = boot_line(
            self.cmdline,
            release=self.version,
            possible=self.possible,
            present=None if present is None else cpu_list(present),
            settings=self.kernel_settings,
        )
        self.kernel = self._kernel()

    # Which CPUs ------------------------------------------------------------------------------------------

    def _online(self) -> frozenset[int]:
        text = self.root.text(f"{CPU}/online")
        if text is not None:
            return cpu_list(text)
        if self.root.pasted:
            return frozenset(range(boot_line(self.cmdline).possible))
        numbers = re.findall(r"^processor\s*:\s*(\d+)", self.root.need("proc/cpuinfo"), re.MULTILINE)
        return frozenset(int(number) for number in numbers)

    def _possible(self) -> int | None:
        """How many CPUs are possible; None where only those that are online are known."""
        text = self.root.text(f"{CPU}/possible")
        if text is not None:
            return max(cpu_list(text), default=0) + 1
        found = re.search(
            r"\bnr_cpu_ids:(\d+)|Allowing (\d+) (?:present )?CPUs", self.root.text("dmesg") or ""
        )
        if found is not None:
            return int(found[1] or found[2])
        if self.root.pasted and self.root.exists(f"{CPU}/online"):
            return max(self.online) + 1
        named = boot_line(self.cmdline, release=self.version).possible
        return max(self.online, default=0) + 1 if named <= max(self.online, default=0) + 1 else None

    def option_cpus(self, name: str) -> frozenset[int]:
        """CPUs of a plain list on the command line; one that does not parse names none, as in the kernel."""
        try:
            return boot_cpu_list(self.boot.said(name) or "", self.boot.possible)
        except CpuListError:
            return NO_CPU

    @property
    def managed_irq(self) -> frozenset[int]:
        """CPUs that managed interrupts are kept away from."""
        return self.boot.managed_irq

    @cached_property
    def nohz_full(self) -> frozenset[int]:
        """CPUs that run without a tick: the running mask, or what the command line leads to."""
        text = self.root.text(f"{CPU}/nohz_full")
        if text is not None:
            return cpu_list(text)
        settings = self.kernel_settings
        if settings is not None and settings.get("NO_HZ_FULL", "n") != "y":
            return NO_CPU
        # A live kernel with full dynticks has the file; without it there are none.
        if self.root.live:
            return NO_CPU
        return self.boot.nohz_full

    @cached_property
    def boot_domain(self) -> frozenset[int]:
        """CPUs taken out of the scheduler's domains at boot."""
        text = self.root.text(f"{CPU}/isolated")
        return cpu_list(text) if text is not None else self.boot.domain

    @cached_property
    def partitions(self) -> dict[str, frozenset[int]]:
        """Isolated cpuset partitions (cgroup v2) or sets without load balancing (v1), by cgroup."""
        found: dict[str, frozenset[int]] = {}
        for name, place in self.cgroups():
            state = self.root.text(f"{place}/cpuset.cpus.partition")
            if state != "isolated":  # "isolated invalid (...)" isolates nothing; the linter says so
                continue
            cpus = self.root.text(
                f"{place}/cpuset.cpus.exclusive.effective", f"{place}/cpuset.cpus.effective"
            )
            found[name] = cpu_list(cpus or "")
        whole = self.root.text(*(f"{base}/cpuset.cpus.isolated" for base in (_CGROUPS, _UNIFIED)))
        known = frozenset[int]().union(*found.values())
        if whole and cpu_list(whole) - known:
            found.setdefault("(unnamed)", cpu_list(whole) - known)
        return found | self._unbalanced_v1()

    def cgroups(self) -> Iterator[tuple[str, str]]:
        """Cgroups of version 2 to the fifth level, by name and place; in the hybrid layout they are below `unified`."""
        whole = any(
            self.root.exists(f"{_CGROUPS}/{name}") for name in ("cgroup.controllers", "cpuset.cpus.effective")
        )
        for place in self.root.walk(_CGROUPS, 5):
            if whole or not f"{place}/".startswith(f"{_UNIFIED}/"):
                yield place.removeprefix(_CGROUPS) or "/", place
        for place in () if whole else self.root.walk(_UNIFIED, 5):
            yield place.removeprefix(_UNIFIED) or "/", place

    def _unbalanced_v1(self) -> dict[str, frozenset[int]]:
        base = "sys/fs/cgroup/cpuset"
        if self.root.text(f"{base}/cpuset.sched_load_balance") != "0":
            return {}
        balanced: set[int] = set()
        for place in self.root.walk(base, 5):
            if place != base and self.root.text(f"{place}/cpuset.sched_load_balance") == "1":
                cpus = self.root.text(f"{place}/cpuset.effective_cpus", f"{place}/cpuset.cpus")
                balanced |= cpu_list(cpus or "")
        rest = self.online - balanced
        return {"(cgroup v1, outside every balanced cpuset)": rest} if rest else {}

    @cached_property
    def cpuset_domain(self) -> frozenset[int]:
        """CPUs in isolated partitions made at run time."""
        return frozenset[int]().union(*self.partitions.values())

    @cached_property
    def domain(self) -> frozenset[int]:
        """CPUs outside the scheduler's domains, by boot option or partition."""
        return self.boot_domain | self.cpuset_domain

    @cached_property
    def isolated(self) -> frozenset[int]:
        """CPUs that someone wants undisturbed: in either of the two main ways."""
        return self.nohz_full | self.domain

    @cached_property
    def meant(self) -> frozenset[int]:
        """Online CPUs that are meant to be left alone: the isolated ones, else those of managed_irq."""
        return (self.isolated or self.managed_irq) & self.online

    @property
    def housekeeping(self) -> frozenset[int]:
        """Online CPUs that are not meant to be left alone."""
        return self.online - self.meant

    @cached_property
    def rcu_offloaded(self) -> frozenset[int]:
        """CPUs whose RCU callbacks run elsewhere: `rcu_nocbs=`, and every full-dynticks CPU."""
        settings = self.kernel_settings
        if settings is not None and settings.get("RCU_NOCB_CPU", "n") != "y":
            return NO_CPU
        value = self.boot.said("rcu_nocbs")
        if settings is not None and settings.get("RCU_NOCB_CPU_DEFAULT_ALL") == "y":
            return self.online
        if not value:  # without a list none at boot, but they may be switched at run time
            return self.nohz_full
        try:
            return (boot_cpu_list(value, self.boot.possible) & self.online) | self.nohz_full
        except CpuListError:
            return self.online  # "rcu_nocbs= bad CPU range, all CPUs set"

    @cached_property
    def default_irq(self) -> frozenset[int] | None:
        """CPUs that new interrupts may go to."""
        text = self.root.text("proc/irq/default_smp_affinity")
        if text is not None:
            return cpu_mask(text) & self.online
        if "irqaffinity" in self.options:
            return self.option_cpus("irqaffinity") | {0}  # the boot CPU always
        return None

    @cached_property
    def cgroup_v1(self) -> bool:
        """Whether cpusets are those of cgroup version 1: no partitions there."""
        said = self.boot.said("systemd.unified_cgroup_hierarchy")
        return said in ("0", "false", "no", "off") or self.root.exists("sys/fs/cgroup/cpuset/cpuset.cpus")

    @cached_property
    def has_partitions(self) -> bool:
        """Whether a cpuset can be made an isolated partition (6.1, RHEL 9.2), as far as is known."""
        disabled = "cpuset" in (self.boot.said("cgroup_disable") or "").split(",")
        return not (self.cgroup_v1 or disabled or has(self.version, (6, 1), el9=284) is False)

    @cached_property
    def managed_by(self) -> str | None:
        """What writes this command line."""
        if "ostree" in self.options and "ignition.platform.id" in self.options:
            return "OpenShift"
        return "tuned" if any(name.startswith("tuned.") for name in self.options) else None

    # The kernel ------------------------------------------------------------------------------------------

    @cached_property
    def release(self) -> str:
        """`uname -r`."""
        release = self.root.text("proc/sys/kernel/osrelease")
        if release is not None:
            return release
        found = re.search(r"Linux version (\S+)", self.root.text("proc/version") or "")
        return found[1] if found else ""

    @cached_property
    def _config(self) -> tuple[str | None, str | None]:
        for name in (
            f"boot/config-{self.release}",
            "proc/config.gz",
            "proc/config",
            f"lib/modules/{self.release}/config",
            f"usr/lib/modules/{self.release}/config",
            f"usr/src/linux-headers-{self.release}/.config",
            "config",
        ):
            text = self.root.text(name)
            if text is not None:
                return text, name
        return None, None

    @cached_property
    def kernel_settings(self) -> dict[str, str] | None:
        """Kconfig options, or None."""
        text = self._config[0]
        return None if text is None else config_options(text)

    def setting(self, name: str) -> str:
        """One Kconfig option, `n` when it is not in the file.

        Raises
        ------
        MissingError
            If there is no configuration file.
        """
        if self.kernel_settings is None:
            raise MissingError(f"boot/config-{self.release or '...'} or proc/config.gz")
        return self.kernel_settings.get(name, "n")

    def _kernel(self) -> HostKernel:
        pti, pti_from = self._pti()
        settings = self.kernel_settings
        tracking: bool | None = bool(self.nohz_full)
        if not tracking and settings is not None:
            tracking = settings.get("CONTEXT_TRACKING_USER_FORCE", "n") == "y"
        ceiling = self.root.text("sys/kernel/debug/x86/tlb_single_page_flush_ceiling")
        return HostKernel(
            release=self.release,
            version=self.root.text("proc/version") or "",
            cmdline=self.cmdline,
            config=self._config[0],
            config_from=self._config[1],
            pti=pti,
            pti_from=pti_from,
            context_tracking=tracking,
            flush_ceiling_pages=int(ceiling) if ceiling is not None and ceiling.isdigit() else None,
            lazy_max_pages=len(self.online).bit_length() * 8192
            if self.x86 and not self.root.pasted
            else None,
            clocksource=self.root.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            managed_by=self.managed_by,
        )

    @property
    def x86(self) -> bool:
        """Whether the machine is an x86 one, or nothing says that it is another."""
        return self.cpu is None or self.cpu.arch == "x86"

    def _pti(self) -> tuple[bool | None, str | None]:
        """Whether page-table isolation is on, and what says so.

        The synthetic flag `pti` is the running state; the vulnerability file is silent about pti=on on a CPU
        that is not affected.
        """
        if not self.x86:
            return None, None
        cpuinfo = self.root.text("proc/cpuinfo") or ""
        if re.search(r"^flags\s*:", cpuinfo, re.MULTILINE):
            return "pti" in _flags(cpuinfo), "proc/cpuinfo flags"
        meltdown = self.root.text(f"{CPU}/vulnerabilities/meltdown")
        if meltdown is not None:
            return "PTI" in meltdown, f"{CPU}/vulnerabilities/meltdown"
        dmesg = self.root.text("dmesg")
        if dmesg is not None and "page tables isolation: enabled" in dmesg:
            return True, "dmesg"
        return None, None


def _flags(cpuinfo: str) -> frozenset[str]:
    found = re.search(r"^flags\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def signature(family: int, model: int, stepping: int) -> str:
    """Return leaf 1 EAX of CPUID in hex, from the numbers /proc/cpuinfo shows (SDM vol. 2, CPUID).

    >>> signature(25, 17, 1)
    'A10F11'
    >>> signature(6, 79, 1)
    '406F1'
    """
    base, extended = (15, family - 15) if family >= 15 else (family, 0)
    return f"{stepping | (model & 15) << 4 | base << 8 | (model >> 4) << 16 | extended << 20:X}"


def _other_arch(cpuinfo: str) -> str:
    """Tell what a cpuinfo without x86 flags is of; x86 where nothing tells."""
    for name, mark in (
        ("aarch64", r"CPU implementer\s*:"),
        ("riscv64", r"isa\s*:\s*rv64"),
        ("s390x", r"vendor_id\s*:\s*IBM/S390"),
        ("ppc64", r"cpu\s*:\s*POWER"),
    ):
        if re.search(rf"^{mark}", cpuinfo, re.MULTILINE | re.IGNORECASE):
            return name
    return "x86"


def _cpu(root: Root, version: Release | None) -> Cpu:
    text = root.need("proc/cpuinfo")

    def field(name: str) -> str | None:
        found = re.search(rf"^{re.escape(name)}\s*:\s*(.*)$", text, re.MULTILINE)
        return found[1].strip() if found else None

    flags = _flags(text)
    numbers = [field(name) or "" for name in ("cpu family", "model", "stepping")]
    family, model, stepping = (int(number) if number.isdigit() else 0 for number in numbers)
    bugs = field("bugs")
    mhz = re.fullmatch(r"\d+(\.\d+)?", field("cpu MHz") or "")  # "Unknown" where an idle CPU has no sample
    # The flag is shown since the feature is used: 6.15.
    shows_invlpgb = has(version, (6, 15)) is True
    arch = "x86" if flags or field("cpu family") else _other_arch(text)
    return Cpu(
        arch=arch,
        vendor={"GenuineIntel": "intel", "AuthenticAMD": "amd"}.get(
            field("vendor_id") or "", field("vendor_id") or ""
        ),
        name=field("model name") or "",
        signature=signature(family, model, stepping) if arch == "x86" else "",
        family=family,
        model=model,
        stepping=stepping,
        mhz=float(mhz[0]) if mhz else None,
        hypervisor="hypervisor" in flags,
        pcid="pcid" in flags,
        invpcid="invpcid" in flags,
        invlpgb=True if "invlpgb" in flags else False if shows_invlpgb else None,
        affected_by_meltdown=None if bugs is None else "cpu_meltdown" in bugs.split(),
        meltdown=root.text(f"{CPU}/vulnerabilities/meltdown"),
    )
