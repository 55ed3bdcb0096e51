"""What a recorder writes down of a machine that changes meanwhile, and of threads that choose their names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore.trace.recorder import guard
from tlbcore.trace.recorder.notes import about
from tlbcore.trace.recorder.process import SHOOTDOWN_EVENTS, find_processes


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


CPU = "sys/devices/system/cpu"
MACHINE = {
    "proc/version": "Linux version 6.12.0\n",
    "proc/cmdline": "nohz_full=2-3\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: pti pcid\n\nprocessor\t: 1\nmodel name\t: A CPU\n",
    "proc/stat": "cpu  9\ncpu0 1 2\ncpu1 3 4\nctxt 5\n",
    "proc/interrupts": "      CPU0 CPU1\nLOC:  1 2\n",
    f"{CPU}/online": "0-1,8191\n",
    f"{CPU}/cpu0/topology/thread_siblings_list": "0-1\n",
    f"{CPU}/cpu1/topology/thread_siblings_list": "0-1\n",
    "proc/7/task/7/comm": "db\n",
    "proc/7/task/10/comm": "worker\n",
    "proc/7/task/9/comm": "log\n",
    "proc/7/task/11/status": "Name:\tended\n",
}


def noted(root: Path, when: str, *processes: int) -> list[tuple[str, str]]:
    text = about(root, (2, 3), processes, when, ("irq/x",)).decode()
    lines = text.splitlines()
    assert all(line.startswith("# tlbcore ") for line in lines)
    return [tuple(line.removeprefix("# tlbcore ").split(" | ", 1)) for line in lines]  # type: ignore[misc]


def test_the_machine_is_written_down_before(tmp_path: Path) -> None:
    write(tmp_path, MACHINE)
    assert [note for note in noted(tmp_path, "before", 7) if note[0] != "config"] == [
        ("version", "Linux version 6.12.0"),
        ("cmdline", "nohz_full=2-3"),
        ("isolated", "2-3"),
        ("online", "0-1,8191 #P:3"),
        ("event", "irq/x"),
        ("cpu", "A CPU"),
        ("flags", "pti pcid"),
        ("topology", "cpu0 siblings 0-1"),
        ("topology", "cpu1 siblings 0-1"),
        ("thread", "7 7 db"),
        ("thread", "9 7 log"),
        ("thread", "10 7 worker"),
        ("user_hz", str(os.sysconf("SC_CLK_TCK"))),
        ("stat_before", "cpu0 1 2"),
        ("stat_before", "cpu1 3 4"),
        ("interrupts_before", "      CPU0 CPU1"),
        ("interrupts_before", "LOC:  1 2"),
    ]


def test_where_nothing_tells_which_cpus_are_online_this_machine_does(tmp_path: Path) -> None:
    assert ("online", f" #P:{os.cpu_count()}") in noted(tmp_path, "before")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ("0::/new", "1:name=systemd:/old", "4:cpu:/quota"),
            [("cgroup_root", "0"), ("cgroup", "7,9-10 /new")],
        ),
        (("0::/", "4:cpu:/quota", "1:name=systemd:/old"), [("cgroup_root", "1"), ("cgroup", "7,9-10 /old")]),
        (("0::/", "1:name=systemd:/", "4:cpu:/q:1"), [("cgroup_root", "4"), ("cgroup", "7,9-10 /q:1")]),
        (("4:cpu:/q:1", "6:pids:/p"), [("cgroup_root", "4"), ("cgroup", "7,9-10 /q:1")]),
        (("broken:line", "x::/a", "5:cpu:/quota"), [("cgroup_root", "5"), ("cgroup", "7,9-10 /quota")]),
        (("0::/",), []),
    ],
)
def test_the_hierarchy_that_says_something_is_written_down(
    tmp_path: Path, lines: tuple[str, ...], said: list[tuple[str, str]]
) -> None:
    write(tmp_path, MACHINE)
    for task in (7, 9, 10):
        write(tmp_path, {f"proc/7/task/{task}/cgroup": "".join(f"{line}\n" for line in lines)})
    assert [note for note in noted(tmp_path, "before") if "cgroup" in note[0]] == said


def test_behind_it_only_what_is_counted_is_written(tmp_path: Path) -> None:
    write(tmp_path, MACHINE)
    assert noted(tmp_path, "after", 7) == [
        ("stat_after", "cpu0 1 2"),
        ("stat_after", "cpu1 3 4"),
        ("interrupts_after", "      CPU0 CPU1"),
        ("interrupts_after", "LOC:  1 2"),
    ]


def test_a_cpu_that_goes_offline_meanwhile_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, MACHINE)
    gone = tmp_path / CPU / "cpu1/topology/thread_siblings_list"
    gone.unlink()
    gone.mkdir()  # there when the names are read, and no longer readable
    (tmp_path / CPU / "cpufreq").mkdir()
    assert [note for note in noted(tmp_path, "before") if note[0] == "topology"] == [
        ("topology", "cpu0 siblings 0-1")
    ]


def test_a_thread_cannot_write_a_line_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, MACHINE | {"proc/7/task/7/comm": "a\n# tlbcore isolated | 0\n"})
    notes = noted(tmp_path, "before", 7)
    assert ("thread", "7 7 a # tlbcore isolated | 0") in notes
    assert [value for key, value in notes if key == "isolated"] == ["2-3"]


def test_only_options_that_matter_are_taken_of_the_configuration(tmp_path: Path) -> None:
    write(tmp_path, MACHINE)
    release = os.uname().release
    wanted = ["CONFIG_NO_HZ_FULL=y", "CONFIG_MITIGATION_X=y", "CONFIG_PREEMPT_RT=y", "CONFIG_HZ=250"]
    write(
        tmp_path,
        {f"boot/config-{release}": "\n".join(["CONFIG_EXT4_FS=y", *wanted, "# CONFIG_HZ_100 is not set"])},
    )
    assert [value for key, value in noted(tmp_path, "before") if key == "config"] == wanted


@pytest.mark.parametrize("when", ["before", "now"])
def test_a_process_that_ends_while_it_is_listed_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The folder of its threads is there when it is looked at, and gone when it is read."""
    write(tmp_path, MACHINE)
    for pid in (7, 8):
        write(
            tmp_path,
            {
                f"proc/{pid}/status": f"Name:\tdb\nNSpid:\t{pid}\n",
                f"proc/{pid}/task/{pid}/cgroup": "0::/a\n",
                f"proc/{pid}/task/{pid}/comm": "db\n",
            },
        )
    listing = {"listdir": os.listdir, "scandir": os.scandir}

    def going(name: str):
        def ended(path=".", *more):
            if str(path).endswith("proc/8/task"):
                raise ProcessLookupError(3, "No such process")
            return listing[name](path, *more)

        return ended

    for name in listing:
        monkeypatch.setattr(os, name, going(name))
    if when == "now":
        assert find_processes("db", tmp_path) == (7, 8)
        assert find_processes("10", tmp_path) == (7,)
    else:
        assert ("cgroup", "7 /a") in noted(tmp_path, "before", 7, 8)


def test_what_only_looks_like_a_number_is_a_name(tmp_path: Path) -> None:
    write(tmp_path, {"proc/7/status": "Name:\t²\nNSpid:\t7\n"})
    assert find_processes("²", tmp_path) == (7,)


# arch/x86/entry/syscalls/syscall_64.tbl, the calls that may take a user range away or change its rights.
CALLS = {
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "msync": 26, "madvise": 28, "clone": 56,
    "fork": 57, "vfork": 58, "execve": 59, "exit": 60, "shmdt": 67, "mlock": 149, "munlock": 150, "mlockall": 151,
    "munlockall": 152, "remap_file_pages": 216, "exit_group": 231, "mbind": 237, "migrate_pages": 256,
    "move_pages": 279, "execveat": 322, "mlock2": 325, "pkey_mprotect": 329, "clone3": 435, "process_madvise": 440,
    "process_mrelease": 448,
}  # fmt: skip


def test_calls_that_may_flush_are_recorded_by_their_numbers() -> None:
    wanted = " || ".join(f"id == {number}" for number in CALLS.values())
    filters = dict(SHOOTDOWN_EVENTS)
    assert filters["raw_syscalls/sys_enter"] == filters["raw_syscalls/sys_exit"] == wanted


def status(pid: int, name: str, inside: str = "") -> dict[str, str]:
    return {f"proc/{pid}/status": f"Name:\t{name}\nNSpid:\t{pid}{inside}\n"}


def test_a_long_name_is_cut_as_the_kernel_cuts_it_and_all_of_a_name_are_found(tmp_path: Path) -> None:
    write(tmp_path, status(12, "postgres-writer") | status(9, "postgres-writer") | status(3, "postgres"))
    assert find_processes("postgres-writer-of-logs", tmp_path) == (9, 12)
    with pytest.raises(tc.TraceError, match=r"did you mean 'postgres' or 'postgres-writer'\?"):
        find_processes("postgre", tmp_path)


def test_an_id_of_containers_names_each_process_that_has_it_there(tmp_path: Path) -> None:
    write(tmp_path, status(40, "a", "\t1") | status(30, "b", "\t5\t1") | status(1, "init"))
    assert find_processes("1", tmp_path) == (1,)
    (tmp_path / "proc/1/status").unlink()
    with pytest.raises(tc.TraceError) as said:
        find_processes("1", tmp_path)
    assert str(said.value) == "no process 1 on this machine; in a container it is an id of 30 (b), 40 (a)"


def test_a_control_group_holds_those_below_it(tmp_path: Path) -> None:
    groups = {5: "/a", 6: "/a/b", 7: "/ab", 8: "/"}
    for pid, group in groups.items():
        write(tmp_path, status(pid, "x") | {f"proc/{pid}/cgroup": f"1:name=systemd:/v1\n0::{group}\n"})
    assert find_processes("/a", tmp_path) == find_processes("/a/", tmp_path) == (5, 6)
    assert find_processes("/ab", tmp_path) == (7,)
    assert find_processes("/", tmp_path) == (8,)
    assert find_processes("/v1", tmp_path) == (5, 6, 7, 8)


def test_a_name_of_another_kind_is_no_instance(tmp_path: Path) -> None:
    """An instance is dead if its number is nobody's, or somebody's who started later."""
    names = [
        "tlbcore-7-500-1-2",
        "tlbcore-7-500-1-2-top",
        "tlbcore-7-0-1-2",
        "tlbcore-7-499-1-2",
        "tlbcore-8-500-1-2",
    ]
    for name in [*names, "tlbcore-x", "tlbcore-7-499-1-2-T", "tlbcore-7-499-1", "other-8"]:
        (tmp_path / "instances" / name).mkdir(parents=True)
    fields = " ".join(str(number) for number in range(4, 22))  # from ppid on: field 4
    write(tmp_path, {"proc/7/stat": f"7 (a) b) S {fields} 500 23 24\n"})
    (tmp_path / "proc/self").symlink_to(str(os.getpid()))
    (tmp_path / f"proc/{os.getpid()}/ns").mkdir(parents=True)
    for name, number in (("pid", 1), ("time", 2)):
        (tmp_path / f"proc/self/ns/{name}").symlink_to(f"{name}:[{number}]")
    dead, unknown = guard.instances(tmp_path, tmp_path)
    assert [here.name for here in dead] == ["tlbcore-7-499-1-2", "tlbcore-8-500-1-2"]
    assert unknown == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("", None), ("7 (a) S 1 2\n", None), ("7 (a) S" + " 1" * 18, None), ("7 (a b) S" + " x" * 30, None)],
)
def test_a_start_that_cannot_be_read_is_none(tmp_path: Path, text: str, said: int | None) -> None:
    write(tmp_path, {"proc/7/stat": text})
    assert guard._start(tmp_path, 7) is said


@pytest.mark.parametrize(
    ("isolated", "said"),
    [
        ((2, 3), "CPUs 2-3: not online here; these are: 0-1"),
        ((1, 2), "CPU 2: not online here; these are: 0-1"),
        ((0, 1), None),
    ],
)
def test_a_cpu_that_is_not_online_is_named(
    tmp_path: Path, isolated: tuple[int, ...], said: str | None
) -> None:
    guard.check_cpus(isolated, tmp_path)  # nothing tells
    write(tmp_path, {f"{CPU}/online": "0-1\n"})
    try:
        guard.check_cpus(isolated, tmp_path)
        found = None
    except tc.TraceError as error:
        found = str(error)
    assert found == said
