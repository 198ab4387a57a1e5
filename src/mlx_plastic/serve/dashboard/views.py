"""What each page shows, as plain values: read from the rooms, ready for a template."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.errors import PlasticError
from mlx_plastic.memory.router import recorded
from mlx_plastic.memory.tags import UNTAUGHT
from mlx_plastic.packs import Store

if TYPE_CHECKING:
    from mlx_plastic.memory import Memory, Turn
    from mlx_plastic.memory.index import Hit

MOST_TURNS = 400  # on one page
MOST_HITS = 30
FATES = {"weights": "weights", "both": "weights and notes", "retrieval": "notes", "neither": "left out"}


@dataclass(frozen=True)
class Shown:
    """A turn with what became of it. why: short reasons, never text of the turn."""

    turn: Turn
    fate: str
    why: tuple[str, ...]
    nights: tuple[str, ...]

    @property
    def taught(self) -> bool:
        return not self.turn.tags & UNTAUGHT


def day(memory: Memory, when: date) -> tuple[list[Shown], bool]:
    """The turns of a day by the clock of this machine, the last first; whether there were more."""
    start = datetime(when.year, when.month, when.day).astimezone(UTC)
    turns = memory.turns(start, start + timedelta(days=1))
    return shown(memory, turns[-MOST_TURNS:][::-1]), len(turns) > MOST_TURNS


def shown(memory: Memory, turns: Sequence[Turn]) -> list[Shown]:
    routes = recorded(memory)
    masked: dict[str, Counter[str]] = {}
    for redaction in memory.redactions():
        what = f"{redaction.action} {redaction.kind}"
        masked.setdefault(redaction.turn, Counter())[what] += redaction.count
    found = []
    for turn in turns:
        nights = memory.nights([turn.id])
        fate, why = _fate(turn, routes.get(turn.id), nights)
        why += [f"{what} x{n}" if n > 1 else what for what, n in masked.get(turn.id, Counter()).items()]
        found.append(Shown(turn, fate, tuple(why), nights))
    return found


def _fate(turn: Turn, route: Any, nights: Sequence[str]) -> tuple[str, list[str]]:
    why = [f"tagged {tag}" for tag in sorted(turn.tags)]
    if turn.interrupted:
        why.append("interrupted")
    if nights:
        return "learned", [*why, *(f"night {night}" for night in nights)]
    if turn.tags & UNTAUGHT:
        return "never learned", why
    if turn.role != "user":
        return "kept", [*why, "what the model says is no lesson"]
    if route is None:
        return "waits", [*why, "for the next night"]
    reasons = [f"{route.by}, {route.score:.0%} sure", *route.reasons[:3]]
    return FATES[route.route], [*why, *reasons]


def search(memory: Memory, question: str) -> list[tuple[Hit, Shown]]:
    hits = memory.recall().search(question, MOST_HITS)
    turns = {turn.id: turn for turn in memory.pick(hit.turn for hit in hits)} if hits else {}
    told = {one.turn.id: one for one in shown(memory, list(turns.values()))}
    return [(hit, told[hit.turn]) for hit in hits if hit.turn in told]


def night_row(journal: Any) -> dict[str, Any]:
    record = journal.record
    return {
        "tag": record.tag,
        "status": record.status,
        "started": record.started,
        "turns": len(record.turns),
        "stages": list(record.stages),
        "seconds": sum(stage.seconds for stage in record.stages.values()),
        "reasons": list(record.reasons),
        "worn_before": record.worn_before,
    }


def evidence(journal: Any) -> dict[str, Any]:
    """What a night was judged by; {} if it was not, or if the file cannot be read."""
    try:
        found = json.loads((journal.folder / "verdict.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def scores(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Every score before and after, with the change."""

    def by_name(side: str) -> dict[str, Any]:
        return {s["name"]: s for s in (found.get(side) or {}).get("scores", []) if "name" in s}

    before, after = by_name("before"), by_name("after")
    rows = []
    for name in dict.fromkeys([*before, *after]):
        old, new = (side.get(name, {}).get("value") for side in (before, after))
        rows.append({"name": name, "before": old, "after": new, "change": _change(old, new)})
    return rows


PARTS = {"scores": "Measured after", "figures": "Figures", "samples": "Samples", "settings": "Settings"}


def difference(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a difference that hold anything, each with rows of name, one, two and change."""
    parts = []
    for part, title in PARTS.items():
        rows = [
            {"name": name, "one": one, "two": two, "change": _change(one, two)}
            for name, (one, two) in found[part].items()
        ]
        if rows:
            parts.append({"title": title, "rows": rows})
    return parts


def _change(old: Any, new: Any) -> float | int | None:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new))
    return new - old if numbers else None


def loss(journal: Any) -> dict[str, list[float | None]]:
    """The losses of a night's training by step, nats a target; {} if it has not trained."""
    stage = journal.record.stages.get("train")
    points = stage.facts.get("losses") if stage else None
    if not isinstance(points, list) or not points:
        return {}
    return {name: [_number(point.get(name)) for point in points] for name in ("step", "train", "valid")}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def packs(store: Store) -> list[dict[str, Any]]:
    worn = store.active()
    return [
        {
            "name": entry.name,
            "status": "worn" if entry.name in worn else entry.status,
            "pinned": entry.pinned,
            "fault": entry.fault,
            "size_mb": entry.manifest.sizes.tensor_bytes / 1e6 if entry.manifest else None,
            "base": entry.manifest.base_id if entry.manifest else "",
            "created": entry.manifest.created if entry.manifest else "",
            "turns": len(entry.manifest.lineage) if entry.manifest else 0,
        }
        for entry in store.entries()
    ]


def heatmap(rank_map: dict[str, int]) -> dict[str, Any]:
    """Ranks by layer (columns) and module (rows), for a drawing of squares."""
    cells: dict[tuple[str, int], int] = {}
    for path, rank in rank_map.items():
        parts = path.split(".")
        layer = next((int(p) for p in parts if p.isdigit()), 0)
        leaf = ".".join(parts[-2:]) if len(parts) > 1 else path
        cells[leaf, layer] = rank
    rows = sorted({leaf for leaf, _ in cells})
    layers = sorted({layer for _, layer in cells})
    top = max(cells.values(), default=1) or 1
    squares = [
        {
            "x": layers.index(layer),
            "y": rows.index(leaf),
            "rank": rank,
            "share": round(rank / top, 3),
            "name": leaf,
            "layer": layer,
        }
        for (leaf, layer), rank in cells.items()
    ]
    return {"rows": rows, "layers": layers, "squares": squares, "top": top}


def trends(home_logs: Path) -> list[dict[str, Any]]:
    """Series over time from the ledgers of nights and measurements: name, times, values."""
    from mlx_plastic.evals import History

    series: dict[str, dict[str, list[Any]]] = {}
    for path in sorted(home_logs.glob("*.jsonl")):
        for entry in History(path).entries():
            when = _seconds(str(entry.get("when", "")))
            for name, value in _scores_of(entry):
                if when is not None:
                    one = series.setdefault(name, {"x": [], "y": []})
                    one["x"].append(when)
                    one["y"].append(value)
    return [{"name": name, **values} for name, values in sorted(series.items())]


def _scores_of(entry: dict[str, Any]) -> Iterable[tuple[str, float]]:
    for side in ("after", "report"):
        found = entry.get(side)
        for score in found.get("scores", []) if isinstance(found, dict) else []:
            if isinstance(score, dict) and isinstance(score.get("value"), int | float):
                yield str(score.get("name")), float(score["value"])


def _seconds(iso: str) -> float | None:
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return None


def surveys(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Every survey below these folders, with what its manifest says and which files it has."""
    from mlx_plastic.survey.folder import is_run, open_run

    found = []
    for folder in folders:
        for path in sorted(folder.glob("*/*")):
            if not is_run(path):
                continue
            try:
                manifest = open_run(path).manifest()
            except PlasticError as error:
                manifest = {"fault": error.message}
            files = [
                {"name": str(file.relative_to(path)), "kb": file.stat().st_size / 1e3}
                for part in ("data", "tables", "plots")
                for file in sorted((path / part).glob("*"))
                if file.is_file()
            ]
            found.append({"name": f"{path.parent.name}/{path.name}", "manifest": manifest, "files": files})
    return found
