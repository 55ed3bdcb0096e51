"""How a kernel is built and booted, as far as the model depends on it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tlbcore import _core
from tlbcore._input.boot_line import BootLine, Release, boot_line, boot_words
from tlbcore._input.cpus import LIMIT
from tlbcore._input.door import door
from tlbcore._input.numbers import count, flag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlbcore.hardware import Machine
    from tlbcore.policy import Policy

__all__ = ["Kernel"]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel's configuration, command line and state, reduced to what the model knows of.

    Which option decides what, in which order, and what Kconfig allows: docs/sources.md, FACTS 5.

    Parameters
    ----------
    pti
        `pti=on` (True), `pti=off` or `mitigations=off` (False), `pti=auto` (None): then the CPU decides.
    pti_built_in
        `CONFIG_MITIGATION_PAGE_TABLE_ISOLATION`.
    nopcid, noinvpcid
        Boot parameters of that name.
    no_hz_full, context_tracking, coalesce_tlbi, track_cr3, vmap_stack
        `CONFIG_NO_HZ_FULL`, `CONFIG_CONTEXT_TRACKING_USER`, `CONFIG_COALESCE_TLBI`, `CONFIG_TRACK_CR3`,
        `CONFIG_VMAP_STACK`.
    broadcast_tlb_flush
        The kernel uses INVLPGB where the CPU has it (6.15 and newer).
    rar
        The kernel uses remote action requests where the CPU has them (no kernel does yet).
    flush_ceiling
        `tlb_single_page_flush_ceiling`, pages.

    Raises
    ------
    ConfigError
        If Kconfig would not allow the combination; the message names the dependency.

    Examples
    --------
    >>> Kernel(coalesce_tlbi=True).coalesce_tlbi
    True
    """

    pti: bool | None = None
    pti_built_in: bool = True
    nopcid: bool = False
    noinvpcid: bool = False
    no_hz_full: bool = True
    context_tracking: bool = True
    coalesce_tlbi: bool = False
    track_cr3: bool = False
    vmap_stack: bool = True
    broadcast_tlb_flush: bool = False
    rar: bool = False
    flush_ceiling: int = 33

    def __post_init__(self) -> None:
        for name, value in self._fields().items():
            if name == "flush_ceiling":
                value = count(value, name, most=(1 << 32) - 1, error=_core.ConfigError)
            elif name == "pti" and not (value is None or type(value).__name__ == "bool"):
                raise _core.ConfigError(f"pti must be True, False or None (the CPU decides): got {value!r}")
            elif value is not None or name != "pti":
                value = flag(value, name, _core.ConfigError)
            object.__setattr__(self, name, value)  # NumPy's numbers become Python's
        _core.kernel_check(self.to_json())

    def to_json(self) -> str:
        """Return the fields as a JSON object."""
        return self._json

    @cached_property
    def _json(self) -> str:  # asked for by each of a sweep's points
        return json.dumps(self._fields())

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def replace(self, **changes: Any) -> Self:
        """Return a kernel with some fields changed."""
        return dataclasses.replace(self, **changes)

    @door
    def inert(
        self, policy: str | Policy, machine: str | Machine, *, isolated: bool = True
    ) -> tuple[str, ...]:
        """Return why a policy has no effect on a machine; empty if it works (docs/semantics.md, L7).

        Parameters
        ----------
        policy
            Name or policy.
        machine
            Name or machine.
        isolated
            Whether any CPU is isolated.

        Raises
        ------
        PolicyError
            If the policy is unknown.
        TlbError
            If the machine is unknown.
        """
        from tlbcore.policy import as_policy

        return tuple(
            _core.kernel_inert(self.to_json(), as_policy(policy).text, machine_text(machine), isolated)
        )

    @classmethod
    @door
    def from_config(
        cls,
        config: str | Path,
        *,
        cmdline: str = "",
        meltdown: str | None = None,
        release: str | None = None,
        cpus: int | None = None,
    ) -> tuple[Kernel, tuple[str, ...], tuple[int, ...]]:
        """Return the kernel that a `.config` (plain or .gz), a command line and a meltdown state describe.

        Parameters
        ----------
        config
            Path of a `.config` or `config.gz`.
        cmdline
            Kernel command line, as in `/proc/cmdline`.
        meltdown
            Content of `/sys/devices/system/cpu/vulnerabilities/meltdown`, which overrides what `pti=auto`
            would mean on another CPU.
        release
            The kernel's version (`uname -r`), by whose rules `nohz_full=` and `isolcpus=` are read; where it is
            not known and the rules differ, a remark says so.
        cpus
            How many CPUs are possible, 1 to 65,536; as many as the command line names if left out.

        Returns
        -------
        tuple
            The kernel; remarks: which option decided what, and what has no effect; and the CPUs that run without a tick
            (`nohz_full=`, `isolcpus=nohz,`; never the boot CPU), for `Scenario.isolated`.

        Raises
        ------
        ConfigError
            If the file is no kernel configuration, or a parameter has a value the kernel would refuse, or `release`
            holds no version, or no machine has so many CPUs.
        OSError
            If the file cannot be read.
        """
        if cpus is not None:
            cpus = count(cpus, "cpus", 1, LIMIT, _core.ConfigError)
        data = Path(config).read_bytes()
        words = " ".join(
            name.replace("-", "_") if value is None else f"{name.replace('-', '_')}={value}"
            for name, value in boot_words(cmdline)
        )
        found, remarks = _core.kernel_parse(data, str(config), words, meltdown)
        kernel = cls(**json.loads(found))
        line = boot_line(
            cmdline,
            release=None if release is None else Release.given(release),
            possible=cpus,
            settings={"NO_HZ_FULL": "y" if kernel.no_hz_full else "n"},
        )
        return kernel, (*remarks, *_line_remarks(line)), tuple(sorted(line.nohz_full))


def _line_remarks(line: BootLine) -> Iterator[str]:
    """Say what of the isolation on a command line has no effect, or another than it looks like.

    Raises
    ------
    ConfigError
        For a list that the kernel would refuse.
    """
    for made in line.decisions:
        if made.status == "refused":
            of = "" if line.release is None else f" of Linux {line.release}"
            raise _core.ConfigError(f"command line{of}: {made.text}: {made.why}")
        if made.status == "unsupported":
            yield f"{made.option}= has no effect: NO_HZ_FULL is not set"
        elif made.status != "in force":
            yield f"{made.text} is {made.status}: {made.why}"
        elif made.skipped:
            yield f"{made.text}: {', '.join(made.skipped)} is no flag, and the kernel skips it"
        if made.status == "in force" and "nohz" not in made.flags and not line.nohz_full:
            yield (
                f"{made.text} sets housekeeping_overridden, but no CPU is NOHZ_FULL: the entry macros run and "
                "nothing is deferred (docs/sources.md, FACTS 5.2)"
            )
    if line.boot_cpu_asked:
        yield "CPU 0 is taken out of nohz_full: it keeps the time"
    for rule in line.not_known:
        yield f"the release decides {rule}: give release"


def machine_text(machine: str | Path | Machine) -> str:
    """Return what the core takes for a machine: a built-in name or a preset's text."""
    from tlbcore.hardware import machine as as_machine

    machine = as_machine(machine)
    return machine.name if machine.text is None else machine.text
