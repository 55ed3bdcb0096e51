"""What each scenario is made of, by hand, and what actors and scenarios refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import Scenario, scenarios
from tlbcore.scenarios import Actor

SPIN = {"kind": "spin", "user_pages": 0}
ISOLATED, HOUSE = ({"name": "spin", "on": on, **SPIN} for on in ("isolated", "housekeeping"))
IDLE = {"name": "idle", "on": "housekeeping", "kind": "idle"}


def gap(mean_ps: int, exponential: bool = True) -> dict[str, Any]:
    return {"mean_ps": mean_ps, "exponential": exponential}


def forks(mean_ps: int, batch: int, **more: Any) -> dict[str, Any]:
    usual = {"name": "forks", "on": "housekeeping", "kind": "forks", "gap": gap(mean_ps), "spread": False}
    return {**usual, "batch": batch, **more}


def noise(mean_ps: int, cause: str = "residual", exponential: bool = True) -> dict[str, Any]:
    usual = {"name": cause, "on": "isolated", "kind": "interrupts", "body_ps": 2_000_000, "cause": cause}
    return {**usual, "gap": gap(mean_ps, exponential)}


def calls(base_ps: int, gap_ps: int, exponential: bool = True) -> dict[str, Any]:
    usual = {"name": "syscalls", "on": "isolated", "kind": "syscalls", "kernel_pages": 12, "user_pages": 4}
    return {**usual, "gap": gap(gap_ps, exponential), "base_ps": base_ps, "by": "syscall"}


def chain(name: str, mean_ps: int, steps: Any) -> dict[str, Any]:
    return {"name": name, "on": {"cpus": [0]}, "kind": "chain", "gap": gap(mean_ps), "steps": list(steps)}


def tasks(name: str, mean_ps: int, steps: Any, **more: Any) -> dict[str, Any]:
    usual = {"on": "housekeeping", "kind": "tasks", "processes": 1, "shared": False, "also_on": None}
    return {"name": name, "gap": gap(mean_ps), "steps": steps, **usual, **more}


def flushes(program: str, *pages: int, cause: str, **more: Any) -> list[dict[str, Any]]:
    return [{"program": program, "pages": each, "cause": cause, **more} for each in pages]


FILTER = [
    *flushes("set_memory", 0, cause="set_memory"),
    *flushes("purge", 0, cause="aliases", per_mille=863),
    *flushes("purge", 3, 2, cause="aliases", per_mille=137),
]
MODULE = [
    *flushes("purge", 0, 0, 0, 0, 0, 4, cause="aliases"),
    *flushes("set_memory", 0, 0, 0, cause="set_memory"),
    *flushes("set_memory", 0, cause="set_memory", per_mille=333),
]
KEYS = flushes("text_poke", 0, cause="text_poke")
PROBES = flushes("text_breakpoint", 0, 0, cause="text_poke")
MOVE = {"do": "migrate", "per_mille": 45}  # 43 of 957
JOB = [
    {"do": "switch"}, {"do": "fork"}, {"do": "unmap", "pages": 0}, {"do": "switch"}, {"do": "exec"},
    {"do": "unmap", "pages": 16}, {"do": "unmap", "pages": 2, "tables": True}, {"do": "exit", "spread": 474},
    MOVE, MOVE, MOVE,
]  # fmt: skip
TURN = [{"do": "switch"}, MOVE, {"do": "sleep", "per_mille": 200}]
THREAD = [
    {"do": "switch"}, {"do": "fork"}, {"do": "unmap", "pages": 8}, {"do": "exit"}, {"do": "sleep"},
]  # fmt: skip

MADE: dict[str, tuple[float, int, str, int, list[dict[str, Any]]]] = {
    # 18 housekeeping CPUs share 114 a second: one each 157,894,736,842 ps
    "rteval": (21600, 44, "18-43", 2, [ISOLATED, HOUSE, forks(157_894_736_842, 20)]),
    "spawn-storm": (60, 4, "2-3", 1, [ISOLATED, HOUSE, forks(10**10, 256), noise(833_333_333_333)]),
    "dpdk-poll": (600, 16, "4-15", 1, [{**ISOLATED, "user_pages": 512}, HOUSE, forks(8 * 10**10, 8)]),
    "trading": (60, 16, "8-15", 1, [calls(900_000, 49_100_000), HOUSE, forks(16 * 10**10, 8)]),
    "syscall-heavy": (10, 4, "2-3", 1, [calls(770_000, 0, False), HOUSE, forks(22_222_222_222, 20)]),
    "filter-attach": (60, 4, "2-3", 1, [ISOLATED, HOUSE, chain("filter", 625 * 10**9, FILTER)]),
    "module-load": (60, 4, "2-3", 1, [ISOLATED, HOUSE, chain("module", 2_857_142_857_143, MODULE)]),
    "text-poke": (600, 44, "18-43", 1, [
        ISOLATED, HOUSE, chain("static keys", 20 * 10**12, KEYS), chain("kprobes", 100 * 10**12, PROBES),
    ]),
    "quiet": (3600, 4, "2-3", 1, [ISOLATED, IDLE, noise(833_333_333_333)]),
    "user-shootdown": (10, 8, "4-7", 1, [
        {**ISOLATED, "user_pages": 32}, HOUSE,
        tasks("threads", 2 * 10**9, [{"do": "unmap", "pages": 4}], shared=True, also_on="isolated"),
    ]),
    "pthread-churn": (10, 8, "4-7", 1, [ISOLATED, tasks("threads", 10**9, THREAD, shared=True)]),
    "hackbench": (1, 8, "4-7", 1, [
        ISOLATED,
        tasks("messages", 20_000_000, [{"do": "switch"}, {"do": "sleep", "per_mille": 50}], processes=40),
    ]),
    "kernel-build": (10, 8, "4-7", 1, [
        ISOLATED, tasks("jobs", 20 * 10**9, JOB, processes=2), tasks("others", 10**9, TURN, processes=4),
    ]),
}  # fmt: skip


def test_every_scenario_has_a_row() -> None:
    assert set(MADE) == set(scenarios.SCENARIOS)


@pytest.mark.parametrize("name", list(MADE))
def test_what_a_scenario_is_made_of(name: str) -> None:
    seconds, cpus, isolated, sockets, actors = MADE[name]
    load = scenarios.by_name(name)
    data = json.loads(load.to_json())
    assert data["actors"] == actors
    assert (data["name"], load.duration_s, load.cpus) == (name, seconds, cpus)
    assert (load.isolated, load.sockets) == (scenarios.cpu_list(isolated), sockets)
    rest = {key: data[key] for key in ("duration_ps", "rcu_ps", "work_delay_ps", "extra_ipi_ps")}
    assert rest == {
        "duration_ps": seconds * 10**12, "rcu_ps": 20 * 10**9, "work_delay_ps": 20 * 10**6, "extra_ipi_ps": 0,
    }  # fmt: skip
    assert (data["flush_mask"], data["lazy_max_pages"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "given", "at", "actor"),
    [
        ("rteval", {"spawn_hz": 2, "cpus": 4, "isolated": "2-3", "batch": 3, "sockets": 1}, 2, forks(10**12, 3)),
        ("spawn-storm", {"rate_hz": 2, "batch": 3}, 2, forks(5 * 10**11, 3)),
        ("spawn-storm", {"residual_hz": 4}, 3, noise(250 * 10**9)),
        ("dpdk-poll", {"tick_hz": 100}, 3, noise(10**10, "tick", False)),
        ("dpdk-poll", {"user_pages": 3}, 0, {**ISOLATED, "user_pages": 3}),
        ("trading", {"calls_hz": 1000, "base_ns": 2.5}, 0, calls(2_500, 999_997_500)),
        ("trading", {"calls_hz": 1e9, "base_ns": 1}, 0, calls(1_000, 0)),
        ("syscall-heavy", {"gap_ns": 1.5, "base_ns": 2}, 0, calls(2_000, 1_500, False)),
        ("filter-attach", {"rate_hz": 2}, 2, chain("filter", 5 * 10**11, FILTER)),
        ("module-load", {"rate_hz": 2, "pokes": 2}, 2, chain("module", 5 * 10**11, [*MODULE, *KEYS * 2])),
        ("text-poke", {"calls_hz": 1000, "base_ns": 500}, 0, calls(500_000, 999_500_000)),
        ("text-poke", {"static_keys_hz": 0}, 2, chain("kprobes", 100 * 10**12, PROBES)),
        ("text-poke", {"kprobes_hz": 2, "static_keys_hz": 4}, 3, chain("kprobes", 5 * 10**11, PROBES)),
        ("quiet", {"residual_hz": 2}, 2, noise(5 * 10**11)),
        ("user-shootdown", {"batch": 5, "pages": 3, "pinned": True, "rate_hz": 10}, 2,
            tasks("threads", 5 * 10**11, [{"do": "unmap", "pages": 15}], shared=True)),
        ("pthread-churn", {"rate_hz": 2}, 1, tasks("threads", 5 * 10**11, THREAD, shared=True)),
        ("kernel-build", {"jobs_hz": 2}, 1, tasks("jobs", 5 * 10**11, JOB, processes=2)),
        ("kernel-build", {"switches_hz": 2}, 2, tasks("others", 5 * 10**11, TURN, processes=4)),
    ],
)  # fmt: skip
def test_what_a_scenario_is_made_of_if_asked(
    name: str, given: dict[str, Any], at: int, actor: dict[str, Any]
) -> None:
    load = scenarios.by_name(name, duration_s=3, **given)
    assert load.actors[at].to_data() == actor
    assert load.duration_s == 3


@pytest.mark.parametrize(
    ("name", "given", "actors"),
    [
        ("spawn-storm", {"residual_hz": 0}, 3),
        ("quiet", {"residual_hz": 0}, 2),
        ("dpdk-poll", {"tick_hz": 0}, 3),
        ("text-poke", {"kprobes_hz": 0}, 3),
        ("text-poke", {"kprobes_hz": 0, "static_keys_hz": 0}, 2),
    ],
)
def test_a_rate_of_none_is_no_actor(name: str, given: dict[str, Any], actors: int) -> None:
    assert len(scenarios.by_name(name, **given).actors) == actors


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("spawn-storm", {}, "Residual noise is 1.2 entries a second (measured, 6.12 under QEMU)."),
        ("spawn-storm", {"residual_hz": 5}, "Residual noise is 5 entries a second (as given)."),
        ("spawn-storm", {"residual_hz": 0}, "Residual noise is left out, too."),
        ("module-load", {}, "where no text was patched."),
        ("module-load", {"pokes": 2}, "text was patched; 2 batches of text patching are added to each."),
        ("kernel-build", {}, "switch (published) and the share of children that exit elsewhere (measured)."),
        (
            "kernel-build",
            {"migrations": 0.1},
            "switch (as given) and the share of children that exit elsewhere (measured).",
        ),
        (
            "kernel-build",
            {"spread": 0},
            "switch (published) and the share of children that exit elsewhere (as given).",
        ),
    ],
)
def test_a_scenario_says_of_what_is_given_no_more_than_that(
    name: str, given: dict[str, Any], said: str
) -> None:
    assert scenarios.by_name(name, **given).abstraction.endswith(said)


@pytest.mark.parametrize(
    ("migrations", "spread", "moves", "spreads"),
    [(0, 0, 0, 0), (0.0005, 0.000501, 1, 1), (0.5, 1, 1000, 1000), (0.2, 0.25, 250, 250)],
)
def test_shares_of_a_build_are_chances_per_mille(
    migrations: float, spread: float, moves: int, spreads: int
) -> None:
    load = scenarios.kernel_build(migrations=migrations, spread=spread)
    _, jobs, turns = (list(actor.params.get("steps", ())) for actor in load.actors)
    assert [step["per_mille"] for step in [*jobs, *turns] if step["do"] == "migrate"] == [moves] * 4
    assert [step["spread"] for step in jobs if "spread" in step] == [spreads]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: scenarios.kernel_build(migrations=0.0004),
            "migrations must be 0 or at least 0.0005, as chances are whole per mille: got 0.0004",
        ),
        (
            lambda: scenarios.kernel_build(spread=0.0004),
            "spread must be 0 or at least 0.0005, as chances are whole per mille: got 0.0004",
        ),
        (
            lambda: scenarios.kernel_build(migrations=0.51),
            "migrations must be a finite number of at least 0 and at most 0.5: got 0.51",
        ),
        (
            lambda: scenarios.kernel_build(spread=1.01),
            "spread must be a finite number of at least 0 and at most 1: got 1.01",
        ),
        (
            lambda: scenarios.trading(calls_hz=2e6),
            "calls_hz must be at most 1.11111e+06, as a call takes 900 ns: got 2e+06",
        ),
        (lambda: scenarios.trading(spawn_hz=0), "spawn_hz must be a finite number above 0: got 0"),
        (lambda: scenarios.text_poke(calls_hz=-1), "calls_hz must be a finite number of at least 0: got -1"),
        (lambda: scenarios.module_load(pokes=1001), "pokes must be an integer from 0 to 1000: got 1001"),
        (lambda: scenarios.user_shootdown(batch=0), "batch must be an integer from 1 to 16777216: got 0"),
        (
            lambda: scenarios.user_shootdown(pages=-1, batch=5),
            "pages must be an integer from 0 to 858993459: got -1",
        ),
        (lambda: scenarios.user_shootdown(pinned=5), "pinned must be True or False: got 5"),
        (lambda: scenarios.rteval(cpus=4097), "cpus must be an integer from 1 to 4096: got 4097"),
        (
            lambda: scenarios.interrupts(rate_hz=1.1e9),
            "interrupts, residual: a rate must be at most 1e+09 per second, one each ns: got 1.1e+09",
        ),
        (
            lambda: scenarios.spin(user_pages=1 << 32),
            "spin: user_pages must be an integer from 0 to 4294967295: got 4294967296",
        ),
        (
            lambda: scenarios.vfree(rate_hz=1, pages=0),
            "vfree: pages must be an integer from 1 to 4294967295: got 0",
        ),
        (
            lambda: scenarios.vfree(rate_hz=1, pages=1, then=(1 << 32,)),
            "vfree: pages must be an integer from 1 to 4294967295: got 4294967296",
        ),
        (
            lambda: scenarios.forks(rate_hz=1, batch=0),
            "forks: batch must be an integer from 1 to 4294967295: got 0",
        ),
        (
            lambda: scenarios.tasks([], rate_hz=1, processes=1 << 16),
            "tasks: processes must be an integer from 1 to 65535: got 65536",
        ),
        (lambda: scenarios.tasks(5, rate_hz=1), "tasks: steps are a list of mappings: got 5"),
        (lambda: scenarios.chain(["a"], rate_hz=1), "chain: a step is a mapping: got 'a'"),
        (lambda: scenarios.interrupts(2, rate_hz=1), "a CPU list is a text such as 2-3,8 or numbers: got 2"),
        (
            lambda: scenarios.interrupts([], rate_hz=1),
            "actor 'residual': names no CPU: give CPU numbers, or isolated or housekeeping or all",
        ),
        (
            lambda: scenarios.spin(cpu for cpu in ()),
            "actor 'spin': names no CPU: give CPU numbers, or isolated or housekeeping or all",
        ),
        (
            lambda: scenarios.spin("isolate"),
            "actor 'spin': unknown place 'isolate', did you mean 'isolated'?",
        ),
        (lambda: Actor(name="a", on="all", kind="spin", params=5), "actor 'a': params are a mapping: got 5"),
        (lambda: scenarios.quiet().replace(name=5), "scenario: name must be a text: got 5"),
        (
            lambda: scenarios.quiet().replace(abstraction=None),
            "scenario: abstraction must be a text: got None",
        ),
        (
            lambda: scenarios.quiet().replace(actors=5),
            "scenario 'quiet': actors are a sequence of Actor: got 5",
        ),
        (
            lambda: scenarios.quiet().replace(duration_s=0),
            "scenario 'quiet': duration_s must be a finite number above 0 and at most 4.61169e+06: got 0",
        ),
        (
            lambda: scenarios.from_array(np.zeros((2, 2), int)),
            "from_array: page numbers are integers from 0 to 2**64 - 1: got [0 0] at 0",
        ),
        (
            lambda: scenarios.from_array([3, True]),
            "from_array: page numbers are integers from 0 to 2**64 - 1: got True at 1",
        ),
        (
            lambda: scenarios.from_array([3, 1 << 64]),
            "from_array: page numbers are integers from 0 to 2**64 - 1: got 18446744073709551616 at 1",
        ),
        (
            lambda: scenarios.from_array([-1]),
            "from_array: page numbers are integers from 0 to 2**64 - 1: got -1 at 0",
        ),
        (lambda: scenarios.zipf(1 << 25), "pages must be an integer from 1 to 16777216: got 33554432"),
        (lambda: scenarios.zipf(2, s=-1), "zipf: s must be a finite number of at least 0: got -1"),
        (
            lambda: scenarios.stream("all", 5, rate_hz=1),
            "stream: a pattern is made by zipf and its like, or phases of them: got 5",
        ),
        (
            lambda: scenarios.stream("all", [(1,)], rate_hz=1),
            "stream: a phase is a pair of touches and a pattern: got [(1,)]",
        ),
        (
            lambda: scenarios.stream("all", [(0, scenarios.zipf(1))], rate_hz=1),
            "touches must be an integer from 1 to 16777216: got 0",
        ),
        (lambda: scenarios.by_name(5), "unknown scenario 5: known are "),
        (
            lambda: scenarios.by_name("quiet", cpu=3),
            "scenario 'quiet': unknown parameter 'cpu', did you mean 'cpus'?",
        ),
    ],
)
def test_what_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(tc.SimError) as found:
        make()
    assert str(found.value)[: len(said)] == said if said.endswith(" ") else str(found.value) == said


def test_further_areas_are_a_list() -> None:
    with pytest.raises(TypeError, match=r"vfree: then must be Iterable\[int\]: got 3 \(int\)"):
        scenarios.vfree(rate_hz=1, pages=1, then=3)  # type: ignore[arg-type]


def test_cpus_that_can_be_read_once_are_read_once() -> None:
    assert scenarios.interrupts((cpu for cpu in (3, 2, 3)), rate_hz=1).on == (3, 2, 3)  # type: ignore[arg-type]
    assert scenarios.interrupts("2-3", rate_hz=1).on == (2, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, "scenario None: the key 'name' is missing"),
        ({"cpus": None}, "scenario 'quiet': the key 'cpus' is missing"),
        ({"rcu_ps": None}, "scenario 'quiet': the key 'rcu_ps' is missing"),
        ({"actors": None}, "scenario 'quiet': the key 'actors' is missing"),
        (
            {"duration_ps": 10**400},
            "scenario 'quiet': a value has the wrong kind: int too large to convert to float",
        ),
        ({"actors": [5]}, "scenario 'quiet': an actor must be a JSON object: got 5"),
        ({"actors": [{"on": "all", "name": "x"}]}, "scenario 'quiet': the key 'kind' is missing"),
        ({"sokets": 1}, "scenario 'quiet': unknown key 'sokets', did you mean 'sockets'?"),
    ],
)
def test_a_text_that_is_no_scenario(changes: dict[str, Any], said: str) -> None:
    data = json.loads(scenarios.quiet().to_json())
    text = json.dumps({key: value for key, value in {**data, **changes}.items() if value is not None or key in (
        "flush_mask", "lazy_max_pages")})  # fmt: skip
    with pytest.raises(tc.SimError) as found:
        Scenario.from_json(text)
    assert str(found.value) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "the text is no JSON: Expecting"),
        ("[]", "the text must be a JSON object: got list"),
        ('{"a":' * 100_000, "the text is no JSON: it is nested too deeply"),
    ],
)
def test_what_is_no_json(text: str, said: str) -> None:
    with pytest.raises(tc.SimError) as found:
        Scenario.from_json(text)
    assert str(found.value).startswith(f"scenario: {said}")


def test_times_of_actors_are_whole_picoseconds() -> None:
    made = scenarios.vfree("all", rate_hz=4, pages=2, then=[3, 1], apart_ms=1.5, roams_ms=4).to_data()
    assert made == {
        "name": "vfree", "on": "all", "kind": "vfree", "gap": gap(250 * 10**9), "pages": 2, "then": [3, 1],
        "apart_ps": 1_500_000_000, "roams_ps": 4 * 10**9,
    }  # fmt: skip
    assert scenarios.vfree(rate_hz=1, pages=2).to_data()["roams_ps"] is None
    fault = scenarios.faults(rate_hz=4, poisson=False, body_us=1.5).to_data()
    assert fault == {
        "name": "faults", "on": "isolated", "kind": "faults", "gap": gap(250 * 10**9, False),
        "body_ps": 1_500_000, "by": "exception",
    }  # fmt: skip
    assert scenarios.faults(rate_hz=4).params["body_ps"] == 500_000
    nmi = {"name": "nmis", "on": "isolated", "kind": "nmis", "gap": gap(10**12), "body_ps": 2_000_000}
    assert scenarios.nmis(rate_hz=1).to_data() == nmi
    assert scenarios.interrupts(rate_hz=1e-30).params["gap"] == gap(1 << 62)
    assert scenarios.interrupts(rate_hz=1e9).params["gap"] == gap(1000)
    threads = scenarios.tasks([], (0,), rate_hz=1, shared=True, also_on=(2, 3)).to_data()
    assert (threads["also_on"], threads["on"]) == ({"cpus": [2, 3]}, {"cpus": [0]})


def test_patterns_of_pages() -> None:
    assert scenarios.sequential(3) == {"sequential": {"pages": 3, "stride": 1}}
    assert scenarios.sequential(3, stride=2) == {"sequential": {"pages": 3, "stride": 2}}
    assert scenarios.pointer_chase(3) == {"chase": {"pages": 3}}
    assert scenarios.zipf(4) == {"weighted": {"weights": [2**31, 2**30, 715827883, 2**29]}}
    assert scenarios.zipf(3, s=100) == {"weighted": {"weights": [2**31, 1, 1]}}
    assert scenarios.from_array(np.array([3, 0], np.uint8)) == {"array": {"pages": [3, 0]}}
    assert scenarios.from_array([2**64 - 1]) == {"array": {"pages": [2**64 - 1]}}
    chase = scenarios.pointer_chase(3)
    assert scenarios.stream("all", chase, rate_hz=4).to_data() == {
        "name": "stream", "on": "all", "kind": "stream", "gap": gap(250 * 10**9, False),
        "phases": [{"pattern": chase}],
    }  # fmt: skip
    two = scenarios.stream("all", [(1, chase), (1 << 24, chase)], rate_hz=4, poisson=True, name="n").to_data()
    assert (two["name"], two["gap"]["exponential"]) == ("n", True)
    assert two["phases"] == [{"touches": 1, "pattern": chase}, {"touches": 1 << 24, "pattern": chase}]


def test_what_a_scenario_holds_is_plain() -> None:
    load = scenarios.quiet().replace(
        flush_mask="1,3", lazy_max_pages=np.int64(9), extra_ipi_ms=0.5, rcu_ms=1.5
    )
    data = json.loads(load.to_json())
    assert (data["flush_mask"], data["lazy_max_pages"]) == ([1, 3], 9)
    assert (data["extra_ipi_ps"], data["rcu_ps"]) == (500_000_000, 1_500_000_000)
    assert Scenario.from_json(load.to_json()).to_json() == load.to_json()
    steps = scenarios.chain([{"program": "purge", "pages": np.int64(2), "cause": "purge"}], rate_hz=1)
    made = load.replace(actors=(scenarios.spin("all"), steps))
    assert json.loads(made.to_json())["actors"][1]["steps"] == [
        {"program": "purge", "pages": 2, "cause": "purge"}
    ]
    with pytest.raises(
        tc.SimError, match=r"scenario 'quiet': a number, a text or a list was expected in a step: got 1j"
    ):
        load.replace(actors=(scenarios.chain([{"program": 1j}], rate_hz=1),))  # fmt: skip
    assert load.replace(duration_s=1e-15).to_json().count('"duration_ps": 1,') == 1
