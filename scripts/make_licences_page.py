"""Write docs/licences.md: what the package carries, what it installs, and under which licences.

    python scripts/make_licences_page.py [--check]

The licences of what is installed are what each package's own metadata say, in this environment.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "licences.md"
PACKAGE = "mlx-plastic"

# file or folder below src/mlx_plastic, what it is, licence
CARRIED = (
    ("base/nano/", "the built-in base, trained by `scripts/train_nano.py`; its card names its texts", "MIT"),
    (
        "memory/privacy/data/",
        "word lists and a tagger made of public lists; `SOURCES.md` beside them names each with its licence",
        "MIT and public domain",
    ),
    (
        "memory/minilm_basis.npy",
        "directions computed from all-MiniLM-L6-v2's outputs by `scripts/make_minilm_basis.py`",
        "Apache-2.0 (the model's)",
    ),
    ("serve/dashboard/static/vendor/htmx-2.0.11.min.js", "htmx; `htmx.LICENSE` beside it", "0BSD"),
    (
        "serve/dashboard/static/vendor/uPlot-1.6.32.min.js",
        "uPlot, with its css; `uPlot.LICENSE` beside it",
        "MIT",
    ),
)


def licence_of(name: str) -> str:
    found = metadata.metadata(name)
    if expression := found.get("License-Expression"):
        return expression
    classified = [
        c.rpartition(" :: ")[2] for c in found.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    stated = (found.get("License") or "").strip().splitlines()
    return (stated[0] if stated and len(stated[0]) < 60 else "") or ", ".join(classified) or "not stated"


def needs(name: str) -> list[str]:
    """Names of what a package requires on this machine without any extra."""
    from packaging.requirements import Requirement

    found = [Requirement(text) for text in metadata.requires(name) or []]
    return [r.name for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def closure() -> list[str]:
    """All that the core installs, by name."""
    waiting, seen = needs(PACKAGE), dict[str, str]()
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        try:
            metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue  # another platform's
        seen[key] = name
        waiting += needs(name)
    return sorted(seen)


def page() -> str:
    rows = [f"| `{path}` | {what} | {licence} |" for path, what, licence in CARRIED]
    direct = {re.sub(r"[-_.]+", "-", name).lower() for name in needs(PACKAGE)}
    installed = [f"| {name} | {'yes' if name in direct else ''} | {licence_of(name)} |" for name in closure()]
    return "\n".join(
        [
            "# Licences",
            "",
            "mlx-plastic itself is MIT. This page is written by `python scripts/make_licences_page.py`.",
            "",
            "## Carried in the package",
            "",
            "| file | what | licence |",
            "|---|---|---|",
            *rows,
            "",
            "## Installed with it",
            "",
            "The core on Linux, without extras, as each package's own metadata tell.",
            "",
            "| package | asked for by us | licence |",
            "|---|---|---|",
            *installed,
            "",
        ]
    )


if __name__ == "__main__":
    from generated import write_or_check

    write_or_check(__doc__ or "", PAGE, page)
