"""Rules of a config, tried in order and before the built-in ones: the first that fits places a tensor."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_plastic.base.roles import role_of
from mlx_plastic.errors import BadConfig
from mlx_plastic.survey import families
from mlx_plastic.survey.config import Parsing, compiled
from mlx_plastic.survey.places import Layout, Place, Split
from mlx_plastic.survey.schemes import check_keys

KNOWN = (
    *("name", "enabled", "match", "ndim", "layout", "layer_group", "expert_group", "proj_group"),
    *("proj", "kind", "packed_split"),
)
AXES = ("layer_axis", "expert_axis", "rows_axis", "cols_axis")
SPLIT_KEYS = ("axis", "splits", "projs", "interleaved")
KINDS = ("experts", "shared", "attn", "mlp", "mixer", "router", "head", "embed", "other")
UNMATCHED = "no rule matches"


@dataclass
class Rule:
    """One entry of extract_rules. hits: how many tensors it took."""

    name: str
    match: re.Pattern[str]
    ndim: int | None
    layout: Layout
    layer_group: int | None = None
    expert_group: int | None = None
    proj_group: int | None = None
    proj: str | None = None
    kind: str | None = None
    split: Split | None = None
    hits: int = 0


@dataclass
class Placer:
    """The rules of a config and what they need. warnings: one for each thing, however often it occurs."""

    rules: list[Rule]
    parsing: Parsing
    model_config: Mapping[str, Any]
    warnings: list[str] = field(default_factory=list)

    def place(self, name: str, shape: Sequence[int]) -> Place | str:
        """Where the weight belongs, or why it belongs nowhere."""
        for rule in self.rules:
            found = rule.match.search(name)
            if found and (rule.ndim is None or rule.ndim == len(shape)) and len(shape) > 1:
                rule.hits += 1
                return self._by_rule(rule, found, name)
        if not self.parsing.builtin_rules:
            return UNMATCHED
        return families.place(name, shape, self.model_config)

    def _by_rule(self, rule: Rule, found: re.Match[str], name: str) -> Place | str:
        layer = (
            _number(found, rule.layer_group) if rule.layer_group else _search(self.parsing.layer_regex, name)
        )
        expert = _number(found, rule.expert_group) if rule.expert_group else None
        if expert is None and rule.layout.expert is None:
            expert = _search(self.parsing.expert_regex, name)
        proj = rule.proj or self._proj(rule, found, name)
        if proj is None:
            return f"rule {rule.name!r} took it, but its projection is no known alias"
        kind = rule.kind or self._kind(name, expert is not None or rule.layout.expert is not None)
        return Place(rule.name, kind, proj, layer, expert, rule.layout, rule.split)

    def _proj(self, rule: Rule, found: re.Match[str], name: str) -> str | None:
        raw = found[rule.proj_group] if rule.proj_group else None
        known = self.canonical(raw if raw is not None else name, exact=raw is not None)
        if known:
            return known
        if raw is None:
            return (role_of(name.removesuffix(".weight")) or name.rpartition(".")[0]).rpartition(".")[
                2
            ] or name
        self._warn(f"rule {rule.name!r}: {raw!r} is no known alias of a projection")
        return None if self.parsing.proj_group_strict else raw

    def canonical(self, text: str, *, exact: bool) -> str | None:
        """The projection that a name, or a word captured from one, means by proj_aliases."""
        words = {text} if exact else set(text.split("."))
        for proj, aliases in self.parsing.proj_aliases.items():
            for alias in (proj, *aliases):
                if alias.strip(".") in words or (not exact and "." in alias and alias in text):
                    return proj
        return None

    def _kind(self, name: str, routed: bool) -> str:
        if all(word in name for word in self.parsing.shared_expert_keywords):
            return "shared"
        if routed:
            return "experts"
        return (role_of(name.removesuffix(".weight")) or "other").partition(".")[0]

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def unused(self, names: Sequence[str]) -> list[str]:
        """A warning for each rule that took nothing, with the names nearest to its pattern."""
        told = []
        for rule in self.rules:
            if not rule.hits:
                near = _nearest(rule.match.pattern, names)
                told.append(
                    f"rule {rule.name!r} matches nothing; the nearest tensors are {', '.join(near) or 'none'}"
                )
        return told


def make_placer(
    rules: Sequence[Mapping[str, Any]], parsing: Parsing, model_config: Mapping[str, Any]
) -> Placer:
    """Raises BadConfig for a rule that cannot be followed."""
    enabled = [(i, rule) for i, rule in enumerate(rules) if rule.get("enabled", True)]
    return Placer([_rule(rule, f"extract_rules[{i}]") for i, rule in enabled], parsing, model_config)


def _rule(given: Mapping[str, Any], where: str) -> Rule:
    check_keys(given, KNOWN, where)
    name = str(given.get("name") or where)
    where = f"rule {name!r}"
    if "match" not in given:
        raise BadConfig(f"{where} has no match", hint="a regular expression that finds the tensors' names")
    match, ndim = compiled(given["match"], f"{where}: match"), given.get("ndim")
    groups: dict[str, Any] = {key: given.get(key) for key in ("layer_group", "expert_group", "proj_group")}
    for key, group in groups.items():
        if group is not None and not (type(group) is int and 1 <= group <= match.groups):
            raise BadConfig(f"{where}: {key} is {group!r}", hint=f"match has {match.groups} groups, from 1")
    kind = given.get("kind")
    if kind is not None and kind not in KINDS:
        raise BadConfig(f"{where}: kind is {kind!r}", hint=f"one of {', '.join(KINDS)}")
    layout = _layout(given.get("layout"), ndim, where)
    return Rule(
        name, match, ndim, layout, **groups, proj=given.get("proj"), kind=kind, split=_split(given, where)
    )


def _layout(given: Any, ndim: Any, where: str) -> Layout:
    if ndim is not None and not (type(ndim) is int and 2 <= ndim <= 4):
        raise BadConfig(f"{where}: ndim is {ndim!r}", hint="2, 3 or 4")
    if given is None:
        return (
            Layout(expert=0, rows=1, cols=2) if ndim == 3 else Layout(0, 1, 2, 3) if ndim == 4 else Layout()
        )
    check_keys(given, AXES, f"{where} layout")
    axes = {axis: given.get(axis) for axis in AXES}
    named = [n for n in axes.values() if n is not None]
    count = ndim or len(named)
    whole = axes["rows_axis"] is not None and axes["cols_axis"] is not None
    if not whole or not all(type(n) is int for n in named) or sorted(named) != list(range(count)):
        raise BadConfig(
            f"{where}: the layout {named} does not name each of {count} axes once",
            hint="rows_axis and cols_axis always; layer_axis and expert_axis where the tensor has them",
        )
    return Layout(axes["layer_axis"], axes["expert_axis"], axes["rows_axis"], axes["cols_axis"])


def _split(given: Mapping[str, Any], where: str) -> Split | None:
    split = given.get("packed_split")
    if split is None:
        return None
    check_keys(split, SPLIT_KEYS, f"{where} packed_split")
    axis, sizes, projs = split.get("axis", "rows"), split.get("splits"), split.get("projs")
    good = axis in ("rows", "cols") and isinstance(projs, list) and len(set(projs)) == len(projs) > 1
    good = good and all(isinstance(proj, str) for proj in projs or [])
    if good and sizes is not None:
        good = (
            isinstance(sizes, list)
            and len(sizes) == len(projs)
            and all(type(n) is int and n > 0 for n in sizes)
        )
    if not good:
        raise BadConfig(
            f"{where}: packed_split is {dict(split)}",
            hint='"axis": "rows" or "cols", "projs" of different names, "splits" with a size for each',
        )
    return Split(axis, tuple(projs), tuple(sizes) if sizes else None, bool(split.get("interleaved", False)))


def _number(found: re.Match[str], group: int) -> int | None:
    text = found[group]
    return int(text) if text and text.isdigit() else None


def _search(pattern: str, name: str) -> int | None:
    found = re.search(pattern, name)
    return _number(found, 1) if found and found.re.groups else None


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """Names like a pattern; of the many that differ in their numbers only, one."""
    plain = re.sub(r"\\d\+|\(\\d\+\)", "0", pattern).replace("\\.", ".").strip("^$").replace(".*", "")
    kinds = {re.sub(r"\d+", "0", name): name for name in reversed(names)}
    return [kinds[kind] for kind in difflib.get_close_matches(plain, list(kinds), n=3, cutoff=0.0)]
