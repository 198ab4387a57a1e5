"""Put the tables of scale_model.py into docs/scale.md.

    python scripts/make_scale_page.py [--check]

Between `<!-- table: NAME -->` and the next `<!-- end -->` everything is written anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from generated import write_or_check
from scale_model import DOCS, SHARE_OF_PEAK, TABLES, measured, share_measured

PAGE = DOCS / "scale.md"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """The page with its tables and figures as they are now. Raises KeyError for a table that is none."""
    made = tables()
    return BLOCK.sub(lambda m: f"{m[1]}\n{made[m[2]]}\n\n{m[3]}", text)


def tables() -> dict[str, str]:
    return {name: make() for name, make in TABLES.items()} | {"shares": shares()}


def shares() -> str:
    found, packs = measured()
    pack_mb = packs["pack_bytes"] / 1e6
    memory, best, median = (packs[name] for name in ("swap_memory_ms", "swap_disk_ms_best", "swap_disk_ms"))
    lines = [
        f"Measured on {found['machine']}: {found['turns']} things told, {found['steps']} steps of at most",
        f"{found['batch_tokens']} tokens. Training reached {share_measured(found):.0%} of what the same core",
        f"does in plain float32 products ({found['gflops']:.0f} GFLOP/s). Swaps of a pack of",
        f"{pack_mb:.2f} MB: from memory {memory:.3f} ms, from the disk {best:.1f} ms at best and",
        f"{median:.1f} ms in the median. Assumed for a GPU: {SHARE_OF_PEAK:.0%} of the datasheet.",
    ]
    return "\n".join(lines)


def main() -> None:
    def make(file: Path = PAGE) -> str:
        return page(file.read_text("utf-8"))

    write_or_check(__doc__ or "", PAGE, make)


if __name__ == "__main__":
    main()
