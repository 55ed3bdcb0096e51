"""Policies: programs of micro-ops as text, the same for the timed machine, the checker and a reader."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlbcore import _core
from tlbcore._input import texts
from tlbcore._input.door import door
from tlbcore._input.numbers import count

__all__ = ["FEATURES", "Policy", "as_policy", "policies"]

# What the Promela form knows of D.
PROMELA_DANGER = ("none", "recycled")
# An Intel server with PTI on and isolated CPUs configured: the machine of the series' measurements.
FEATURES = ("pti", "pcid", "invpcid", "housekeeping_overridden", "context_tracking")


@dataclass(frozen=True, kw_only=True, repr=False)
class Policy:
    """A TLB-flush policy: what kernel entry, exit, NMI, the flush initiator and the IPI handler do.

    Frozen; equal if the canonical texts are equal. `print(policy)` shows the text, which is also the pickled
    form. The language: `docs/policy-language.md`.

    Parameters
    ----------
    text
        A policy in the policy language.
    file
        Name used in errors and source places; the policy's name if left out.
    programs
        Sections of the text that nothing in it uses and that a role of `check` runs.

    Raises
    ------
    PolicyError
        If the text does not parse or assemble; the message has file, line and column.
    """

    text: str
    file: str = ""
    programs: tuple[str, ...] = field(default=(), compare=False)
    name: str = field(init=False, compare=False)
    doc: str = field(init=False, compare=False)
    source: tuple[str, ...] = field(init=False, compare=False)
    limits: tuple[str, ...] = field(init=False, compare=False)
    needs: tuple[str, ...] = field(init=False, compare=False)
    sections: tuple[str, ...] = field(init=False, compare=False)
    canonical: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parsed = _core.policy_parse(self.text, self.file or "policy", list(self.programs))
        object.__setattr__(self, "name", parsed["name"])
        object.__setattr__(self, "doc", parsed["doc"])
        object.__setattr__(self, "source", tuple(parsed["source"]))
        object.__setattr__(self, "limits", tuple(parsed["limits"]))
        object.__setattr__(self, "needs", tuple(parsed["needs"]))
        object.__setattr__(self, "sections", tuple(parsed["sections"]))
        object.__setattr__(self, "canonical", parsed["text"])
        if not self.file:
            object.__setattr__(self, "file", f"{parsed['name']}.policy")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Policy {self.name} {self.digest[:12]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical text, in hex: the same for texts that differ in comments and spacing."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def defers(self) -> tuple[str, ...]:
        """What the policy leaves out CPUs of: `flush`es of the kernel range, `sync`s of text patching, or both.

        `user` if it is about user ranges alone. It is what `check` asks about. Any other policy that defers nothing is
        asked about flushes.

        Examples
        --------
        >>> import tlbcore as tc
        >>> tc.policies["text-defer-v7"].defers
        ('sync',)
        """
        words = {"purge": "flush", "text_poke": "sync", "flush_mm": "user"}
        return tuple(words[initiator] for initiator in _core.check_initiators(self.text, self.file))

    @door
    def replace(self, *, name: str, header: Sequence[str] = (), **sections: Sequence[str] | str) -> Policy:
        """Return a policy with another name and some sections replaced or added.

        Parameters
        ----------
        name
            Name of the new policy.
        header
            Header lines to add, such as `op.var(...)`; a variable of the same name is replaced.
        **sections
            Section name to statements: a sequence from `tlbcore.op`, or text.

        Raises
        ------
        PolicyError
            If the result does not parse or assemble; the message names section, line and column.

        Examples
        --------
        >>> import tlbcore as tc
        >>> from tlbcore import op
        >>> mine = tc.policies["coalesce-v7"].replace(
        ...     name="mine", coalesce=[op.store("kernel_cr3_loaded", 1), op.fence(), op.invpcid(2)])
        >>> mine.name
        'mine'
        """
        bodies = [
            (section, body if isinstance(body, str) else "\n".join(body))
            for section, body in sections.items()
        ]
        if isinstance(header, str):
            raise _core.PolicyError(f"header is a list of lines: got the text {header!r}")
        lines = "\n".join(f"  {line}" for line in header)
        return Policy(text=_core.policy_replace(self.text, name, lines, bodies))

    @property
    def linux(self) -> str:
        """The version of Linux that what the policy does not replace is written from, such as `6.12`."""
        return _core.policy_linux(self.text, self.file)

    @door
    def on(self, kernel: str | Path) -> Policy:
        """Return this policy on another version of Linux, or on the paths of a kernel text.

        Parameters
        ----------
        kernel
            A version, `"6.12"` or `"7.3"`: the text's header says it then (`linux "7.3"`). Or a file such as `tlbcore
            extract` writes: its sections that neither the policy nor one that it is based on replaces take the place
            of those of `linux.kernel`.

        Raises
        ------
        PolicyError
            If there is no such version, the file is no kernel text, or the policy does not assemble on it.
        OSError
            If the file cannot be read.

        Examples
        --------
        >>> import tlbcore as tc
        >>> tc.policies["ipi"].linux, tc.policies["ipi"].on("7.3").linux
        ('6.12', '7.3')
        """
        if isinstance(kernel, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)+", kernel):
            return Policy(
                text=_core.policy_on_linux(self.text, self.file, kernel),
                file=self.file,
                programs=self.programs,
            )
        file = Path(kernel)
        text = file.read_text(encoding="utf-8", errors="replace")
        return Policy(
            text=_core.policy_on_kernel(self.text, self.file, text, file.name), programs=self.programs
        )

    @door
    def listing(self, features: Sequence[str] = FEATURES) -> list[tuple[str, int, str, str, str]]:
        """Return the ops both drivers run, as rows of (program, index, op, line, source place).

        Parameters
        ----------
        features
            What the machine and boot configuration offer; `if feature` folds by it.

        Raises
        ------
        PolicyError
            If a feature is unknown.
        """
        return _core.policy_listing(self.text, self.file, _listed(features))

    @door
    def code(self, features: Sequence[str] = FEATURES) -> dict[str, Any]:
        """Return the assembled ops, programs, variables and pages as plain data.

        Parameters
        ----------
        features
            What the machine and boot configuration offer; `if feature` folds by it.

        Raises
        ------
        PolicyError
            If a feature is unknown.
        """
        code: dict[str, Any] = json.loads(
            _core.policy_code(self.text, self.file, _listed(features), list(self.programs))
        )
        return code

    def promela(self, *, isolated: int = 2, entries: int = 2, danger: str = "none") -> str:
        """Return the policy as Promela, so that Spin gives a second opinion.

        One housekeeping CPU purges once; memory is sequentially consistent; no NMI; PTI, one ASID, one page.

        Parameters
        ----------
        isolated
            Isolated CPUs, 1 to 4.
        entries
            System calls each makes, 1 to 4.
        danger
            `none` or `recycled`: what code between the CR3 switch and the flush may touch (docs/semantics.md, A2).

        Raises
        ------
        PolicyError
            If the scope is out of bounds or an op has no Promela form.
        """
        for what, value in (("isolated", isolated), ("entries", entries)):
            count(value, what, 1, 4, _core.PolicyError)
        if danger not in PROMELA_DANGER:
            raise _core.PolicyError(f"danger must be `none` or `recycled`: got `{danger}`")
        return _core.policy_promela(self.text, self.file, isolated, entries, danger == "recycled")

    @classmethod
    def read(cls, path: str | Path, *, programs: Sequence[str] = ()) -> Policy:
        """Read a policy from a text file, and behind it those that it is `based on`.

        A line `based on "FILE"` names a file by its path from the one that says so; `text` holds all of them.

        Parameters
        ----------
        path
            The file.
        programs
            Sections of the text that nothing in it uses and that a role of `check` runs.

        Raises
        ------
        OSError
            If the file cannot be read.
        PolicyError
            If the text is no policy, or a file that it is based on cannot be read or is based on it.
        """
        path = Path(path)
        text = texts.with_bases(path, texts.read(path))
        return cls(text=text, file=str(path), programs=tuple(programs))


def _listed(features: Sequence[str]) -> list[str]:
    if isinstance(features, str):
        raise _core.PolicyError(f"features are a list of names: got the text {features!r}")
    return list(features)


@functools.cache
def _builtin(name: str) -> Policy:
    """Parse a built-in policy, once: policies are values."""
    return Policy(text=_core.policy_text(name))


class _Policies(Mapping[str, Policy]):
    """The built-in policies by name, in the order of the policy table."""

    def __getitem__(self, name: str) -> Policy:
        if name not in _core.policy_names():
            raise KeyError(name)
        return _builtin(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_core.policy_names())

    def __len__(self) -> int:
        return len(_core.policy_names())

    def __repr__(self) -> str:
        return f"<policies {', '.join(self)}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)


policies: Mapping[str, Policy] = _Policies()


def as_policies(policies: Sequence[str | Path | Policy]) -> list[Policy]:
    """Return the policies of a list.

    Raises
    ------
    PolicyError
        If it is no list (one name alone is none), or one of them is no policy.
    OSError
        If a file cannot be read.
    """
    if isinstance(policies, (str, Path, Policy)) or not isinstance(policies, Iterable):
        raise _core.PolicyError(f"policies are a list of names, files or policies: got {policies!r}")
    return [as_policy(policy) for policy in policies]


def as_policy(policy: str | Path | Policy, *, programs: Sequence[str] = ()) -> Policy:
    """Return the policy a name, a path or a policy stands for.

    A string is a built-in name, unless it ends in `.policy` or contains a `/`. `programs` are sections of a file
    that roles run.

    Raises
    ------
    PolicyError
        If no built-in policy has that name (the nearest is suggested), or the file holds no policy.
    OSError
        If the file cannot be read.
    """
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, (str, Path)):
        raise _core.PolicyError(f"a policy is a name, a file or a Policy: got {policy!r}")
    if isinstance(policy, Path) or policy.endswith(".policy") or "/" in policy:
        return Policy.read(policy, programs=programs)
    if not policy.strip():
        raise _core.PolicyError(f"a policy is a name, a file or a Policy: got {policy!r}")
    try:
        return _builtin(policy)
    except _core.PolicyError as error:  # a name is no place in a file
        raise _core.PolicyError(str(error).removeprefix(f"{policy}:1:1: ")) from None
