"""The sentence of a verdict, word by word, from what was asked and the figures beside it: questions drawn at random."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

import tlbcore as tc

# What each value of an assumption adds to the sentence, in its order; nothing where it is the weakest.
PHRASES = [
    ("D", {"none": "D=none", "directmap": "D=directmap", "recycled": "D=recycled"}),
    ("N", {"none": "N=none", "directmap": "N=directmap", "recycled": "N=recycled"}),
    (
        "invpcid",
        {
            "unordered": "INVPCID waits for no store",
            "ordered": "INVPCID waits for this CPU's page-table stores",
            "publishes": "INVPCID publishes",
        },
    ),
    ("tce", {"on": "", "off": "TCE off"}),
    ("interrupts", {"drain": "", "keep": "delivery of interrupts publishes nothing"}),
    ("broadcast", {"keeps": "", "drains": "TLBSYNC and RAR make remote stores visible"}),
    ("", {"": "an invalidation cancels walks in flight"}),
    ("walks", {"monotonic": "walks=monotonic"}),
    ("stores", {"buffered": "", "sc": "sequential consistency"}),
    ("fills", {"speculative": "", "demand": "fills at accesses only"}),
    ("range", {"full": "", "pages": "ranges flushed page by page"}),
]


ALONE = ", a second housekeeping CPU among them"


@dataclass
class Asked:
    """A question: what it is in words, and as arguments of `check`."""

    policy: str
    rounds: list[int]
    entries: list[int]
    paths: list[str]
    nmis: int
    mces: int
    asids: int
    pages: int
    assume: dict[str, str]

    def roles(self) -> str:
        senders = [f"purge*{n}" if n > 1 else "purge" for n in self.rounds]
        isolated = [f"isolated {n} by {path}" for n, path in zip(self.entries, self.paths, strict=True)]
        return "; ".join([*senders, *isolated])

    def keywords(self) -> dict[str, Any]:
        counts = {"nmis": self.nmis, "mces": self.mces, "asids": self.asids, "pages": self.pages}
        return {"roles": self.roles(), "world": "pti", "assume": self.assume, **counts}

    def bounds(self) -> str:
        """What bounds the search, as SEMANTICS says it: each number with its noun in the right number."""

        def of(count: int, noun: str, plural: str = "") -> str:
            return f"{count} {noun if count == 1 else plural or noun + 's'}"

        parts = [
            f"{len(self.rounds) + len(self.entries)} CPUs",
            of(self.pages, "page"),
            of(self.asids, "ASID"),
        ]
        if self.entries:
            parts.append(f"{of(max(self.entries), 'entry', 'entries')} per isolated CPU")
        parts.append(of(sum(self.rounds), "flush round"))
        parts.append(f"at most {of(self.nmis, 'NMI')}" if self.nmis else "no NMIs")
        parts.append(f"at most {of(self.mces, '#MC')}" if self.mces else "no #MCs")
        by = [path for n, path in zip(self.entries, self.paths, strict=True) if n]
        by = list(dict.fromkeys(by))
        if by:
            parts.append(f"entries by {', '.join(by)}")
        parts.append("device interrupts amid the kernel")
        return ", ".join(parts)

    def beginning(self) -> str:
        """What bounds it but for NMIs and machine checks, which a violation may not need."""
        return self.bounds().partition(", no NMIs" if not self.nmis else ", at most")[0]

    def assuming(self) -> str:
        value = {"walks": "monotonic", "D": "none", "N": "none", "": "", **self.assume}
        if not self.nmis + self.mces:
            value["N"] = "none"
        said = [values[value.get(name, next(iter(values)))] for name, values in PHRASES]
        return f"assuming {', '.join(phrase for phrase in said if phrase)}"

    def tail(self) -> str:
        """What follows the sentence proper."""
        about = f" Asked about: the roles {self.roles()}."
        nmi = self.assume["N"]
        if nmi == "none" or self.nmis + self.mces:
            return about
        return f"{about} N={nmi} is about NMIs and machine checks, and there are none: left out."

    def stands(self) -> str:
        """With how many CPUs it was searched: isolated ones of one kind do not need two."""
        kinds = set(zip(self.entries, self.paths, strict=True))
        count = len(self.rounds) + len(kinds)
        return f" of {count} CPUs, where one isolated CPU stands for any number of its kind" if kinds else ""

    def verified(self, found: tc.Verdict, confirmed: str) -> str:
        buffers = "" if self.assume.get("stores") == "sc" else "store buffers exact; "
        return (
            f"Verified (bounded): no violation in any interleaving of {self.bounds()}, world pti of Linux 6.12; "
            f"{buffers}{found.states} states{self.stands()}, none truncated; {self.assuming()}; not modelled: hotplug, "
            "SMM, TLBs shared by SMT siblings, guests, top-level entries that some mm lacks; larger scopes "
            f"unexplored{ALONE if len(self.rounds) == 1 else ''}. {confirmed}.{self.tail()}"
        )


def drawn(seed: int) -> Asked:
    rng = random.Random(seed)
    isolated = rng.choice((0, 1, 1, 1, 2))
    assume = {
        "D": rng.choice(("none", "none", "recycled", "directmap")),
        "N": rng.choice(("none", "recycled")),
    }
    for name, values in PHRASES[2:]:
        if name and rng.random() < 0.4:
            assume[name] = rng.choice(list(values))
    return Asked(
        policy=rng.choice(("ipi", "ipi", "coalesce-v7", "coalesce-v7-fixed", "pending-bit")),
        rounds=[rng.choice((1, 1, 2))] if isolated else [1, rng.choice((1, 2))],
        entries=[rng.choice((0, 1, 1)) for _ in range(isolated)],
        paths=[rng.choice(("syscall", "syscall", "sysenter_compat", "exception")) for _ in range(isolated)],
        nmis=int(rng.random() < 0.25),
        mces=int(rng.random() < 0.1),
        asids=rng.choice((1, 1, 2)),
        pages=rng.choice((1, 1, 2)),
        assume=assume,
    )


def test_a_sentence_says_what_was_asked_and_what_was_found() -> None:
    verified = violated = confirmed = 0
    for seed in range(48):
        asked = drawn(seed)
        how = {"threads": 1, "memory": 16 << 20, **asked.keywords()}
        found = tc.check(asked.policy, confirm=False, **how)
        if found.status == "verified":
            assert found.sentence == asked.verified(found, "Not confirmed unreduced")
            verified += 1
            if found.states < 1000:
                plain = tc.check(asked.policy, reduce=False, **how)
                said = f"Confirmed unreduced ({plain.states} states)"
                assert tc.check(asked.policy, confirm=True, **how).sentence == asked.verified(found, said)
                confirmed += 1
        elif found.status == "violated":
            assert found.counterexample is not None
            moves = sum(int(token.partition("*")[2] or 1) for token in found.counterexample.schedule.split())
            words = f"Violated: {found.rule} in {moves} moves, within {asked.beginning()}, "
            assert found.sentence.startswith(words), (found.sentence, words)
            assert found.sentence.endswith(f".{asked.tail()}")
            violated += 1
        else:
            words = f"at depth {found.depth} with {found.states} states, none of them violating; {asked.bounds()}, "
            assert words in found.sentence
    assert min(verified, violated, confirmed) >= 5, (verified, violated, confirmed)


ISOLATED_ALONE = """policy isolated-alone
  "Interrupts isolated CPUs, and no other."
  source "a test"

flush_kernel_range
  each cpu in nohz_full
    put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks
"""


@pytest.mark.parametrize(
    ("bounds", "alone", "status"),
    [
        ({}, True, "verified"),
        ({"cpus": 3}, True, "verified"),
        ({"roles": "purge; isolated 1; isolated 1"}, True, "verified"),
        ({"roles": "purge; idle; isolated 1"}, False, "violated"),
        ({"roles": "purge; purge; isolated 1"}, False, "violated"),
    ],
)
def test_a_flush_of_isolated_cpus_alone_passes_where_nobody_else_is_and_that_is_said(
    bounds: dict[str, Any], alone: bool, status: str
) -> None:
    found = tc.check(tc.Policy(text=ISOLATED_ALONE), world="nopti", **bounds)
    assert found.status == status
    assert (f"larger scopes unexplored{ALONE}. " in found.sentence) is alone
    mainline = tc.check("ipi", world="nopti", roles=bounds.get("roles", "purge; isolated 1"))
    assert (ALONE in mainline.sentence) is alone
