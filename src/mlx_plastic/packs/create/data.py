"""Training files as samples: the three forms of JSONL that mlx-lm's users have, read strictly.

    {"messages": [{"role": "user", "content": ...}, ...]}
    {"prompt": ..., "completion": ...}
    {"text": ...}

The first line decides which of them a file is. Every line that cannot be used is an error with its number and
its field, never its text; nothing is dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlx_plastic.errors import BadData
from mlx_plastic.samples import (
    BadLine,
    Encoded,
    LossMode,
    Message,
    Sample,
    encode,
    parse_messages,
    part_of,
)

if TYPE_CHECKING:
    from mlx_plastic.base import Base

Form = Literal["messages", "completion", "text"]

FIELDS: dict[Form, tuple[str, ...]] = {
    "completion": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
}
ABOUT = ("key", "turns", "kind")  # what a night's own files say of a sample
FORMS_HINT = (
    'a line is {"messages": [{"role": "user", "content": "..."}, ...]}, {"prompt": "...", "completion": '
    '"..."} or {"text": "..."}, and a file holds one of the three'
)
SHOWN_FAULTS = 10
VALID_SAMPLES = 200  # held out at most: they are all measured again and again
ENCODED_PER_TICK = 64


@dataclass(frozen=True)
class Record:
    """A line. sample is None for a plain text; key: what the split hashes."""

    number: int
    key: str
    sample: Sample | None = None
    text: str = ""


@dataclass(frozen=True)
class DataFile:
    """A whole file. ignored: keys that are passed over, and in how many lines."""

    path: Path
    form: Form
    records: tuple[Record, ...]
    ignored: dict[str, int] = field(default_factory=dict)

    @property
    def natural_mode(self) -> LossMode:
        """Answers, if it can be told what is one."""
        return "all" if self.form == "text" else "answer"


@dataclass(frozen=True)
class Data:
    """What is learned and what is held out, as tokens; samples are whole, however long."""

    form: Form
    train: tuple[Encoded, ...]
    valid: tuple[Encoded, ...]
    notes: tuple[str, ...] = ()  # what a person should know of them


def read_data(path: Path) -> DataFile:
    """The lines of a JSONL file. Raises BadData naming each line and field that is wrong."""
    records: list[Record] = []
    bad: list[BadLine] = []
    ignored: Counter[str] = Counter()
    form: Form | None = None
    for number, line in lines_of(path):
        try:
            value = parsed(line)
            form = form or _form(value)
            records.append(_record(number, value, form))
            ignored.update(k for k in value if k not in (*FIELDS[form], *ABOUT))
        except BadData as error:
            bad.append(BadLine(number, error.message))
            if form is None:
                break  # of no known form: every further line would only say so again
    refuse(path, bad, hint=FORMS_HINT)
    if form is None:
        raise BadData(f"{path} holds no sample", hint=FORMS_HINT)
    return DataFile(path, form, tuple(records), dict(ignored))


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers. Raises BadData if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}", hint="check the path") from error


def parsed(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises BadData saying what it is instead."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadData("not UTF-8") from error
    except (ValueError, RecursionError) as error:  # also a number too long to be one
        raise BadData("not JSON") from error
    if not isinstance(value, dict):
        raise BadData("not a JSON object")
    return value


def _form(value: dict[str, Any]) -> Form:
    for form, fields in FIELDS.items():  # a line with both is a completion to mlx-lm too
        if all(name in value for name in fields):
            return form
    told = ", ".join(repr(key[:40]) for key in list(value)[:5]) or "nothing"
    raise BadData(f"it has none of 'messages', 'prompt' with 'completion', 'text', but {told}")


def _record(number: int, value: dict[str, Any], form: Form) -> Record:
    missing = [name for name in FIELDS[form] if name not in value]
    if missing:
        raise BadData(f"no {' and no '.join(map(repr, missing))}, which the lines before it have")
    key, turns, kind = _about(value)
    content = [value[name] for name in FIELDS[form]]
    key = key or hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
    if form == "messages":
        return Record(number, key, Sample(parse_messages(value), key, turns, kind))
    texts = [_text(name, value[name]) for name in FIELDS[form]]
    if form == "text":
        return Record(number, key, text=texts[0])
    pair = (Message("user", texts[0]), Message("assistant", texts[1]))
    return Record(number, key, Sample(pair, key, turns, kind))


def _about(value: dict[str, Any]) -> tuple[str, tuple[str, ...], str]:
    key, turns, kind = value.get("key", ""), value.get("turns", []), value.get("kind", "chat")
    if not isinstance(key, str) or not isinstance(kind, str):
        raise BadData("'key' or 'kind' is not a text")
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise BadData("'turns' is not a list of ids")
    return key, tuple(turns), kind


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"{name!r} is not a text")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise BadData(f"{name!r} is not valid Unicode")
    return value


def refuse(path: Path, bad: Sequence[BadLine], *, hint: str) -> None:
    """Raise BadData that lists the bad lines, if there are any."""
    if not bad:
        return
    shown = "".join(f"\n  - line {line.number}: {line.reason}" for line in bad[:SHOWN_FAULTS])
    more = f"\n  - and {len(bad) - SHOWN_FAULTS} more" if len(bad) > SHOWN_FAULTS else ""
    what = "a line" if len(bad) == 1 else f"{len(bad)} lines"
    raise BadData(f"{path}: {what} cannot be used:{shown}{more}", hint=hint)


def check_mode(data: DataFile, base: Base, mode: LossMode) -> None:
    """Raises BadData if it cannot be told what of this data is an answer."""
    from mlx_plastic.base.model import PLAIN_TEMPLATE

    if mode == "all":
        return
    if data.form == "text":
        raise BadData(
            f"{data.path} holds plain texts: no part of them is an answer", hint="add --loss-mode all"
        )
    if base.tokenizer.chat_template == PLAIN_TEMPLATE:
        raise BadData(
            f"the base {base.ref} has no chat template, so nobody knows how it marks an answer",
            hint="add --loss-mode all, or take a base that was made for chats",
        )


def encoded(
    data: DataFile,
    base: Base,
    mode: LossMode,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Encoded]:
    """The lines as tokens, whole, in order; every one has a token to learn.

    Chats go through the base's template; a plain text ends with the end-of-text token, as in mlx-lm.
    Raises BadData as `check_mode`, and naming each line that the template refuses or that has no answer.
    """
    check_mode(data, base, mode)
    found: list[Encoded] = []
    bad: list[BadLine] = []
    hint = ""
    for i, record in enumerate(data.records):
        try:
            found.append(_encoded(record, base, mode))
        except BadData as error:
            bad.append(BadLine(record.number, error.message))
            hint = hint or error.hint
        if on_progress and i % ENCODED_PER_TICK == 0:
            on_progress(i, len(data.records))
    refuse(data.path, bad, hint=hint)
    return found


def _encoded(record: Record, base: Base, mode: LossMode) -> Encoded:
    if record.sample is None:
        tokens = tuple(base.tokenizer.encode(record.text))
        end = base.tokenizer.eos_token_id
        if end is not None and tokens[-1:] != (end,):
            tokens = (*tokens, end)
        sample = Encoded(tokens, (False, *[True] * (len(tokens) - 1)))
    else:
        sample = encode(record.sample, base.tokenizer, max_tokens=1 << 40, loss_mode=mode)
    if not sample.supervised:
        raise BadData("nothing in it is to be learned", hint="give each chat an assistant message")
    return sample


def split_data(
    file: DataFile,
    base: Base,
    mode: LossMode,
    *,
    valid: Path | None = None,
    valid_share: float = 0.1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Data:
    """The samples to learn and those held out: the file `valid`, else a share of `file` by a hash.

    Raises BadData as `read_data` and `encoded`, and if nothing is left to learn.
    """
    notes = [_passed_over(file)]
    samples = encoded(file, base, mode, on_progress=on_progress)
    if valid is not None:
        other = read_data(valid)
        notes += [_passed_over(other), _shared(file, other)]
        held_out = encoded(other, base, mode)
    else:
        share = min(valid_share, VALID_SAMPLES / len(samples))
        aside = [part_of(record.key, valid=share, test=0.0) == "valid" for record in file.records]
        held_out = [sample for sample, out in zip(samples, aside, strict=True) if out]
        samples = [sample for sample, out in zip(samples, aside, strict=True) if not out]
    if not samples:
        raise BadData(f"every sample of {file.path} is held out", hint="give more samples, or --valid FILE")
    if not held_out:
        notes.append("no sample is held out: the factors of the last step are kept, unmeasured")
    return Data(file.form, tuple(samples), tuple(held_out), tuple(filter(None, notes)))


def _passed_over(file: DataFile) -> str:
    keys = ", ".join(f"{key!r} in {n} lines" for key, n in sorted(file.ignored.items()))
    return f"{file.path}: passed over {keys}" if keys else ""


def _shared(train: DataFile, valid: DataFile) -> str:
    """A warning where what is measured was learned."""
    known = {record.key for record in train.records}
    twice = sum(record.key in known for record in valid.records)
    return f"{twice} of {len(valid.records)} samples of {valid.path} are trained on too" if twice else ""
