"""What a kernel makes of its command line where CPUs are kept free: the one place that reads it.

The rules are those of kernel/params.c (words and quotes), lib/bitmap-str.c (lists of CPUs) and
kernel/sched/isolation.c (`nohz_full=`, `isolcpus=`), which changed between versions. Where the version is not
known, or a vendor's build may have either of two rules, the line is read by each that may apply; a difference
is reported as not known, never decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tlbcore._core import ConfigError
from tlbcore._input.cpus import CpuListError, show_cpus

__all__ = ["BootLine", "Decision", "Release", "boot_cpu_list", "boot_line", "boot_options", "boot_words"]

NO_CPU: frozenset[int] = frozenset()
FLAGS = ("nohz", "domain", "managed_irq")
_SPACE = " \t\n\v\f\r"


# Words -------------------------------------------------------------------------------------------------------


def boot_words(cmdline: str) -> Iterator[tuple[str, str | None]]:
    """Yield (option, value) for each word before `--`, as the kernel cuts them; None is a word without `=`.

    Only double quotes quote; the quotes around a whole value, or a whole word, are dropped.

    >>> list(boot_words('quiet a="x y" "b=c d" -- z'))
    [('quiet', None), ('a', 'x y'), ('b', 'c d')]
    """
    at = 0
    while at < len(cmdline):
        if cmdline[at] in _SPACE:
            at += 1
            continue
        start, quoted = at, False
        while at < len(cmdline) and (quoted or cmdline[at] not in _SPACE):
            quoted ^= cmdline[at] == '"'
            at += 1
        word = cmdline[start:at]
        if word.startswith('"'):
            word = word[1:].removesuffix('"')
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if value.startswith('"'):
            value = value[1:].removesuffix('"')
        yield name, value if equals else None


def boot_options(cmdline: str) -> dict[str, list[str]]:
    """Return the options of a command line, `-` in names written as `_`, each with its values in order.

    A word without `=` has the value "".
    """
    options: dict[str, list[str]] = {}
    for name, value in boot_words(cmdline):
        options.setdefault(name.replace("-", "_"), []).append(value or "")
    return options


# Versions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Release:
    """A kernel's version, with the build number where it is a RHEL kernel (`4.18.0-240.el8` has 240)."""

    major: int
    minor: int
    patch: int = 0
    el: int = 0
    build: int = 0

    @classmethod
    def of(cls, text: str) -> Release | None:
        """Read `uname -r`, or a file name such as `vmlinuz-6.8.0-rt`; None if it holds no version.

        >>> Release.of("4.18.0-240.10.1.el8_3.x86_64")
        Release(major=4, minor=18, patch=0, el=8, build=240)
        """
        found = re.search(r"(?<![\d.])(\d{1,2})\.(\d{1,3})(?:\.(\d+))?(?:-(\d+)[\w.+-]*?\.el(\d+))?", text)
        if found is None:
            return None
        major, minor, patch, build, el = (int(group or 0) for group in found.groups())
        return cls(major, minor, patch, el, build)

    @classmethod
    def given(cls, text: str) -> Release:
        """Read a version as a user gives it; `ConfigError` if the text holds none."""
        found = cls.of(text)
        if found is None:
            raise ConfigError(f"release {text!r} holds no version such as 6.12 or 4.18.0-240.el8")
        return found

    def __str__(self) -> str:
        vendor = f".{self.patch}-{self.build}.el{self.el}" if self.el else ""
        return f"{self.major}.{self.minor}{vendor}"


def has(release: Release | None, since: tuple[int, int], **el: int | tuple[int, int]) -> bool | None:
    """Tell whether a kernel has what came with a version; None where that is not known.

    `el8=193` names the RHEL build that took it over; `el8=(193, 394)` that it came somewhere behind the first
    and at the latest with the second.
    """
    if release is None:
        return None
    if (release.major, release.minor) >= since:
        return True
    builds = el.get(f"el{release.el}")
    if builds is None:
        return False
    first, last = (builds, builds) if isinstance(builds, int) else builds
    return True if release.build >= last else False if release.build < first else None


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """How a version reads the two options."""

    managed_irq: bool  # the flag exists
    skips_unknown: bool  # an unknown flag is skipped; before, it drops the whole option
    mask_per_flag: bool  # lists must agree where their flags overlap; before, always
    needs_common_cpu: bool  # one CPU must be in neither nohz_full= nor isolcpus=domain
    drops_empty: bool  # a list that leaves no CPU isolated sets no flags
    last: bool  # `N` is the last CPU
    everything: bool  # `all` is every CPU


def _rules(release: Release | None) -> list[_Rules]:
    """Return the rules that may apply, the newest first."""
    answers: dict[str, bool | None] = {
        "managed_irq": has(release, (5, 6), el8=193),
        "skips_unknown": has(release, (5, 8), el8=(194, 394)),
        "mask_per_flag": has(release, (5, 18), el9=(1, 427)),
        "needs_common_cpu": has(release, (6, 19)),
        "drops_empty": has(release, (6, 9), el9=(427, 10_000)),
        "last": has(release, (5, 13), el8=(305, 10_000)),
        "everything": has(release, (5, 14), el8=(305, 10_000)),
    }
    newest = _Rules(**{name: answer is not False for name, answer in answers.items()})
    open_ = [name for name, answer in answers.items() if answer is None]
    if not open_:
        return [newest]
    # What is open is taken away one by one, latest first: the history of the file, not every combination.
    rules = [newest]
    for name in ("needs_common_cpu", "drops_empty", "mask_per_flag", "everything", "last", "skips_unknown"):
        if name in open_:
            rules.append(replace(rules[-1], **{name: False}))
    return rules


# Lists -------------------------------------------------------------------------------------------------------


def boot_cpu_list(text: str, cpus: int, *, last: bool = True, everything: bool = True) -> frozenset[int]:
    """Read a list of CPUs as the kernel does on a machine with so many possible CPUs.

    Commas may stand in front, behind and twice; `2-15:1/2` takes one of two; a CPU beyond the machine refuses
    the whole list.

    Raises
    ------
    CpuListError
        If the kernel would refuse the list; the message says why.

    >>> sorted(boot_cpu_list("0-3:1/2,6-N", 8))
    [0, 2, 6, 7]
    """
    found: set[int] = set()
    for part in re.split(rf"[,{_SPACE}]+", text):
        if not part:
            continue
        number = r"N|\d+" if last else r"\d+"
        span = re.fullmatch(
            rf"(?:(?P<all>[Aa][Ll][Ll])|(?P<one>{number})(?:-(?P<end>{number}))?)"
            rf"(?::(?P<used>{number})/(?P<group>{number}))?",
            part,
            re.ASCII,
        )
        if span is not None and span["all"] and not everything:
            raise CpuListError(f"`all` is every CPU only since Linux 5.14: got {part!r} in {text!r}")
        if span is None and not last and re.fullmatch(r"[N\d:/-]+", part, re.ASCII) and "N" in part:
            raise CpuListError(f"`N` is the last CPU only since Linux 5.13: got {part!r} in {text!r}")
        if span is None or (span["used"] and not (span["all"] or span["end"])):
            raise CpuListError(f"a CPU list is numbers and ranges: got {part!r} in {text!r}")
        value = {
            name: cpus - 1 if word == "N" else int(word.lstrip("0")[:20] or "0")
            for name, word in span.groupdict().items()
            if word and name != "all"
        }
        first, end = (0, cpus - 1) if span["all"] else (value["one"], value.get("end", value["one"]))
        used, group = value.get("used", 1), value.get("group", 1)
        if end < first:
            raise CpuListError(f"a range of CPUs must rise: got {part!r} in {text!r}")
        if group == 0 or used > group:
            raise CpuListError(f"of a group of CPUs at most all can be taken: got {part!r} in {text!r}")
        if end >= cpus:
            last_one = f"the last possible CPU, {cpus - 1}"
            raise CpuListError(f"CPU {end} is beyond {last_one}: got {part!r} in {text!r}")
        found.update(cpu for cpu in range(first, end + 1) if (cpu - first) % group < used)
    return frozenset(found)


# nohz_full= and isolcpus= ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the kernel made of one `nohz_full=` or `isolcpus=`.

    `status` is `in force`, `ignored` (it disagrees with an earlier one), `refused` (it does not parse),
    `empty` (it isolates nothing) or `unsupported` (CONFIG_NO_HZ_FULL is not set). `skipped` are words that are
    no flag in this version.
    """

    option: str
    value: str
    status: str
    flags: tuple[str, ...] = ()
    cpus: frozenset[int] = NO_CPU
    skipped: tuple[str, ...] = ()
    why: str = ""

    @property
    def text(self) -> str:
        """The option as it stands on the line."""
        return f"{self.option}={self.value}"


@dataclass(frozen=True, kw_only=True)
class BootLine:
    """What a command line asks of a kernel, and what the kernel makes of it.

    Attributes
    ----------
    options
        Every option with its values.
    decisions
        `nohz_full=` and `isolcpus=`, in order, by the newest of the rules that may apply.
    nohz_full, domain, managed_irq
        What is in force. The boot CPU never runs without a tick: it keeps the time.
    boot_cpu_asked
        The boot CPU was in a list for `nohz_full` and keeps its tick.
    tick_never_stops
        An option that keeps the tick everywhere, or None.
    not_known
        Where the rules that may apply differ.
    """

    cmdline: str
    release: Release | None
    possible: int
    options: Mapping[str, list[str]] = field(repr=False)
    decisions: tuple[Decision, ...]
    nohz_full: frozenset[int]
    domain: frozenset[int]
    managed_irq: frozenset[int]
    boot_cpu_asked: bool
    tick_never_stops: str | None
    not_known: tuple[str, ...]

    def said(self, option: str) -> str | None:
        """Return the last value of an option; "" for one without, None if it is not there."""
        return values[-1] if (values := self.options.get(option)) else None

    @property
    def asked(self) -> frozenset[int]:
        """CPUs that any part of the line wants kept free, in force or not."""
        return NO_CPU.union(*(decision.cpus for decision in self.decisions))

    @property
    def settled(self) -> bool:
        """Nothing on the line is refused, ignored or misspelt."""
        return all(made.status == "in force" and not made.skipped for made in self.decisions)


_RULE_WORDS = {
    "skips_unknown": "whether an unknown flag is skipped or drops the option",
    "mask_per_flag": "whether lists for different flags may differ",
    "needs_common_cpu": "whether a CPU must be in neither list",
    "drops_empty": "what an empty list does",
    "last": "whether N is the last CPU",
    "everything": "whether `all` is every CPU",
}


def boot_line(
    cmdline: str,
    *,
    release: Release | None = None,
    possible: int | None = None,
    present: frozenset[int] | None = None,
    settings: Mapping[str, str] | None = None,
    boot_cpu: int = 0,
) -> BootLine:
    """Read a command line by the rules of a kernel.

    Parameters
    ----------
    release
        The kernel's version; None: every rule since 4.15 may apply.
    possible
        How many CPUs are possible; None: as many as the line names.
    present
        Those that are plugged in, of which one must keep house; None: all that are possible.
    settings
        The kernel's configuration, names without `CONFIG_`; None: the parts the line needs are built in.
    """
    options = boot_options(cmdline)
    words = [(name.replace("-", "_"), value) for name, value in boot_words(cmdline)]
    wanted = [
        (name, value) for name, value in words if name in ("nohz_full", "isolcpus") and value is not None
    ]
    count = possible if possible is not None else _named(cmdline)
    nohz_built = settings is None or settings.get("NO_HZ_FULL", "n") == "y"
    keeps_time = settings is None or settings.get("PM_SLEEP_SMP", "y") == "y"
    every = _rules(release)
    readings = [_read(wanted, rules, count, present, nohz_built, boot_cpu) for rules in every]
    first = readings[0]
    masks = [_masks(reading) for reading in readings]
    not_known = []
    if release is not None and (release.major, release.minor) < (4, 15) and wanted:
        not_known.append("how kernels before 4.15 read isolcpus=")
    for older, newer, rules, other in zip(readings[1:], readings, every[1:], every, strict=False):
        if _masks(older) != _masks(newer):
            differs = next(name for name in _RULE_WORDS if getattr(rules, name) != getattr(other, name))
            not_known.append(_RULE_WORDS[differs])
    nohz = masks[0]["nohz"]
    return BootLine(
        cmdline=cmdline,
        release=release,
        possible=count,
        options=options,
        decisions=tuple(first),
        nohz_full=nohz - {boot_cpu} if keeps_time else nohz,
        domain=masks[0]["domain"],
        managed_irq=masks[0]["managed_irq"],
        boot_cpu_asked=keeps_time and boot_cpu in nohz,
        tick_never_stops=_keeps_tick(options),
        not_known=tuple(not_known),
    )


def _named(cmdline: str) -> int:
    """How many CPUs a line needs for its lists."""
    numbers = [1]
    for name, value in boot_words(cmdline):
        if name in ("nohz_full", "isolcpus", "rcu_nocbs", "irqaffinity") and value:
            spans = re.sub(r":\d+/\d+", "", value)
            numbers += [int(word) for word in re.findall(r"(?<!\d)\d{1,5}(?!\d)", spans)]
    return max(numbers) + 1


def _keeps_tick(options: Mapping[str, list[str]]) -> str | None:
    """Return the option for which no CPU ever stops its tick."""
    for value in options.get("nohz", [])[-1:]:
        # kstrtobool: n, N, 0, off (and anything that begins like it)
        if re.match(r"[nN0fF]|[oO][fF]", value):
            return f"nohz={value}"
    if "unstable" in options.get("tsc", []):
        return "tsc=unstable"
    if "notsc" in options:
        return "notsc"
    return None


def _masks(decisions: Iterable[Decision]) -> dict[str, frozenset[int]]:
    masks = dict.fromkeys(FLAGS, NO_CPU)
    for decision in decisions:
        if decision.status == "in force":
            for flag in decision.flags:
                masks[flag] |= decision.cpus
    return masks


def _read(
    wanted: list[tuple[str, str]],
    rules: _Rules,
    cpus: int,
    present: frozenset[int] | None,
    nohz_built: bool,
    boot_cpu: int,
) -> list[Decision]:
    """Decide each option in the order of the line."""
    there = frozenset(range(cpus)) if present is None else present
    taken: dict[str, frozenset[int]] = {}  # flag -> CPUs; the kernel keeps the complement
    out: list[Decision] = []
    for option, value in wanted:
        flags, rest, skipped, why = (
            _isolcpus(value, rules) if option == "isolcpus" else (("nohz",), value, [], "")
        )
        made = Decision(option=option, value=value, status="", flags=flags, skipped=tuple(skipped))
        if why:
            out.append(replace(made, status="refused", why=why))
            continue
        if "nohz" in flags and "nohz" not in taken and not nohz_built:
            out.append(replace(made, status="unsupported", why="CONFIG_NO_HZ_FULL is not set"))
            continue
        try:
            listed = boot_cpu_list(rest, cpus, last=rules.last, everything=rules.everything)
        except CpuListError as error:
            out.append(replace(made, status="refused", why=str(error)))
            continue
        if there <= listed:
            listed -= {boot_cpu}
            why = f"one CPU must keep house: the boot CPU, {boot_cpu}, was taken out"
        made = replace(made, cpus=listed, why=why)
        if not listed:
            out.append(replace(made, status="empty", why=why or "the list names no CPU"))
            if not rules.drops_empty:
                taken.update(dict.fromkeys(flags, NO_CPU))
            continue
        clash = _clash(taken, flags, listed, rules, there)
        if clash:
            out.append(replace(made, status="ignored", why=clash))
            continue
        taken.update({flag: listed for flag in flags if flag not in taken})
        out.append(replace(made, status="in force"))
    return out


def _isolcpus(value: str, rules: _Rules) -> tuple[tuple[str, ...], str, list[str], str]:
    """Take the flags off a value: (flags, the list, words skipped, why it is refused)."""
    flags: list[str] = []
    skipped: list[str] = []
    known = FLAGS if rules.managed_irq else FLAGS[:2]
    rest = value
    while rest[:1].isascii() and rest[:1].isalpha():
        word, comma, behind = rest.partition(",")
        if comma and word in known:
            flags.append(word)
            rest = behind
            continue
        if word in ("nohz", "domain", "managed_irq", "all", "ALL") and not comma:
            what = "is taken for a flag: isolcpus= has no `all`"
            if word in FLAGS:
                what = "is a flag without a list"
            return tuple(flags), "", skipped, f"{word!r} {what}, so no list is left"
        if not rules.skips_unknown:
            dropped = f"{word!r} is no flag of isolcpus= in this version: the option is dropped"
            return tuple(flags), rest, skipped, dropped
        if not re.fullmatch(r"[A-Za-z_]+", word):
            return tuple(flags), rest, skipped, f"{word!r} is no flag of isolcpus=: letters and _ only"
        skipped.append(word)
        if not comma:
            return tuple(flags), "", skipped, f"{word!r} is taken for a flag, so no list is left"
        rest = behind
    return tuple(dict.fromkeys(flags)) or ("domain",), rest, skipped, ""


def _clash(
    taken: Mapping[str, frozenset[int]],
    flags: tuple[str, ...],
    listed: frozenset[int],
    rules: _Rules,
    there: frozenset[int],
) -> str:
    """Why the kernel ignores this list, given those before it; empty if it takes it."""
    if not taken:
        return ""
    if not rules.mask_per_flag:
        before = next(iter(taken.values()))
        if before != listed:
            return f"it must name the same CPUs as the list before it, {show_cpus(before) or 'none'}"
        return ""
    for flag in flags:
        if flag in taken and taken[flag] != listed:
            return (
                f"an earlier option set {show_cpus(taken[flag]) or 'none'} for {flag}, and the two must match"
            )
    if rules.needs_common_cpu and set(flags) & {"nohz", "domain"}:
        # The kernel looks at the first of its types that is set; KERNEL_NOISE stands behind DOMAIN.
        other = taken.get("domain", taken.get("nohz"))
        if other is not None and there <= other | listed:
            return "no CPU would be left that is neither in nohz_full= nor in isolcpus=domain"
    return ""
