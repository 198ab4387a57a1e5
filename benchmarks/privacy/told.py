"""The third set: told.txt, as texts with the places of what is to be found in them."""

from __future__ import annotations

from pathlib import Path

from privacy.marked import Marked

FILE = Path(__file__).with_name("told.txt")


def told() -> tuple[list[Marked], list[str]]:
    """Sentences with secrets, and sentences without."""
    secret, clean = list[Marked](), list[str]()
    for line in FILE.read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        parts = line.split("|")
        if len(parts) == 1:
            clean.append(line)
            continue
        ends = [len("".join(parts[: i + 1])) for i in range(len(parts))]
        finds = tuple((ends[i - 1], ends[i], "told") for i in range(1, len(parts), 2))
        secret.append(Marked("".join(parts), finds))
    return secret, clean
