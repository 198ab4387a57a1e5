"""`plastic errors`, and the page of errors, both from the docstrings of the classes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches

import click

from mlx_plastic.cli.output import json_option, print_json
from mlx_plastic.errors import BadConfig, PlasticError, page_of

# errors.py holds all that several rooms raise; these are of one room. A test finds any that is missing here.
MODULES = ("mlx_plastic.errors", "mlx_plastic.survey.places", "mlx_plastic.sleep.teacher.reply")
TO_DO = "To do: "
HEAD = """# Errors and their codes

`python scripts/make_errors_page.py` writes this page from the classes' docstrings; a test keeps it current.
`plastic errors CODE` tells the same without a network.

An error that you can mend is told in three lines on stderr, and the exit code is 1:

    error: pack 'x' is torn
    hint: activate another
    code: PLASTIC-P001 (docs/errors.md#plastic-p001)

With `--json` the command also prints `{"error": {"code", "message", "hint", "page"}}` on stdout. Wrong usage
(an unknown option, a missing argument) ends with 2 and has no code. A traceback is a fault of ours.
"""


@dataclass(frozen=True)
class Told:
    """A code, the class that has it, and its docstring in two parts."""

    code: str
    name: str
    happened: str
    to_do: str
    page: str


def known() -> list[Told]:
    """Every error that has a code, sorted by code."""
    return sorted({told.code: told for told in map(_told, classes())}.values(), key=lambda told: told.code)


def classes() -> Iterator[type[PlasticError]]:
    """Every class of errors that has a code of its own; others have that of the class above them."""
    for name in MODULES:
        module = importlib.import_module(name)
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, PlasticError) and found.__module__ == name and "code" in vars(found):
                yield found


def _told(found: type[PlasticError]) -> Told:
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(found.__doc__ or "").split("\n\n")]
    to_do = [part.removeprefix(TO_DO) for part in paragraphs if part.startswith(TO_DO)]
    happened = [part for part in paragraphs if not part.startswith(TO_DO)]
    return Told(found.code, found.__name__, " ".join(happened), " ".join(to_do), page_of(found.code))


def page() -> str:
    """docs/errors.md."""
    parts = [f"## {e.code}\n\n**{e.name}.** {e.happened}\n\n{e.to_do}\n" for e in known()]
    return "\n".join([HEAD, *parts])


@click.command()
@click.argument("code", required=False)
@json_option
def errors(code: str | None, as_json: bool) -> None:
    """Tell what the code of an error means, and the way out.

    Without CODE it lists all of them.

    Example: plastic errors PLASTIC-C001
    """
    found = known()
    if code is not None:
        wanted = code.upper() if code.upper().startswith("PLASTIC-") else f"PLASTIC-{code.upper()}"
        near = get_close_matches(wanted, [e.code for e in found], n=1, cutoff=0)
        found = [e for e in found if e.code == wanted]
        if not found:
            raise BadConfig(f"there is no error {code!r}", hint=f"the nearest is {near[0]}; plastic errors")
    if as_json:
        print_json([asdict(e) for e in found])
        return
    for e in found:
        click.echo(f"{e.code}  {e.happened}")
        if code is not None:
            click.echo(f"\n{e.to_do}")
