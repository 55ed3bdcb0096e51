"""Small recordings of the kinds on which an earlier version was wrong, and what is right (issue 16)."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

import tlbcore as tc

CASES = Path(__file__).parents[1] / "data" / "cases"
DATA = Path(__file__).parents[1] / "data"


def explain(name: str, isolated: str | None) -> tuple[dict, str]:
    """Return the report of a case, and its text in one line."""
    trace = tc.read_trace(next(CASES.glob(f"{name}-*")), isolated=isolated)
    return trace.figures["report"], " ".join(str(tc.explain(trace)).split())


def one(name: str, cpu: int) -> tuple[dict, str]:
    report, text = explain(name, str(cpu))
    (figures,) = report["isolated"]
    return figures, text


def rows(cpu: dict) -> dict[str, dict]:
    return {row["cause"]: row for row in cpu["interference"]}


def test_05_what_was_sent_is_told_and_whether_it_arrived_is_not_recorded():
    cpu, text = one("05", 17)

    assert cpu["interrupts"] is None
    assert (cpu["interrupts_per_hour"], cpu["taken_ms"], cpu["longest"]) == (None, None, None)
    assert {(i["cause"], i["calls"], i["in_interrupt"]) for i in cpu["sent"]} == {("dl_server", 2, True)}
    assert "CPU 17: whether it was interrupted is not recorded" in text
    assert (
        "nohz_full_kick_func 1x, a reschedule from dl_server_timer 1x (causes: deadline server timer)" in text
    )
    assert "not interrupted" not in text


def test_06_a_call_chain_just_before_names_cause_and_task():
    cpu, text = one("06", 1)

    assert cpu["interrupts"] == 1
    assert cpu["interrupts_by_cause"] == {"text_sync": 1}
    assert [(i["comm"], i["cause"]) for i in cpu["initiators"]] == [("timed", "text_sync")]
    assert rows(cpu)["text_sync"]["via"] == ["net_enable_timestamp"]
    assert "kernel text patched (timed through net_enable_timestamp)" in text


def test_07_a_timer_put_on_this_cpu_a_tick_kept_by_a_later_dependency_and_ksoftirqd():
    cpu, text = one("07", 4)

    assert cpu["interrupts_by_cause"] == {"clocksource_watchdog": 1, "tick_kept": 2, "irq_work": 1}
    assert cpu["tick_dependencies"] == {"SCHED": 3}
    assert rows(cpu)["ksoftirqd"]["max_us"] == pytest.approx(45, abs=0.1)
    assert rows(cpu)["ksoftirqd"]["total_ms"] == pytest.approx(0.045, abs=1e-4)
    assert cpu["longest"]["cause"] == "ksoftirqd"
    assert "clocksource watchdog (ksoftirqd/3 through clocksource_watchdog)" in text


def test_09_less_than_a_millisecond_gives_lengths_and_no_rates():
    report, text = explain("09", "5-7")
    by_cpu = {cpu["cpu"]: cpu for cpu in report["isolated"]}

    assert report["seconds"] < 1e-3
    assert all(cpu["interrupts_per_hour"] is None for cpu in report["isolated"])
    assert all(cpu["taken_share"] <= 1 for cpu in report["isolated"])
    assert {x["context"]: round(x["max_us"], 1) for x in by_cpu[6]["latencies"]} == {
        "irq": pytest.approx(12.5, rel=0.01),
        "thread": pytest.approx(30.3, rel=0.01),
    }
    assert by_cpu[6]["taken_ms"] == pytest.approx((12553 + 4769) / 1e6)
    assert "per hour" not in text.replace("per hour (95 %)", "")
    assert "too short for a rate" in text


def test_16_markers_of_others_cut_nothing():
    cpu, text = one("16", 2)

    assert cpu["interrupts"] == 100
    assert cpu["seconds"] == pytest.approx(9.68, abs=0.01)
    assert "100 interrupts" in text


def test_19_firmware_is_interference_and_interrupts_are_not_recorded():
    report, text = explain("19", "0-1")
    samples = {cpu["cpu"]: rows(cpu)["smi"] for cpu in report["isolated"]}

    assert sum(row["n"] for row in samples.values()) == 5
    assert samples[1]["max_us"] == pytest.approx(5890)
    assert all(cpu["interrupts"] is None for cpu in report["isolated"])
    assert "Interrupts: not recorded." in text
    assert "longest 5.89 ms (firmware or hypervisor" in text
    assert "its counts and rates are lower limits" in text


def test_28_arm64_is_named_and_no_word_of_x86_is_said():
    report, text = explain("28", "7")
    (cpu,) = report["isolated"]

    assert report["architecture"] == "aarch64"
    assert cpu["interrupts"] == 3
    assert cpu["interrupts_by_vector"] == {"ipi_call_function": 1, "ipi_reschedule": 1, "arch_timer": 1}
    assert set(cpu["interrupts_by_cause"]) == {"call_sender_only", "reschedule", "scheduler_tick"}
    assert "broadcast by hardware" in text
    for word in ("APIC", "INVLPGB", "AMD", "tsc=", "sysvec", "PCID", "local_timer", "coalesce-v7", "4 KiB"):
        assert word not in text, word


def test_31_a_wrapped_ring_has_the_window_of_its_own_events():
    cpu, text = one("31", 2)

    assert cpu["interrupts"] == 10
    assert cpu["seconds"] == pytest.approx(9, abs=0.01)
    assert cpu["interrupts_per_hour"] == pytest.approx(4000, rel=0.01)
    assert "4,000 per hour" in text


def test_33_a_kernel_worker_is_the_first_cause_by_time_on_each():
    report, _ = explain("33", "8-9")

    for cpu in report["isolated"]:
        first = cpu["interference"][0]
        assert (first["cause"], first["kind"], first["n"]) == ("kworker", "task", 1)
        # The event says 500000 ns.
        assert first["max_us"] == pytest.approx(500)
        assert [by["name"] for by in first["by"]] == [f"kworker/{cpu['cpu']}:1"]


def test_34_a_task_that_was_displaced_is_interrupted_and_one_that_was_switched_in_is_not():
    cpu, text = one("34", 7)

    assert cpu["taken_ms"] == pytest.approx(100)
    assert cpu["taken_share"] == pytest.approx(0.1 / 10.9466, rel=1e-3)
    assert cpu["interrupts_by_cause"] == {"reschedule": 1}
    assert (cpu["longest"]["us"], cpu["longest"]["by"]) == (pytest.approx(50_000), "kworker/7:1")
    assert "0.91 % of the time (100 ms of 10.9 s)" in text


def test_35_the_difference_column_is_no_event(tmp_path: Path):
    with_column = lzma.decompress(next(CASES.glob("35-*")).read_bytes()).decode()
    lines = with_column.splitlines()[:-1]  # the last one is cut
    whole = lzma.decompress((DATA / "p4b.w5.head.report.txt.xz").read_bytes()).decode()
    want = whole.splitlines()[: len(lines)]
    files = []
    for name, text in (("diff", lines), ("plain", want)):
        files.append(tmp_path / name)
        files[-1].write_text("\n".join(text) + "\n")
    ours, theirs = (tc.read_trace(path, isolated="2-3").figures["report"] for path in files)

    assert ours["events"] == theirs["events"] > 300
    for mine, other in zip(ours["isolated"], theirs["isolated"], strict=True):
        for key in ("interrupts_by_cause", "calls_by_function", "entries", "interference", "sent"):
            assert mine[key] == other[key], key
    assert ours["purges"] == theirs["purges"]
    assert ours["kinds"] == theirs["kinds"]


@pytest.mark.parametrize(
    ("name", "looks", "instead"),
    [
        ("36", "trace-cmd report -R", "without -R"),
        ("39", "looks like JSON", "trace-cmd report"),
        ("41", "counts no time", "-C mono"),
        ("42", "perf script without its CPU column", "perf script -F comm,tid,cpu,time,event,trace"),
    ],
)
def test_what_is_not_read_is_named_with_the_command_that_prints_what_is(name: str, looks: str, instead: str):
    with pytest.raises(tc.TraceError, match=r":[0-9]+: looks like") as failure:
        explain(name, "2")

    assert looks in str(failure.value)
    assert instead in str(failure.value)
    assert "\n" not in str(failure.value)


def test_every_case_is_asked():
    asked = {path.name[:2] for path in CASES.iterdir() if path.is_file()}
    text = Path(__file__).read_text()
    assert all(f"test_{name}_" in text or f'("{name}"' in text for name in asked)
    assert len(asked) == 15
