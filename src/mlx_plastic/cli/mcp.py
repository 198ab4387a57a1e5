"""`plastic mcp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@pass_home
def mcp(home: Home) -> None:
    """Let an assistant elsewhere search and add to memory, over MCP.

    It speaks the Model Context Protocol on stdin and stdout: an assistant starts it, not a person.
    Its tools are memory_search, memory_add and memory_forget.

    Example: plastic mcp
    """
    from mlx_plastic.memory import Memory
    from mlx_plastic.serve.mcp import make_mcp
    from mlx_plastic.sleep.journal import scrub

    with Memory(home) as memory:
        make_mcp(memory, lambda turns: scrub(home, turns)).run("stdio")
