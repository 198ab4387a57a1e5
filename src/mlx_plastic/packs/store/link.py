"""`adapters/nightly_update`: what is worn, in mlx-lm's own format, behind a link that is switched at once.

So `mlx_lm.chat --adapter-path <home>/adapters/nightly_update` wears what `plastic chat` wears. With nothing
worn there is no link: mlx-lm then says that the adapter is missing, rather than wear an old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home, sync_folder
from mlx_plastic.packs.format.pack import Factors, Pack
from mlx_plastic.packs.store import shelf

log = logging.getLogger(__name__)

LINK = "nightly_update"


def folder_name(worn: Sequence[str], digests: Sequence[str]) -> str:
    """Of the adapter made of these packs: their names, and a digest so that a name never means two things."""
    digest = hashlib.sha256(" ".join(digests).encode("ascii")).hexdigest()[:12]
    return f"{'+'.join(worn)[:64]}-{digest}"


def linked(home: Home) -> str:
    """The name of the adapter behind the link; empty if there is no link, or it leads to nothing."""
    link = home.adapters / LINK
    return os.readlink(link) if link.is_symlink() and link.is_dir() else ""


def publish(home: Home, packs: Sequence[Pack]) -> Path | None:
    """Make the link lead to what these packs are together; with none, take it away. Returns the link.

    May be repeated. A pack that mlx-lm cannot wear, or a full disk, takes the link away with a warning: what
    is worn here does not depend on it.
    """
    link = home.adapters / LINK
    if link.exists() and not link.is_symlink():
        log.warning("%s is no link of ours: it is left as it is", link)
        return None
    name = folder_name([p.manifest.name for p in packs], [p.manifest.sha256 for p in packs]) if packs else ""
    if linked(home) != name or not name:
        try:
            _switch(home, link, name, packs)
        except (OSError, PlasticError) as error:
            link.unlink(missing_ok=True)
            log.warning("no adapter for mlx-lm: %s", getattr(error, "message", error))
            return None
    _sweep(home, name)
    return link if name else None


def _switch(home: Home, link: Path, name: str, packs: Sequence[Pack]) -> None:
    if not name:
        link.unlink(missing_ok=True)
        return
    home.adapters.mkdir(parents=True, exist_ok=True)
    _write(home.adapters / name, packs)
    beside = link.with_name(f".{LINK}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    beside.symlink_to(name, target_is_directory=True)
    os.replace(beside, link)
    sync_folder(home.adapters)


def _write(out: Path, packs: Sequence[Pack]) -> None:
    from mlx_plastic.packs.convert import mlx_lm  # late: what only lists packs needs no MLX
    from mlx_plastic.packs.convert.files import beside

    if out.is_dir():  # written whole before a crash
        return
    with beside(out) as part:
        mlx_lm.write(part, _together(packs), packs[0].manifest.base_id)


def _together(packs: Sequence[Pack]) -> Mapping[str, Factors]:
    """The sum of the packs' updates, exactly."""
    from mlx_plastic.packs.algebra.concat import concatenated

    if len(packs) == 1:
        return packs[0].factors
    paths = sorted({path for pack in packs for path in pack.factors})
    return {
        path: concatenated([(p.factors[path], 1.0) for p in packs if path in p.factors]) for path in paths
    }


def _sweep(home: Home, name: str) -> None:
    """Only the adapter in use stays: others hold what was rolled back, or is to be forgotten."""
    if not home.adapters.is_dir():
        return
    for found in home.adapters.iterdir():
        ours = found.is_dir() and not found.is_symlink() and (found / "adapter_config.json").is_file()
        if (ours and found.name != name) or found.name.endswith(".part"):
            shelf.delete(found)
    if not name:
        with contextlib.suppress(OSError):
            home.adapters.rmdir()  # if it is empty
