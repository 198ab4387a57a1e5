"""What the scripts that write a page of docs share: write it, or say that it is not current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def write_or_check(about: str, page: Path, make: Callable[[], str]) -> None:
    """The command line of such a script. about: its docstring. make: what the page is to hold."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if it is not current")
    given = parser.parse_args()
    made = make()
    if given.check:
        current = page.exists() and page.read_text(encoding="utf-8") == made
        sys.exit(0 if current else f"{page} is not current: run python {sys.argv[0]}")
    page.write_text(made, encoding="utf-8")
