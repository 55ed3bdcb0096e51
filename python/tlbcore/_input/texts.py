"""Texts in the policy language, read from files: each with those of the files that it is based on behind it."""

from __future__ import annotations

from pathlib import Path

from tlbcore import _core


def read(path: Path) -> str:
    """Return the text of one file; an editor's byte order mark is left out.

    Raises
    ------
    OSError
        If the file cannot be read.
    PolicyError
        If it is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _core.PolicyError(f"{path}: not a text file: {error.reason} at byte {error.start}") from None


def with_bases(path: Path, text: str) -> str:
    """Return a file's text and, behind it, those of the files that it is `based on`, nearest first.

    The result says all that the files say wherever it is parsed, so it can be pickled, sent and hashed.

    Parameters
    ----------
    path
        Where the text was read from: what it is based on is named from there.
    text
        The text itself.

    Raises
    ------
    PolicyError
        If a file cannot be read, or a chain of them comes back to one; the message has the place that names it.
    """
    out, name, seen = text, str(path), [path.resolve()]
    while (base := _core.policy_based_on(text, name)) is not None:
        written, line, column = base
        path = path.parent / written
        place = f'{name}:{line}:{column}: based on "{written}"'
        if path.resolve() in seen:
            raise _core.PolicyError(f"{place}: {path} is one of those that are based on it")
        seen.append(path.resolve())
        try:
            text = read(path)
        except OSError as error:
            raise _core.PolicyError(f"{place}: {path}: {(error.strerror or str(error)).lower()}") from None
        if '\nfile "' in f"\n{text}":
            raise _core.PolicyError(
                f'{place}: {path} has a line `file "..."`, which stands between texts alone'
            )
        # Named as it is written: the text is the same in whatever folder it was read.
        out, name = f"{out.rstrip(chr(10))}\n\n{_core.policy_behind(written, text)}", written
    return out
