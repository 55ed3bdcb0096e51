"""A scenario: CPUs and the actors on them, checked, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from tlbcore import _core
from tlbcore._input.names import unknown
from tlbcore._input.numbers import count, quantity
from tlbcore.scenarios.actors import _MOST_PS, _PS, Actor, _ps, cpu_list


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A workload: CPUs and actors on them.

    Parameters
    ----------
    name, abstraction
        What it is called, and what it leaves out, in one sentence.
    duration_s
        Simulated seconds.
    cpus, isolated, sockets
        Online CPUs, the NOHZ_FULL ones among them (a list such as `18-43` or numbers), sockets.
    actors
        What happens.
    flush_mask
        CPUs for which the entry flush tests, where they are others than `isolated`.
    lazy_max_pages
        `lazy_max_pages()`, where it is tuned; None: the kernel's formula.
    rcu_ms, work_delay_us
        RCU grace period, and the time from queueing the purge work to its start (both unsourced).
    extra_ipi_ms
        Mean of an extra exponential delay of interrupts, for emulators.

    Raises
    ------
    SimError
        If no such machine can be: CPU 0 isolated, a CPU that does not exist, a negative or NaN time or rate,
        two foregrounds on one CPU. The message names the scenario, the actor and the rule.
    """

    name: str
    duration_s: float
    cpus: int
    isolated: tuple[int, ...]
    actors: tuple[Actor, ...]
    abstraction: str = ""
    sockets: int = 1
    flush_mask: tuple[int, ...] | None = None
    lazy_max_pages: int | None = None
    rcu_ms: float = 20.0
    work_delay_us: float = 20.0
    extra_ipi_ms: float = 0.0

    def __post_init__(self) -> None:
        for field in ("name", "abstraction"):
            if not isinstance(value := getattr(self, field), str):
                raise _core.SimError(f"scenario: {field} must be a text: got {value!r}")
        object.__setattr__(self, "isolated", cpu_list(self.isolated))
        if not isinstance(self.actors, Iterable) or not all(isinstance(a, Actor) for a in self.actors):
            raise _core.SimError(
                f"scenario {self.name!r}: actors are a sequence of Actor: got {self.actors!r}"
            )
        object.__setattr__(self, "actors", tuple(self.actors))
        if self.flush_mask is not None:
            object.__setattr__(self, "flush_mask", cpu_list(self.flush_mask))
        object.__setattr__(self, "_json", self._to_json())  # sweeps ask for it once per point
        _core.scenario_check(self.to_json())

    def to_json(self) -> str:
        """Return the scenario as the engine takes it: one JSON object, times in picoseconds."""
        text: str = self.__dict__["_json"]
        return text

    def _to_json(self) -> str:
        what = f"scenario {self.name!r}:"
        lazy = self.lazy_max_pages
        duration = quantity(self.duration_s, f"{what} duration_s", above_zero=True, most=_MOST_PS / _PS)
        return json.dumps(
            {
                "name": self.name,
                "abstraction": self.abstraction,
                "duration_ps": max(round(duration * _PS), 1),
                "cpus": count(self.cpus, f"{what} cpus", 1, 4096),
                "isolated": list(self.isolated),
                "sockets": count(self.sockets, f"{what} sockets", 1, 4096),
                "flush_mask": None if self.flush_mask is None else list(self.flush_mask),
                "lazy_max_pages": None if lazy is None else count(lazy, f"{what} lazy_max_pages"),
                "rcu_ps": _ps(self.rcu_ms, 1e9, f"{what} rcu_ms"),
                "work_delay_ps": _ps(self.work_delay_us, 1e6, f"{what} work_delay_us"),
                "extra_ipi_ps": _ps(self.extra_ipi_ms, 1e9, f"{what} extra_ipi_ms"),
                "actors": [actor.to_data() for actor in self.actors],
            },
            default=lambda value: _plain(value, what),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the scenario that `to_json` wrote.

        Raises
        ------
        SimError
            If the text is no JSON object, lacks a key or has one that no scenario has, or if no such machine can be.

        Examples
        --------
        >>> from tlbcore.scenarios import spawn_storm
        >>> load = spawn_storm(duration_s=1)
        >>> Scenario.from_json(load.to_json()) == load
        True
        """
        try:
            data = json.loads(text)
        except RecursionError:
            raise _core.SimError("scenario: the text is no JSON: it is nested too deeply") from None
        except (TypeError, ValueError) as error:
            raise _core.SimError(f"scenario: the text is no JSON: {error}") from None
        if not isinstance(data, dict):
            raise _core.SimError(f"scenario: the text must be a JSON object: got {type(data).__name__}")
        what = f"scenario {data.get('name')!r}:"
        fields = dict(data)
        try:
            for name, ps, unit in _TIMES:
                fields[name] = fields.pop(ps) / unit
            actors = [_actor_of(actor, what) for actor in fields.pop("actors")]
            fields["isolated"] = tuple(fields["isolated"])
        except KeyError as error:
            raise _core.SimError(f"{what} the key {error.args[0]!r} is missing") from None
        except (TypeError, OverflowError) as error:
            raise _core.SimError(f"{what} a value has the wrong kind: {error}") from None
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise _core.SimError(f"{what} {unknown('key', name, known)}")
        for name in ("name", "cpus"):
            if name not in fields:
                raise _core.SimError(f"{what} the key {name!r} is missing")
        return cls(**fields, actors=tuple(actors))

    def replace(self, **changes: Any) -> Self:
        """Return a scenario with some fields changed."""
        return dataclasses.replace(self, **changes)


# Fields of a scenario that are times: name, key in the JSON, picoseconds of one.
_TIMES = (
    ("duration_s", "duration_ps", 1e12),
    ("rcu_ms", "rcu_ps", 1e9),
    ("work_delay_us", "work_delay_ps", 1e6),
    ("extra_ipi_ms", "extra_ipi_ps", 1e9),
)


def _actor_of(data: Any, what: str) -> Actor:
    if not isinstance(data, dict):
        raise _core.SimError(f"{what} an actor must be a JSON object: got {data!r}")
    params = dict(data)
    on = params.pop("on")
    if isinstance(on, dict):
        on = tuple(on["cpus"])
    return Actor(name=params.pop("name"), on=on, kind=params.pop("kind"), params=params)


def _plain(value: object, what: str) -> object:
    """Return NumPy's numbers and arrays as Python's: steps may hold them."""
    plain = getattr(value, "tolist", None)
    if plain is None:
        raise _core.SimError(f"{what} a number, a text or a list was expected in a step: got {value!r}")
    return plain()
