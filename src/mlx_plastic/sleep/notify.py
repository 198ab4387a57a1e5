"""A word on the desktop, where there is one: tags, figures and reasons, never what was said."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

TITLE = "mlx-plastic"
LONGEST = 240  # characters; desktops cut what is longer
WAIT_S = 10.0

Run = Callable[[Sequence[str]], int]

# the text is handed over as an argument: nothing in it can be read as a script
SCRIPT = (
    "on run argv",
    "display notification (item 1 of argv) with title (item 2 of argv)",
    "end run",
)


def command(text: str, *, platform: str = sys.platform, urgent: bool = False) -> list[str] | None:
    """What shows the text on this desktop; None: there is nothing that could."""
    text = " ".join(text.split())[:LONGEST]
    if platform == "darwin" and shutil.which("osascript"):
        return ["osascript", *(part for line in SCRIPT for part in ("-e", line)), text, TITLE]
    if platform != "darwin" and shutil.which("notify-send"):
        level = "critical" if urgent else "normal"
        return ["notify-send", "--app-name", TITLE, "--urgency", level, "--", TITLE, text]
    return None


def notify(text: str, *, urgent: bool = False, run: Run | None = None) -> bool:
    """Show the text; whether it was shown. A desktop that is missing or mute is no error."""
    found = command(text, urgent=urgent)
    return found is not None and (run or _run)(found) == 0


def _run(arguments: Sequence[str]) -> int:
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1
    return done.returncode
