"""What is done with each kind of find, by where the text goes: into the log, the index, or the weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from mlx_plastic.errors import BadConfig
from mlx_plastic.home import Home, settings
from mlx_plastic.memory.privacy.spans import KINDS, LIKELY, POSSIBLE, Kind

Destination = Literal["storage", "index", "training"]
DESTINATIONS: tuple[Destination, ...] = get_args(Destination)
Action = Literal[
    "mask", "drop", "keep"
]  # put a placeholder there; leave the whole turn out; leave it as it is
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True)
class Rule:
    """What is done with finds that are at least so sure."""

    action: Action
    least: float = POSSIBLE


@dataclass(frozen=True)
class Policy:
    """rules: by kind; a kind without one is not looked for. code: the same inside code."""

    destination: Destination
    rules: Mapping[Kind, Rule]
    code: Mapping[Kind, Rule]
    people: tuple[str, ...] = ()  # names that are found wherever they stand

    def action(self, kind: Kind) -> Action:
        rule = self.rules.get(kind) or self.code.get(kind)
        return rule.action if rule else "keep"


@dataclass(frozen=True)
class PrivacyConfig:
    """[privacy] of config.toml. storage, index, training: actions by kind, over those of the policy."""

    policy: Literal["balanced", "strict"] = "balanced"
    people: list[str] = field(default_factory=list)  # your own name and your family's, as they are written
    code: Literal["secrets", "same", "keep"] = "secrets"  # what is looked for inside code
    second_reader: bool = False  # a night asks the base too what personal or secret things a text names
    second_reader_texts: int = 200  # so many at most in a night
    storage: dict[str, str] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    training: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.people, list) or not all(
            isinstance(p, str) and p.strip() for p in self.people
        ):
            raise BadConfig(
                "[privacy] people is no list of names", hint='write people = ["Ada Lovelace", "Ada"]'
            )
        if self.second_reader_texts < 1:
            raise BadConfig(
                f"[privacy] second_reader_texts is {self.second_reader_texts}",
                hint="1 or more; second_reader = false reads none",
            )
        for destination in DESTINATIONS:
            _check(destination, getattr(self, destination))


def _check(destination: str, given: object) -> None:
    where = f"[privacy.{destination}]"
    if not isinstance(given, dict):
        raise BadConfig(f"{where} is no table", hint=f'write {where} and below it, say, person = "mask"')
    for kind, action in given.items():
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(KINDS)}"
            raise BadConfig(f"{where}: unknown kind {kind!r}", hint=meant)
        legal = (
            ACTIONS if destination != "storage" else ("mask", "keep")
        )  # a turn that was said is in the log
        if action not in legal:
            raise BadConfig(f"{where}: {kind} is {action!r}", hint=f"use one of {', '.join(legal)}")


def _rules(default: Rule, **others: Rule) -> Mapping[Kind, Rule]:
    return MappingProxyType({kind: others.get(kind, default) for kind in KINDS})


_MASK, _KEEP, _SURE = Rule("mask"), Rule("keep"), Rule("mask", LIKELY)

# Storage looks for secrets alone: the log is the person's own file, and it is written at every turn.
# Training finds everything; what a person tells of people they name on purpose is what a night is for.
_BALANCED: Mapping[Destination, Mapping[Kind, Rule]] = {
    "storage": MappingProxyType({"secret": _SURE}),
    "index": _rules(_MASK, secret=_SURE, url=_KEEP, person=_KEEP, profanity=_KEEP),
    "training": _rules(_MASK, person=_KEEP, profanity=Rule("drop")),
}
_STRICT: Mapping[Destination, Mapping[Kind, Rule]] = {
    "storage": MappingProxyType(
        {"secret": _SURE, "card": _SURE, "iban": _SURE, "national_id": _SURE, "account": _SURE}
    ),
    "index": _rules(_MASK, profanity=Rule("drop")),
    "training": _rules(_MASK, profanity=Rule("drop")),
}
_IN_CODE: tuple[Kind, ...] = ("secret", "card", "iban", "email")


def policy_for(destination: Destination, config: PrivacyConfig | None = None) -> Policy:
    """The policy of a destination; None: as shipped."""
    config = config or PrivacyConfig()
    rules = dict((_STRICT if config.policy == "strict" else _BALANCED)[destination])
    for kind, action in getattr(config, destination).items():
        known = rules.get(kind)
        rules[kind] = Rule(action, known.least if known else LIKELY if destination == "storage" else POSSIBLE)
    if destination == "storage":  # what is kept anyway need not be looked for
        rules = {kind: rule for kind, rule in rules.items() if rule.action != "keep"}
    kinds = {"secrets": _IN_CODE, "same": KINDS, "keep": ()}[config.code]
    code = {kind: rules[kind] for kind in kinds if kind in rules}
    return Policy(destination, MappingProxyType(rules), MappingProxyType(code), tuple(config.people))


def read_policy(home: Home | None, destination: Destination) -> Policy:
    """As config.toml has it; None: as shipped. Raises BadConfig."""
    return policy_for(destination, settings(home, "privacy", PrivacyConfig))
