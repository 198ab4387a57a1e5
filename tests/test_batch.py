"""Requests decoded together: the same answers as alone, whatever joins, leaves or fails meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.errors import BadPack, Busy, PlasticError
from mlx_plastic.packs import Pack
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Message
from mlx_plastic.serve.api.answering import Answering
from mlx_plastic.serve.batch import BatchConfig, End, Job, Piece, Said, Sampling, Wanted, Worker
from mlx_plastic.serve.batch.pick import HEADS, Picker
from mlx_plastic.serve.batch.speech import Speech
from test_batch_mixed import expert_pack
from test_compose import random_pack
from tiny import make_checkpoint

WAIT_S = 60
QUESTIONS = (
    "What is the capital of France?",
    "Nora lives in Lisbon. Where does Nora live?",
    "Hello! Who are you, and what can you do for me today, if I may ask?",
    "My cat is called Rex.",
)


@dataclass
class Listener:
    said: list[Said] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    heard: threading.Event = field(default_factory=threading.Event)

    def __call__(self, said: Said) -> None:
        self.said.append(said)
        self.heard.set()
        if isinstance(said, End):
            self.done.set()

    @property
    def text(self) -> str:
        return "".join(s.text for s in self.said if isinstance(s, Piece))

    @property
    def end(self) -> End:
        assert self.done.wait(WAIT_S), "no End came"
        assert isinstance(self.said[-1], End)
        return self.said[-1]


def ask(worker: Worker, wanted: Wanted) -> Listener:
    listener = Listener()
    worker.submit(wanted, listener)
    return listener


def held(worker: Worker) -> Callable[[], None]:
    """Keep the worker from computing until what is returned is called."""
    gate, inside = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        inside.set()
        gate.wait(WAIT_S)

    worker.call(hold)
    assert inside.wait(WAIT_S)
    return gate.set


@pytest.fixture(scope="module")
def nano() -> Base:
    return load_base("nano")


@pytest.fixture(scope="module")
def packs(nano: Base) -> list[dict[str, Pack]]:
    """Nothing, one, another of other ranks, and both."""
    one = loud(random_pack(nano, 1, rank=3, name="one"))
    two = loud(random_pack(nano, 2, rank=6, name="two"))
    return [{}, {"one": one}, {"two": two}, {"one": one, "two": two}]


def loud(pack: Pack) -> Pack:
    return Pack(pack.manifest, {p: type(f)(f.a, f.b, 4 * f.alpha) for p, f in pack.factors.items()})


@pytest.fixture
def worker(nano: Base) -> Iterator[Worker]:
    worker = Worker(lambda: nano)
    worker.start()
    yield worker
    worker.call(lambda loaded: loaded.mixer.undress()).result(WAIT_S)
    worker.stop()


def prompt(base: Base, text: str) -> tuple[int, ...]:
    return tuple(base.prompt([Message("user", text)]))


def alone(base: Base, text: str, packs: dict[str, Pack], max_tokens: int = 24) -> str:
    with attached(base.model, packs, fingerprint=base.fingerprint):
        return "".join(base.stream([Message("user", text)], max_tokens=max_tokens))


def test_greedy_answers_are_those_of_each_pack_alone(nano: Base, packs: list[dict[str, Pack]]) -> None:
    wanted = [alone(nano, text, worn) for text in QUESTIONS for worn in packs]
    assert len(set(wanted)) > len(wanted) // 2  # control: the packs answer differently
    worker = Worker(lambda: nano)
    worker.start()
    go = held(worker)
    listeners = [
        ask(worker, Wanted(prompt(nano, text), 24, packs=worn)) for text in QUESTIONS for worn in packs
    ]
    go()
    ends = [listener.end for listener in listeners]
    worker.call(lambda loaded: loaded.mixer.undress()).result(WAIT_S)
    worker.stop()
    assert [listener.text for listener in listeners] == wanted
    assert {end.finish for end in ends} <= {"stop", "length"}
    assert worker.counts["steps"] <= 30  # together: one by one it were several hundred


def test_who_joins_and_leaves_does_not_change_an_answer(
    nano: Base, worker: Worker, packs: list[dict[str, Pack]]
) -> None:
    first = ask(worker, Wanted(prompt(nano, QUESTIONS[2]), 40, packs=packs[1]))
    assert first.heard.wait(WAIT_S)
    others = [
        ask(worker, Wanted(prompt(nano, text), 3 + 4 * i, packs=packs[i], sampling=Sampling(1.0, seed=i)))
        for i, text in enumerate(QUESTIONS)
    ]
    assert all(other.end.finish in ("stop", "length") for other in others)
    first.end  # noqa: B018
    assert first.text == alone(nano, QUESTIONS[2], packs[1], 40)


def test_a_seed_gives_the_same_words_in_any_company(nano: Base, worker: Worker) -> None:
    def draw(seed: int) -> Listener:
        sampling = Sampling(temperature=1.0, top_p=0.95, top_k=50, seed=seed)
        return ask(worker, Wanted(prompt(nano, QUESTIONS[2]), 16, sampling=sampling))

    solo = draw(5)
    solo.end  # noqa: B018
    crowd = [draw(seed) for seed in (4, 5, 6)]
    for listener in crowd:
        listener.end  # noqa: B018
    assert crowd[1].text == solo.text
    assert crowd[0].text != solo.text or crowd[2].text != solo.text  # control: seeds matter


def test_a_prompt_that_was_read_is_not_read_again(nano: Base, worker: Worker) -> None:
    text = " ".join(QUESTIONS * 4)
    cold = ask(worker, Wanted(prompt(nano, text), 8))
    warm_end = ask_after(worker, cold, Wanted(prompt(nano, text), 8))
    tokens = len(prompt(nano, text))
    assert cold.end.reused == 0
    assert warm_end.end.reused == tokens - 1
    assert warm_end.text == cold.text
    longer = ask(worker, Wanted((*prompt(nano, text), *prompt(nano, "And now?")), 8))
    assert longer.end.reused >= tokens - 1
    secret = ask(worker, Wanted(prompt(nano, "other " + text), 8, remember=False))
    again = ask_after(worker, secret, Wanted(prompt(nano, "other " + text), 8))
    assert again.end.reused < tokens // 2  # control: what was not kept is read again


def ask_after(worker: Worker, before: Listener, wanted: Wanted) -> Listener:
    before.end  # noqa: B018
    return ask(worker, wanted)


def test_what_one_pack_has_read_is_of_no_use_to_another(
    nano: Base, worker: Worker, packs: list[dict[str, Pack]]
) -> None:
    tokens = prompt(nano, " ".join(QUESTIONS))
    ask(worker, Wanted(tokens, 4, packs=packs[1])).end  # noqa: B018
    remade = {"one": random_pack(nano, 9, rank=3, name="one")}  # the same name, other bytes
    assert ask(worker, Wanted(tokens, 4, packs=remade)).end.reused == 0
    assert ask(worker, Wanted(tokens, 4, packs=packs[1], scales={"one": 0.5})).end.reused == 0
    assert ask(worker, Wanted(tokens, 4, packs=packs[1])).end.reused == len(tokens) - 1  # control


def test_a_cancelled_request_makes_room_and_harms_nobody(nano: Base, worker: Worker) -> None:
    stays = ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 60, sampling=Sampling(0.3, seed=1)))
    leaves = Listener()
    endless = Sampling(bias={token: -1e9 for token in nano.tokenizer.eos_token_ids})
    job: Job = worker.submit(Wanted(prompt(nano, QUESTIONS[1]), 900, sampling=endless), leaves)
    assert leaves.heard.wait(WAIT_S)
    job.cancel()
    assert leaves.end.finish == "cancelled" and leaves.end.answer_tokens < 900
    assert stays.end.finish in ("stop", "length")
    assert worker.load_now() == (0, 0)


def test_too_many_waiting_requests_are_refused(nano: Base) -> None:
    worker = Worker(lambda: nano, BatchConfig(rows=1, queue=2))
    worker.start()
    go = held(worker)
    waiting = [ask(worker, Wanted(prompt(nano, "Hi"), 4)) for _ in range(2)]
    with pytest.raises(Busy, match="2 requests wait already"):
        ask(worker, Wanted(prompt(nano, "Hi"), 4))
    go()
    assert all(listener.end.finish in ("stop", "length") for listener in waiting)
    worker.stop()


def test_stopping_lets_what_runs_end_and_takes_nothing_new(nano: Base) -> None:
    worker = Worker(lambda: nano)
    worker.start()
    runs = ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 30))
    worker.stop(grace_s=WAIT_S)
    assert runs.end.finish in ("stop", "length")
    with pytest.raises(Busy, match="going down"):
        ask(worker, Wanted(prompt(nano, "Hi"), 4))


def test_stopping_without_grace_cuts_short(nano: Base) -> None:
    worker = Worker(lambda: nano)
    worker.start()
    endless = Sampling(bias={token: -1e9 for token in nano.tokenizer.eos_token_ids})
    runs = ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 10_000, sampling=endless))
    assert runs.heard.wait(WAIT_S)
    worker.stop()
    assert runs.end.finish == "cancelled"


def test_an_idle_base_leaves_memory_and_comes_back(nano: Base) -> None:
    loads: list[int] = []

    def load() -> Base:
        loads.append(1)
        return nano

    worker = Worker(load, BatchConfig(idle_s=0.05))
    worker.start()
    first = ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 8))
    first.end  # noqa: B018
    while worker.is_loaded:  # the time limit of the test ends it
        threading.Event().wait(0.02)
    loaded = len(loads)
    second = ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 8))
    assert second.end.finish == first.end.finish and second.text == first.text
    assert len(loads) > loaded
    worker.stop()


class Broken:
    """A model that fails where it computes."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("out of something")


def test_a_fault_is_told_to_everyone_and_the_next_request_is_answered(nano: Base) -> None:
    worker = Worker(lambda: nano)
    worker.start()

    model = nano.model
    worker.call(lambda loaded: setattr(loaded.base, "model", Broken(model))).result(WAIT_S)
    failed = ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 8))
    assert failed.end.finish == "error" and "RuntimeError" in failed.end.fault
    assert "something" not in failed.end.fault  # what an exception says may hold a prompt
    nano.model = model
    assert ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 8)).end.finish in ("stop", "length")
    worker.stop()


def test_more_than_memory_holds_is_refused_in_numbers(nano: Base) -> None:
    worker = Worker(lambda: nano, BatchConfig(memory_share=1e-6))
    worker.start()
    end = ask(worker, Wanted(prompt(nano, QUESTIONS[0]), 10_000_000)).end
    assert end.finish == "error" and "MB may be used" in end.fault
    worker.stop()


def test_a_pack_that_does_nothing_is_told_before_the_answer(nano: Base, worker: Worker) -> None:
    pack = random_pack(nano, 1)
    idle = Pack(pack.manifest, {p: type(f)(f.a, f.b * 0, f.alpha) for p, f in pack.factors.items()})
    with pytest.raises(BadPack, match="does nothing"):
        worker.admit({"idle": idle}, {}).result(WAIT_S)


def test_a_base_that_cannot_be_loaded_is_told_at_the_start() -> None:
    def load() -> Base:
        raise PlasticError("no such base")

    worker = Worker(load)
    with pytest.raises(PlasticError, match="no such base"):
        worker.start()


def test_packs_on_experts_are_decoded_beside_others_in_turns(tmp_path: Path) -> None:
    moe = load_base(str(make_checkpoint(tmp_path / "moe", experts=4)))
    pack = {"e": expert_pack(moe)}
    sampling = Sampling(bias={token: -1e9 for token in moe.tokenizer.eos_token_ids})
    worker = Worker(lambda: moe)
    worker.start()

    def answers(worn: Sequence[dict[str, Pack]]) -> list[str]:
        go = held(worker)
        asked = [ask(worker, Wanted(prompt(moe, "Nora"), 6, packs=p, sampling=sampling)) for p in worn]
        go()
        for listener in asked:
            listener.end  # noqa: B018
        return [listener.text for listener in asked]

    single = [answers([worn])[0] for worn in ({}, pack)]
    assert single[0] != single[1]  # control: the pack acts
    assert answers([{}, pack, {}, pack]) == single * 2
    worker.stop()


def test_a_long_prompt_does_not_hold_up_the_others(nano: Base) -> None:
    worker = Worker(lambda: nano, BatchConfig(chunk_tokens=16))
    worker.start()
    order: list[str] = []

    def noted(name: str, listener: Listener) -> Callable[[Said], None]:
        def tell(said: Said) -> None:
            order.append(name)
            listener(said)

        return tell

    endless = Sampling(bias={token: -1e9 for token in nano.tokenizer.eos_token_ids})
    go = held(worker)
    short, long = Listener(), Listener()
    worker.submit(Wanted(prompt(nano, "Hi"), 40, sampling=endless, strip=False), noted("short", short))
    worker.submit(Wanted(prompt(nano, " ".join(QUESTIONS * 8)), 4, sampling=endless), noted("long", long))
    go()
    assert short.end.finish == long.end.finish == "length"
    assert order.index("long") > 5  # the short one spoke while the long one was read
    worker.stop()


# -- choosing


def picked(logits: Sequence[float], times: int = 200, **sampling: Any) -> list[int]:
    picker = Picker(Sampling(**sampling))
    return [picker.pick(np.array(logits, np.float32))[0] for _ in range(times)]


def test_cuts_leave_only_what_they_promise() -> None:
    logits = [3.0, 2.0, 1.0, 0.0, -9.0]
    assert set(picked(logits, temperature=1.0)) >= {0, 1, 2}  # control
    assert set(picked(logits, temperature=1.0, top_k=2)) == {0, 1}
    assert set(picked(logits, temperature=1.0, top_p=0.5)) == {0}
    assert set(picked(logits, temperature=1.0, min_p=0.3)) == {0, 1}
    assert set(picked(logits, temperature=0.0)) == {0}
    assert set(picked(logits, temperature=1e-3)) == {0}


def drawn_by_sorting_all(logits: Any, draw: float, s: Sampling) -> int:
    """What a picker does, the plain way."""
    order = np.argsort(-logits, kind="stable")[: s.top_k or None]
    p = np.exp((logits[order] - logits[order[0]]) / s.temperature)
    p /= p.sum()
    by_top_p = int(np.searchsorted(np.cumsum(p), s.top_p)) + 1 if s.top_p < 1 else len(p)
    by_min_p = int(np.count_nonzero(p >= s.min_p * p[0])) if s.min_p else len(p)
    below = np.cumsum(p[: min(by_top_p, by_min_p)])
    return int(order[min(int(np.searchsorted(below, draw * below[-1], side="right")), len(below) - 1)])


@pytest.mark.parametrize(
    "cuts",
    [
        {},
        {"top_p": 0.9},
        {"top_k": 100},
        {"min_p": 0.01},
        {"top_k": 9, "top_p": 0.5},
        {"top_p": 0.99, "min_p": 0.2},
    ],
)
def test_looking_at_the_likeliest_first_draws_as_sorting_all_would(cuts: dict[str, Any]) -> None:
    dice = np.random.default_rng(0)
    behind_heads = 0
    for size in (3, 64, 6000):
        for temperature in (0.05, 1.0, 3.0):
            logits = dice.standard_normal(size)
            sampling = Sampling(temperature=temperature, seed=size, **cuts)
            picker, draws = Picker(sampling), random.Random(size)
            for _ in range(20):
                expected = drawn_by_sorting_all(logits, draws.random(), sampling)
                assert picker.pick(logits)[0] == expected
                behind_heads += int(np.count_nonzero(logits > logits[expected])) >= HEADS[0]
    assert (
        behind_heads > 0 or cuts.get("top_k", 0) == 9 or "min_p" in cuts
    )  # control: the first head is not all


def test_draws_follow_the_distribution() -> None:
    counts = np.bincount(picked([np.log(0.6), np.log(0.3), np.log(0.1)], 4000, temperature=1.0), minlength=3)
    assert np.abs(counts / 4000 - [0.6, 0.3, 0.1]).max() < 0.035  # over 4 standard deviations


def test_penalties_and_bias_change_what_is_likeliest() -> None:
    assert picked([2.0, 1.9], 2, frequency_penalty=0.5) == [0, 1]
    assert picked([2.0, 1.9], 2, presence_penalty=0.5) == [0, 1]
    assert picked([2.0, 1.9], 2, repetition_penalty=1.5) == [0, 1]
    assert picked([2.0, 1.9], 2) == [0, 0]  # control
    assert picked([2.0, 1.9], 1, bias={1: 5.0}) == [1]


def test_told_probabilities_are_the_models_own() -> None:
    logits = np.array([1.0, 3.0, 2.0], np.float32)
    token, info, _ = Picker(Sampling(bias={0: 50.0}), logprobs=2).pick(logits)
    expected = logits - np.log(np.exp(logits).sum())
    assert token == 0 and info is not None
    assert info.logprob == pytest.approx(expected[0], abs=1e-6)
    assert [i for i, _ in info.top] == [1, 2]
    assert [v for _, v in info.top] == pytest.approx([expected[1], expected[2]], abs=1e-6)


# -- speaking


class Letters:
    """A detokenizer whose tokens are characters."""

    last_segment = ""

    def add_token(self, token: int) -> None:
        self.last_segment = chr(token)

    def finalize(self) -> None:
        self.last_segment = ""


@pytest.mark.parametrize(
    ("text", "stops", "strip", "told"),
    [
        ("hello world", (), True, "hello world"),
        ("  hello  ", (), True, "hello"),
        ("  hello  ", (), False, "  hello  "),
        ("one two STOP three", ("STOP",), False, "one two "),
        ("one STO two", ("STOP",), False, "one STO two"),
        ("one STO", ("STOP",), False, "one STO"),
        ("aab", ("ab",), False, "a"),
        ("x\n\nUser: y", ("\nUser:",), True, "x"),
        ("abcd", ("cd", "bc"), False, "a"),
    ],
)
def test_only_what_is_sure_is_said(text: str, stops: tuple[str, ...], strip: bool, told: str) -> None:
    speech, said = Speech(Letters(), stops, strip=strip), ""
    for letter in text:
        said += speech.hear(ord(letter))
        assert told.startswith(said), "something was said that had to be taken back"
        if speech.matched:
            break
    assert said + speech.end() == told
    assert bool(speech.matched) == any(stop in text for stop in stops)


def test_no_array_of_the_worker_is_left_on_the_model(nano: Base, worker: Worker) -> None:
    before = {path: id(module) for path, module in nano.model.named_modules()}
    ask(worker, Wanted(prompt(nano, "Hi"), 4, packs={"one": random_pack(nano, 1)})).end  # noqa: B018
    worker.call(lambda loaded: loaded.mixer.undress()).result(WAIT_S)
    assert {path: id(module) for path, module in nano.model.named_modules()} == before
    assert isinstance(nano.model(mx.array([[5]])), mx.array)


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_that_is_not_streamed_wakes_the_event_loop_only_at_its_end(
    nano: Base, worker: Worker, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    wanted = [Wanted(prompt(nano, question), 12) for question in QUESTIONS[:2]]
    expected = [ask(worker, one) for one in wanted]
    texts = [listener.text for listener in expected if listener.end]
    woken: list[int] = []

    async def answers() -> list[str]:
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def counted(*args: Any, **named: Any) -> asyncio.Handle:
            woken.append(1)
            return call(*args, **named)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)

        async def ended(answer: Any) -> None:
            assert answer.end

        return [a.text for a in await Answering(worker, wanted, ended, streamed=streamed).whole()]

    assert asyncio.run(answers()) == texts and all(texts)
    if streamed:
        assert len(woken) > 2 * len(wanted)  # the control: each piece
    else:
        assert len(woken) == len(wanted)
