"""Text of unknown origin, made safe to show: the one place where control characters become visible.

Names of processes, tasks and files, markers in a recording and files of a host directory are chosen by whoever runs
something on the recorded machine. Printed as they are they can move the cursor, hide text, turn its direction or set
a terminal's title. Whatever tlbcore prints for people passes `visible`; JSON escapes by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

# Control characters but tab and newline, formatting characters (what turns the direction of text, has no width, or is a
# tag), ends of lines that are no newline, halves of surrogate pairs, private use (Unicode's Cc, Cf, Zl, Zp, Cs and Co),
# and the letters and marks that are blank: fillers, the grapheme joiner and variation selectors.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\uf8ff\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U0010ffff]"
)


def visible(text: str) -> str:
    r"""Return the text with what cannot be seen written as Python would write it.

    Tab and newline stay. Bytes of a file name that are not UTF-8, which Python holds as halves of surrogate pairs,
    are written as bytes.

    >>> print(visible("kworker\x1b[2J"), visible("a\u202eb"), visible("f\udcff"))
    kworker\x1b[2J a\u202eb f\xff
    """
    return _HIDDEN.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Return the text as `visible` does, and on one line.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class NamedStream:
    """A text stream whose failures, such as a full disk, say which stream it was."""

    def __init__(self, behind: IO[str], name: str) -> None:
        self.behind, self._name = behind, name

    def write(self, text: str) -> int:
        """Write the text."""
        with naming(self._name):
            return self.behind.write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with naming(self._name):
            self.behind.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


class VisibleStream(NamedStream):
    """A text stream that writes what `visible` makes of a text; everything else is the stream's own.

    What draws on a terminal itself (bars, styled tables) writes to `drawn_on`, and passes its texts through `visible`.
    """

    def write(self, text: str) -> int:
        """Write the text with hidden characters made visible."""
        super().write(visible(text))
        return len(text)


def drawn_on(stream: Any) -> IO[str]:
    """Return the stream that takes a terminal's control sequences."""
    if isinstance(stream, VisibleStream):
        return cast("IO[str]", NamedStream(stream.behind, stream._name))
    return cast("IO[str]", stream)


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Give an `OSError` without a file name the name of the file that was written or read.

    The kernel's answers to reads and writes (no space left, input/output error) do not say which file it was.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, BlockingIOError):
            error.filename = file
        raise
