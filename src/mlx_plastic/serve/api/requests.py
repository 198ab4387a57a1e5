"""What a request for an answer says: messages, how to speak, what to wear, what to remember."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_plastic.memory import TAGS
from mlx_plastic.serve.api.errors import bad
from mlx_plastic.serve.api.fields import Fields, object_of, parse_body, text_of
from mlx_plastic.serve.batch.jobs import Sampling

MOST_CHARACTERS = 4_000_000  # of one message; the window is checked in tokens
MOST_MESSAGES = 4096
MOST_STOPS = 8
MOST_TOP = 20
MOST_ANSWERS = 8
MEMORY = ("on", "no-train", "off")


@dataclass(frozen=True)
class Consent:
    """What may become of what is said. tags: for the log, such as no-train. retry: the client asks again."""

    log: bool = True
    rag: bool = False
    tags: frozenset[str] = frozenset()
    retry: bool = False


@dataclass(frozen=True)
class Defaults:
    """For what a request does not say."""

    max_tokens: int
    temperature: float
    memory: bool
    rag: bool


@dataclass(frozen=True)
class Speaking:
    """How every kind of answer is asked for."""

    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...] = ()
    answers: int = 1
    logprobs: int | None = None
    stream: bool = False
    usage: bool = False


@dataclass(frozen=True)
class ChatRequest:
    """messages: as the chat template takes them. schema: what the answer has to follow; None: nothing."""

    model: str | None
    packs: list[Any]
    messages: list[dict[str, Any]]
    speaking: Speaking
    consent: Consent
    tools: list[dict[str, Any]] = field(default_factory=list)
    must_call: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None


def read_chat(body: Mapping[str, Any], headers: Mapping[str, str], defaults: Defaults) -> ChatRequest:
    """A request to /v1/chat/completions. Raises ApiError for whatever is wrong or not supported."""
    f = Fields(body)
    messages = read_messages(f.listed("messages", most=MOST_MESSAGES))
    tools = read_tools(f.listed("tools", most=128))
    top = f.whole("top_logprobs", 0, 0, MOST_TOP)
    told = f.flag("logprobs", False)
    if top and not told:
        raise bad("top_logprobs needs logprobs: true", "top_logprobs")
    limit = f.whole("max_completion_tokens", f.whole("max_tokens", defaults.max_tokens, 1, 10**6), 1, 10**6)
    request = ChatRequest(
        *read_model(f),
        messages,
        read_speaking(f, limit, defaults, logprobs=top if told else None),
        read_consent(f, headers, defaults),
        tools,
        read_tool_choice(f.take("tool_choice"), tools),
        read_format(f.object("response_format")),
    )
    f.flag("parallel_tool_calls", True)
    f.only("modalities", ["text"])
    f.only("service_tier", "auto", "default")
    f.only("reasoning_effort", "none")
    f.ignore("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
    f.end()
    return request


def read_model(f: Fields) -> tuple[str | None, list[Any]]:
    return f.text("model", most=512) or None, f.listed("packs", most=16)


def read_speaking(f: Fields, limit: int, defaults: Defaults, *, logprobs: int | None) -> Speaking:
    sampling = Sampling(
        temperature=f.number("temperature", defaults.temperature, 0, 2),
        top_p=f.number("top_p", 1.0, 0, 1),
        top_k=f.whole("top_k", 0, 0, 10**6),
        min_p=f.number("min_p", 0.0, 0, 1),
        seed=f.whole("seed", secrets.randbits(31), -(2**63), 2**64),
        frequency_penalty=f.number("frequency_penalty", 0.0, -2, 2),
        presence_penalty=f.number("presence_penalty", 0.0, -2, 2),
        repetition_penalty=f.number("repetition_penalty", 1.0, 0.1, 10),
        bias=_bias(f.object("logit_bias")),
    )
    options = Fields(f.object("stream_options"), "stream_options")
    usage = options.flag("include_usage", False)
    options.only("include_obfuscation", False, True)
    options.end()
    stream = f.flag("stream", False)
    if usage and not stream:
        raise bad("stream_options needs stream: true", "stream_options")
    answers = f.whole("n", 1, 1, MOST_ANSWERS)
    return Speaking(sampling, limit, _stops(f.take("stop")), answers, logprobs, stream, usage)


def _bias(given: Mapping[str, Any]) -> dict[int, float]:
    if len(given) > 1024:
        raise bad("logit_bias has more than 1024 tokens", "logit_bias")
    f, found = Fields(given, "logit_bias"), {}
    for key in given:
        if not key.isdecimal() or len(key) > 9:
            raise bad("logit_bias must map ids of tokens to numbers", "logit_bias")
        found[int(key)] = f.number(key, 0.0, -100, 100)
    return found


def _stops(given: Any) -> tuple[str, ...]:
    stops = given if isinstance(given, list) else [] if given is None else [given]
    if len(stops) > MOST_STOPS:
        raise bad(f"stop has more than {MOST_STOPS} texts", "stop")
    return tuple(s for s in (text_of(stop, "stop", 256) for stop in stops) if s)


def read_consent(f: Fields, headers: Mapping[str, str], defaults: Defaults) -> Consent:
    """store: false and the header X-Plastic-Memory keep what is said out of nights, or out of everything."""
    store = f.flag("store", True)
    f.object("metadata")
    said = f.choice("memory", headers.get("x-plastic-memory", "").lower() or "on", MEMORY)
    if said not in MEMORY:
        raise bad(f"the header X-Plastic-Memory must be one of {', '.join(MEMORY)}")
    tags = {text_of(tag, "tags", 64).lower() for tag in f.listed("tags", most=8)}
    if unknown := sorted(tags - set(TAGS)):
        raise bad(f"there is no tag {unknown[0]!r}; known: {', '.join(TAGS)}", "tags")
    if not store or said == "no-train":
        tags.add("no-train")
    log = defaults.memory and said != "off"
    rag = f.flag("rag", defaults.rag) and said != "off"
    retry = headers.get("x-stainless-retry-count", "0") not in ("", "0")
    return Consent(log, rag, frozenset(tags), retry)


# -- messages


def read_messages(given: list[Any]) -> list[dict[str, Any]]:
    """As a chat template takes them: role, content, and what tools were called with."""
    if not given:
        raise bad("messages must be a list with at least one message", "messages")
    found = [_message(object_of(m, f"messages[{i}]"), f"messages[{i}]") for i, m in enumerate(given)]
    if not any(m["role"] in ("user", "tool") for m in found):
        raise bad("messages must hold something from the user", "messages")
    return found


def _message(given: dict[str, Any], place: str) -> dict[str, Any]:
    f = Fields(given, place)
    role = f.choice("role", "", ("system", "developer", "user", "assistant", "tool"))
    if not role:
        raise bad(f"{place}.role is missing", f"{place}.role")
    calls = f.listed("tool_calls", most=128)
    content = f.take("content")
    message: dict[str, Any] = {"role": "system" if role == "developer" else role}
    message["content"] = "" if content is None and calls else _content(content, f"{place}.content")
    if calls:
        message["tool_calls"] = [_call(c, f"{place}.tool_calls[{i}]") for i, c in enumerate(calls)]
    if call_id := f.text("tool_call_id", most=256):
        message["tool_call_id"] = call_id
    if name := f.text("name", most=256):
        message["name"] = name
    f.only("refusal", "")
    f.only("audio")
    f.only("function_call")
    f.ignore("annotations", "reasoning", "reasoning_content")
    f.end()
    return message


def _content(given: Any, place: str) -> str:
    if isinstance(given, list):
        parts = [Fields(object_of(p, f"{place}[{i}]"), f"{place}[{i}]") for i, p in enumerate(given[:4096])]
        for part in parts:
            if part.text("type", most=64) not in ("text", "input_text", "output_text"):
                raise bad(f"{place}: only text can be read here", place, "unsupported_content")
        return "".join(part.text("text", most=MOST_CHARACTERS) for part in parts)
    return text_of(given, place, MOST_CHARACTERS)


def _call(given: Any, place: str) -> dict[str, Any]:
    f = Fields(object_of(given, place), place)
    function = Fields(f.object("function"), f"{place}.function")
    arguments = function.text("arguments", "{}", most=MOST_CHARACTERS) or "{}"
    call = {"name": function.text("name", most=256), "arguments": parse_body(arguments.encode())}
    return {"id": f.text("id", most=256), "type": "function", "function": call}


# -- tools and forms


def read_tools(given: list[Any]) -> list[dict[str, Any]]:
    tools = []
    for i, tool in enumerate(given):
        place = f"tools[{i}]"
        f = Fields(object_of(tool, place), place)
        f.only("type", "function")
        function = f.object("function")
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise bad(f"{place}.function.name is missing", place)
        tools.append({"type": "function", "function": function})
        f.end()
    return tools


def read_tool_choice(given: Any, tools: list[dict[str, Any]]) -> tuple[str, ...]:
    """The names of which one has to be called; () for as the model likes. "none" takes the tools away."""
    names = tuple(tool["function"]["name"] for tool in tools)
    if given is None or given == "auto":
        return ()
    if given == "none":
        tools.clear()
        return ()
    if given == "required" and names:
        return names
    if isinstance(given, dict) and given.get("type") == "function":
        name = object_of(given.get("function"), "tool_choice.function").get("name")
        if name in names:
            return (str(name),)
    raise bad("tool_choice must be auto, none, required or one of the tools", "tool_choice")


def read_format(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that an answer has to follow."""
    f = Fields(given, "response_format")
    kind = f.choice("type", "text", ("text", "json_object", "json_schema"))
    named = Fields(f.object("json_schema"), "response_format.json_schema")
    schema = named.object("schema")
    named.flag("strict", True)
    named.ignore("name", "description")
    named.end()
    f.end()
    if kind == "json_schema" and not schema:
        raise bad("response_format.json_schema.schema is missing", "response_format")
    return schema if kind == "json_schema" else {"type": "object"} if kind == "json_object" else None
