"""What a hostile or unlucky machine does to us: bombs, endless lists, little memory."""

from __future__ import annotations

import gzip
import lzma
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore._input.cpus import LIMIT, CpuListError, cpu_list, cpu_mask
from tlbcore._input.memory import RESERVED, UNKNOWN, default_memory, left_bytes, within_limits

MIB = 1 << 20


def test_a_recording_that_unpacks_to_thousands_of_times_its_size_is_refused(tmp_path: Path):
    bomb = tmp_path / "bomb.xz"
    bomb.write_bytes(lzma.compress(b"\n" * (65 * MIB), preset=0))
    assert bomb.stat().st_size * 2000 < 65 * MIB
    with pytest.raises(tc.TraceError, match="unpacks to more than 2000 times its size"):
        tc.read_trace(bomb)


def test_a_recording_that_repeats_itself_is_not(tmp_path: Path):
    text = lzma.decompress((Path(__file__).parents[1] / "data" / "p4.w7.trace.txt.xz").read_bytes())
    packed = tmp_path / "calm.xz"
    packed.write_bytes(lzma.compress(text + b"# a comment\n" * (2 * MIB), preset=1))
    assert tc.read_trace(packed).events == 9556


def test_a_configuration_that_unpacks_without_end_is_refused():
    from tlbcore import _core

    line = b"CONFIG_X86_64=y\n"
    fits = gzip.compress(line + b"\n" * (16 * MIB - len(line)))
    assert _core.kernel_parse(fits, "config.gz", "", None)
    with pytest.raises(tc.ConfigError, match=r"config\.gz: unpacks to more than 16777216 bytes"):
        _core.kernel_parse(gzip.compress(line + b"\n" * (16 * MIB)), "config.gz", "", None)


def test_a_file_of_a_host_that_never_ends_counts_as_not_there(tmp_path: Path):
    from tlbcore.inspect._root import MOST_BYTES, Root

    (tmp_path / "long.gz").write_bytes(gzip.compress(b"x" * (MOST_BYTES + 1), 1))
    (tmp_path / "fits.gz").write_bytes(gzip.compress(b"x" * MOST_BYTES, 1))
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b\x08\x00nonsense")
    root = Root(tmp_path)
    assert root.text("long.gz") is None
    assert len(root.text("fits.gz") or "") == MOST_BYTES
    assert root.text("broken.gz", "long.gz") is None


def test_lists_of_cpus_are_bounded():
    assert len(cpu_list(f"0-{LIMIT - 1}")) == LIMIT
    assert len(cpu_list(",".join([f"0-{LIMIT - 1}"] * 4))) == LIMIT
    with pytest.raises(CpuListError, match="names at most 262144 CPUs"):
        cpu_list(",".join([f"0-{LIMIT - 1}"] * 5))
    with pytest.raises(CpuListError, match="must rise and end below 65536"):
        cpu_list(f"0-{LIMIT}")
    with pytest.raises(CpuListError) as refused:
        cpu_list("x" * 10_000)
    assert len(str(refused.value)) < 300, "the message does not repeat megabytes"


def test_masks_of_cpus_are_bounded():
    assert cpu_mask("80000000," + ",".join(["00000000"] * (LIMIT // 32 - 1))) == {LIMIT - 1}
    assert cpu_mask("f") == {0, 1, 2, 3}
    assert cpu_mask("1,0") == {32}
    with pytest.raises(CpuListError, match="ends below CPU 65536"):
        cpu_mask(",".join(["00000001"] * (LIMIT // 32 + 1)))
    for text in ("", "1,,1", "-1", "0x1", "1_0", "100000000", "g"):
        with pytest.raises(CpuListError, match="at most 8 digits"):
            cpu_mask(text)


def host(root: Path, **files: str) -> Path:
    """A root with these files; `__` in a name stands for a slash and `_dot_` for a dot."""
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MEMINFO = "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    8000 kB\n"


def test_memory_is_what_the_machine_leaves(tmp_path: Path):
    root = host(tmp_path, proc__meminfo=MEMINFO)
    assert left_bytes(root) == 8000 << 10
    assert default_memory(root) == 6000 << 10


def test_memory_is_what_the_tightest_control_group_leaves(tmp_path: Path):
    root = host(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/a/b\n",
        sys__fs__cgroup__a__b__memory_dot_max="max\n",
        sys__fs__cgroup__a__b__memory_dot_current="100\n",
        sys__fs__cgroup__a__memory_dot_max="5000\n",
        sys__fs__cgroup__a__memory_dot_current="3000\n",
        sys__fs__cgroup__a__memory_dot_stat="anon 7\ninactive_file 500\n",
    )
    assert left_bytes(root) == 5000 - 3000 + 500
    assert default_memory(root) == 2500 // 4 * 3


def test_memory_of_the_older_control_groups(tmp_path: Path):
    root = host(
        tmp_path,
        proc__self__cgroup="11:cpu:/x\n4:memory:/docker/1\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="9000\n",
        sys__fs__cgroup__memory__memory_dot_usage_in_bytes="1000\n",
    )
    assert left_bytes(root) == 8000, "in a container its group is mounted at the top"


def test_memory_that_nothing_tells_is_eight_gib(tmp_path: Path):
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        pytest.skip("the address space of this run is limited")
    assert left_bytes(tmp_path) is None
    assert default_memory(tmp_path) == UNKNOWN == 8 << 30


def test_a_group_that_is_over_its_limit_leaves_a_byte(tmp_path: Path):
    root = host(
        tmp_path,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max="10\n",
        sys__fs__cgroup__memory_dot_current="20\n",
    )
    assert left_bytes(root) == 0
    assert default_memory(root) == 1


def test_the_command_line_reads_sizes_and_asks_the_machine():
    from tlbcore.cli import _common
    from tlbcore.cli._bounds import size

    assert [size(text) for text in ("1", "2K", "3m", "4G")] == [1, 2 << 10, 3 << 20, 4 << 30]
    assert 0 < size("auto") < 1 << 45
    for text in ("0", "1T", "-1", "", "G", "1.5G"):
        with pytest.raises(_common._FailureError, match="memory is a number"):
            size(text)


@pytest.mark.parametrize("memory", ["auto", "8G"])
def test_a_limited_address_space_ends_in_an_answer_and_no_abort(memory: str):
    """A failed allocation aborts the process (status 134); `ulimit -v` is how batch systems limit memory."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "from tlbcore.cli import main\n"
        f"sys.exit(main(['check', 'coalesce-v7-fixed', '--cpus', '3', '--nmis', '1', '--memory', '{memory}']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 3), done.stderr  # it may find the violation before it needs more
    assert done.stdout.startswith("coalesce-v7-fixed: ")


def test_what_is_asked_for_is_bounded_by_the_address_space_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert within_limits(1 << 50, tmp_path) == 1 << 50
    monkeypatch.setattr(resource, "getrlimit", lambda _: (RESERVED + 4000, RESERVED + 4000))
    assert within_limits(1 << 50, tmp_path) == 3000
    assert within_limits(2000, tmp_path) == 2000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    assert within_limits(2000, tmp_path) == 1


def limited(call: str, mib: int) -> subprocess.CompletedProcess[str]:
    """Evaluate a call where only so much address space is left beside what a first small call took."""
    script = (
        "import resource, tlbcore as tc\n"
        "tc.simulate(tc.scenarios.syscall_heavy(duration_s=1e-4))\n"
        "tc.check('ipi', threads=2)\n"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"limit = held + ({mib} << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n"
        f"    print({call})\n"
        "except tc.SimError as error:\n"
        "    print(error)\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_a_simulation_that_has_no_room_to_begin_says_so():
    load = "tc.scenarios.syscall_heavy(duration_s=1e-4, cpus=4096)"
    done = limited(f"tc.simulate({load}, machine='skylake-sp', detail='full')", 100)
    assert done.returncode == 0, done.stderr
    assert 'not enough memory: scenario "syscall-heavy": 4096 CPUs take up to ' in done.stdout


def test_a_simulation_that_runs_out_of_memory_says_how_far_it_came():
    load = "tc.scenarios.user_shootdown(duration_s=100)"
    done = limited(f"tc.simulate({load}, timeline=1 << 30)", 100)
    assert done.returncode == 0, done.stderr
    assert re.search(r"not enough memory: the simulation stopped after \S+ s of 100 s", done.stdout), (
        done.stdout
    )


@pytest.mark.parametrize("mib", [8, 24])
def test_a_search_by_threads_that_runs_out_of_memory_is_inconclusive(mib: int):
    """Without `--memory`'s caution: what fails is an allocation, of a table or before a block."""
    done = limited(
        "tc.check('text-defer-v7', cpus=3, nmis=1, reduce=False, memory=8 << 30, threads=2).status", mib
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "inconclusive\n"
