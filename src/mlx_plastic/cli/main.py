"""The `plastic` group: its sub-commands are imported only when they are run."""

from __future__ import annotations

import errno
import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from mlx_plastic import __version__
from mlx_plastic.errors import MachineFault, PlasticError, page_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mlx_plastic.home import Home

P = ParamSpec("P")
R = TypeVar("R")

# name: (module, attribute, one-line help); the help is repeated here so that `plastic --help` imports
# none of them, and a test keeps the two the same
COMMANDS = {
    "init": (
        "mlx_plastic.cli.init",
        "init",
        "Set up a home: its base, what may be kept and learned, and when.",
    ),
    "chat": ("mlx_plastic.cli.chat", "chat", "Talk with the model; every turn is remembered."),
    "serve": (
        "mlx_plastic.cli.serve",
        "serve",
        "Answer any OpenAI client; show the days and nights on a page.",
    ),
    "open": (
        "mlx_plastic.cli.open",
        "open_",
        "Open the page of days and nights in a browser.",
    ),
    "mcp": (
        "mlx_plastic.cli.mcp",
        "mcp",
        "Let an assistant elsewhere search and add to memory, over MCP.",
    ),
    "sleep": (
        "mlx_plastic.cli.sleep",
        "sleep",
        "Learn from the days since the last night, if the gate agrees.",
    ),
    "nights": (
        "mlx_plastic.cli.nights",
        "nights",
        "List the nights, show one with its verdict, compare two.",
    ),
    "cycle": ("mlx_plastic.cli.cycle", "cycle", "Measure, sleep and measure again, every number kept."),
    "schedule": (
        "mlx_plastic.cli.schedule",
        "schedule",
        "Sleep every night, and serve from login on, by themselves.",
    ),
    "digest": ("mlx_plastic.cli.digest", "digest", "What the last nights brought, in a few lines."),
    "rollback": ("mlx_plastic.cli.rollback", "rollback", "Go back to the pack worn before, or to TAG."),
    "packs": ("mlx_plastic.cli.packs", "packs", "Make, look at, wear, measure and exchange packs."),
    "memory": ("mlx_plastic.cli.memory", "memory", "List, import, export and forget what was said."),
    "data": ("mlx_plastic.cli.data", "data", "Write sets of chats to learn from."),
    "eval": ("mlx_plastic.cli.evaluate", "evaluate", "Measure loss and capabilities."),
    "compress": (
        "mlx_plastic.cli.compress",
        "compress",
        "Make a checkpoint smaller, to a budget of bytes.",
    ),
    "bench": ("mlx_plastic.cli.bench", "bench", "Measure what things take on this machine."),
    "rank": ("mlx_plastic.cli.rank", "rank", "See how many directions matrices have; write their factors."),
    "survey": (
        "mlx_plastic.cli.survey",
        "survey",
        "See what is fragile in a checkpoint, and what bits cost.",
    ),
    "demo": ("mlx_plastic.cli.demo", "demo", "Live a day, a night and a morning, and check every claim."),
    "doctor": (
        "mlx_plastic.cli.doctor",
        "doctor",
        "Show the device and the BLAS found, what is slow, and the fix.",
    ),
    "export": (
        "mlx_plastic.cli.export",
        "export",
        "Write the whole home to one FILE: a backup, or to move it.",
    ),
    "import": (
        "mlx_plastic.cli.export",
        "import_",
        "Put an exported home back, from FILE into an empty home.",
    ),
    "config": (
        "mlx_plastic.cli.config",
        "config",
        "Show what is set and where it comes from; set it.",
    ),
    "completion": (
        "mlx_plastic.cli.completion",
        "completion",
        "Print what completes commands in a SHELL: bash, zsh or fish.",
    ),
    "uninstall": (
        "mlx_plastic.cli.uninstall",
        "uninstall",
        "Take away schedule, services, caches and all that was kept.",
    ),
    "errors": ("mlx_plastic.cli.errors", "errors", "Tell what the code of an error means, and the way out."),
}

# states of the machine, not bugs of ours: they get a message, anything else keeps its traceback
MACHINE_FAULTS = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EROFS: "choose a folder that can be written, with --home DIR",
    errno.EACCES: "check who owns that path, or choose another folder with --home DIR",
    errno.EPERM: "check who owns that path, or choose another folder with --home DIR",
    errno.EMFILE: "raise the number of open files: ulimit -n 4096",
    errno.EIO: "the disk failed to read or write: check it before you go on",
}


class Failure(click.ClickException):
    """What a PlasticError looks like: lines on stderr, with --json an object on stdout; exit code 1."""

    def __init__(self, error: PlasticError, *, as_json: bool = False) -> None:
        super().__init__(error.message)
        self.error, self.as_json = error, as_json

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.error.message}", err=True)
        if self.error.hint:
            click.echo(f"hint: {self.error.hint}", err=True)
        click.echo(f"code: {self.error.code} ({page_of(self.error.code)})", err=True)
        if self.as_json:
            from mlx_plastic.cli.output import print_json

            print_json({"error": self.error.as_dict()})


def failure(error: PlasticError, context: click.Context) -> Failure:
    """The error as it is shown to whom the command below this context answers."""
    from mlx_plastic.cli.output import wants_json

    return Failure(error, as_json=wants_json(context))


Table = Mapping[str, tuple[str, str, str]]  # as COMMANDS


class LazyGroup(click.Group):
    """A group that lists its table without importing it, and turns known errors into Failure."""

    def __init__(self, *args: Any, table: Table, **options: Any) -> None:
        super().__init__(*args, **options)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, attribute, _ = self.table[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table: to complete a command's name none of them is imported."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(n, help=text) for n, (_, _, text) in self.table.items() if n.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.table and (near := get_close_matches(args[0], self.table, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self.table.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PlasticError as error:
            raise failure(error, ctx) from error
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(130)
        except OSError as error:
            if error.errno not in MACHINE_FAULTS:
                raise  # click itself answers a broken pipe
            told = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            fault = MachineFault(told or str(error), hint=MACHINE_FAULTS[error.errno])
            raise failure(fault, ctx) from error


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--home", metavar="DIR", help="The folder of memory and packs, instead of MLX_PLASTIC_HOME.")
@click.option("-v", "--verbose", count=True, help="Say more on stderr; twice for every step.")
@click.version_option(__version__, prog_name="plastic")
def plastic(home: str | None, verbose: int) -> None:
    """A base that never changes, and learning that lives in small reversible packs.

    Example: plastic demo
    """
    import logging  # 10 ms that --help need not pay

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mlx_plastic").setLevel(level)


def current_home() -> Home:
    """The home of this invocation, found and made when first asked for, so that --help makes no folder."""
    from mlx_plastic.home import Home, find_home

    context = click.get_current_context()
    if not isinstance(context.obj, Home):
        root = context.find_root()
        root.obj = root.obj if isinstance(root.obj, Home) else find_home(root.params.get("home"))
        context.obj = root.obj
    found: Home = context.obj
    return found


def pass_home(function: Callable[Concatenate[Home, P], R]) -> Callable[P, R]:
    """Give a command the Home as its first argument. Stands nearest to the function, below the options."""

    @functools.wraps(function)
    def with_home(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(current_home(), *args, **kwargs)

    return with_home


def main() -> None:
    """The console script `plastic`."""
    plastic(prog_name="plastic")


def packs() -> None:
    """The console script `packs`: `packs [--home DIR] list` is `plastic [--home DIR] packs list`."""
    given = sys.argv[1:]
    ahead = _home_arguments(given)
    plastic([*given[:ahead], "packs", *given[ahead:]], prog_name="plastic")


def _home_arguments(given: list[str]) -> int:
    """How many of the leading arguments belong to --home."""
    if given and given[0].startswith("--home="):
        return 1
    return 2 if given[:1] == ["--home"] else 0
