"""`tlbcore census IMAGE`: exit status 1 if `--against` or `--since` finds something new in a danger zone."""

from __future__ import annotations

import json as _json
from pathlib import Path
from typing import Annotated, Any

import typer

from tlbcore.cli import _bounds, _common

Features = Annotated[
    str | None,
    typer.Option(help="CPU features that are on, such as pti,pcid,fsgsbase.", metavar="NAMES"),
]
Cpu = Annotated[str | None, typer.Option(help="Features of a CPU preset, see `tlbcore machines`.")]
ThisMachine = Annotated[
    bool, typer.Option("--this-machine", help="Features of this machine, its mitigations included.")
]


def chosen(features: str | None, cpu: str | None, this_machine: bool) -> str:
    """Return the features that one of the three options names."""
    from tlbcore._input import images

    if sum((features is not None, cpu is not None, this_machine)) > 1:
        _common.fail("--features, --cpu and --this-machine each name the whole set: give one")
    return images.features(given=features, cpu=cpu, this_machine=this_machine)


def command(
    ctx: typer.Context,
    image: Annotated[
        str, typer.Argument(help="/boot/vmlinuz-RELEASE, a vmlinux, or a saved census (--json, also .xz).")
    ],
    features: Features = None,
    cpu: Cpu = None,
    this_machine: ThisMachine = False,
    entry: Annotated[
        str | None, typer.Option(help="Show one entry, access by access.", metavar="NAME")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another image: what does it add?", metavar="IMAGE")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="A saved census (--json): what does IMAGE add?", metavar="FILE")
    ] = None,
    verify_live: Annotated[
        bool,
        typer.Option(
            "--verify-live", help="Is the running kernel's text what IMAGE predicts? Reads /proc/kcore."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the report as one self-contained page of HTML."),
    ] = None,
) -> int:
    """List which memory each entry path of a kernel touches before a late flush, and its TLB ops.

    With --against or --since the exit status is 1 if a region, an object or a TLB op is new in a danger zone, with
    --verify-live if the running text is another.
    """
    from tlbcore import _core
    from tlbcore._input import images

    if sum(option is not None for option in (entry, against, since, verify_live or None)) > 1:
        _common.fail("--entry, --against, --since and --verify-live each ask another question: give one")
    if html is not None and (entry is not None or verify_live):
        _common.fail("--html has every entry of IMAGE: leave --entry and --verify-live out")
    if json and entry is not None:
        _common.fail("--json holds every entry: leave --entry out")
    walked = {"features", "cpu", "this_machine"} & _common.given(ctx)
    if walked and all(images.is_saved(path) for path in (image, against, since) if path is not None):
        _bounds.refuse(ctx, walked, "a saved census was walked with features of its own")
    on = chosen(features, cpu, this_machine or (verify_live and features is None and cpu is None))
    if verify_live:
        report, same, live = images.verify(image, on)
        if json:
            print(_json.dumps(_json.loads(live), indent=1))
        else:
            _common.say(report.rstrip("\n"))
        return 0 if same else 1
    found = images.census(image, on)
    if against is None and since is None:
        if json:
            print(_json.dumps(_json.loads(found), indent=1))
        else:
            _common.say(_core.binary_report(found, entry, _common.width()).rstrip("\n"))
        if html is not None:
            from tlbcore._output.html import census as pages

            _common.write_page(html, pages.census(_json.loads(found), _core.binary_report(found, None)))
        return 0
    if against is not None:
        old, new = found, images.census(against, on)
    else:
        old, new = images.census(str(since), on), found
    text, difference, danger = _core.binary_compare(old, new)
    fields: dict[str, Any] = _json.loads(difference)
    whole = _common.document("census-difference", 1, **fields)
    if html is not None:
        from tlbcore._output.html import census as pages

        releases = [_json.loads(one)["release"] for one in (new, old)]
        _common.write_page(html, pages.difference(whole, text, f"Linux {releases[0]} against {releases[1]}"))
    if json:
        _common.print_document(whole)
    else:
        _common.say(text.rstrip("\n"))
    return 1 if danger else 0
