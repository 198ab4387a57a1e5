"""What becomes of what is said through the server: logged once, with consent, nothing that nobody said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.home import Home, find_home
from mlx_plastic.memory import Memory
from mlx_plastic.serve.api import ServeConfig
from mlx_plastic.serve.api.diary import Diary
from mlx_plastic.serve.api.housekeeping import is_housekeeping
from serving import WAIT_S, Live, live


@pytest.fixture
def memory(home: Home) -> Iterator[Memory]:
    with Memory(home) as found:
        yield found


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def talk(*said: str) -> list[dict[str, str]]:
    return [message("assistant" if i % 2 else "user", text) for i, text in enumerate(said)]


def say(diary: Diary, *said: str, answer: str = "", retry: bool = False) -> Any:
    entry = diary.ask(talk(*said), (), retry=retry)
    if entry and answer:
        diary.answer(entry, answer, worn=(), tags=(), interrupted=False)
    return entry


def logged(memory: Memory) -> list[list[str]]:
    talks: dict[str, list[str]] = {}
    for turn in memory.turns():
        talks.setdefault(turn.conversation, []).append(turn.content)
    return list(talks.values())


def test_a_talk_that_grows_is_one_conversation(memory: Memory) -> None:
    diary = Diary(memory)
    say(diary, "Hi", answer="Hello!")
    say(diary, "Hi", "Hello!", "I am Nora", answer="Noted.")
    say(diary, "Hi", "Hello!", "I am Nora", "Noted.", "Who am I?", answer="Nora.")
    assert logged(memory) == [["Hi", "Hello!", "I am Nora", "Noted.", "Who am I?", "Nora."]]


def test_two_talks_side_by_side_stay_two(memory: Memory) -> None:
    diary = Diary(memory)
    say(diary, "One", answer="1")
    say(diary, "Two", answer="2")
    say(diary, "One", "1", "more of one", answer="1b")
    say(diary, "Two", "2", "more of two", answer="2b")
    assert logged(memory) == [["One", "1", "more of one", "1b"], ["Two", "2", "more of two", "2b"]]


def test_a_retry_is_not_a_second_turn(memory: Memory) -> None:
    diary = Diary(memory)
    first = say(diary, "Hi there")
    again = say(diary, "Hi there", retry=True, answer="Hello!")
    assert again == first
    assert logged(memory) == [["Hi there", "Hello!"]]
    say(diary, "Hi there", retry=True, answer="Hello again!")  # the first answer never arrived
    assert logged(memory) == [["Hi there", "Hello again!"]]


def test_a_second_try_takes_the_first_back(memory: Memory) -> None:
    diary = Diary(memory)
    say(diary, "A", answer="a")
    say(diary, "A", "a", "B", answer="bad")
    say(diary, "A", "a", "B", answer="good")
    assert logged(memory) == [["A", "a", "B", "good"]]
    say(diary, "A", "a", "B", "good", "C", answer="c")
    assert logged(memory) == [["A", "a", "B", "good", "C", "c"]]


def test_a_branch_is_a_talk_of_its_own_and_repeats_nothing(memory: Memory) -> None:
    diary = Diary(memory)
    say(diary, "A", answer="a")
    say(diary, "A", "a", "B", answer="b")
    say(diary, "A", "a", "Instead", answer="i")
    assert logged(memory) == [["A", "a", "B", "b"], ["Instead", "i"]]


def test_an_answer_that_the_client_changed_still_belongs_to_its_talk(memory: Memory) -> None:
    diary = Diary(memory)
    say(diary, "A", answer="<think>hm</think>a")
    say(diary, "A", "a", "B", answer="b")
    assert logged(memory) == [["A", "<think>hm</think>a", "B", "b"]]


def test_a_talk_that_began_elsewhere_gives_only_its_new_question(memory: Memory) -> None:
    say(Diary(memory), "old", "older", "new", answer="n")
    assert logged(memory) == [["new", "n"]]


def test_a_talk_goes_on_after_a_restart(memory: Memory) -> None:
    say(Diary(memory), "A", answer="a")
    say(Diary(memory), "A", "a", "B", answer="b")
    assert logged(memory) == [["A", "a", "B", "b"]]
    say(Diary(memory), "A", answer="a again")  # long after, the same words are a new talk
    assert len(logged(memory)) == 2


@pytest.mark.parametrize(
    "prompt",
    [
        "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.",
        "### Task:\nSuggest 3-5 relevant follow-up questions.\n<chat_history>\nUSER: hi\n</chat_history>",
        "Generate 1-3 broad tags categorizing the main themes of the chat history",
        "Create a concise, 5-word-or-less title for the conversation above.",
        "Based on our conversation, provide a short title.",
        "Please write a title of 3-5 words",
        "Analyze the chat history and generate queries for this chat",
    ],
)
def test_what_front_ends_ask_for_themselves_is_told_from_what_people_ask(prompt: str) -> None:
    assert is_housekeeping([message("user", prompt)])
    assert is_housekeeping([message("system", prompt), message("user", "hello")])


@pytest.mark.parametrize(
    "prompt",
    [
        "What is the title of the book by Tolstoy about the war?",
        "My task today is to plant tulips.",
        "Write a poem about my cat.",
        "Suggest a name for my bakery.",
        "Summarize this article for me: ...",
        "I had a long conversation with my boss about tags on clothes.",
        "Generate a password hint for me",
        "Can you create three categories for my recipes?",
    ],
)
def test_what_people_ask_is_not_taken_for_housekeeping(prompt: str) -> None:
    assert not is_housekeeping([message("user", prompt)])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(find_home(tmp_path_factory.mktemp("served"))) as found:
        yield found


def turns_of(server: Live, text: str) -> list[Any]:
    turns = server.service.memory.turns()
    asked = {turn.conversation for turn in turns if turn.content == text}
    return [turn for turn in turns if turn.conversation in asked]


def test_consent_is_asked_of_every_request(server: Live) -> None:
    server.ask("I am kept.")
    server.ask("I am not to be learned.", store=False)
    server.ask("Neither am I.", memory="no-train")
    server.ask("I am not to be found.", tags=["no-rag"])
    server.ask("I was never said.", memory="off")
    value = {"messages": [message("user", "Nor was I.")]}
    assert server.post("/v1/chat/completions", value, x_plastic_memory="off")[0] == 200

    def tags(text: str) -> list[set[str]]:
        return [set(turn.tags) for turn in turns_of(server, text)]

    assert tags("I am kept.") == [set(), set()]
    assert tags("I am not to be learned.") == tags("Neither am I.") == [{"no-train"}] * 2
    assert tags("I am not to be found.") == [{"no-rag"}] * 2
    assert not turns_of(server, "I was never said.") and not turns_of(server, "Nor was I.")
    learnable = {turn.content for e in server.service.memory.unlearned() for turn in e.turns}
    assert "I am kept." in learnable
    assert not learnable & {"I am not to be learned.", "Neither am I."}
    status, error = server.post("/v1/chat/completions", value | {"memory": "perhaps"})
    assert status == 400 and "on, no-train, off" in error["error"]["message"]


def test_retries_of_the_client_are_logged_once(server: Live) -> None:
    value = {"messages": [message("user", "Did it arrive?")]}
    for count in range(3):
        status, _ = server.post("/v1/chat/completions", value, x_stainless_retry_count=str(count))
        assert status == 200
    assert [turn.role for turn in turns_of(server, "Did it arrive?")] == ["user", "assistant"]


def test_titles_for_a_front_end_are_written_and_not_remembered(server: Live) -> None:
    before = len(server.said())
    server.ask("### Task:\nGenerate a concise title for the chat history.")
    assert len(server.said()) == before
    assert server.service.metrics.turns["housekeeping"] >= 1


def test_what_was_said_before_is_brought_up_where_it_is_asked_for(server: Live) -> None:
    server.ask("The code of my locker is a number that I call Zebrafish.")
    plain = server.ask("What do I call the code of my locker?")
    noted = server.ask("So what do I call the code of my locker?", rag=True)
    assert noted["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 20


def test_an_answer_that_was_cut_off_is_logged_as_such(server: Live) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    ends = {str(token): -100 for token in server.service.base.tokenizer.eos_token_ids}
    stream = client.chat.completions.create(
        model="base",
        messages=[message("user", "Count for ever!")],
        max_tokens=900,
        logit_bias=ends,
        stream=True,
    )
    for _, _ in zip(range(6), stream, strict=False):
        pass
    stream.close()
    for _ in range(600):
        if len(turns := turns_of(server, "Count for ever!")) == 2:
            break
        threading.Event().wait(0.05)
    assert [turn.interrupted for turn in turns] == [False, True]


def test_without_memory_nothing_is_logged(tmp_path: Path) -> None:
    config = ServeConfig(port=0, memory=False, max_tokens=4)
    with live(find_home(tmp_path / "home"), config=config) as server:
        server.ask("Forget me.")
        server.ask("Forget me too.", memory="on")
        assert server.said() == []


SERVE = "import sys; from mlx_plastic.cli.main import main; sys.argv[0] = 'plastic'; main()"


def start(home: Home) -> tuple[subprocess.Popen[str], int]:
    import json

    command = [sys.executable, "-c", SERVE, "--home", str(home.root), "serve", "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    told = ""
    while not told.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        told += line
    return process, int(json.loads(told)["address"].rsplit(":", 1)[1])


def ask_over(port: int, text: str, answered: list[str]) -> None:
    import contextlib
    import json
    from http.client import HTTPConnection, HTTPException

    with contextlib.suppress(OSError, HTTPException, ValueError):
        connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        body = json.dumps({"messages": [message("user", text)], "max_tokens": 6})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        json.loads(response.read())
        if response.status == 200:
            answered.append(text)


@pytest.mark.slow
def test_killed_under_load_it_loses_no_turn_that_was_acknowledged(home: Home) -> None:
    process, port = start(home)
    answered: list[str] = []
    asking = [
        threading.Thread(
            target=lambda k=k: [ask_over(port, f"Question {k} {i}", answered) for i in range(60)]  # type: ignore[misc]
        )
        for k in range(4)
    ]
    for thread in asking:
        thread.start()
    while len(answered) < 12:
        assert process.poll() is None
        threading.Event().wait(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT_S)
    for thread in asking:
        thread.join(WAIT_S)
    assert len(answered) < 240  # control: it was killed in the middle
    with Memory(home) as memory:
        by_talk = {turns[0]: turns for turns in logged(memory)}
    assert all(len(by_talk[text]) == 2 for text in answered)
    assert os.stat(home.memory_db).st_mode & 0o077 == 0


def test_asked_to_end_it_says_and_logs_what_it_is_saying(home: Home) -> None:
    process, port = start(home)
    answered: list[str] = []
    asking = threading.Thread(target=ask_over, args=(port, "My cat is called Rex.", answered))
    asking.start()
    for _ in range(600):
        with Memory(home) as memory:
            if memory.turns():
                break
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=WAIT_S)
    asking.join(WAIT_S)
    assert process.returncode == 0, told
    assert answered == ["My cat is called Rex."]
    with Memory(home) as memory:
        assert [turn.role for turn in memory.turns()] == ["user", "assistant"]
        assert not any(turn.interrupted for turn in memory.turns())
    assert "Rex" not in told and "Traceback" not in told
