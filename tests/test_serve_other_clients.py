"""More real clients against a real server: each test runs where its client is installed.

litellm, langchain-openai, llm, instructor, and openai for node, for which NODE_PATH names a node_modules.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from mlx_plastic.home import find_home
from mlx_plastic.memory.embed import model_folder
from serving import WAIT_S, Live, live
from test_batch import QUESTIONS

PARIS = "The capital of France is Paris."
ASKED = [{"role": "user", "content": QUESTIONS[0]}]
NODE = shutil.which("node") or ""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(find_home(tmp_path_factory.mktemp("served"))) as found:
        yield found


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for prices
    return pytest.importorskip("litellm")


def with_litellm(litellm: Any, server: Live, **fields: Any) -> Any:
    how = {"model": "openai/nano", "messages": ASKED, "api_base": f"{server.url}/v1", "api_key": "x"}
    return litellm.completion(**(how | {"num_retries": 0, "temperature": 0} | fields))


def test_litellm_is_answered_whole_and_streamed(litellm: Any, server: Live) -> None:
    whole = with_litellm(litellm, server)
    assert whole.choices[0].message.content == PARIS
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(with_litellm(litellm, server, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == PARIS
    assert any(getattr(c, "usage", None) for c in chunks)
    told = litellm.text_completion(
        model="text-completion-openai/nano",
        prompt="Hello",
        max_tokens=3,
        api_base=f"{server.url}/v1",
        api_key="x",
    )
    assert told.usage.completion_tokens == 3


def test_litellm_knows_our_errors_for_what_they_are(litellm: Any, server: Live) -> None:
    with pytest.raises(litellm.NotFoundError, match="nearest is 'nano'"):
        with_litellm(litellm, server, model="openai/nanu")
    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(litellm.ContextWindowExceededError):  # what makes it cut a talk or ask another model
        with_litellm(litellm, server, messages=long)
    with pytest.raises(litellm.BadRequestError, match="unsupported parameter 'mirostat'"):
        with_litellm(litellm, server, extra_body={"mirostat": 2})


def chat(server: Live, **more: Any) -> Any:
    found = pytest.importorskip("langchain_openai")
    how = {"model": "nano", "base_url": f"{server.url}/v1", "api_key": "x", "max_retries": 0}
    return found.ChatOpenAI(**(how | {"temperature": 0} | more))


def test_langchain_is_answered_streamed_in_batches_and_by_responses(server: Live) -> None:
    model = chat(server)
    answer = model.invoke(QUESTIONS[0])
    assert answer.content == PARIS and answer.usage_metadata["output_tokens"] > 0
    assert "".join(str(piece.content) for piece in model.stream(QUESTIONS[0])) == PARIS
    alone = [model.invoke(q).content for q in QUESTIONS[:3]]
    assert [a.content for a in model.batch(QUESTIONS[:3])] == alone
    assert chat(server, use_responses_api=True).invoke(QUESTIONS[0]).text == PARIS


def test_langchain_gets_what_follows_a_schema(server: Live) -> None:
    pytest.importorskip("llguidance")
    from pydantic import BaseModel

    class Pet(BaseModel):
        name: Literal["Rex", "Tom"]
        age: Literal[1, 2, 3]

    model = chat(server)
    assert isinstance(model.with_structured_output(Pet).invoke("My cat?"), Pet)
    with pytest.raises(Exception, match="knows no tools"):  # nano's template: told, not silently ignored
        model.with_structured_output(Pet, method="function_calling").invoke("My cat?")


@pytest.mark.skipif(model_folder() is None, reason="the embedder is not installed")
def test_langchain_embeds_text_and_is_told_why_not_tokens(server: Live) -> None:
    found = pytest.importorskip("langchain_openai")
    how = {"model": server.service.names.embedder, "base_url": f"{server.url}/v1", "api_key": "x"}
    assert len(found.OpenAIEmbeddings(**how, check_embedding_ctx_length=False).embed_query("cats")) == 384


def test_embeddings_of_tokens_are_refused_with_what_to_do(server: Live) -> None:
    for given in ([1, 2, 3], [[1, 2], [3]]):  # langchain's way, unless told otherwise
        status, error = server.post("/v1/embeddings", {"input": given})
        assert status == 400 and "check_embedding_ctx_length=False" in error["error"]["message"]


def test_instructor_gets_its_objects(server: Live) -> None:
    instructor, openai = pytest.importorskip("instructor"), pytest.importorskip("openai")
    pytest.importorskip("llguidance")
    from pydantic import BaseModel

    class Pet(BaseModel):
        name: Literal["Rex", "Tom"]
        age: Literal[1, 2, 3]

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
    asking = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    found = asking.chat.completions.create(
        model="nano", response_model=Pet, messages=ASKED, max_retries=0, temperature=0
    )
    assert isinstance(found, Pet)


def test_llm_talks_on_a_command_line(server: Live, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    known = f'- model_id: here\n  model_name: plastic\n  api_base: "{server.url}/v1"\n'
    (tmp_path / "extra-openai-models.yaml").write_text(known)

    def llm(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env=os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "x"},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip()

    assert llm("-m", "here", QUESTIONS[0]) == PARIS  # streamed
    assert llm("-m", "here", "--no-stream", QUESTIONS[0]) == PARIS
    assert "Rome" in llm("-c", "And of Italy?")
    talks = {turn.conversation for turn in server.service.memory.turns() if turn.content == "And of Italy?"}
    assert len(talks) == 1  # it went on with a talk of before


IN_NODE = """
const { OpenAI } = require("openai");
async function main() {
  const client = new OpenAI({ baseURL: process.argv[1] + "/v1", apiKey: "x", maxRetries: 0 });
  const how = { model: "nano", messages: JSON.parse(process.argv[2]), temperature: 0 };
  const said = [(await client.chat.completions.create(how)).choices[0].message.content];
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...how, stream: true }))
    text += chunk.choices[0]?.delta?.content ?? "";
  said.push(text);
  said.push((await client.chat.completions.stream(how).finalChatCompletion()).choices[0].message.content);
  said.push((await client.responses.create({ model: "nano", input: how.messages[0].content })).output_text);
  const stop = new AbortController();
  const long = { ...how, stream: true, max_tokens: 500 };
  for await (const _ of await client.chat.completions.create(long, { signal: stop.signal })) stop.abort();
  try { await client.chat.completions.create({ ...how, model: "nanu" }); }
  catch (error) { said.push(error.constructor.name + " " + error.param); }
  console.log(JSON.stringify(said));
}
main();
"""


def has_openai_for_node() -> bool:
    look = [NODE, "-e", 'require.resolve("openai")']
    return bool(NODE) and subprocess.run(look, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_openai_for_node(), reason="there is no openai for node here")
def test_openai_for_node_is_answered_streamed_and_cancelled(server: Live) -> None:
    import json

    command = [NODE, "-e", IN_NODE, server.url, json.dumps(ASKED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [*[PARIS] * 4, "NotFoundError model"]
