"""Write docs/errors.md, the page of every error's code, from the classes' docstrings.

    python scripts/make_errors_page.py [--check]

--check writes nothing and ends with 1 if the page is not current.
"""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"


def main() -> None:
    from generated import write_or_check
    from mlx_plastic.cli.errors import page

    write_or_check(__doc__, PAGE, page)


if __name__ == "__main__":
    main()
