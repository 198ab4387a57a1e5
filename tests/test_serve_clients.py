"""The real openai client, sync and async, against a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.home import Home, find_home
from mlx_plastic.memory.embed import model_folder
from serving import Live, live
from test_batch import QUESTIONS, loud
from test_compose import random_pack

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = find_home(tmp_path_factory.mktemp("served"))
    add_packs(home)
    with live(home) as found:
        yield found


def add_packs(home: Home) -> None:
    from mlx_plastic.base import load_base
    from mlx_plastic.packs import Store

    base = load_base("nano")
    for seed, name in ((1, "one"), (2, "two")):
        pack = loud(random_pack(base, seed, name=name))
        Store(home).add(pack.factors, remade(pack.manifest, pack.factors))


def remade(manifest: Any, factors: Any) -> Any:
    import dataclasses

    from mlx_plastic.packs import make_manifest

    fresh = make_manifest(
        factors,
        name=manifest.name,
        base_id="nano",
        base_fingerprint=manifest.base_fingerprint,
        training={},
        data=manifest.data,
        run=manifest.run,
    )
    return dataclasses.replace(fresh)


@pytest.fixture
def client(server: Live) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_models_tell_what_they_are_made_of(client: Any) -> None:
    models = {m.id: m for m in client.models.list()}
    assert {"plastic", "nano", "nano:one", "nano:two"} <= models.keys()
    assert models["nano:one"].parent == "nano" and models["nano:one"].packs == ["one"]
    assert client.models.retrieve("nano:one").id == "nano:one"
    assert client.models.retrieve("nano:one+two").packs == ["one", "two"]
    version = models["nano:one"].version
    assert client.models.retrieve(f"nano:one@{version}").packs == ["one"]
    with pytest.raises(openai.NotFoundError, match="has the version"):
        client.models.retrieve("nano:one@ffff")
    with pytest.raises(openai.NotFoundError, match="nearest is 'nano:one'"):
        client.models.retrieve("nano:ome")


def test_an_answer_is_whole_and_counted(client: Any) -> None:
    answer = client.chat.completions.create(model="nano", messages=user(QUESTIONS[0]))
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion"


def test_a_stream_says_the_same_in_the_order_that_clients_rely_on(client: Any) -> None:
    whole = client.chat.completions.create(model="nano", messages=user(QUESTIONS[0]), temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="nano",
            messages=user(QUESTIONS[0]),
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-2].choices[0].delta.content is None
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_packs_are_chosen_by_name_by_body_and_together(client: Any) -> None:
    def say(model: str, **more: Any) -> str:
        answer = client.chat.completions.create(
            model=model, messages=user(QUESTIONS[3]), temperature=0, max_tokens=16, extra_body=more
        )
        return str(answer.choices[0].message.content)

    bare = say("base")
    assert say("nano") == bare
    assert say("one") == say("nano:one") == say("nano", packs=[{"name": "one"}])
    assert say("nano", packs=[{"name": "one", "scale": 0}]) == bare
    answers = {bare, say("one"), say("nano:two"), say("nano:one+two")}
    assert len(answers) >= 2  # control: packs are heard
    assert say("plastic") == bare  # the home wears nothing


def test_what_the_home_wears_is_looked_up_at_every_request(server: Live, client: Any) -> None:
    def say(model: str) -> str:
        answer = client.chat.completions.create(model=model, messages=user("Tell me!"), temperature=0)
        return str(answer.choices[0].message.content)

    bare, one = say("plastic"), say("nano:one")
    assert bare != one  # control
    server.service.store.activate("one")
    try:
        assert say("plastic") == one
        assert say("base") == bare
    finally:
        server.service.store.rollback("base")
    assert say("plastic") == bare


def test_logprobs_come_with_bytes_whole_and_streamed(client: Any) -> None:
    how = {
        "model": "nano",
        "messages": user(QUESTIONS[0]),
        "logprobs": True,
        "top_logprobs": 3,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**how)
    told = whole.choices[0].logprobs.content
    assert len(told) == whole.usage.completion_tokens
    for token in told:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # the likeliest was taken
    assert (
        bytes(b for token in told for b in token.bytes).decode().strip() == whole.choices[0].message.content
    )
    streamed = [
        token
        for chunk in client.chat.completions.create(**how, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert [t.token for t in streamed] == [t.token for t in told]


def test_stop_seed_n_and_null_mean_what_they_do_elsewhere(client: Any) -> None:
    stopped = client.chat.completions.create(model="nano", messages=user(QUESTIONS[0]), stop=["France"])
    assert stopped.choices[0].message.content == "The capital of"
    warm = {"model": "nano", "messages": user("Sing me a song of the sea!"), "temperature": 2}
    warm |= {"seed": 11, "n": 4, "max_tokens": 12}
    first, again = (client.chat.completions.create(**warm) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) > 1 and [c.index for c in first.choices] == [0, 1, 2, 3]
    nulls = {name: None for name in ("stop", "max_tokens", "tools", "logit_bias", "response_format", "user")}
    body = {"temperature": 0} | nulls
    assert client.chat.completions.create(model="nano", messages=user(QUESTIONS[0]), extra_body=body).choices


def test_biased_tokens_do_not_come(server: Live, client: Any) -> None:
    paris = server.service.base.tokenizer.encode(" Paris", add_special_tokens=False)[0]
    answer = client.chat.completions.create(
        model="nano", messages=user(QUESTIONS[0]), logit_bias={str(paris): -100}, temperature=0
    )
    assert "Paris" not in answer.choices[0].message.content


def test_a_schema_is_followed(client: Any) -> None:
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {
            "name": {"enum": ["Rex", "Tom"]},
            "age": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema, "strict": True}}
    for temperature in (0, 1.5):
        answer = client.chat.completions.create(
            model="nano", messages=user("My cat?"), response_format=form, temperature=temperature
        )
        found = json.loads(answer.choices[0].message.content)
        assert found["name"] in ("Rex", "Tom") and 1 <= found["age"] <= 9
    free = client.chat.completions.create(model="nano", messages=user("My cat?"), temperature=0)
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(free.choices[0].message.content)  # control
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.chat.completions.create(
            model="nano",
            messages=user("x"),
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "nothing"}},
            },
        )


def test_errors_are_the_clients_own_kinds(client: Any) -> None:
    def create(**changes: Any) -> Any:
        return client.chat.completions.create(**({"model": "nano", "messages": user("Hi")} | changes))

    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'"):
        create(model="gpt-4")
    with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'") as unknown:
        create(extra_body={"temprature": 1})
    assert unknown.value.param == "temprature" and unknown.value.code == "unsupported_parameter"
    with pytest.raises(openai.BadRequestError, match="knows no tools"):
        create(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    with pytest.raises(openai.BadRequestError, match=r"is 1024 tokens; .* \d+ too many") as long:
        create(messages=user("word " * 3000))
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="only text"):
        create(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])
    with pytest.raises(openai.BadRequestError, match="from 0 to 2"):
        create(temperature=3)


def test_completions_go_on_without_a_template(client: Any) -> None:
    answer = client.completions.create(model="nano", prompt=["Hello", "My name"], max_tokens=5, logprobs=2)
    assert [c.index for c in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.logprobs.tokens) == 5 and "".join(choice.logprobs.tokens) == choice.text
    streamed = client.completions.create(
        model="nano", prompt="Hello", max_tokens=5, stream=True, temperature=0
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


def test_responses_answer_whole_and_streamed(client: Any) -> None:
    whole = client.responses.create(model="nano", input=QUESTIONS[0], temperature=0)
    assert whole.output_text == "The capital of France is Paris." and whole.status == "completed"
    with client.responses.stream(model="nano", input=user(QUESTIONS[0]), temperature=0) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == whole.output_text
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert "response.output_text.delta" in kinds
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="nano", input="x", previous_response_id="resp_1")


@pytest.mark.skipif(model_folder() is None, reason="the sentence embedder is not installed")
def test_embeddings_come_as_the_client_asks_for_them(server: Live, client: Any) -> None:
    import numpy as np

    texts = ["a cat", "a kitten", "tax law"]
    model = server.service.names.embedder
    vectors = np.array([d.embedding for d in client.embeddings.create(model=model, input=texts).data])
    assert vectors.shape == (3, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    status, raw = server.post("/v1/embeddings", {"input": texts[0], "encoding_format": "base64"})
    assert status == 200
    unpacked = struct.unpack("<384f", base64.b64decode(raw["data"][0]["embedding"]))
    assert np.allclose(unpacked, vectors[0], atol=1e-6)


def test_many_async_requests_with_different_packs_are_decoded_together(server: Live) -> None:
    models = ["nano", "nano:one", "nano:two", "nano:one+two"] * 2

    async def ask_all() -> list[str]:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

        async def ask(model: str) -> str:
            text = ""
            stream = await client.chat.completions.create(
                model=model, messages=user(QUESTIONS[2]), temperature=0, max_tokens=16, stream=True
            )
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
            return text

        async with client:
            return list(await asyncio.gather(*map(ask, models)))

    before = server.service.worker.counts["steps"]
    found = asyncio.run(ask_all())
    together = server.service.worker.counts["steps"] - before
    before = server.service.worker.counts["steps"]
    alone = [
        server.ask(QUESTIONS[2], model=m, temperature=0, max_tokens=16)["choices"][0]["message"]["content"]
        for m in models
    ]
    assert found == alone
    assert together < 0.7 * (server.service.worker.counts["steps"] - before)


def test_a_client_that_leaves_stops_the_work(server: Live, client: Any) -> None:
    ends = server.service.base.tokenizer.eos_token_ids
    endless = {
        "model": "nano",
        "messages": user("Count!"),
        "max_tokens": 900,
        "logit_bias": {str(token): -100 for token in ends},
    }
    before = server.service.worker.counts["said_tokens"]
    stream = client.chat.completions.create(**endless, stream=True)
    for _, _ in zip(range(5), stream, strict=False):
        pass
    stream.close()
    wait_until(lambda: server.service.worker.load_now() == (0, 0))
    assert server.service.worker.counts["said_tokens"] - before < 800
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(**endless)
    wait_until(lambda: server.service.worker.load_now() == (0, 0))


def wait_until(holds: Any) -> None:
    import threading

    for _ in range(1200):
        if holds():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen within a minute")


# -- tools, on a base whose template knows them


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Lisbon", "Porto"]}},
            "required": ["town"],
            "additionalProperties": False,
        },
    },
}


def tool_base(folder: Path) -> Path:
    """A tiny base that is taught calls in the form of Qwen and its relatives."""
    from tiny import TEMPLATE, make_checkpoint

    checkpoint = make_checkpoint(folder)
    path = checkpoint / "tokenizer_config.json"
    config = json.loads(path.read_text())
    taught = (
        "{% if tools %}{% for t in tools %}{{ t.function.name }}{% endfor %}"
        "{{ ' in <tool_call>, as tool_call.name' }}{% endif %}"
    )
    config["chat_template"] = taught + TEMPLATE
    path.write_text(json.dumps(config))
    return checkpoint


def test_tools_are_called_whole_and_streamed(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    with live(find_home(tmp_path / "home"), base=tool_base(tmp_path / "base")) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        how = {
            "model": "base",
            "messages": user("Nora lives in Lisbon."),
            "tools": [TOOL],
            "tool_choice": "required",
            "max_tokens": 80,
            "temperature": 0,
        }
        whole = client.chat.completions.create(**how).choices[0]
        assert whole.finish_reason == "tool_calls" and whole.message.content is None
        (call,) = whole.message.tool_calls
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["town"] in ("Lisbon", "Porto")
        chunks = list(client.chat.completions.create(**how, stream=True))
        deltas = [c.choices[0].delta for c in chunks if c.choices and c.choices[0].delta.tool_calls]
        assert deltas[0].tool_calls[0].function.arguments == call.function.arguments
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        answered = [
            *how["messages"],
            {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
        ]
        more = {"messages": answered, "tool_choice": "auto"}
        assert client.chat.completions.create(**(how | more)).choices[0].finish_reason in ("stop", "length")
        asked = [turn for turn in server.service.memory.turns() if turn.role == "user"]
        assert len(asked) == 1  # the tool's answer is nothing that the person said
