"""What `doctor` says of a machine and an installation that are made up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tlbcore._input import doctor


def test_facts_are_shown_as_words() -> None:
    for value, said in (
        (None, "unknown"),
        (True, "yes"),
        (False, "no"),
        ([], "none"),
        (["pti", "pcid"], "pti pcid"),
        (0, "0"),
        ("a\nb", "a\\nb"),
    ):
        assert doctor._shown(value) == said


FOUND: dict[str, Any] = {
    "tlbcore": {"version": "0.2.0", "core": "loads"},
    "python": {"libc": None},
    "machine": {"features": []},
    "packages": [
        {"name": "numpy", "extra": None, "version": "2.4"},
        {"name": "rich", "extra": "cli", "version": None},
    ],
}


def test_the_report_has_a_line_per_fact() -> None:
    assert doctor.text(FOUND).splitlines() == [
        "tlbcore:",
        "  version: 0.2.0",
        "  core: loads",
        "python:",
        "  libc: unknown",
        "machine:",
        "  features: none",
        "packages:",
        "  numpy: 2.4",
        "  rich: missing (extra cli)",
    ]


def test_only_what_every_command_needs_is_a_problem() -> None:
    assert doctor.problems(FOUND) == []
    lacking = FOUND | {
        "packages": [{"name": "numpy", "extra": None, "version": None}, *FOUND["packages"][1:]]
    }
    assert doctor.problems(lacking) == ["numpy is missing: pip install tlbcore"]
    broken = lacking | {"tlbcore": {"core": "no such symbol"}}
    assert doctor.problems(broken) == [
        "the compiled core does not load: no such symbol",
        "numpy is missing: pip install tlbcore",
    ]


INTEL = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 79
model name\t: Xeon: a CPU
stepping\t: 1
flags\t\t: fpu pcid pti invpcid_single smep ht
bogomips\t: 4400
"""


@pytest.mark.parametrize(
    ("cpuinfo", "cpu", "signature", "features"),
    [
        (INTEL, "Xeon: a CPU", "GenuineIntel 6 79 1", ["pti", "pcid", "invpcid_single", "smep"]),
        (INTEL.replace("stepping\t: 1\n", ""), "Xeon: a CPU", "GenuineIntel 6 79 ?", None),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "fallback", None, []),
        (None, "fallback", None, []),
    ],
)
def test_a_cpu_is_told_by_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
    cpuinfo: str | None,
    cpu: str,
    signature: str | None,
    features: list[str] | None,
) -> None:
    monkeypatch.setattr(doctor, "_read", lambda path: cpuinfo if path == "/proc/cpuinfo" else "0-3")
    monkeypatch.setattr(doctor, "_cpus", lambda path: path[-8:])
    monkeypatch.setattr(doctor, "left_bytes", lambda: (5 << 20) + 1)
    monkeypatch.setattr(doctor.platform, "processor", lambda: "fallback")
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 0)
    found = doctor._machine()
    assert (found["cpu"], found["signature"], found["cpus"]) == (cpu, signature, "0-3")
    assert features is None or found["features"] == features
    assert (found["isolated"], found["nohz_full"]) == ("isolated", "ohz_full")
    assert (found["memory_left_mib"], found["root"]) == (5, True)
    assert found["allowed_cpus"] == len(os.sched_getaffinity(0))
    monkeypatch.setattr(doctor, "left_bytes", lambda: None)
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 7)
    monkeypatch.setattr(doctor.platform, "processor", str)
    found = doctor._machine()
    assert (found["memory_left_mib"], found["root"]) == (None, False)
    assert found["cpu"] == (cpu if cpu != "fallback" else None)


def test_a_file_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_text(" x \n")
    (tmp_path / "empty").write_text("\n")
    assert [doctor._read(str(tmp_path / name)) for name in ("f", "empty", "none")] == ["x", None, None]


def test_packages_are_those_of_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "numpy>=2.0",
        'rich>=14; extra == "cli"',
        "pandas>=2.2 ; extra == 'tables'",
        'tlbcore[cli,plot]; extra == "all"',
        'rich>=14; extra == "all"',
        'pytest; extra == "test"',
        'rich>=14; extra == "cli"',
    ]
    there = {"numpy": "2.4", "pandas": "3.1"}

    def version(name: str) -> str:
        if name not in there:
            raise doctor.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(doctor, "requires", lambda _: lines)
    monkeypatch.setattr(doctor, "version", version)
    assert [tuple(each.values()) for each in doctor._packages()] == [
        ("numpy", None, "2.4"),
        ("rich", "cli", None),
        ("pandas", "tables", "3.1"),
    ]
    assert doctor._tlbcore()["version"] is None
    monkeypatch.setattr(doctor, "requires", lambda _: None)
    assert doctor._packages() == []


def test_where_traces_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = "/sys/kernel/tracing", "/sys/kernel/debug/tracing"
    for there, writeable, said in (
        ({first, second}, True, first),
        ({second}, True, second),
        ({first}, False, f"{first}, not writeable"),
        (set(), True, "not mounted, or not readable"),
    ):
        monkeypatch.setattr(doctor.Path, "is_dir", lambda path, there=there: str(path.parent) in there)
        monkeypatch.setattr(doctor.os, "access", lambda *_, writeable=writeable: writeable)
        assert doctor._tracefs() == said

    def refuse(path: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.Path, "is_dir", refuse)
    assert doctor._tracefs() == f"{first}, not readable"
