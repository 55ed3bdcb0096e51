"""Each message of the policy language, and where it points: texts with one fault each.

In tests/data/language_errors.txt `== LINE:COLUMN: MESSAGE` stands in front of the text that gets it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_policy import test_an_error_names_file_line_column_and_rule as older

import tlbcore as tc

ROOT = Path(__file__).parents[2]
TEXTS = (ROOT / "tests" / "data" / "language_errors.txt").read_text()
BLOCKS = re.split(r"^== ", TEXTS, flags=re.MULTILINE)[1:]
ROWS = [block.split("\n", 1) for block in BLOCKS]


def refused(text: str) -> str:
    with pytest.raises(tc.PolicyError) as error:
        tc.Policy(text=text, file="my.policy")
    return str(error.value)


@pytest.mark.parametrize(("said", "text"), ROWS)
def test_a_message_says_what_is_wrong_and_where(said: str, text: str) -> None:
    assert refused(text) == f"my.policy:{said}"


# Messages that no text alone can bring about, or whose tests stand elsewhere.
ELSEWHERE = {
    "`{}` is no local that holds a CR3 value": "every local can hold one; words written by a program, `op`",
    "a condition reads `{name}`, which holds a count: nothing but its order is kept": "litmus tests",
    "of a count per mm a value is compared with another one": "test_counts_per_mm.py",
    "`{}` has a copy per CPU: write `{0}[cpu]`": "kernel texts",
    "a PCID is `kernel` or `user`, not `{word}`": "words written by a program, `op`",
    "`put cpu` stands outside of `each cpu in`": "words written by a program, `op`",
    "`text` takes a site and a part, not `{} {part}`": "words written by a program, `op`",
    "`{}` is based on itself": "test_based_on_a_file.py",
    "stands behind": "test_based_on_a_file.py",
    "is no policy: it is the": "test_based_on_a_file.py",
    "a policy text has at most 65,534 lines": "a text of a mebibyte",
    "a policy has at most 254 programs and 4,096 ops": "a text of 4,096 ops",
    "indentation: a section's name stands in column 1": "the parser's own guard",
    "a policy text, a file": "test_based_on_a_file.py",
}
SOURCES = ROOT / "src" / "kernel"
RAISED = re.compile(r'(?:fail|Err\(error)\((?:[^;"]|::)*?"((?:[^"\\]|\\.|\\\n)*)"')


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the source tree is not here")
def test_every_message_of_the_language_has_its_row() -> None:
    """Literals of the parser and the assembler that are raised; `{...}` stands for anything."""
    said = [words for words, _ in ROWS]
    said += [refused(text) for mark in older.pytestmark for text, *_ in mark.args[1]]
    seen, missing = 0, []
    for path in [*SOURCES.glob("text/**/*.rs"), *SOURCES.glob("assemble/**/*.rs"), SOURCES / "assemble.rs"]:
        source = path.read_text().split("#[cfg(test)]")[0]
        for raised in RAISED.finditer(source):
            literal = re.sub(r"\\\n\s*", "", raised[1]).replace('\\"', '"')
            pattern = ".*".join(map(re.escape, re.split(r"\{[^{}]*\}", literal)))
            if " " not in literal or any(words in literal for words in ELSEWHERE):
                continue
            seen += 1
            if not any(re.search(pattern, message) for message in said):
                missing.append((path.name, literal))
    assert not missing
    assert seen > 60
