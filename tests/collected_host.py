"""Turn `NAME.info.txt` and `NAME.dmesg.txt` of a recorded boot into a directory that `inspect_host` reads.

    python tests/collected_host.py p4.info.txt p4.dmesg.txt tests/data/host-p4

The info file has `== heading` sections with the contents of files; its cpuinfo is that of CPU 0 only and is
repeated for every CPU online. Of the log only lines about isolation, page tables and clocks are kept.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CPU = "sys/devices/system/cpu"
FILES = {
    "cmdline": "proc/cmdline",
    "version": "proc/version",
    "nohz_full": f"{CPU}/nohz_full",
    "isolated": f"{CPU}/isolated",
    "meltdown": f"{CPU}/vulnerabilities/meltdown",
    "clocksource": "sys/devices/system/clocksource/clocksource0/current_clocksource",
    "tlb_single_page_flush_ceiling": "sys/kernel/debug/x86/tlb_single_page_flush_ceiling",
}
KEPT = re.compile(r"Linux version|page tables isolation|NO_HZ|Offload RCU|Brought up|Switched to clocksource")


def convert(info: str, dmesg: str) -> dict[str, str]:
    """Return the files of the collected directory: name to text."""
    sections: dict[str, str] = {}
    for section in re.split(r"^== ", info, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        sections[heading.strip()] = body.rstrip("\n")
    files = {place: sections[heading] + "\n" for heading, place in FILES.items() if heading in sections}
    online, _possible = sections["online/possible"].split()
    files[f"{CPU}/online"] = online + "\n"
    files["proc/sys/net/core/bpf_jit_enable"] = sections["bpf_jit_enable"].split()[0] + "\n"
    first, last = (int(word) for word in (online.split("-") * 2)[:2])
    files["proc/cpuinfo"] = "".join(
        re.sub(r"(?m)^(processor\s*: )0$", rf"\g<1>{cpu}", sections["cpuinfo (cpu0)"].strip()) + "\n\n"
        for cpu in range(first, last + 1)
    )
    files["dmesg"] = "".join(line + "\n" for line in dmesg.splitlines() if KEPT.search(line))
    return files


def main(info: str, dmesg: str, to: str) -> None:
    """Write the directory."""
    for name, text in convert(Path(info).read_text(), Path(dmesg).read_text()).items():
        target = Path(to) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
