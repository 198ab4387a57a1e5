"""What a model learns from and is measured on: messages, samples, tokens with a loss mask, the split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from mlx_plastic.errors import BadData

Role = Literal["system", "user", "assistant"]
Part = Literal["train", "valid", "test"]
LossMode = Literal["answer", "all"]
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One utterance."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Sample:
    """A conversation to learn from, and where it came from.

    key: what the split hashes; samples of one key fall on one side for ever.
    turns: ids of the turns in the memory log that it was made from (lineage; may be empty).
    kind: what made it ("chat", "qa", "rehearsal", ...), for counts and reports.
    """

    messages: tuple[Message, ...]
    key: str = ""
    turns: tuple[str, ...] = ()
    kind: str = "chat"

    def as_dict(self) -> dict[str, Any]:
        return {
            "messages": [m.as_dict() for m in self.messages],
            "key": self.key,
            "turns": list(self.turns),
            "kind": self.kind,
        }


@dataclass(frozen=True)
class Encoded:
    """A sample as tokens.

    tokens: (n,) ids. targets: (n,) True where the token is to be predicted and counts in the loss;
    targets[0] is never True, since nothing comes before it. soft: what is to be predicted there is not the
    token but the base's own distribution over all tokens: learning it keeps a pack near its base.
    """

    tokens: tuple[int, ...]
    targets: tuple[bool, ...]
    sample: Sample | None = field(default=None, compare=False)
    soft: bool = False

    @property
    def supervised(self) -> int:
        return sum(self.targets)


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that we use."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


def encode(
    sample: Sample,
    tokenizer: ChatTokenizer,
    *,
    max_tokens: int,
    loss_mode: LossMode = "answer",
) -> Encoded:
    """The sample under the base's chat template, with every assistant turn supervised.

    loss_mode "answer" counts what the assistant says, its end-of-turn token included; "all" counts
    everything but the first token. Raises BadData for a sample longer than max_tokens, for one that the
    template refuses, and where an answer's place cannot be told: the mask would then be wrong.
    """
    tokens = _render(sample.messages, tokenizer)
    if len(tokens) > max_tokens:
        raise BadData(
            f"a sample of {len(tokens)} tokens is longer than the window of {max_tokens}",
            hint="split the conversation, or raise max_tokens",
        )
    if loss_mode == "all":
        return Encoded(tokens, (False, *[True] * (len(tokens) - 1)), sample)
    targets = [False] * len(tokens)
    for i, message in enumerate(sample.messages):
        if message.role == "assistant":
            start, stop = _answer(i, sample.messages, tokens, tokenizer)
            targets[start:stop] = [True] * (stop - start)
    return Encoded(tokens, tuple(targets), sample)


def _answer(
    i: int, messages: Sequence[Message], tokens: tuple[int, ...], tokenizer: ChatTokenizer
) -> tuple[int, int]:
    """Where message i lies in `tokens`: behind the prompt that asks for it, up to where it ends as the last.

    Some templates render an answer otherwise once more is said (they drop its thoughts), or open it
    otherwise when they ask for it; then neither end can be told.
    """
    prompt = _render(messages[:i], tokenizer, add_generation_prompt=True)
    through = tokens if i + 1 == len(messages) else _render(messages[: i + 1], tokenizer)
    if not (0 < len(prompt) < len(through) and through[: len(prompt)] == prompt):
        raise BadData(
            f"the chat template does not render message {i} behind the prompt that asks for it",
            hint='train with loss_mode "all", or mend the template of this base',
        )
    if tokens[: len(through)] != through:
        raise BadData(
            f"the chat template renders message {i} otherwise once more is said",
            hint="split the conversation, so that each answer ends a sample",
        )
    return len(prompt), len(through)


def _render(messages: Sequence[Message], tokenizer: ChatTokenizer, **options: Any) -> tuple[int, ...]:
    from jinja2 import TemplateError

    try:
        chat = [m.as_dict() for m in messages]
        tokens = _ids(tokenizer.apply_chat_template(chat, tokenize=True, **options))
    except (TemplateError, ValueError) as error:
        roles = ", ".join(m.role for m in messages) or "nothing"
        raise BadData(
            f"the base's chat template refuses a conversation of {roles}: {type(error).__name__}",
            hint="most want a user first, then turns in alternation; a base without a template cannot chat",
        ) from error
    if not tokens:
        raise BadData("the base's chat template renders a conversation as nothing")
    return tokens


def _ids(encoded: Any) -> tuple[int, ...]:
    """Token ids from whatever this release of transformers answers: a list or a mapping."""
    return tuple(map(int, encoded["input_ids"] if hasattr(encoded, "keys") else encoded))


def split_point(key: str) -> float:
    """Where `key` lies in [0, 1), by its sha256; uniform over keys."""
    digest = hashlib.sha256(key.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def part_of(key: str, *, valid: float = 0.1, test: float = 0.1) -> Part:
    """Where everything of `key` belongs, the same on every machine and every night.

    valid, test: shares in [0, 1]. A hash decides, so nothing that was trained on is ever tested on.
    """
    point = split_point(key)
    if point < test:
        return "test"
    return "valid" if point < test + valid else "train"


@dataclass(frozen=True)
class BadLine:
    """A line of a JSONL file that could not be used: its number (from 1) and why; never its text."""

    number: int
    reason: str


def parse_messages(value: Any) -> tuple[Message, ...]:
    """Messages from `{"messages": [{"role": ..., "content": ...}, ...]}`. Raises BadData naming the field."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise BadData(
            "no list 'messages'", hint='each line is {"messages": [{"role": "user", "content": "..."}, ...]}'
        )
    if not value["messages"]:
        raise BadData("'messages' is empty")
    return tuple(_parse_message(i, m) for i, m in enumerate(value["messages"]))


def _parse_message(index: int, value: Any) -> Message:
    if not isinstance(value, dict):
        raise BadData(f"messages[{index}] is not an object")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise BadData(f"messages[{index}].role is not one of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise BadData(f"messages[{index}].content is not a text")
    if any("\ud800" <= c <= "\udfff" for c in content):  # half a character: it can be neither kept nor shown
        raise BadData(f"messages[{index}].content is not valid Unicode")
    return Message(role, content)


def read_chats(path: Path) -> tuple[list[tuple[Message, ...]], list[BadLine]]:
    """The conversations of a JSONL file, and the lines that hold none. Raises BadData if unreadable."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    chats: list[tuple[Message, ...]] = []
    bad: list[BadLine] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            chats.append(parse_messages(json.loads(line.decode("utf-8-sig"))))
        except BadData as error:
            bad.append(BadLine(number, error.message))
        except UnicodeDecodeError:
            bad.append(BadLine(number, "not UTF-8"))
        except (ValueError, RecursionError):  # also a number too long to be one
            bad.append(BadLine(number, "not JSON"))
    return chats, bad


def to_jsonl(samples: Iterable[Sample]) -> bytes:
    return "".join(json.dumps(s.as_dict(), ensure_ascii=False) + "\n" for s in samples).encode("utf-8")


def from_jsonl(data: bytes) -> list[Sample]:
    """Samples that `to_jsonl` wrote; our own files, so a broken line raises BadData."""
    found = []
    for number, line in enumerate(data.splitlines(), 1):  # bytes: in a text U+2028 would end a line
        try:
            value = json.loads(line)
            found.append(Sample(parse_messages(value), value["key"], tuple(value["turns"]), value["kind"]))
        except (json.JSONDecodeError, KeyError, BadData) as error:
            raise BadData(f"line {number} is no sample: {type(error).__name__}") from error
    return found


def digest(samples: Sequence[Sample]) -> str:
    """sha256 over the samples, for manifests."""
    return hashlib.sha256(to_jsonl(samples)).hexdigest()
