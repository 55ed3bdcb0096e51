"""Programs made from bytes: built-in policies whose statements are dropped, doubled, moved and taken from each other.

Bytes decide a random generator and nothing else, so that every input is a program: fuzzing the text alone hardly passes
the parser. What is made must be refused, or else the checker's and the timed machine's runs of it end, and they agree:
what the timed machine breaks in its few milliseconds the checker may not call verified.
"""

from __future__ import annotations

import random
from functools import cache

Lines = list[str]

_WORDS = ("others", "housekeeping", "targets", "flush_mask", "me", "fence", "1", "0")
_MEMORY = 1 << 23


@cache
def texts() -> tuple[tuple[str, ...], ...]:
    """Return the lines of every built-in policy, without comments and blank lines."""
    import tlbcore as tc

    whole = (policy.text.splitlines() for policy in tc.policies.values())
    return tuple(
        tuple(line for line in lines if line.strip() and not line.strip().startswith("#")) for lines in whole
    )


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block(lines: Lines, at: int) -> int:
    """Return where the statement at a line ends, with what stands below it."""
    end = at + 1
    while end < len(lines) and _depth(lines[end]) > _depth(lines[at]):
        end += 1
    return end


def _statements(lines: Lines) -> list[int]:
    """Return the lines that are statements: below the name of a section, not of the header."""
    sections = [i for i, line in enumerate(lines) if _depth(line) == 0][1:]
    return [i for i in range(sections[0], len(lines)) if _depth(lines[i])] if sections else []


def program(data: bytes) -> str:
    """Return the program that bytes stand for."""
    rng = random.Random(data)
    lines = list(rng.choice(texts()))
    for _ in range(1 << rng.randrange(3)):
        places = _statements(lines)
        if not places:
            break
        at = rng.choice(places)
        end = _block(lines, at)
        kind = rng.randrange(5)
        if kind == 0:
            del lines[at:end]
        elif kind == 1:
            lines[at:at] = lines[at:end]
        elif kind == 2 and end < len(lines) and _depth(lines[end]) == _depth(lines[at]):
            after = _block(lines, end)
            lines[at:after] = lines[end:after] + lines[at:end]
        elif kind == 3:
            donor = list(rng.choice(texts()))
            if found := _statements(donor):
                start = rng.choice(found)
                shift = _depth(lines[at]) - _depth(donor[start])
                moved = [
                    " " * (_depth(line) + shift) + line.lstrip()
                    for line in donor[start : _block(donor, start)]
                ]
                lines[at:at] = moved
        elif kind == 4:
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = rng.choice(_WORDS)
            if "".join(words).strip():
                lines[at] = " ".join(words)
    return "\n".join(lines) + "\n"


def agree(data: bytes) -> None:
    """Run the program that bytes stand for in both machines; fail if the timed one breaks what is verified."""
    import tlbcore as tc
    from tlbcore.policy import Policy

    policy = Policy(text=program(data))
    ran = tc.simulate(
        tc.scenarios.syscall_heavy(duration_s=0.001, cpus=3, isolated="1-2"), policy=policy, timeline=0
    )
    verdict = tc.check(policy, cpus=2, nmis=0, memory=_MEMORY, threads=1)
    # A %gs-relative access under the user's GSBASE is no violation of the default `gs=works`: the verdict tells
    # its run apart.
    told = verdict.wrong_gs is not None and str(ran.violation).startswith("wrong_gs_access")
    assert not (verdict.status == "verified" and ran.violation and not told), (
        f"verified, and the timed machine breaks it: {ran.violation}\n{policy.text}"
    )
