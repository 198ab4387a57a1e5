"""Write docs/cli.md, the page of every command, from the commands themselves.

    python scripts/make_cli_page.py [--check]

--check writes nothing and ends with 1 if the page is not current.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
WIDTH = 100
HEAD = """# Every command

`python scripts/make_cli_page.py` writes this page from the commands' own `--help`; a test keeps it
current. `packs` alone is the same as `plastic packs`. Results go to stdout, progress to stderr. The exit code
is 0 when done, 1 when something is for you to mend (the message says what, the hint how), 2 for wrong usage.
"""

Found = tuple[str, click.Command, click.Context]


def walk(command: click.Command, name: str, above: click.Context | None = None) -> Iterator[Found]:
    """The command and all below it, in the order of its own list, each under its full name."""
    settings = command.context_settings | {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name.rsplit(" ", 1)[-1], parent=above, **settings)
    yield name, command, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found and not found.hidden:
                yield from walk(found, f"{name} {child}", context)


def page(root: click.Command, name: str = "plastic") -> str:
    """The whole page: a table of links, then each command with its help."""
    found = list(walk(root, name))
    rows = [f"| [`{n}`](#{n.replace(' ', '-')}) | {in_one_line(c)} |" for n, c, _ in found[1:]]
    parts = [HEAD, "\n".join(["| command | does |", "|---|---|", *rows]) + "\n"]
    parts += [f"## {n}\n\n```text\n{c.get_help(x).rstrip()}\n```\n" for n, c, x in found]
    return "\n".join(parts)


def in_one_line(command: click.Command) -> str:
    return command.get_short_help_str(limit=200).replace("|", "\\|")


def main() -> None:
    from generated import write_or_check
    from mlx_plastic.cli.main import plastic

    write_or_check(__doc__, PAGE, lambda: page(plastic))


if __name__ == "__main__":
    main()
