"""Pictures of pages, taken by a headless Chromium.

`python -m pages.screenshots` in a checkout takes the two of README (`docs/images`); with a folder it takes every
page at 375 and 1,440 pixels, light and dark, to be looked at. A test runs both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
MODULES = "python/tlbcore/data/modules.trace.txt.xz"
SHOWN = {
    "check": (["check", "coalesce-v7"], (1100, 1000)),
    "explain": (["explain", MODULES], (1100, 1000)),
}
EVERY = {
    "census": ["census", "tests/data/linux-6.1.192.census.json.xz"],
    "check": ["check", "coalesce-v7"],
    "compare": ["compare", "--scenario", "syscall-heavy", "--duration", "0.1"],
    "explain": ["explain", MODULES],
    "pair": ["explain", "tests/data/p4.w2.head.trace.txt.xz", "tests/data/p4.w1b.trace.txt.xz"],
    "process": ["explain", "tests/data/user.p73.us1.trace.txt.xz", "--all-cpus"],
    "replay": ["replay", MODULES],
    "validate": ["validate"],
}
WIDTHS = (375, 1440)
THEMES = {"dark": 0, "light": 1}


def browser() -> str | None:
    """Return the browser that is here, or None."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, found), None)


def take(program: str, words: list[str], size: tuple[int, int], picture: Path, theme: str = "light") -> None:
    """Take a picture of the page that a command writes."""
    with tempfile.TemporaryDirectory() as folder:
        _shoot(program, _page(words, Path(folder)), size, picture, theme)


def _page(words: list[str], folder: Path) -> Path:
    file = folder / "page.html"
    command = [sys.executable, "-m", "tlbcore", *words, "--html", str(file)]
    subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return file


def _shoot(program: str, file: Path, size: tuple[int, int], picture: Path, theme: str) -> None:
    width, height = size
    if width < 500:  # no window is that narrow: the page stands in a frame
        frame = file.with_name("frame.html")
        frame.write_text(
            f'<body style="margin:0;background:#888"><iframe src="{file.name}" '
            f'style="width:{width}px;height:{height}px;border:0;background:#fff"></iframe>'
        )
        file, width = frame, 500
    picture.unlink(missing_ok=True)
    subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--blink-settings=preferredColorScheme={THEMES[theme]}", f"--user-data-dir={file.parent / 'profile'}",
         f"--screenshot={picture}", f"--window-size={width},{height}", file.as_uri()],
        check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def readme(program: str, folder: Path = IMAGES) -> list[Path]:
    """Take the pictures that README shows; return their paths."""
    for name, (words, size) in SHOWN.items():
        take(program, words, size, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in SHOWN]


def every(program: str, folder: Path, names: list[str] | None = None) -> list[Path]:
    """Take every page, or those of these names, at both widths in both themes; return the paths."""
    taken = []
    for name in names or EVERY:
        with tempfile.TemporaryDirectory() as where:
            file = _page(EVERY[name], Path(where))
            for width in WIDTHS:
                for theme in THEMES:
                    taken.append(folder / f"{name}-{width}-{theme}.png")
                    _shoot(program, file, (width, 1600), taken[-1], theme)
    return taken


if __name__ == "__main__":
    here = browser()
    if here is None:
        sys.exit("pages.screenshots: needs chromium on the PATH")
    if len(sys.argv) > 1:
        target = Path(sys.argv[1])
        target.mkdir(parents=True, exist_ok=True)
        print(*every(here, target), sep="\n")
    else:
        print(*readme(here), sep="\n")
