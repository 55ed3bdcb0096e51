"""Lists of CPUs at their edges, figures of a comparison as they are shown, and what `doctor` says of no CPU."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore._input import doctor
from tlbcore._input.boot_line import Release, boot_cpu_list, boot_line
from tlbcore._input.cpus import LIMIT, CpuListError, as_cpus, cpu_list, cpu_mask, show_cpus
from tlbcore.cli import main
from tlbcore.simulation.told import cell


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", []),
        (" (null)\n", []),
        ("3", [3]),
        ("0-2, 5", [0, 1, 2, 5]),
        ("0-7:2/4", [0, 1, 4, 5]),
        ("1-8:3/3", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("65535", [65535]),
    ],
)
def test_a_list_of_cpus(text: str, cpus: list[int]) -> None:
    assert sorted(cpu_list(text)) == cpus


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0-3:", "numbers and ranges: got '0-3:' in '0-3:'"),
        ("0-3:+1/2", r"numbers and ranges: got '0-3:\+1/2'"),
        ("0-7:1_0/20", "numbers and ranges"),
        ("0-7:1", "numbers and ranges"),
        ("0-7:1/2/3", "numbers and ranges"),
        ("0-7:0/2", "must rise and end below 65536"),
        ("0-7:3/2", "must rise and end below 65536"),
        ("3-1", "must rise and end below 65536: got '3-1' in '3-1'"),
        ("65536", "must rise and end below 65536"),
        ("2,", "numbers and ranges: got '' in '2,'"),
        ("N", "numbers and ranges: got 'N'"),
        ("all", "numbers and ranges: got 'all'"),
        ("²", "numbers and ranges"),
        (
            ",".join(["0-65535"] * 5),
            "names at most 262144 CPUs, however often: '0-65535,0-65535,.*' names more",
        ),
    ],
)
def test_what_is_no_list_of_cpus(text: str, said: str) -> None:
    with pytest.raises(CpuListError, match=said):
        cpu_list(text)


def test_a_list_with_a_last_cpu_knows_n_and_all() -> None:
    assert sorted(cpu_list("6-N", 8)) == [6, 7, 8]
    assert sorted(cpu_list("all", 2)) == [0, 1, 2]
    assert len(cpu_list(",".join(["0-65535"] * 4))) == LIMIT


def test_masks_are_read_from_the_right() -> None:
    assert sorted(cpu_mask("1,00000000")) == [32]
    assert sorted(cpu_mask("1,2")) == [1, 32]
    assert cpu_mask("0") == frozenset()
    assert max(cpu_mask("80000000" + ",00000000" * (LIMIT // 32 - 1))) == LIMIT - 1
    with pytest.raises(CpuListError, match=r"ends below CPU 65536: '1,0,.*' has 2049 groups"):
        cpu_mask("1" + ",0" * (LIMIT // 32))
    for text in ("", "1,,2", "123456789", "0x3"):
        with pytest.raises(CpuListError, match="hexadecimal groups of at most 8 digits"):
            cpu_mask(text)


def test_cpus_are_given_as_text_or_numbers() -> None:
    assert as_cpus(np.array([3, 2, 3])) == (2, 3)
    assert as_cpus([0, LIMIT - 1]) == (0, LIMIT - 1)
    for wrong in (b"2-3", bytearray(b"2"), 7, None):
        with pytest.raises(CpuListError, match="a CPU list is a text such as 2-3,8 or numbers"):
            as_cpus(wrong)  # type: ignore[arg-type]
    for cpu in (True, -1, LIMIT, 1.0, "2"):
        with pytest.raises(CpuListError, match="a CPU is a number from 0 to 65535"):
            as_cpus([cpu])  # type: ignore[list-item]


def test_cpus_are_shown_once() -> None:
    assert show_cpus([2, 3, 2, 4, 9, 9, 0]) == "0,2-4,9"
    assert show_cpus(iter([1, 2])) == "1-2"
    assert show_cpus([]) == ""


def test_a_number_of_any_length_is_beyond_the_machine() -> None:
    with pytest.raises(CpuListError, match="is beyond the last possible CPU, 7"):
        boot_cpu_list("9" * 5000, 8)
    assert sorted(boot_cpu_list("0" * 5000 + "5", 8)) == [5]
    assert boot_line("nohz_full=" + "9" * 5000).decisions[0].status == "refused"


@pytest.mark.parametrize("cpus", [0, "0", "", "0-", -1, "9" * 5000])
def test_a_machine_of_no_cpu_is_refused(cpus: int | str) -> None:
    with pytest.raises(tc.ConfigError, match=r"cpus .*: a number of CPUs or a list is needed"):
        tc.inspect_host(cmdline="nohz_full=1", cpus=cpus)


@pytest.mark.parametrize(("cpus", "online"), [(1, (0,)), ("3", (0, 1, 2)), ("1,3", (1, 3)), ("0-1", (0, 1))])
def test_how_many_or_which(cpus: int | str, online: tuple[int, ...]) -> None:
    assert tc.inspect_host(cmdline="quiet", cpus=cpus).online == online


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.0, math.nan, math.nan, "0"),
        (0.12345, math.nan, math.nan, "0.1235"),
        (9999.4, math.nan, math.nan, "9999"),
        (9999.96, math.nan, math.nan, "10000"),
        (-9999.96, math.nan, math.nan, "-10000"),
        (123456.7, math.nan, math.nan, "123457"),
        (12345.0, 11000.0, 13690.0, "12345 ±1345"),
        (50.0, 49.0, 51.0, "50 ±1"),
        (500.0, 400.6, 599.4, "500 ±99"),
        (5000.0, 4900.4, 5099.6, "5000 ±100"),
        (7.0, 7.0, 7.0, "7"),
        (math.nan, math.nan, math.nan, "-"),
        (math.nan, 1.0, 123456.0, "1..123456"),
        (3.92, 3.92 - 4e-15, 3.92 + 4e-15, "3.92"),  # what summing floats leaves
        (0.0, -1e-9, 1e-9, "0 ±1e-09"),
    ],
)
def test_a_figure_of_a_comparison(value: float, low: float, high: float, shown: str) -> None:
    table = {"f": np.array([9.0, value]), "f_low": np.array([1.0, low]), "f_high": np.array([2.0, high])}
    assert cell(table, "f", 1) == shown
    if math.isnan(low):
        assert cell({"f": table["f"]}, "f", 1) == shown


def test_doctor_tells_none_from_unknown(tmp_path: Path) -> None:
    for text, said in (("\n", "none"), ("(null)\n", "none"), ("2-3\n", "2-3")):
        (tmp_path / "isolated").write_text(text)
        assert doctor._cpus(str(tmp_path / "isolated")) == said
    assert doctor._cpus(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "a b.txt", "c"], "recordings are compared by `tlbcore explain 'a b.txt' c`"),
        (["record", "--clean", "--out", "x"], "--clean records nothing: without --out and a command"),
        (["record", "--clean", "--", "true"], "--clean records nothing: without --out and a command"),
        (["record", "--clean", "--duration", "1s"], "--clean records nothing: leave --duration out"),
        (["record", "--clean", "--no-kprobes"], "--clean records nothing: leave --no-kprobes out"),
        (
            ["record", "--out", "x", "--interval", "2s"],
            "nothing is shown without --watch or --prometheus: leave --interval out",
        ),
        (["record", "--out", "x", "--process", "a", "--prometheus", "m"], "--noise, --watch, --prometheus"),
    ],
)
def test_what_does_nothing_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("line", "present", "domain", "nohz", "why"),
    [
        ("isolcpus=0-3", None, {0, 1, 2, 3}, set(), ""),
        (
            "isolcpus=0-3",
            range(4),
            {1, 2, 3},
            set(),
            "one CPU must keep house: the boot CPU, 0, was taken out",
        ),
        ("isolcpus=0-3", range(5), {0, 1, 2, 3}, set(), ""),
        (
            "isolcpus=0-7",
            None,
            set(range(1, 8)),
            set(),
            "one CPU must keep house: the boot CPU, 0, was taken out",
        ),
        ("isolcpus=0-1 nohz_full=2-3", range(5), {0, 1}, {2, 3}, ""),
        (
            "isolcpus=0-1 nohz_full=2-3",
            range(4),
            {0, 1},
            set(),
            "no CPU would be left that is neither in nohz_full= nor in isolcpus=domain",
        ),
    ],
)
def test_one_cpu_that_is_there_keeps_house(
    line: str, present: range | None, domain: set, nohz: set, why: str
) -> None:
    read = boot_line(
        line, release=Release.of("7.3.0"), possible=8, present=None if present is None else frozenset(present)
    )
    assert (read.domain, read.nohz_full, read.decisions[-1].why) == (domain, nohz, why)


def test_the_cpus_that_are_there_are_read_of_a_host(tmp_path: Path) -> None:
    files = {"cmdline": "isolcpus=0-1", "cpuinfo": "processor\t: 0\nflags\t: fpu\n"}
    cpus = {"online": "0-1", "possible": "0-7", "present": "0-1"}
    for folder, texts in (("proc", files), ("sys/devices/system/cpu", cpus)):
        (tmp_path / folder).mkdir(parents=True)
        for name, text in texts.items():
            (tmp_path / folder / name).write_text(text)
    assert tc.inspect_host(tmp_path).boot["cpus"].tolist() == ["1"]
    (tmp_path / "sys/devices/system/cpu/present").unlink()
    assert tc.inspect_host(tmp_path).boot["cpus"].tolist() == ["0-1"]


@pytest.mark.parametrize(
    ("line", "release", "status", "why"),
    [
        (
            "isolcpus=all",
            "6.12",
            "refused",
            "'all' is taken for a flag: isolcpus= has no `all`, so no list is left",
        ),
        ("isolcpus=nohz", "6.12", "refused", "'nohz' is a flag without a list, so no list is left"),
        ("isolcpus=what", "6.12", "refused", "'what' is taken for a flag, so no list is left"),
        ("isolcpus=all,2", "6.12", "in force", ""),  # a word that is no flag is skipped
        ("isolcpus=managed_irq,2", "5.6", "in force", ""),
        (
            "isolcpus=managed_irq,2",
            "5.5",
            "refused",
            "'managed_irq' is no flag of isolcpus= in this version: the option is dropped",
        ),
    ],
)
def test_words_in_front_of_a_list(line: str, release: str, status: str, why: str) -> None:
    (made,) = boot_line(line, release=Release.of(release), possible=8).decisions
    assert (made.status, made.why) == (status, why)


def test_a_host_is_read_of_one_source(tmp_path: Path) -> None:
    for only in ({"release": "6.12"}, {"cpus": 2}):
        with pytest.raises(tc.ConfigError, match="release and cpus describe the machine of a command line"):
            tc.inspect_host(tmp_path, **only)  # type: ignore[arg-type]
    with pytest.raises(tc.ConfigError, match="give either root or cmdline"):
        tc.inspect_host(tmp_path, cmdline="quiet")
    with pytest.raises(tc.ConfigError, match=r"release 'new' holds no version such as 6.12"):
        tc.inspect_host(cmdline="quiet", release="new")
    with pytest.raises(TypeError, match="positional"):
        tc.inspect_host(None, "quiet")  # type: ignore[misc]
    with pytest.raises(tc.ConfigError, match="a directory of collected files is needed"):
        tc.inspect_host(root=tmp_path / "none")
    host = tc.inspect_host(cmdline="quiet", release="6.12.3")
    assert host.kernel.release == "6.12.3"
    with pytest.raises(FrozenInstanceError):
        host.root = "x"  # type: ignore[misc]
