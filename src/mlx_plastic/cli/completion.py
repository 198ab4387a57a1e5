"""`plastic completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import click

SHELLS = ("bash", "fish", "zsh")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what completes commands in a SHELL: bash, zsh or fish.

    For bash put eval "$(plastic completion bash)" into ~/.bashrc, for zsh the same with zsh into ~/.zshrc;
    for fish put what is printed into ~/.config/fish/completions/plastic.fish.

    Example: plastic completion bash
    """
    from click.shell_completion import get_completion_class

    from mlx_plastic.cli.main import plastic

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(plastic, {}, "plastic", "_PLASTIC_COMPLETE").source())
