"""Routes in the log: what the router decided, what the person said instead, and the router that heeds it."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.home import write_atomic
from mlx_plastic.memory.log import Memory
from mlx_plastic.memory.records import Turn, iso
from mlx_plastic.memory.router.decision import Decision, Route, RouterConfig
from mlx_plastic.memory.router.features import Embed
from mlx_plastic.memory.router.model import (
    Example,
    Model,
    fit_model,
    key_of,
    own_text,
    parse_model,
    seed_set,
    shipped,
)
from mlx_plastic.memory.router.provenance import Heard
from mlx_plastic.memory.router.route import Router

log = logging.getLogger(__name__)

COPIED_FROM = 5_000  # the latest turns, in which copied words are looked for: 0.3 s and 30 MB at the most


def labels(memory: Memory) -> dict[str, Route]:
    """What the person said where turns go, by the turns' ids."""
    return {turn: route for turn, route in memory.run("SELECT turn, route FROM labels")}


def set_label(memory: Memory, turns: Iterable[str], route: Route | None) -> int:
    """The person says where these turns go; None takes that back. How many that changed.

    A turn that a night has passed over waits for the next one, if it is to be learned after all.
    turns: ids of turns that are there.
    """
    ids, known = list(turns), labels(memory)
    changed = [i for i in ids if known.get(i) != route]
    with memory.writing():
        for turn in changed:
            if route is None:
                memory.run("DELETE FROM labels WHERE turn = ?", [turn])
            else:
                memory.run("INSERT OR REPLACE INTO labels VALUES (?, ?)", [turn, route])
        if route in ("weights", "both"):
            _wait_again(memory, changed)
        memory.note("route" if route else "unroute", kind=route or "", turns=changed)
    return len(changed)


def _wait_again(memory: Memory, turns: Sequence[str]) -> None:
    """Forget that nights have handled those turns that they did not make lessons of."""
    for turn in turns:
        memory.run(
            "DELETE FROM learned WHERE turn = ? AND turn IN"
            " (SELECT turn FROM routes WHERE route IN ('retrieval', 'neither'))",
            [turn],
        )


def record(memory: Memory, decisions: Iterable[Decision]) -> None:
    """Log the decisions; a turn's later one replaces the earlier. They go with the turn."""
    at = iso(datetime.now(UTC))
    with memory.writing():
        for d in decisions:
            memory.run(
                "INSERT OR REPLACE INTO routes VALUES (?, ?, ?, ?, ?, ?, ?)",
                [d.turn, d.route, d.score, d.by, json.dumps(d.reasons), d.abstained, at],
            )


def recorded(memory: Memory) -> dict[str, Decision]:
    """The decisions logged so far, without the turns' own words."""
    rows = memory.run("SELECT turn, route, score, decided_by, reasons, abstained FROM routes")
    return {
        turn: Decision(turn, route, score, by, tuple(json.loads(reasons)), bool(abstained))
        for turn, route, score, by, reasons, abstained in rows
    }


def route_turns(memory: Memory, turns: Sequence[Turn], config: RouterConfig) -> list[Decision]:
    """Where each of the turns goes, in their order, by the person's own router; nothing is logged."""
    router = personal_router(memory, config)
    said, heard = labels(memory), Heard(memory.latest(COPIED_FROM)) if turns else None
    return [router.decide(t, label=said.get(t.id), heard=heard) for t in turns]


def least_sure(memory: Memory, turns: Sequence[Turn], config: RouterConfig) -> list[tuple[Turn, Decision]]:
    """The turns that only the router has decided on, the least sure first: a label on these teaches most."""
    decided = zip(turns, route_turns(memory, turns, config), strict=True)
    still_open = ((t, d) for t, d in decided if d.by in ("router", "rule") and not t.tags)
    return sorted(still_open, key=lambda pair: pair[1].score)


def personal_router(memory: Memory, config: RouterConfig) -> Router:
    """The router that has learned from the person's corrections, fitted anew when these have changed.

    Its weights lie beside the log. They depend on the corrected turns that are still there: of a turn that
    was forgotten nothing is left in them once the router is used again. Raises PlasticError if the settings
    ask for an embedder that is not installed.
    """
    given = corrections(memory, config)
    name, embed = _embedder() if config.meaning else ("", None)
    if not given and embed is None:
        _drop(memory)
        return Router(shipped(), config)
    key = key_of(given, name)
    model = _kept(memory, key)
    if model is None:
        began = time.perf_counter()
        meaning = None
        if embed is not None:
            parts = [_seed_meaning(memory, name, embed), embed([own_text(e) for e in given])]
            meaning = np.vstack([part for part in parts if len(part)])
        data = fit_model([*seed_set(), *given], key=key, meaning=meaning).to_json()
        model = parse_model(data)  # rounded: the same now as when it is read again
        _keep(memory, data)
        seconds = time.perf_counter() - began
        log.info("fitted the router on %d corrections beside the seed set in %.1f s", len(given), seconds)
    return Router(model, config, embed)


def _seed_meaning(memory: Memory, name: str, embed: Embed) -> NDArray[np.float32]:
    """(n, d) embeddings of the seed set, kept beside the log: to make them takes 12 s."""
    path = memory.path and memory.path.with_name(f"router-{key_of((), name)[:16]}.npy")
    if path and path.exists():
        with suppress(OSError, ValueError):  # a broken file is made anew
            kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
            if kept.ndim == 2 and len(kept) == len(seed_set()) and np.isfinite(kept).all():
                return kept
    found = embed([own_text(e) for e in seed_set()])
    if path:
        data = io.BytesIO()
        np.save(data, found, allow_pickle=False)
        for older in path.parent.glob("router-*.npy"):
            older.unlink(missing_ok=True)
        write_atomic(path, data.getvalue())
    return found


def _embedder() -> tuple[str, Embed]:
    from mlx_plastic.memory.embed import MiniLM  # late: most routers need none

    found = MiniLM()
    return found.name, found.pooled


def corrections(memory: Memory, config: RouterConfig) -> list[Example]:
    """The turns that the person has routed, as examples. Tagged ones teach nothing: they are private."""
    said = labels(memory)
    turns = memory.pick(said) if said else []
    used = (t for t in turns if not t.tags and not t.undone)
    return [Example(t.content, said[t.id], config.correction_weight) for t in used]


def _kept(memory: Memory, key: str) -> Model | None:
    if memory.path is None:
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):  # a file that cannot be used is made anew
        model = parse_model(memory.path.with_name("router.json").read_bytes())
        return model if model.key == key else None
    return None


def _keep(memory: Memory, data: bytes) -> None:
    if memory.path is not None:
        write_atomic(memory.path.with_name("router.json"), data, mode=0o600)


def _drop(memory: Memory) -> None:
    if memory.path is not None:
        memory.path.with_name("router.json").unlink(missing_ok=True)
