"""`tlbcore record` on a real kernel: Debian's, under qemu. Needs TLBCORE_KERNEL, an unpacked kernel package."""

from __future__ import annotations

import os
from pathlib import Path

import guest
import pytest

import tlbcore as tc

KERNEL = Path(os.environ.get("TLBCORE_KERNEL", "/nonexistent"))


@pytest.mark.slow
@pytest.mark.skipif(guest.missing(KERNEL) is not None, reason=f"no guest: {guest.missing(KERNEL)}")
def test_a_recording_of_a_real_kernel_explains_itself_and_leaves_nothing_behind(tmp_path: Path):
    share, scratch = tmp_path / "share", tmp_path / "scratch"
    share.mkdir()
    scratch.mkdir()

    console = guest.record(KERNEL, share, scratch)

    output = (share / "output.0").read_text()
    assert (share / "status.0").read_text().strip() == "0", output + console[-2000:]
    assert "events lost" in output
    assert (share / "before").read_text() == (share / "after").read_text()
    trace = tc.read_trace(share / "recording.txt")
    assert (trace.isolated, trace.isolated_from) == ((2, 3), "recorded")
    assert trace.figures["broken_lines"] == 0
    report = trace.figures["report"]
    assert report["flush_tlb_kernel_range"]["calls"] > 0
    for cpu in report["isolated"]:
        flushes = sum(
            cpu["calls_by_function"].get(name, 0) for name in ("do_flush_tlb_all", "do_kernel_range_flush")
        )
        # One flush_tlb_all at least for each of 40 filters (FACTS 8).
        assert flushes >= 40, cpu["calls_by_function"]
        unknown = cpu["interrupts_by_cause"].get("unknown", 0)
        assert unknown <= 0.01 * cpu["interrupts"], cpu["interrupts_by_cause"]

    calls = trace.calls
    known = (calls["class"] != "unknown") & (calls["initiator"] != "unknown")
    assert len(known) > 50
    assert known.mean() >= 0.99
    assert "/storm" in {group["comm"] for group in report["purges"]["cgroups"]}
    flight_recorder(share)


def flight_recorder(share: Path) -> None:
    """The second command of the guest: two snapshots, each for something that took longer than the threshold."""
    output = (share / "output.1").read_text()
    text = (share / "flight.txt").read_text()
    notes = [line for line in text.splitlines() if line.startswith("# tlbcore snapshot | ")]
    assert len(notes) == 2, output
    for note in notes:
        length = float(note.split("kept from its task for ")[1].split(" us by ")[0])
        assert length > 50, note
    trace = tc.read_trace(share / "flight.txt")
    report = trace.figures["report"]
    assert (report["snapshots"], trace.figures["broken_lines"]) == (2, 0)
    assert 0 < trace.seconds <= report["elapsed_s"]
    longest = max(h["max_us"] for cpu in report["isolated"] for h in (*cpu["handlers"], *cpu["noise"]))
    assert longest > 50
