"""Machines that are one TLB, for tests and benches."""

from __future__ import annotations

import tlbcore as tc


def one_tlb(ways: int, sets: int = 1, *, name: str = "one-tlb", more: str = "") -> tc.Machine:
    """Return a CPU whose only TLB holds 4K pages in `sets` sets of `ways` ways; `more` are further lines of it."""
    text = f"""
name = "{name}"
inherits = "_generic"
[cpu]
mhz = 1000
[[level]]
name = "l1"
[[level.structure]]
name = "l1"
sets = {sets}
ways = {ways}
sizes = ["4K"]
{more}
"""
    return tc.Machine(name=name, text=text)
