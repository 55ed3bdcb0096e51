"""Files that are whole or not there, what is a file of its own, and tables that cannot be changed."""

from __future__ import annotations

import io
import os
import pickle
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore._output.files import (
    _MAGIC,
    _Careful,
    _digest,
    is_special,
    keep_apart,
    load_object,
    replace_file,
    same_file,
)
from tlbcore._output.files import sealed as sealed_pickle
from tlbcore._output.table import Table
from tlbcore.trace.recorder.watch import KINDS, Reading, write_metrics


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "a"
    replace_file(file, b"first")
    with file.open("rb") as held:
        replace_file(file, b"second")
        assert held.read() == b"first", "whoever has it open keeps the old one"
    assert file.read_bytes() == b"second"
    assert names(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    replace_file(file, b"first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as found:
        replace_file(file, b"second")
    assert (found.value.errno, found.value.filename) == (28, str(file))
    assert (file.read_bytes(), names(tmp_path)) == (b"first", ["a"])


def test_the_directory_is_made_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append(str(Path(f"/proc/self/fd/{number}").readlink()))
    )
    replace_file(tmp_path / "a", b"x")
    assert synced == [str(tmp_path / ".a.tmp"), str(tmp_path)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    replace_file(tmp_path / "a", b"y")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one(there: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    if there:
        target.write_bytes(b"old")
    link.symlink_to(target)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert (target.read_bytes(), names(tmp_path / "far")) == (b"new", ["target"])


@pytest.mark.parametrize("way", ["replace_file", "save", "metrics"])
def test_a_pipe_is_written_to_and_stays_one(way: str, tmp_path: Path) -> None:
    """As /dev/stdout and /dev/null must, which root could replace by files."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    if way == "replace_file":
        replace_file(pipe, b"content")
    elif way == "save":
        tc.miss_curve(np.array([1]), sets=1, ways=1).save(pipe)
    else:
        recorded = dict.fromkeys(KINDS, True)
        write_metrics(pipe, Reading(time=7.0, seconds=1.0, cpus=(), recorded=recorded, rows=()))
    wanted = {"replace_file": b"content", "save": _MAGIC, "metrics": b"# HELP "}[way]
    assert os.read(reader, 1 << 16).startswith(wanted)
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]
    os.close(reader)


def test_a_directory_is_no_file_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(IsADirectoryError) as found:
        replace_file(tmp_path / "d", b"x")
    assert found.value.filename == str(tmp_path / "d")
    assert names(tmp_path) == ["d"]


def test_what_is_special(tmp_path: Path) -> None:
    file, link, lost = (tmp_path / name for name in ("file", "link", "lost"))
    file.write_bytes(b"")
    link.symlink_to(file)
    lost.symlink_to(tmp_path / "nowhere")
    assert [is_special(path) for path in (file, link, lost, tmp_path / "none")] == [False] * 4
    assert [is_special(path) for path in (tmp_path, Path(os.devnull))] == [True] * 2


def test_which_names_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other, null = Path("one"), Path("other"), Path(os.devnull)
    one.write_bytes(b"")
    Path("link").symlink_to(one)
    os.link(one, "hard")
    for written in (False, True):
        assert same_file(one, Path("link"), written=written)
        assert same_file(one, tmp_path / "hard", written=written)
        assert not same_file(one, other, written=written)
        assert not same_file(null, null, written=written), "takes two reports"
        assert not same_file(Path("a\0b"), one, written=written)
    assert same_file(other, tmp_path / "other", written=True), "the second would write over the first"
    assert not same_file(other, other), "nothing can be read from what is not there"
    keep_apart(other, ["one", "nowhere"])
    with pytest.raises(tc.ConfigError, match=r"^link: would write over what the result was read from$"):
        keep_apart(Path("link"), ["nowhere", "one"])


def sealed(content: bytes, version: str = tc.__version__) -> bytes:
    content = version.encode() + b"\n" + content
    return _MAGIC + _digest(content) + content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Ran out of input"),
        (b".", "stack underflow"),
        (b"(((l", "Ran out of input"),
        (b"F1e999\n.", "value too large"),
        (b"I1x\n.", "invalid literal|could not convert"),
        (pickle.dumps(os.getcwd), "it names posix.getcwd, which is no part of a result"),
    ],
)
def test_a_pickle_that_cannot_be_read_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "f"
    for version, by in (
        (tc.__version__, ""),
        ("9.9", rf" \(tlbcore 9.9 wrote it, this is {tc.__version__}\)"),
    ):
        file.write_bytes(sealed(content, version))
        with pytest.raises(
            tc.ConfigError, match=f"(?s)^{file}: cannot be loaded: .*({said}).*{by}$"
        ) as found:
            load_object(file)
        assert ("wrote it" in str(found.value)) is bool(by)


def test_a_saved_result_has_a_digest_of_sixteen_bytes_behind_its_head(tmp_path: Path) -> None:
    curve = tc.miss_curve([1, 2, 1], sets=1, ways=2)
    data = curve.save(tmp_path / "f").read_bytes()
    assert data.startswith(b"tlbcore result 1\n")
    digest, content = data[17:33], data[33:]
    assert digest == blake2b(content, digest_size=16).digest()
    assert content.startswith(f"{tc.__version__}\n".encode())
    assert tc.load(tmp_path / "f").table.tolist() == curve.table.tolist() == [[3, 2]]


def test_a_seal_that_was_broken_is_not_opened() -> None:
    opened, (make, content, digest) = sealed_pickle(dict, {"a": (1, 2)})
    assert opened(make, content, digest) == {"a": (1, 2)}
    with pytest.raises(
        pickle.UnpicklingError, match=r"^the pickle is damaged: its digest is not that of its content$"
    ):
        opened(make, content + b" ", digest)
    read = MappingProxyType({"b": 1})
    assert opened(*sealed_pickle(dict, read)[1]) == {"b": 1}


@pytest.mark.parametrize(
    ("module", "name", "allowed"),
    [
        ("builtins", "set", True),
        ("builtins", "eval", False),
        ("numpy", "ndarray", True),
        ("numpy", "load", False),
        ("os", "set", False),
        ("pathlib", "PosixPath", True),
        ("tlbcore._output.table", "Table", True),
        ("tlbcore.tlb", "Tlb", True),
        ("tlbcore.checker.verdict", "Verdict", True),
        ("tlbcore._output.files", "_open", True),
        ("tlbcore._output.files", "_read_only", True),
        ("tlbcore._output.result", "_made", True),
        ("tlbcore._output.files", "Path", False),
        ("tlbcore._output.files", "replace_file", False),
        ("tlbcore._output.files", "pickle.loads", False),
        ("tlbcore._output.files", "_Careful", False),
        ("tlbcore", "simulate", False),
        ("tlbcorelike", "Table", False),
    ],
)
def test_what_a_strangers_pickle_may_name(module: str, name: str, allowed: bool) -> None:
    reader = _Careful(io.BytesIO())
    if allowed:
        found = reader.find_class(module, name)
        assert getattr(found, "__name__", name) == ("_open_carefully" if name == "_open" else name)
    else:
        with pytest.raises(
            pickle.UnpicklingError, match=f"^it names {module}.{name}, which is no part of a result$"
        ):
            reader.find_class(module, name)


def test_a_table_has_columns_that_are_read_once() -> None:
    asked = []

    def load(name: str) -> list[int]:
        asked.append(name)
        return [1, 2]

    table = Table(["a", "b"], load)
    assert (list(table), len(table), table.loaded, asked) == (["a", "b"], 2, (), [])
    assert table["b"].tolist() == table["b"].tolist() == [1, 2]
    assert (table.loaded, asked) == (("b",), ["b"])
    assert {name: column.tolist() for name, column in (table | {}).items()} == {"a": [1, 2], "b": [1, 2]}
    assert [column.tolist() for column in table.values()] == [[1, 2], [1, 2]]
    assert [(name, column.tolist()) for name, column in table.items()] == [("a", [1, 2]), ("b", [1, 2])]
    assert asked == ["b", "a"]
    again = pickle.loads(pickle.dumps(table))
    assert (type(again), again.loaded, again == table) == (Table, ("a", "b"), True)
    assert (type(table.copy()), table._ipython_key_completions_()) == (dict, ["a", "b"])


def test_a_table_cannot_be_changed() -> None:
    values = np.array([1, 2])
    table = Table({"a": values})
    with pytest.raises(ValueError, match="read-only"):
        table["a"][0] = 9
    values[0] = 5  # the array that was given is its owner's
    for change in (
        lambda: table.__setitem__("a", 1), lambda: table.__delitem__("a"), lambda: table.__ior__({}), table.clear,
        lambda: table.pop("a"), table.popitem, lambda: table.setdefault("b", 1), lambda: table.update(a=1),
    ):  # fmt: skip
        with pytest.raises(
            TypeError, match=r"^a result's table cannot be changed: dict\(table\) is a copy that can$"
        ):
            change()
    with pytest.raises(TypeError, match="unhashable"):
        hash(table)


def test_a_column_that_is_not_there() -> None:
    table = Table({"calls": [1]})
    with pytest.raises(KeyError, match="unknown column 'call', did you mean 'calls'"):
        table["call"]
    name: Any = ["calls"]
    with pytest.raises(KeyError, match="unknown column"):
        table[name]
    assert (table.get("call"), table.get("call", 3), table.get("calls").tolist()) == (None, 3, [1])
    assert repr(table) == "<table of 1 columns: calls>"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1, 2], [1, 2], True),
        ([1, 2], [1.0, 2.0], True),
        ([1, 2], [1, 3], False),
        ([1, 2], [1], False),
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.nan], [1.0, 2.0], False),
        (["x"], [1.0], False),
        ([1.0], ["x"], False),
        (["x"], ["x"], True),
        ([1], None, False),
    ],
)
def test_tables_are_compared_by_value(one: Any, other: Any, same: bool) -> None:
    assert (Table({"a": one}) == {"a": other}) is same
    assert (Table({"a": one}) != {"a": other}) is not same


def test_tables_of_other_columns_are_others() -> None:
    table = Table({"a": [1], "b": [2]})
    assert table == {"a": [1], "b": [2]}
    assert table != {"b": [2], "a": [1]}
    assert table != {"a": [1]}
    assert table != [("a", [1]), ("b", [2])]
