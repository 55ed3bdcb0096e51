"""What `read_trace` refuses and by which words, and what its result is: on recordings of a few lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_trace_kinds import irq, line

import tlbcore as tc
from tlbcore._output.calls import made_by
from tlbcore.trace.recording import PartialTraceError

TEXT = "".join(
    line(1.0, "user_enter: ", cpu=cpu) + irq(2.0, "local_timer", 4, cpu=cpu) + line(3.0, "user_exit: ", cpu=cpu)
    for cpu in range(4)
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "trace.txt"
    found.write_text(TEXT)
    return found


@pytest.mark.parametrize("name", ["gone.txt", "+gone.txt", "0gone.txt", "%gone.txt"])
def test_a_file_that_is_not_there_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it begins with; of two, the second one, too."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as found:
        tc.read_trace(name)
    assert Path(found.value.filename).name == name
    Path("here.txt").write_text(TEXT)
    with pytest.raises(FileNotFoundError) as found:
        tc.read_trace(["here.txt", name])
    assert Path(found.value.filename).name == name


def test_a_marker_that_never_comes_is_named_the_first_of_the_two(path: Path) -> None:
    with pytest.raises(tc.TraceError, match="no text in trace_marker begins with 'FIRST', which opens"):
        tc.read_trace(path, isolated="2", between=("FIRST", "LAST"))


def test_options_have_names(path: Path) -> None:
    with pytest.raises(TypeError):
        tc.read_trace(path, "2")  # type: ignore[misc]
    with pytest.raises(TypeError):
        tc.read_trace(isolated="2")  # type: ignore[call-arg]


def test_a_trace_is_itself_alone(path: Path) -> None:
    """Two readings hold arrays, which have no one truth value: they are two things, and each can be a key."""
    one, two = tc.read_trace(path, isolated="2"), tc.read_trace(path, isolated="2")
    assert one == one
    assert one != two
    assert len({one, two}) == 2


def test_a_trace_knows_whether_it_has_its_events(path: Path, tmp_path: Path) -> None:
    trace = tc.read_trace(path, isolated="2")
    assert trace.has_events is True
    trace.save(tmp_path / "saved.zip")
    assert tc.load(tmp_path / "saved.zip").has_events is False


def test_a_trace_knows_the_call_that_made_it(path: Path) -> None:
    assert made_by(tc.read_trace(path, isolated="2")) == f"tlbcore.read_trace({str(path)!r}, isolated='2')"


@pytest.mark.parametrize(("cpu", "believed"), [(3, True), (4, True), (7, True), (8, False), (9, False)])
def test_a_quiet_cpu_is_believed_up_to_twice_those_seen(cpu: int, believed: bool, path: Path) -> None:
    """A recording without a head does not say how many CPUs there are: four are seen here, so eight may be."""
    if believed:
        assert tc.read_trace(path, isolated=(2, cpu)).isolated == (2, cpu)
    else:
        said = f"isolated CPUs {cpu} are not in this trace, which has events of CPUs 0-3"
        with pytest.raises(PartialTraceError, match=said):
            tc.read_trace(path, isolated=(2, cpu))


@pytest.mark.parametrize("read", [tc.read_trace, tc.shootdowns])
def test_a_file_is_one_piece_of_a_recording(
    read: Callable[[list[str]], object], path: Path, tmp_path: Path
) -> None:
    """By another name, too; another file with the same text is another piece."""
    (tmp_path / "link").symlink_to(path)
    for names, named in (
        ([str(path), str(path)], str(path)),
        ([str(path), str(tmp_path / "link")], str(tmp_path / "link")),
        (["-", str(path), "-"], "-"),
    ):
        with pytest.raises(tc.TraceError) as refused:
            read(names)
        assert str(refused.value) == f"{named}: is named twice as a piece of one recording"
    (tmp_path / "copy").write_text(TEXT)
    read([str(path), str(tmp_path / "copy")])
