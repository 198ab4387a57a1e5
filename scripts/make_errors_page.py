"""Write docs/errors.md, the page of every error's code, from the classes' docstrings.

    python scripts/make_errors_page.py [--check]

--check writes nothing and ends with 1 if the page is not current.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if it is not current")
    given = parser.parse_args()
    from mlx_plastic.cli.errors import page

    made = page()
    if given.check:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == made
        sys.exit(0 if current else f"{PAGE} is not current: run python scripts/make_errors_page.py")
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
