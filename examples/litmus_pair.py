"""A litmus pair: an argument from a review, broken and mended. `python examples/litmus_pair.py`.

"The flag is stored before the generation is read, so the flusher sees one of the two." Not on x86: the store may still
wait in the store buffer. A locked operation between them publishes it.
"""

from __future__ import annotations

import tlbcore as tc

BROKEN = """litmus flag-then-generation
  verdict "allowed"
  "The entry's flag waits in the store buffer while the generation is read."
  source "own"
  exists "0:seen == 0 and 1:told == 0"
  var flag : 1 bit, shared, starts 0
  var gen : 1 bit, shared, starts 0

cpu 0
  flag = 1
  let seen = gen

cpu 1
  gen = 1
  fence
  let told = flag
"""
MENDED = BROKEN.replace('verdict "allowed"', 'verdict "forbidden"').replace(
    "  flag = 1\n  let seen", "  flag = 1\n  fence\n  let seen"
)


def main() -> None:
    """Run both; print the run that the first one allows."""
    for name, text in (("broken", BROKEN), ("mended", MENDED)):
        result = tc.litmus(text)
        assert result.ok, f"{name}: stated {result.stated}, found {result.found}"
        print(f"{name}: {result.found}, {result.states} states")
        if result.text:
            print(result.text)


if __name__ == "__main__":
    main()
