"""The slow, obvious twin of the checker: x86-TSO, plain breadth-first search over tuples.

It shares the assembled ops with the fast checker and nothing else, so that an error in either shows as a
disagreement. It is written from SEMANTICS: `_state` says what a state is, `_moves` what can happen in it, `_ops` what
an op does, `_memory`, `_translations` and `_accesses` what that is made of. Nothing is reduced, renamed or packed.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from tlbcore.policy import FEATURES, Policy, as_policy
from tlbcore.reference._counts import ranked
from tlbcore.reference._grace import settled
from tlbcore.reference._model import Model
from tlbcore.reference._moves import moves
from tlbcore.reference._scope import Question, of_litmus, of_policy
from tlbcore.reference._state import Overflow, State, Violation

__all__ = ["Exploration", "explore", "explore_litmus"]

Status = Literal["verified", "violated", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What a search found.

    `status` is `verified` (within these bounds), `violated`, or `inconclusive`: a value outgrew its variable, or
    there are more than `limit` states. `states` counts distinct states, `steps` is the length of the shortest
    violation or -1, `violation` its rule, `schedule` the moves that lead there. `rules` has every rule that some run
    breaks, with the length of the shortest, if all were asked for. `found` says it as a litmus test does.
    """

    status: Status
    states: int
    steps: int
    violation: str
    schedule: tuple[str, ...]
    rules: Mapping[str, int] = field(default_factory=dict)
    found: str


def explore(
    policy: str | Policy,
    *,
    roles: str = "purge; isolated 2",
    assume: Mapping[str, str] | None = None,
    nmis: int = 0,
    mces: int = 0,
    asids: int = 1,
    pages: int = 1,
    features: Sequence[str] = FEATURES,
    limit: int = 2_000_000,
    every: bool = False,
) -> Exploration:
    """Explore every interleaving and return what was found.

    Parameters
    ----------
    policy
        Built-in name, file or policy.
    roles
        What each CPU does, as in `check`.
    assume
        Assumptions by the names of `check`.
    nmis
        NMIs in all.
    mces
        Machine checks in all.
    asids
        ASIDs per CPU, 1 or 2.
    pages
        Tracked pages, where the policy declares none.
    features
        What the machine offers.
    limit
        States after which the search gives up.
    every
        Go on after a violation, until every reachable state has been seen.

    Raises
    ------
    NotImplementedError
        If the roles or assumptions are none of those this explorer has.
    PolicyError
        If the policy does not parse or assemble.
    """
    question = of_policy(
        as_policy(policy),
        roles=roles,
        assume=assume or {},
        features=features,
        bounds={"nmis": nmis, "mces": mces, "asids": asids, "pages": pages},
    )
    return _search(question, limit, every=every)


def explore_litmus(test: str, *, limit: int = 2_000_000, every: bool = False) -> Exploration:
    """Explore a litmus test.

    Parameters
    ----------
    test
        The text.
    limit
        States after which the search gives up.
    every
        Go on after a violation, until every reachable state has been seen.

    Raises
    ------
    NotImplementedError
        If the header or the columns ask for what this explorer does not have.
    PolicyError
        If the text does not parse or assemble.
    """
    return _search(of_litmus(test), limit, every=every)


# -- the search --------------------------------------------------------------------------------------------------


@contextmanager
def _uncollected() -> Iterator[None]:
    """States hold no cycles: looking for some among half a million of them takes as long as the search."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def _search(question: Question, limit: int, *, every: bool) -> Exploration:
    m = Model(question)
    found = _Found(m, every=every)
    for at, state in enumerate(found.states):  # which grow: first in, first out
        stuck = True
        value = partial(m.value_of, state)
        if question.never is not None and question.never(value):
            found.breaks("invariant", at, None)
            continue
        for move, happens, make in moves(m, state):
            stuck = stuck and not happens
            try:
                found.reach(ranked(m, settled(m, make())), at, move, happens=happens)
            except Violation as rule:
                found.breaks(str(rule), at, move)
            except Overflow:
                return found.inconclusive()
        if stuck and not _rests(state):  # S11: a CPU waits for ever
            found.breaks("deadlock", at, None)
        elif stuck and question.is_answered_by_an_end(value):
            found.breaks("invariant", at, None)
        if found.first is not None and not every:
            break
        if len(found.states) > limit:
            return found.inconclusive()
    else:
        if found.first is None and (endless := found.endless()) is not None:
            found.breaks("livelock", endless, None)
    asks = any(asked is not None for asked in (question.exists, question.forall, question.never))
    if found.first is None and (
        "a promise without a request" in m.seen or (not asks and m.about_promises and not m.seen)
    ):
        return found.inconclusive("nothing was asked")
    return found.over()


def _rests(state: State) -> bool:
    return not any(cpu.frames for cpu in state.cpus)


class _Found:
    """The states found so far, by number, how each was reached, and which rules were broken."""

    def __init__(self, m: Model, *, every: bool) -> None:
        start = m.first()
        self.asks = m.question.exists is not None
        self.every = every
        self.states = [start]
        self.number = {start: 0}
        self.via: list[tuple[int, str]] = [(-1, "")]
        self.before: list[list[int]] = [[]]
        self.first: tuple[str, list[str]] | None = None
        self.rules: dict[str, int] = {}

    def reach(self, state: State, at: int, move: str, *, happens: bool) -> None:
        number = self.number.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self.via.append((at, move))
            self.before.append([])
        if happens:
            self.before[number].append(at)

    def breaks(self, rule: str, at: int, move: str | None) -> None:
        """Note that a rule is broken in a state, or by a move from it."""
        if rule in self.rules:
            return
        path = self.path(at) + ([] if move is None else [move])
        self.rules[rule] = len(path)
        if self.first is None or len(path) < len(self.first[1]):
            self.first = rule, path

    def endless(self) -> int | None:
        """Return the first state from which no run ends (S11: a loop that nothing leaves)."""
        ends = [_rests(state) for state in self.states]
        queue = deque(number for number, end in enumerate(ends) if end)
        while queue:
            for number in self.before[queue.popleft()]:
                if not ends[number]:
                    ends[number] = True
                    queue.append(number)
        return next((number for number, end in enumerate(ends) if not end), None)

    def path(self, at: int) -> list[str]:
        out = []
        while at:
            at, move = self.via[at]
            out.append(move)
        return out[::-1]

    def inconclusive(self, why: str = "") -> Exploration:
        return self._exploration("inconclusive", "inconclusive" + (f": {why}" if why else ""))

    def over(self) -> Exploration:
        if self.first is None:
            return self._exploration("verified", "forbidden" if self.asks else "verified")
        rule, _ = self.first
        return self._exploration(
            "violated", "allowed" if self.asks and rule == "invariant" else f"violated: {rule}"
        )

    def _exploration(self, status: Status, found: str) -> Exploration:
        rule, path = self.first if self.first is not None and status == "violated" else ("", None)
        return Exploration(
            status=status,
            states=len(self.states),
            steps=-1 if path is None else len(path),
            violation=rule,
            schedule=tuple(path or ()),
            rules=self.rules,
            found=found,
        )
