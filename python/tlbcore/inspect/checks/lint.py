"""The checklist for isolated CPUs: what is wrong, why it matters, what helps.

The items are those of the kernel's own document (Documentation/admin-guide/cpu-isolation.rst) and the causes of
interference that operators met in public. Each check is a function in the file of its subject.
"""

from __future__ import annotations

from tlbcore._input.cpus import CpuListError
from tlbcore.inspect._facts import Facts
from tlbcore.inspect._root import MissingError
from tlbcore.inspect.checks import boot, hardware, memory, noise
from tlbcore.inspect.checks.finding import CHECKS, LINE_CHECKS, SEVERITIES, Finding

__all__ = ["lint"]

_FILES = (boot, noise, memory, hardware)  # importing them fills the list


def lint(facts: Facts) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Return the findings, worst first, and the checks not made with the file each lacks."""
    findings: list[Finding] = []
    skipped: list[tuple[str, str]] = []
    for function in CHECKS:
        name = function.__name__.removeprefix("_")
        if facts.root.pasted and function not in LINE_CHECKS:
            skipped.append((name, "the machine's files"))
            continue
        try:
            findings += function(facts)
        except MissingError as missing:
            skipped.append((name, str(missing)))
        except CpuListError as error:
            skipped.append((name, str(error)))
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    if facts.cpu is not None and facts.cpu.hypervisor:
        skipped.append(("the-host", "nothing in a guest shows whether the host leaves its CPUs alone"))
    elif facts.meant:
        skipped.append(("firmware-interrupts", "no file shows them; rtla hwnoise measures them"))
    return findings, skipped
