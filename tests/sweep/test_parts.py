"""The output directory of a sweep: whatever is killed, full or damaged, no row is lost or doubled."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbcore import SweepError
from tlbcore.sweeps import parts
from tlbcore.sweeps.parts import Directory, Keys

IDENTITY = {"seed": 1, "base": {"cpus": 8}}
UNITS = {"value": "s"}


def rows(start: int, stop: int) -> pa.Table:
    numbers = np.arange(start, stop, dtype=np.uint64)
    keys = np.stack([numbers * np.uint64(0x9E3779B97F4A7C15), numbers], axis=1)
    return pa.table({"key": parts.keys_to_column(keys), "value": numbers.astype(float)})


def values(path: Path) -> list[float]:
    return sorted(parts.read(path)[1]["value"].to_pylist())


def test_what_was_appended_is_read_back_with_its_identity(tmp_path: Path):
    with Directory(tmp_path / "out", IDENTITY, UNITS) as out:
        out.append(rows(0, 10))
        out.append(rows(10, 15))
    identity, table = parts.read(tmp_path / "out")
    assert identity == IDENTITY
    assert sorted(table["value"].to_pylist()) == list(range(15))


def test_metadata_of_every_file_tells_what_made_it(tmp_path: Path):
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        out.append(rows(0, 10))
    (file,) = tmp_path.glob("*.parquet")
    metadata = pq.read_schema(file).metadata
    assert json.loads(metadata[b"tlbcore.sweep"]) == IDENTITY
    assert json.loads(metadata[b"tlbcore.units"]) == UNITS


def test_keys_survive_a_reopening(tmp_path: Path):
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        assert len(out.done) == 0
        out.append(rows(0, 10))
    keys = parts.column_to_keys(rows(5, 15)["key"])
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        assert out.done.contains(keys).tolist() == [True] * 5 + [False] * 5


def test_keys_find_each_of_two_with_the_same_high_half():
    keys = np.array([[7, 2], [7, 1], [3, 9]], dtype=np.uint64)
    done = Keys(keys)
    assert done.contains(keys).all()
    assert not done.contains(np.array([[7, 3], [2, 9], [9, 9]], dtype=np.uint64)).any()


def test_parts_are_compacted_to_fifty_thousand_rows(tmp_path: Path):
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        for start in range(0, 120_000, 1000):
            out.append(rows(start, start + 1000))
        out.compact()
    counts = sorted(pq.read_metadata(file).num_rows for file in tmp_path.glob("*.parquet"))
    assert len(counts) == 3
    assert counts[1] >= 50_000
    assert values(tmp_path) == list(range(120_000))


def test_many_small_parts_do_not_pile_up(tmp_path: Path):
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        for start in range(200):
            out.append(rows(start, start + 1))
            assert len(list(tmp_path.glob("*.parquet"))) <= parts.COMPACT_PARTS
    assert values(tmp_path) == list(range(200))


def test_a_driver_killed_between_merging_and_deleting_doubles_nothing(tmp_path: Path, monkeypatch):
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        out.append(rows(0, 10))
        out.append(rows(10, 20))
        monkeypatch.setattr(Path, "unlink", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            out.compact()
        monkeypatch.undo()
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    assert values(tmp_path) == list(range(20))
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        assert (len(out.done), out.done.duplicates) == (20, 0)
    assert len(list(tmp_path.glob("*.parquet"))) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_part_is_set_aside_and_its_points_are_not_done(tmp_path: Path, damage: str):
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        out.append(rows(0, 10))
        out.append(rows(10, 15))
    file = max(tmp_path.glob("*.parquet"), key=lambda file: pq.read_metadata(file).num_rows)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes({"cut": data[:-9], "flip": data, "empty": b""}[damage])
    with pytest.raises(SweepError, match="the part is damaged; resume"):
        parts.read(tmp_path)
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        assert out.damaged == [file.name]
        assert len(out.done) == 5
        out.append(rows(0, 10))
    assert values(tmp_path) == list(range(15))
    assert file.with_suffix(".corrupt").exists()


def test_a_full_disk_leaves_whole_parts_only(tmp_path: Path):
    """A limit on the size of files stands for the full disk: both end in an OSError amid a write."""
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        out.append(rows(0, 10))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                out.append(rows(10, 40_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert sorted(file.suffix for file in tmp_path.iterdir()) == ["", ".json", ".parquet"]
        out.append(rows(10, 15))
    assert values(tmp_path) == list(range(15))


def test_a_full_file_system_leaves_whole_parts_only(tmp_path: Path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs privileges")
    try:
        with Directory(tmp_path / "out", IDENTITY, UNITS) as out:
            out.append(rows(0, 10))
            with pytest.raises(OSError, match="No space left"):
                out.append(rows(10, 49_000))
        with Directory(tmp_path / "out", IDENTITY, UNITS) as out:
            assert len(out.done) == 10
            out.append(rows(10, 15))
        assert values(tmp_path / "out") == list(range(15))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_parts import IDENTITY, UNITS, rows, parts
parts.COMPACT_PARTS = 5
with parts.Directory(Path(sys.argv[1]), IDENTITY, UNITS) as out:
    number = len(out.done)
    print("open", flush=True)
    while number < 4000:
        out.append(rows(number, number + 10))
        number += 10
"""


def test_a_driver_killed_at_any_moment_loses_and_doubles_nothing(tmp_path: Path):
    out = tmp_path / "out"
    kills = 0
    for wait in (0.02, 0.05, 0.11, 0.03, 0.07, 30):
        driver = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(out), str(Path(__file__).parent)], stdout=subprocess.PIPE
        )
        with driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == b"open\n"
            deadline = time.monotonic() + wait
            while driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            if driver.poll() is None:
                os.kill(driver.pid, signal.SIGKILL)
                kills += 1
        seen = values(out) if any(out.glob("*.parquet")) else []
        assert seen == list(range(len(seen)))
        assert len(seen) % 10 == 0
    assert kills >= 1
    assert values(out) == list(range(4000))


def test_another_sweep_in_the_directory_is_refused_and_untouched(tmp_path: Path):
    with Directory(tmp_path, IDENTITY, UNITS) as out:
        out.append(rows(0, 10))
    with pytest.raises(SweepError, match=r"holds another sweep: its seed is 1, not 2"):
        Directory(tmp_path, {**IDENTITY, "seed": 2}, UNITS)
    assert values(tmp_path) == list(range(10))


def test_a_newer_version_is_refused(tmp_path: Path):
    Directory(tmp_path, IDENTITY, UNITS).close()
    about = tmp_path / "_sweep.json"
    about.write_text(about.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(SweepError, match=r"is of version 3: this tlbcore knows versions up to 2"):
        Directory(tmp_path, IDENTITY, UNITS)
    with pytest.raises(SweepError, match=r"is of version 3"):
        parts.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"schema": "other", "version": 1}', '{"schema": "tlbcore.sweep", "version": "2"}'],
)
def test_a_directory_description_that_is_none_is_refused(tmp_path: Path, text: str):
    (tmp_path / "_sweep.json").write_text(text)
    with pytest.raises(SweepError, match="does not describe a sweep"):
        Directory(tmp_path, IDENTITY, UNITS)


def test_a_directory_with_foreign_files_is_refused(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SweepError, match="is not empty and holds no sweep"):
        Directory(tmp_path, IDENTITY, UNITS)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SweepError, match="is not a directory"):
        Directory(tmp_path / "out", IDENTITY, UNITS)


def test_two_writers_at_once_are_refused(tmp_path: Path):
    with (
        Directory(tmp_path, IDENTITY, UNITS),
        pytest.raises(SweepError, match="another process is writing"),
    ):
        Directory(tmp_path, IDENTITY, UNITS)
