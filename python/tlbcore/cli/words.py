"""`tlbcore words`."""

from __future__ import annotations

from typing import Annotated

import typer

from tlbcore.cli import _common


def command(
    word: Annotated[str | None, typer.Argument(help="One word; all of them if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the words of reports mean."""
    from tlbcore._output.legend import WORDS, legend

    chosen = WORDS
    if word is not None:
        forms = {form.lower(): entry for entry in WORDS for form in entry[0].split("|")}
        if word.lower() not in forms:
            from tlbcore._input.names import unknown

            _common.fail(unknown("word", word, [form for entry in WORDS for form in entry[0].split("|")]))
        chosen = (forms[word.lower()],)
    if json:
        rows = [
            {"word": forms.split("|")[0], "forms": forms.split("|"), "meaning": text}
            for forms, text in chosen
        ]
        _common.print_json("words", 1, words=rows)
    else:
        print(legend(chosen, _common.width()))
