from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.errors import BadPack, BaseMismatch, PackNotFound, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import DataCard, Factors, Pack, RunCard, Store, make_manifest
from mlx_plastic.samples import Message
from mlx_plastic.serve import Engine, fit
from mlx_plastic.serve.api.names import Choice, Names

TOKENS = list(range(5, 40))
WARM = {"max_tokens": 12, "temperature": 1.0, "seed": 3}  # the random base falls silent at temperature 0


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture
def engine(base: Base, home: Home) -> Iterator[Engine]:
    engine = Engine(base, Memory(home), Store(home))
    yield engine
    engine.wear(())
    engine.memory.close()


def add_pack(
    store: Store, name: str, fingerprint: str, *, seed: int = 0, alpha: float = 8.0, size: float = 1.0
) -> None:
    """A random pack that is loud enough to hear, as a candidate. size: a factor on b."""
    random = np.random.default_rng(seed)
    path = "model.layers.0.mlp.down_proj"
    a, b = (random.standard_normal(shape).astype(np.float16) for shape in ((4, 64), (32, 4)))
    factors = {path: Factors(a, (size * b).astype(np.float16), alpha)}
    manifest = make_manifest(
        factors,
        name=name,
        base_id="tiny",
        base_fingerprint=fingerprint,
        training={},
        data=DataCard("cd" * 32, samples=1, tokens=9, supervised_tokens=3),
        run=RunCard(steps=1, seconds=1.0, tokens_per_s=9.0, peak_memory_mb=1.0),
    )
    store.add(factors, manifest)


def said(engine: Engine) -> list[tuple[str, str]]:
    return [(t.role, t.content) for t in engine.memory.turns()]


# -- a turn


def test_the_question_is_logged_before_the_first_word_is_computed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[list[tuple[str, str]]] = []

    def stream(self: Base, messages: Sequence[Message], **_: object) -> Iterator[str]:
        logged.append(said(engine))
        return iter(["never", " mind"])

    monkeypatch.setattr(Base, "stream", stream)
    pieces = engine.reply("c", "hello?")
    assert said(engine) == [("user", "hello?")]  # even if nobody listens to the answer
    assert list(pieces) == ["never", " mind"]
    assert logged == [[("user", "hello?")]]
    assert said(engine) == [("user", "hello?"), ("assistant", "never mind")]


def test_the_answer_is_streamed_and_logged_whole(engine: Engine) -> None:
    pieces = list(engine.reply("c", "Nora lives in", **WARM))  # type: ignore[arg-type]
    assert len(pieces) > 1
    question, answer = engine.memory.turns()
    assert answer.content == "".join(pieces).strip()
    assert not answer.interrupted
    assert answer.worn == ()
    why = engine.why()
    assert why and (why.question, why.answer) == (question.id, answer.id)
    assert (why.worn, why.chosen, why.messages, why.dropped, why.interrupted) == ((), False, 1, 0, False)
    assert (why.window_tokens, why.max_tokens, why.seed) == (512, 12, 3)
    assert why.prompt_tokens == len(engine.base.prompt([Message("user", "Nora lives in")]))
    assert why.seconds > 0


def test_the_same_seed_gives_the_same_answer_in_what_was_said_before(engine: Engine) -> None:
    first = "".join(engine.reply("a", "cat", **WARM))  # type: ignore[arg-type]
    assert "".join(engine.reply("b", "cat", **WARM)) == first  # type: ignore[arg-type]
    again = "".join(engine.reply("b", "cat", **WARM))  # type: ignore[arg-type]
    assert again != first  # control: the second time there is a past
    assert (why := engine.why()) and why.messages == 3


def test_undone_turns_and_other_conversations_are_not_shown_to_the_base(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def stream(self: Base, messages: Sequence[Message], **_: object) -> Iterator[str]:
        seen.append([m.content for m in messages])
        return iter([f"answer {len(seen)}"])

    monkeypatch.setattr(Base, "stream", stream)
    for conversation, text in (("c", "one"), ("other", "elsewhere"), ("c", "two")):
        list(engine.reply(conversation, text))
    engine.memory.undo("c")
    list(engine.reply("c", "three"))
    assert seen == [["one"], ["elsewhere"], ["one", "answer 1", "two"], ["one", "answer 1", "three"]]


def test_an_answer_that_is_closed_early_is_logged_as_far_as_it_went(engine: Engine) -> None:
    pieces = engine.reply("c", "hello?", **WARM)  # type: ignore[arg-type]
    begin = next(pieces) + next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    _, answer = engine.memory.turns()
    assert answer.content == begin.strip()
    assert answer.interrupted
    assert (why := engine.why()) and why.interrupted and why.answer == answer.id


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_an_answer_that_breaks_is_logged_as_far_as_it_went(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    def stream(*_: object, **__: object) -> Iterator[str]:
        yield "so far"
        raise fault

    monkeypatch.setattr(Base, "stream", stream)
    with pytest.raises(fault):
        list(engine.reply("c", "hello?"))
    assert [t.interrupted for t in engine.memory.turns()] == [False, True]
    assert said(engine)[-1] == ("assistant", "so far")


def test_a_silent_answer_is_no_turn_and_the_next_question_still_fits_the_template(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sequence[Message]] = []

    def stream(self: Base, messages: Sequence[Message], **_: object) -> Iterator[str]:
        seen.append(messages)
        return iter([])

    monkeypatch.setattr(Base, "stream", stream)
    for text in ("hello?", "anyone?"):
        assert list(engine.reply("c", text)) == []
    assert said(engine) == [("user", "hello?"), ("user", "anyone?")]
    assert seen[-1] == (Message("user", "hello?\nanyone?"),)
    assert (why := engine.why()) and (why.merged, why.answer) == (1, "")


def test_no_word_that_was_said_reaches_the_log(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mlx_plastic")
    answer = "".join(engine.reply("c", "quincunx", **WARM)).strip()  # type: ignore[arg-type]
    assert "answered with" in caplog.text  # control
    assert "quincunx" not in caplog.text
    assert answer not in caplog.text


def test_a_private_session_answers_and_leaves_nothing(base: Base, home: Home) -> None:
    with Memory(None) as memory:
        engine = Engine(base, memory, Store(home))
        assert "".join(engine.reply("c", "quincunx", **WARM))  # type: ignore[arg-type]
        assert len(memory.turns()) == 2
    assert not [file for file in home.root.rglob("*") if file.is_file()]


# -- what is worn


def test_a_night_that_passes_during_the_chat_is_worn_from_the_next_turn_on(engine: Engine) -> None:
    bare = engine.base.logits(TOKENS)
    list(engine.reply("c", "cat", **WARM))  # type: ignore[arg-type]
    add_pack(engine.store, "night", engine.base.fingerprint)
    pieces = engine.reply("c", "cat", **WARM)  # type: ignore[arg-type]
    next(pieces)
    engine.store.activate("night")  # in the middle of an answer
    list(pieces)
    assert engine.memory.turns()[-1].worn == ()
    list(engine.reply("c", "cat", **WARM))  # type: ignore[arg-type]
    assert engine.memory.turns()[-1].worn == ("night",)
    assert (why := engine.why()) and why.worn == ("night",) and not why.chosen
    assert not mx.array_equal(engine.base.logits(TOKENS), bare)  # control: the pack does act
    engine.store.rollback()
    assert engine.sync() == ()
    assert mx.array_equal(engine.base.logits(TOKENS), bare)  # bit for bit


def test_a_pack_chosen_for_the_session_leaves_the_store_alone(engine: Engine) -> None:
    for name in ("one", "two"):
        add_pack(engine.store, name, engine.base.fingerprint, seed=len(name))
    engine.store.activate("one")
    assert engine.sync() == ("one",)
    assert engine.wear(("two",)) == ("two",)
    list(engine.reply("c", "cat", **WARM))  # type: ignore[arg-type]
    assert (why := engine.why()) and why.worn == ("two",) and why.chosen
    assert engine.wear(()) == ()
    assert engine.store.active() == ("one",)
    assert engine.wear(None) == ("one",)


def test_a_pack_that_cannot_be_worn_is_an_error_not_the_bare_base(engine: Engine, tmp_path: Path) -> None:
    add_pack(engine.store, "sound", engine.base.fingerprint)
    add_pack(engine.store, "foreign", "ab" * 32)
    engine.store.activate("sound")
    engine.sync()
    with pytest.raises(PackNotFound):
        engine.wear(("nothing",))
    with pytest.raises(BaseMismatch):
        engine.wear(("foreign",))
    assert (engine.choice, engine.sync()) == (None, ("sound",))  # the earlier choice stands
    engine.wear(())
    engine.choice = None
    shutil.rmtree(engine.store.folder("sound") / "pack.safetensors", ignore_errors=True)
    (engine.store.folder("sound") / "pack.safetensors").write_bytes(b"torn")
    with pytest.raises(BadPack):
        engine.reply("c", "hello?")
    assert said(engine) == [("user", "hello?")]  # what the person said is not lost


def test_what_a_pack_changes_is_told_once_and_one_that_changes_nothing_is_not_worn(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add_pack(engine.store, "loud", engine.base.fingerprint)
    add_pack(engine.store, "faint", engine.base.fingerprint, alpha=1e-12)
    add_pack(engine.store, "idle", engine.base.fingerprint, size=0.0)
    for _ in range(2):
        assert engine.wear(("loud",)) == ("loud",)
    assert caplog.text.count("pack 'loud' moves the base by KL") == 1
    worn = engine.base.logits(TOKENS)
    with pytest.raises(BadPack, match="'idle' does nothing: every B is zero"):
        engine.wear(("idle",))
    with pytest.raises(BadPack, match=r"'faint' does nothing: no logit changes .* rounding of this base"):
        engine.wear(("faint",))
    assert engine.worn == ("loud",)
    assert mx.array_equal(engine.base.logits(TOKENS), worn)


# -- the window


def words(messages: Sequence[Message]) -> int:
    return sum(len(m.content.split()) for m in messages)


def talk(exchanges: int, *, each: int = 2) -> list[Message]:
    pairs = (
        (Message("user", f"q{i} " * each), Message("assistant", f"a{i} " * each)) for i in range(exchanges)
    )
    return [*(m for pair in pairs for m in pair), Message("user", "now")]


def test_a_conversation_that_fits_is_shown_whole() -> None:
    said = talk(3)
    found = fit(said, words, window_tokens=23, max_tokens=10)
    assert found.messages == tuple(said)
    assert (found.tokens, found.room, found.dropped, found.merged) == (13, 10, 0, 0)


def test_the_oldest_exchanges_go_first_and_system_messages_stay() -> None:
    said = [Message("system", "be brief"), *talk(3)]
    found = fit(said, words, window_tokens=19, max_tokens=8)
    assert found.messages == (said[0], *said[3:])
    assert (found.tokens, found.dropped, found.room) == (11, 1, 8)
    found = fit(said, words, window_tokens=15, max_tokens=8)  # half the window is for the past
    assert [m.content.split()[0] for m in found.messages] == ["be", "q2", "a2", "now"]
    assert found.tokens + found.room <= 15


def test_what_is_kept_is_as_much_as_fits() -> None:
    for window in range(12, 80):
        said = talk(9)
        found = fit(said, words, window_tokens=window, max_tokens=5)
        assert found.tokens == words(found.messages) <= window - 5
        longer = said[len(said) - len(found.messages) - 2 :]
        assert found.dropped == 0 or words(longer) > window - 5


def test_an_endless_conversation_is_not_counted_in_vain() -> None:
    counted: list[int] = []

    def count(messages: Sequence[Message]) -> int:
        counted.append(len(messages))
        return words(messages)

    assert fit(talk(50_000), count, window_tokens=100, max_tokens=10).tokens == 89
    assert sum(counted) < 2000


def test_a_message_that_cannot_fit_is_refused_but_kept(engine: Engine) -> None:
    with pytest.raises(
        PlasticError, match=r"the last message is too long: with it the prompt has \d+ tokens"
    ):
        engine.reply("c", "cat " * 600)
    assert len(engine.memory.turns()) == 1


def test_a_long_chat_goes_on_beyond_the_window(engine: Engine) -> None:
    for i in range(8):
        list(engine.reply("c", f"{i} Nora lives in Lisbon. " * 12, **WARM))  # type: ignore[arg-type]
        why = engine.why()
        assert why and why.prompt_tokens + why.max_tokens <= 512
        dropped = why.dropped
    assert dropped > 0
    assert len(engine.memory.turns()) == 16  # the log forgets nothing


def test_a_served_pack_is_read_again_only_when_a_file_of_it_changed(base: Base, home: Home) -> None:
    store = Store(home)
    for name in ("one", "two"):
        add_pack(store, name, base.fingerprint)
    names = Names(base, store)

    def read(name: str) -> Pack:
        return names.read(names.choose(name, []))[name]

    first = read("one")
    assert read("one") is first and read("two") is not first
    tensors = store.folder("one") / "pack.safetensors"
    data, times = tensors.read_bytes(), tensors.stat()
    tensors.write_bytes(data)
    again = read("one")
    assert again is not first and again.manifest == first.manifest  # control: the same bytes, written anew
    tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(tensors, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had been done to it
    with pytest.raises(BadPack, match="sha256 differs"):
        read("one")
    store.remove("two")
    with pytest.raises(PackNotFound, match="was removed"):
        names.read(Choice("two", ("two",)))
