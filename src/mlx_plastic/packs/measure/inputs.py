"""Files of inputs to measure speed on: chats, prompts or texts, a line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlx_plastic.errors import BadData
from mlx_plastic.packs.create.data import lines_of, parsed, refuse
from mlx_plastic.samples import BadLine, Encoded, Message, parse_messages

if TYPE_CHECKING:
    from mlx_plastic.base import Base

OPEN, CLOSE = "<think>", "</think>"
HINT = 'an input a line: plain text, or {"prompt": ...}, {"messages": ...} or {"text": ...}'

Thinking = Literal["strip", "keep"]


def read_inputs(path: Path, base: Base, *, length: int, thinking: Thinking) -> tuple[list[Encoded], str]:
    """The inputs of a file, cut to `length` tokens with every token but the first counted, and what to note.

    The file is JSONL with "messages", "prompt" or "text" in each line, or plain text with an input a line.
    thinking: whether what assistants thought aloud stays in. Raises BadData naming each line that cannot
    be used.
    """
    found: list[Encoded] = []
    bad: list[BadLine] = []
    is_jsonl, cut = None, 0
    for number, line in lines_of(path):
        is_jsonl = line.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" if is_jsonl is None else is_jsonl
        try:
            tokens = _tokens(line, base, is_jsonl=is_jsonl, thinking=thinking)
        except BadData as error:
            bad.append(BadLine(number, error.message))
            continue
        cut += len(tokens) > length
        tokens = tokens[:length]
        found.append(Encoded(tuple(tokens), (False, *[True] * (len(tokens) - 1))))
    refuse(path, bad, hint=HINT)
    if not found:
        raise BadData(f"{path} holds no input", hint=HINT)
    return found, f"{cut} of {len(found)} inputs are cut to {length} tokens" if cut else ""


def _tokens(line: bytes, base: Base, *, is_jsonl: bool, thinking: Thinking) -> list[int]:
    """Raises BadData saying what of the line is wrong."""
    keep: Callable[[str], str] = stripped if thinking == "strip" else str
    value = parsed(line) if is_jsonl else {"text": _text(line)}
    if "messages" in value:
        said = parse_messages(value)
        chat = [
            m.as_dict() | {"content": keep(m.content) if m.role == "assistant" else m.content} for m in said
        ]
        asks = said[-1].role == "user"
        template = base.tokenizer.apply_chat_template
        tokens = list(template(chat, tokenize=True, add_generation_prompt=asks))
    elif isinstance(value.get("prompt"), str):
        tokens = base.prompt([Message("user", value["prompt"])])
    elif isinstance(value.get("text"), str):
        tokens = list(base.tokenizer.encode(keep(value["text"])))
    else:
        raise BadData("it has no 'messages', 'prompt' or 'text'")
    if len(tokens) < 2:
        raise BadData("it is less than two tokens" + (" without its thoughts" if thinking == "strip" else ""))
    return tokens


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadData("not UTF-8") from error


def stripped(text: str) -> str:
    """The text without <think> ... </think>; what is not closed goes to the end."""
    kept, at = [], 0
    while (start := text.find(OPEN, at)) >= 0:
        kept.append(text[at:start])
        end = text.find(CLOSE, start)
        at = end + len(CLOSE) if end >= 0 else len(text)
    return "".join([*kept, text[at:]]).strip()
