"""`tlbcore completion SHELL`: a script that lets a shell ask tlbcore what may come next.

The script sets `_TLBCORE_COMPLETE` and calls `tlbcore` with the words so far; `cli.main` then prints the candidates, a
line each, with a tab before what they mean. No candidates: the shell completes file names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from tlbcore.cli import _common

VARIABLE = "_TLBCORE_COMPLETE"

_SCRIPTS = {
    "bash": """\
# bash completion of tlbcore:  eval "$(tlbcore completion bash)"  in ~/.bashrc
_tlbcore() {
    local IFS=$'\\n'
    COMPREPLY=($(_TLBCORE_COMPLETE=1 "${COMP_WORDS[0]}" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f 1))
}
complete -o default -F _tlbcore tlbcore
""",
    "zsh": """\
#compdef tlbcore
# zsh completion of tlbcore:  eval "$(tlbcore completion zsh)"  in ~/.zshrc, after compinit
_tlbcore() {
    local -a lines found
    local line
    lines=("${(@f)$(_TLBCORE_COMPLETE=1 ${words[1]} "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in $lines; do
        [[ -n $line ]] && found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done
    if [[ ${words[CURRENT]} == --*=* ]]; then  # what stands before the `=` stays as it is
        compset -P '*='
        found=("${(@)found#--*=}")
    fi
    if (( ${#found} )); then _describe tlbcore found; else _files; fi
}
compdef _tlbcore tlbcore
""",
    "fish": """\
# fish completion of tlbcore:  tlbcore completion fish > ~/.config/fish/completions/tlbcore.fish
function __tlbcore_complete
    set -l words (commandline -opc)
    set -l found (_TLBCORE_COMPLETE=1 $words[1] $words[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        set -l option (string match -r -- '^--[^=]*=' (commandline -ct))
        for path in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' (commandline -ct)))
            printf '%s\\n' "$option$path"
        end
    end
end
complete -c tlbcore -f -a '(__tlbcore_complete)'
""",
}


def command(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")],
) -> None:
    """Print a script that completes commands, options and names in a shell."""
    from tlbcore._input.names import unknown

    if shell not in _SCRIPTS:
        _common.fail(unknown("shell", shell, _SCRIPTS))
    print(_SCRIPTS[shell], end="")


def candidates(
    words: Sequence[str], commands: Mapping[str, str], load: Callable[[str], Any]
) -> list[tuple[str, str]]:
    """Return what may stand in the place of the last word, each with what it means.

    `commands` are the names with their lines, and `load` gives the Typer command of one.
    """
    said, word = [w for w in words[:-1] if w != "="], (words[-1] if words else "")  # bash splits at `=`
    word = "" if word == "=" else word
    chosen = next((w for w in said if not w.startswith("-")), None)
    if chosen is None:
        top = {**commands, "--help": "Show what there is.", "--version": "Print the version."}
        return _starting(word, top.items())
    if chosen not in commands:
        return []
    if "--" in said[said.index(chosen) :]:
        return []  # behind it stands the command that `record` runs
    tree = load(chosen)
    for w in said[said.index(chosen) + 1 :]:
        tree = getattr(tree, "commands", {}).get(w, tree)
    if below := getattr(tree, "commands", None):
        return _starting(word, ((name, each.help or "") for name, each in below.items()))
    options = {name: each for each in tree.params for name in (*each.opts, *each.secondary_opts)}
    if word.startswith("--") and "=" in word:  # one word, where the shell does not split it
        name, _, begun = word.partition("=")
        if (asked := options.get(name)) is None or asked.is_flag:
            return []
        return [(f"{name}={value}", line) for value, line in _starting(begun, _values(chosen, asked.name))]
    before = options.get(said[-1]) if said else None
    if before is not None and said[-1].startswith("-") and not before.is_flag:
        return _starting(word, _values(chosen, before.name))
    if word.startswith("-"):
        named = {name: each.help or "" for name, each in options.items() if name.startswith("-")}
        return _starting(word, {**named, "--help": "Show what it takes."}.items())
    arguments = [each for each in tree.params if each.param_type_name == "argument"]
    return _starting(word, _values(chosen, arguments[0].name)) if arguments else []


def _starting(word: str, known: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, " ".join(line.split())) for name, line in known if name.startswith(word)]


def _values(command: str, name: str) -> list[tuple[str, str]]:
    """Return the names that an option or argument takes; none where it takes files, numbers or text."""
    fixed = {
        "pti": ("on", "off", "auto"),
        "to": ("promela",),
        "shell": tuple(_SCRIPTS),
    }
    if name in fixed:
        return [(value, "") for value in fixed[name]]
    if name == "danger":
        from tlbcore.policy import PROMELA_DANGER

        return [(value, "") for value in PROMELA_DANGER]
    if name == "policy":
        from tlbcore.policy import policies

        return [(policy.name, policy.doc) for policy in policies.values()]
    if name in ("machine", "base") or (command, name) == ("machines", "name"):
        from tlbcore.hardware import machines

        return [(machine.name, machine.title) for machine in machines.values()]
    if name == "scenario":
        from tlbcore.scenarios import SCENARIOS

        return [(scenario, "") for scenario in SCENARIOS]
    if (command, name) == ("causes", "name"):
        from tlbcore.trace import causes

        return [(cause.id, cause.title) for cause in causes.values()]
    if (command, name) == ("schema", "name"):
        from tlbcore.cli.schema import names

        return [(schema, "") for schema in names()]
    return []
