"""`plastic packs`: a group whose commands are imported only when they are run."""

from __future__ import annotations

import click

from mlx_plastic.cli.main import LazyGroup

COMMANDS = {
    "create": (
        "mlx_plastic.cli.packs.create",
        "create",
        "Train a pack on a file of chats, prompts or texts, prove that it acts, and keep it.",
    ),
    "list": ("mlx_plastic.cli.packs.show", "list_packs", "List every pack and whether it is worn."),
    "inspect": (
        "mlx_plastic.cli.packs.show",
        "inspect",
        "Show what a pack is: its base, ranks, data, lineage and eval results; its files are verified.",
    ),
    "verify": (
        "mlx_plastic.cli.packs.sign",
        "verify",
        "Read packs to their last byte: files, hashes, numbers, signatures, and with --base the base's too.",
    ),
    "activate": (
        "mlx_plastic.cli.packs.wear",
        "activate",
        "Wear the pack NAME from the next turn on; `plastic rollback` undoes it.",
    ),
    "compose": (
        "mlx_plastic.cli.packs.derive",
        "compose",
        "Make one pack of several: exact side by side, or cut to a rank or size with the error told.",
    ),
    "from-delta": (
        "mlx_plastic.cli.packs.extract",
        "from_delta",
        "Make a pack of what finetuning changed, or one that repairs a quantized checkpoint.",
    ),
    "ledger": (
        "mlx_plastic.cli.packs.derive",
        "ledger",
        "Show what a pack's ranks are spent on, and how two packs overlap.",
    ),
    "apply": (
        "mlx_plastic.cli.packs.apply",
        "apply",
        "Check a pack against its base, prove that it acts, and wear it; `plastic rollback` undoes it.",
    ),
    "eval": (
        "mlx_plastic.cli.packs.measure",
        "evaluate",
        "Measure a pack on data: perplexity with and without it, speed, size and memory, as one row.",
    ),
    "eval-batch": (
        "mlx_plastic.cli.packs.measure",
        "eval_batch",
        "Measure base against pack by batch size: perplexity, tokens/s, first-token ms, peak memory.",
    ),
    "convert": (
        "mlx_plastic.cli.packs.convert",
        "convert",
        "Exchange packs with PEFT, mlx-lm and llama.cpp, with proof that the answers stay the same.",
    ),
    "fuse": (
        "mlx_plastic.cli.packs.convert",
        "fuse",
        "Fuse a pack into a dequantized copy of its base, and measure what that changed.",
    ),
    "add": (
        "mlx_plastic.cli.packs.keep",
        "add",
        "Copy a pack from elsewhere into the store, after every check; it is a candidate there.",
    ),
    "pin": ("mlx_plastic.cli.packs.wear", "pin", "Keep packs for good: `packs gc` never removes them."),
    "unpin": ("mlx_plastic.cli.packs.wear", "unpin", "Let `packs gc` judge pinned packs again."),
    "gc": (
        "mlx_plastic.cli.packs.keep",
        "gc",
        "Remove packs that nobody would go back to: not worn, not pinned, not among the last N.",
    ),
    "remove": (
        "mlx_plastic.cli.packs.keep",
        "remove",
        "Delete packs for ever; one that is worn or pinned is refused.",
    ),
    "keygen": (
        "mlx_plastic.cli.packs.sign",
        "keygen",
        "Make a key to sign packs with: the private one in FILE, the public one in FILE.pub.",
    ),
    "sign": (
        "mlx_plastic.cli.packs.sign",
        "sign",
        "Vouch for a pack with your key: the signature lies beside its tensors, in signature.json.",
    ),
    "ablate": (
        "mlx_plastic.cli.packs.ablate",
        "ablate",
        "Train packs over a grid of settings on the same data and compare them: one CSV, one plot.",
    ),
    "rollback": ("mlx_plastic.cli.rollback", "rollback", "Go back to the pack worn before, or to TAG."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def packs() -> None:
    """Make, look at, wear, measure and exchange packs.

    Example: plastic packs list
    """
