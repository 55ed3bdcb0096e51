"""The two pictures of pages in `docs/images`, taken by a headless Chromium.

`python -m pages.screenshots` in a checkout takes them; a test runs the commands whose pages they show.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = {
    "check": (["check", "coalesce-v7"], (1100, 1000)),
    "explain": (["explain", "python/tlbcore/data/modules.trace.txt.xz"], (1100, 1000)),
}


def _take(browser: str) -> None:
    for name, (words, (width, height)) in SHOWN.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "page.html"
            command = [sys.executable, "-m", "tlbcore", *words, "--html", str(file)]
            subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
            picture = ROOT / "docs" / "images" / f"{name}.png"
            subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                 f"--screenshot={picture}", f"--window-size={width},{height}", file.as_uri()],
                check=True, stderr=subprocess.DEVNULL,
            )  # fmt: skip


if __name__ == "__main__":
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        sys.exit("pages.screenshots: needs chromium on the PATH")
    _take(found)
