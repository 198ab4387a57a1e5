"""Where what was said goes: the person's own words alone are learned, and the person has the last word."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_plastic.base import load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.demo.story import script
from mlx_plastic.errors import BadConfig, BadData
from mlx_plastic.evals import Policy
from mlx_plastic.home import Home, settings
from mlx_plastic.memory import Memory, Turn
from mlx_plastic.memory.router import (
    ROUTES,
    Heard,
    Router,
    RouterConfig,
    book,
    counts,
    least_sure,
    own_words,
    parse_route,
    personal_router,
    plain_router,
    record,
    recorded,
    route_turns,
    set_label,
    spans_of,
)
from mlx_plastic.memory.router.features import NAMES, WORDING
from mlx_plastic.memory.router.model import Example, fit_model, key_of, parse_model, seed_set, shipped
from mlx_plastic.memory.router.provenance import SOURCES
from mlx_plastic.memory.router.regression import fit, softmax
from mlx_plastic.sleep.journal import nights
from mlx_plastic.sleep.judge import JudgeConfig
from mlx_plastic.sleep.lessons import LessonConfig, chats_of, new_turns, notes_message, notes_of
from mlx_plastic.sleep.night import NightConfig, Settings, sleep

ARTICLE = (
    "The council of the town met on Monday and voted to close the old bridge for a while. "
    "Engineers had found cracks, a spokesman said, and traffic will be led around it until autumn."
)


def turn(text: str, role: str = "user", id_: str = "t", tags: Sequence[str] = ()) -> Turn:
    return Turn(id_, "c", role, text, datetime(2026, 1, 1, tzinfo=UTC), tags=frozenset(tags))  # type: ignore[arg-type]


def own(text: str, heard: Heard | None = None) -> str:
    return own_words(text, spans_of(text, heard))


# -- provenance


@pytest.mark.parametrize(
    ("text", "source", "kept"),
    [
        ("My sister loves this:\n> the moon stood high\n> and no one came", "quote", "My sister loves this:"),
        ("I wrote it myself:\n```python\ndef f(x):\n    return x\n```", "code", "I wrote it myself:"),
        ("import os\nfor name in os.listdir(path):\n    print(name)", "code", ""),
        ('{"id": 7, "name": "queue", "active": true}', "data", ""),
        ('Traceback (most recent call last):\n  File "a.py", line 3, in f\nKeyError: 1', "data", ""),
        (f"Here is an article I found: {ARTICLE}", "web", ""),
        (f"I am in it.\n\nHere is an article:\n\n{ARTICLE}\n\nShall I go?", "web", "I am in it. Shall I go?"),
        (f"https://news.example.com/bridge\n\n{ARTICLE}", "web", ""),
        (f"I read this today. {ARTICLE}\n\n{ARTICLE} Read more at https://www.example.com", "web", None),
        ("Translate this: My name is Bob and I live in Rome.", "web", "Translate this:"),
        ("From: Ines Weiss\nSubject: rent\n\nMy rent is late.", "quote", ""),
        ("On Monday Ines wrote:\n> I live in Rome", "quote", ""),
        ("Me: hello\nChatGPT: I am a model. I like it.\nMe: I am 7", "model", "Me: hello Me: I am 7"),
        (f'She told me "{ARTICLE}" and I believe her', "quote", "She told me and I believe her"),
    ],
)  # fmt: skip
def test_what_is_not_the_persons_is_told_apart(text: str, source: str, kept: str | None) -> None:
    spans = spans_of(text)
    assert source in {s.source for s in spans}
    assert [s.start for s in spans] == [0, *(s.end for s in spans[:-1])] and spans[-1].end == len(text)
    assert kept is None or own(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "I work at Brightwater. My boss is called Ines, she is strict; I like her though.",
        "Put this in your notes: my sister Nora lives in Porto and works as a nurse in the old hospital.",
        "for my birthday I want: a bike, a book, and a cake",
        "I like the following: pizza, pasta, wine.",
        "my email is a@b.org; call me anytime;",
        "From: my sister I got a bike",
        "i <3 pizza",
        'Always end your answers with "Over and out"',
        "I set the heating to 19 degrees (my wife wants it so).",
        "With my sister:\nwe went to Rome, if I remember it right",
        "I saw an article about my town yesterday.",
    ],
)
def test_what_a_person_says_stays_theirs_to_the_last_word(text: str) -> None:
    assert own(text) == text


def test_words_that_the_model_said_first_are_not_the_persons_but_an_echo_of_theirs_is() -> None:
    said = "your sister has moved to a small house near the harbour of Porto with two cats"
    mine = "my aunt keeps seven donkeys behind the old mill on the hill above the town"
    talk = [
        turn("Tell me about my sister", id_="1"),
        turn(f"Well, {said}.", "assistant", "2"),
        turn(f"I tell you that {mine}.", id_="3"),
        turn(f"So {mine}!", "assistant", "4"),
    ]
    heard = Heard(talk)
    assert own(f"I note: {said}", heard) == "I note:"
    assert own(f"Once more: {mine}", heard) == f"Once more: {mine}"
    assert own(f"I note: {said}") == f"I note: {said}"  # control: nothing heard


def test_recalled_notes_are_recognized_as_they_are_quoted_to_the_model() -> None:
    recalled = notes_message(["My sister Nora lives in Porto.", "I have a dog."]).content
    assert own(f"I work as a baker.\n{recalled}") == "I work as a baker."
    assert own("I work as a baker.\n- I have a dog") == "I work as a baker.\n- I have a dog"  # control


@pytest.mark.parametrize(
    "text",
    ["> " * 500_000, "a." * 500_000, "\n" * 1_000_000, "{[" * 300_000, '"' * 500_000, "from x:" * 100_000,
     "\0\ud7ff\u202e" * 200_000, "A-" * 400_000, "<a" * 400_000, "here is " * 100_000, " =" * 400_000],
)  # fmt: skip
def test_hostile_text_of_a_megabyte_is_routed_within_seconds(text: str) -> None:
    began = time.process_time()
    decision = plain_router().decide(turn(text))
    assert time.process_time() - began < 5.0
    assert decision.route in ROUTES


# -- features, fit, weights


def test_a_fit_is_where_the_loss_is_least() -> None:
    draw = np.random.default_rng(0)
    x, weights = draw.normal(size=(60, 5)), draw.uniform(0.5, 2.0, 60)
    y = draw.integers(0, 3, 60)
    w, b = fit(x, y, weights, classes=3, penalty=2.0)

    def loss(w: np.ndarray, b: np.ndarray) -> float:
        chances = softmax(x @ w + b)[np.arange(60), y]
        return float(-(weights * np.log(chances)).sum() + np.sum(w**2))

    least = loss(w, b)
    assert least < loss(np.zeros_like(w), np.zeros_like(b)) - 1  # control: there is something to find
    for _ in range(20):  # convex: no step in any direction leads further down
        assert loss(w + 0.02 * draw.normal(size=w.shape), b + 0.02 * draw.normal(size=3)) > least


def test_the_shipped_weights_were_fitted_on_the_shipped_seed_set() -> None:
    assert shipped().key == key_of(()), "run scripts/fit_router.py"
    assert key_of((Example("I live in Rome", "weights"),)) != key_of(())  # control


def test_families_that_were_never_seen_are_routed_well() -> None:
    examples = seed_set()
    families = sorted({(e.route, e.family) for e in examples})
    held = {family for i, (_, family) in enumerate(families) if i % 5 == 0}
    kept = [e for e in examples if e.family not in held]
    asked = [e for e in examples if e.family in held]
    router = Router(fit_model(kept, key=""), RouterConfig())
    right = [router.decide(turn(e.text)).route == e.route for e in asked]
    largest = max(sum(e.route == route for e in asked) for route in ROUTES) / len(asked)
    assert len(asked) > 200 and largest < 0.5  # control: always the same answer would not do
    assert np.mean(right) >= 0.8


def test_weights_survive_json_and_nothing_else_is_taken_for_them() -> None:
    again = parse_model(shipped().to_json())
    assert again.to_json() == shipped().to_json()
    value = json.loads(shipped().to_json())
    for change in ({"format_version": 2}, {"routes": ["a"]}, {"named": {}}, {"wording": [[0, 0, 0, 0]]}):
        with pytest.raises(ValueError):
            parse_model(json.dumps(value | change).encode())
    with pytest.raises(ValueError, match="no numbers"):
        parse_model(json.dumps(value | {"bias": [float("nan")] * 4}).encode())


def test_a_record_takes_no_time_that_anybody_would_notice() -> None:
    router, turns = plain_router(), [turn(e.text) for e in seed_set()[::20]]
    medians = []
    for _ in range(3):
        took = []
        for t in turns:
            began = time.perf_counter()
            router.decide(t)
            took.append(time.perf_counter() - began)
        medians.append(float(np.median(took)))
    assert min(medians) < 1e-2


def test_the_router_needs_neither_mlx_nor_scikit_learn() -> None:
    code = (
        "import sys; from mlx_plastic.memory.router import plain_router; plain_router();"
        "print([m for m in ('mlx', 'mlx_lm', 'sklearn', 'torch', 'tokenizers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# -- routes


@pytest.mark.parametrize(
    ("text", "routes"),
    [
        ("My sister Nora lives in Lisbon.", {"weights", "both"}),
        ("Please call me Captain from now on.", {"weights", "both"}),
        ("I can't stand mushrooms", {"weights", "both"}),
        ("i take 20 mg of ramipril every morning since 2019", {"both"}),
        ("My daughter Ida was born on 3 May 2015 in Graz.", {"both"}),
        ("The parcel DX81220093 arrives on Tuesday", {"retrieval"}),
        ("Dentist on Thursday at 9:30, room 214", {"retrieval"}),
        ("git checkout -b fix && git push -u origin fix", {"retrieval"}),
        (f"Here is an article: {ARTICLE}", {"retrieval"}),
        (f"Summarize this text:\n{ARTICLE}", {"retrieval"}),
        (f"My brother is in the news! Here is an article:\n\n{ARTICLE}", {"retrieval", "both"}),
        ("Hello!", {"neither"}),
        ("What is the capital of Peru?", {"neither"}),
        ("Write a haiku about rain.", {"neither"}),
        ("thanks, that helps", {"neither"}),
        ("🙂", {"neither"}),
    ],
)
def test_each_kind_of_thing_goes_where_it_belongs(text: str, routes: set[str]) -> None:
    assert plain_router().decide(turn(text)).route in routes


def test_nothing_but_the_persons_words_is_ever_learned() -> None:
    router = plain_router()
    fact = "My sister Nora lives in Lisbon and works as a nurse."
    assert router.decide(turn(fact)).learned  # control
    assert not router.decide(turn(fact, "assistant")).learned
    assert not router.decide(turn(fact, "system")).learned
    assert not router.decide(turn(f"> {fact}")).learned
    mixed = router.decide(turn(f"My brother Leon is a baker.\n> {fact}\n> {fact}"))
    assert mixed.route == "both" and mixed.own == "My brother Leon is a baker."


def test_the_person_has_the_last_word_save_on_what_a_model_said() -> None:
    router = plain_router()
    quoted = turn("> I was born in Rome and I still live there")
    assert not router.decide(quoted).learned  # control
    decision = router.decide(quoted, label="weights")
    assert decision.learned and decision.by == "person" and decision.own == quoted.content
    assert not router.decide(turn("Assistant: I was made in a lab"), label="weights").learned
    assert router.decide(turn("My sister lives in Lisbon."), label="neither").route == "neither"


@pytest.mark.parametrize(
    ("tags", "label", "route"),
    [
        (["no-train"], None, "retrieval"),
        (["no-train"], "both", "retrieval"),
        (["no-rag"], "both", "weights"),
        (["no-rag"], "retrieval", "neither"),
        (["private"], "weights", "neither"),
        ([], "both", "both"),
    ],
)
def test_a_tag_is_stronger_than_the_router_and_than_a_label(
    tags: list[str], label: str | None, route: str
) -> None:
    decision = plain_router().decide(turn("My sister lives in Lisbon.", tags=tags), label=label)  # type: ignore[arg-type]
    assert decision.route == route
    assert decision.by == ("tag" if tags else "person")


def test_where_the_router_is_unsure_both_is_meant() -> None:
    texts = [e.text for e in seed_set()[::9]]
    never = [Router(shipped(), RouterConfig(abstain=0.0)).decide(turn(t)) for t in texts]
    always = [Router(shipped(), RouterConfig(abstain=1.01)).decide(turn(t)) for t in texts]
    assert not any(d.abstained for d in never)
    asked = [d for d in always if d.by == "router"]
    assert asked and all(d.route == "both" and d.abstained for d in asked)
    assert len({d.route for d in never}) == 4  # control
    off = Router(shipped(), RouterConfig(enabled=False))
    assert (
        off.decide(turn("Hello!")).route == "both" and off.decide(turn(f"> {ARTICLE}")).route == "retrieval"
    )


def test_reasons_name_features_and_never_hold_text() -> None:
    known = {*NAMES, WORDING, *(f"pasted: {s}" for s in SOURCES), "said by the model", "a system message"}
    router = plain_router()
    for example in seed_set()[::11]:
        reasons = router.decide(turn(example.text)).reasons
        assert all(r in known or r.startswith("unsure: ") for r in reasons), reasons
    question = router.decide(turn("What is the capital of Peru?"))
    assert "ends with a question mark" in question.reasons


def test_an_unknown_route_or_setting_is_refused_with_what_is_known(home: Home) -> None:
    assert [parse_route(name) for name in ("w", "R", "both", "Neither")] == list(ROUTES)
    for bad in ("", "x", "weight"):
        with pytest.raises(BadData, match="use one of weights"):
            parse_route(bad)
    home.config_file.write_text("[router]\nabstane = 0.5\n")
    with pytest.raises(BadConfig, match="did you mean 'abstain'"):
        settings(home, "router", RouterConfig)


# -- in the log


def told(memory: Memory, *texts: str) -> list[str]:
    conversation = memory.new_conversation()
    return [memory.remember(conversation, "user", text).id for text in texts]


def test_routes_are_logged_with_score_and_reasons_and_go_with_the_turn(home: Home) -> None:
    with Memory(home) as memory:
        ids = told(memory, "My sister Nora lives in Lisbon.", "Hello!")
        decisions = route_turns(memory, memory.turns(), RouterConfig())
        assert recorded(memory) == {}
        record(memory, decisions)
        record(memory, decisions)  # twice is once
        found = recorded(memory)
        assert [found[i].route for i in ids] == ["weights", "neither"]
        assert found[ids[0]].score == decisions[0].score and found[ids[0]].reasons == decisions[0].reasons
        set_label(memory, [ids[0]], "both")
        memory.forget([ids[0]])
        assert set(recorded(memory)) == {ids[1]}
        assert memory.run("SELECT * FROM labels") == []


def test_what_the_person_corrects_is_learned_and_forgotten_with_the_turns(home: Home) -> None:
    kind = [f"ledger {name} 12 to 9, three sets" for name in ("green", "white", "amber", "black")]
    config = RouterConfig()
    weights = home.memory_db.with_name("router.json")

    def last(memory: Memory) -> str:
        return route_turns(memory, memory.turns()[-1:], config)[0].route

    with Memory(home) as memory:
        ids = told(memory, *kind)
        assert last(memory) != "neither"  # control
        assert not weights.exists()
        assert set_label(memory, ids[:3], "neither") == 3
        assert set_label(memory, ids[:3], "neither") == 0
        assert last(memory) == "neither"
        made = weights.read_bytes()
        assert last(memory) == "neither" and weights.read_bytes() == made  # kept, not fitted again
        weights.write_bytes(b"{")  # a broken file is made anew
        assert last(memory) == "neither" and weights.read_bytes() == made
        memory.forget(ids[:3])
        assert last(memory) != "neither" and not weights.exists()


def test_corrections_do_not_change_what_is_plain(home: Home) -> None:
    with Memory(None) as memory:
        plain = told(memory, "My brother Leon is a baker.", "Hello!", "What is the capital of Peru?")
        odd = told(memory, "ledger green 12 to 9", "ledger white 12 to 9")
        before = [d.route for d in route_turns(memory, memory.pick(plain), RouterConfig())]
        set_label(memory, odd, "neither")
        assert [d.route for d in route_turns(memory, memory.pick(plain), RouterConfig())] == before


def test_the_sentence_embedding_can_be_asked_for_and_is_computed_once_for_the_seed_set(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        """Another embedder than the real one: 8 letters counted."""
        read.extend(texts)
        rows = np.array([[text.count(c) for c in "aeinorst"] for text in texts], np.float32).reshape(-1, 8)
        return rows / np.maximum(1, np.linalg.norm(rows, axis=1, keepdims=True))

    monkeypatch.setattr(book, "_embedder", lambda: ("letters", embed))
    config = RouterConfig(meaning=True)
    with Memory(home) as memory:
        ids = told(memory, "My sister Nora lives in Lisbon.", "Hello!")
        assert [d.route for d in route_turns(memory, memory.turns(), config)] == ["weights", "neither"]
        assert personal_router(memory, config).model.meaning_w.shape == (8, 4)
        assert len(read) > len(seed_set())
        read.clear()
        set_label(memory, ids[:1], "both")
        assert route_turns(memory, memory.turns(), config)[0].route == "both"
        assert len(read) < 10  # the seed set was not read again
        without = personal_router(memory, RouterConfig())
        assert without.embed is None and without.model.meaning_w.shape == (0, 4)  # control


def test_the_least_sure_turns_are_asked_about_first_and_only_those_still_open(home: Home) -> None:
    with Memory(home) as memory:
        ids = told(memory, "Hello!", "ledger green 12", "My sister Nora lives in Lisbon.", "mine #private")
        set_label(memory, [ids[0]], "neither")
        found = least_sure(memory, memory.turns(), RouterConfig())
        assert [d.score for _, d in found] == sorted(d.score for _, d in found)
        assert {t.id for t, _ in found} == {ids[1], ids[2]}


def test_counts_and_shares_add_up() -> None:
    decisions = [plain_router().decide(turn(e.text)) for e in seed_set()[::7]]
    found = counts(decisions)
    assert sum(found[route] for route in ROUTES) == found["turns"] == len(decisions)
    assert sum(found["shares"].values()) == pytest.approx(1.0, abs=2e-4)  # each rounded to 4 digits
    assert counts([])["shares"] == dict.fromkeys(ROUTES, 0.0)


# -- in the night


def test_the_days_of_the_demo_are_learned_to_the_last_fact_and_wish(home: Home) -> None:
    with Memory(home) as memory:
        for day in script():
            told(memory, *(fact.say for fact in day.facts), day.wish.say)
        exchanges = memory.unlearned()
        routed = {d.turn: d for d in route_turns(memory, new_turns(exchanges), RouterConfig())}
        every = notes_of(exchanges, longest=600)
        assert len(every) == sum(len(day.facts) + 1 for day in script())
        assert notes_of(exchanges, longest=600, routed=routed) == every
    questions = [q for day in script() for fact in day.facts for q in fact.ask]  # control: not all is learned
    assert np.mean([plain_router().decide(turn(q)).route == "neither" for q in questions]) > 0.9


def test_only_what_is_to_be_learned_becomes_a_note(home: Home) -> None:
    with Memory(home) as memory:
        fact, chat, paste, mixed = told(
            memory,
            "My sister Nora lives in Lisbon.",
            "Hello there!",
            f"> {ARTICLE}",
            f"I am a baker in Rome.\n> {ARTICLE}",
        )
        exchanges = memory.unlearned()
        routed = {d.turn: d for d in route_turns(memory, new_turns(exchanges), RouterConfig())}
        found = notes_of(exchanges, longest=600, routed=routed)
        assert [(t.id, t.content) for t in found] == [
            (fact, "My sister Nora lives in Lisbon."),
            (mixed, "I am a baker in Rome."),
        ]
        unrouted = {t.id for t in notes_of(exchanges, longest=600)}
        assert unrouted == {fact, chat, paste, mixed}  # control


def test_an_imported_talk_is_kept_out_only_by_the_persons_word(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    talk = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Ahoy!"}]
    file.write_text(json.dumps({"messages": talk}) + "\n")
    with Memory(home) as memory:
        memory.import_jsonl(file)

        def learned() -> int:
            exchanges = memory.unlearned()
            decisions = route_turns(memory, new_turns(exchanges), RouterConfig())
            return len(chats_of(exchanges, routed={d.turn: d for d in decisions}))

        assert learned() == 1
        set_label(memory, [memory.turns()[0].id], "neither")
        assert learned() == 0


def test_a_turn_that_a_night_passed_over_waits_again_when_it_is_to_be_learned(home: Home) -> None:
    with Memory(home) as memory:
        said, other = told(memory, "Hello!", "My sister Nora lives in Lisbon.")
        record(memory, route_turns(memory, memory.turns(), RouterConfig()))
        memory.learned([said, other], "night-1")
        assert memory.stats().waiting == 0
        set_label(memory, [said, other], "weights")
        assert memory.stats().waiting == 1  # control: the other one was learned
        assert memory.nights([said]) == () and memory.nights([other]) == ("night-1",)


def test_a_night_tells_how_many_turns_went_where(home: Home, checkpoint: Path) -> None:
    data = Path(__file__).parent / "data"
    chosen = Settings(
        judge=JudgeConfig(str(data / "tasks.jsonl"), str(data / "general.jsonl"), answer_tokens=8),
        lessons=LessonConfig(rounds=1, max_tokens=8, general=4),
        night=NightConfig(rank=4, epochs=1, batch_tokens=256),
        gate=Policy(max_ppl_rise_pct=1e9, max_harness_lost=1000, max_old_loss_rise=100.0, min_new_gain=0.0),
    )
    file = home.root / "talks.jsonl"
    answer = {"role": "assistant", "content": "Rex"}
    asked = [{"role": "user", "content": f"What is cat {i} called?"} for i in range(12)]
    file.write_text("".join(json.dumps({"messages": [question, answer]}) + "\n" for question in asked))
    with Memory(home) as memory:
        memory.import_jsonl(file)
        (fact,) = told(memory, "My sister Nora lives in Lisbon.")
    base = load_base(str(checkpoint))
    dry = sleep(home, base, chosen=chosen, tag="dry", dry_run=True)
    with Memory(home) as memory:
        assert recorded(memory) == {}  # a dry run leaves no trace in the log
    night = sleep(home, base, chosen=chosen, tag="one")
    facts = nights(home)[-1].record.stages["lessons"].facts["routes"]
    assert dry.routes == night.routes == facts
    assert facts["turns"] == 13 and facts["neither"] == 12 and facts["shares"]["neither"] == 0.9231
    with Memory(home) as memory:
        assert recorded(memory)[fact].route == "weights"


# -- on the command line


def route(home: Home, *arguments: str, typed: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(plastic, ["--home", str(home.root), "memory", "route", *arguments], input=typed)
    return done.exit_code, done.output if done.exit_code else done.stdout


def test_routes_are_shown_and_corrected_by_a_script(home: Home) -> None:
    with Memory(home) as memory:
        fact, greeting = told(memory, "My sister Nora lives in Lisbon.", "Hello!")
        conversation = memory.turns()[0].conversation
    shown = json.loads(route(home, "--json")[1])
    assert [row["route"] for row in shown["turns"]] == ["weights", "neither"]
    assert shown["counts"]["turns"] == 2
    assert "weights" in route(home)[1] and "2 turns: 1 weights (50%)" in route(home)[1]
    dry = json.loads(route(home, "--set", f"{fact[-8:]}=retrieval", "--dry-run", "--json")[1])
    assert dry == {"turns": {fact: "retrieval"}, "changed": 0, "nights": [], "dry_run": True}
    assert "1 of 1 turns changed" in route(home, "--set", f"{fact[-8:]}=r")[1]
    assert "1 of 2 turns changed" in route(home, "--set", f"{conversation}=retrieval")[1]
    row = json.loads(route(home, "--json", "--since", "1h", "--limit", "1")[1])["turns"][0]
    assert (row["turn"], row["route"], row["by"]) == (greeting, "retrieval", "person")
    assert "2 of 2 turns changed" in route(home, "--unset", conversation)[1]
    assert json.loads(route(home, "--json")[1])["counts"]["corrected"] == 0


def test_a_text_can_be_tried_without_a_trace(home: Home) -> None:
    tried = json.loads(route(home, "--text", f"I am a baker.\n> {ARTICLE}", "--json")[1])
    assert tried["route"] == "both" and tried["own_words"] == "I am a baker."
    assert "your own words: I am a baker." in route(home, "--text", f"I am a baker.\n> {ARTICLE}")[1]
    with Memory(home) as memory:
        assert memory.turns() == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--set", "nothing"], 2, "is not ID=ROUTE"),
        (["--set", "zz=weights"], 1, "no turn or conversation 'zz'"),
        (["--set", "zz=heavy"], 1, "no turn or conversation 'zz'"),
        (["--since", "yesterday"], 2, "write 2026-11-20 or 7d"),
        (["--label", "--text", "x"], 2, "do not go together"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(home: Home, arguments: list[str], code: int, text: str) -> None:
    assert route(home, *arguments)[0] == code
    assert text in route(home, *arguments)[1]


def test_labels_come_through_a_pipe_one_line_each(home: Home) -> None:
    with Memory(home) as memory:
        told(memory, "Hello!", "My sister Nora lives in Lisbon.", "I have a dog.", "ledger green 12")
    code, text = route(home, "--label", "--json", typed="w\n?\nneither\ns\nq\n")
    assert code == 0
    given = json.loads(text)
    assert given["asked"] == 4 and sorted(given["labelled"].values()) == ["neither", "weights"]
    assert json.loads(route(home, "--label", "--json", typed="\n")[1])["asked"] == 2  # the others are done
    assert route(home, "--label", typed="")[0] == 0  # the end of the pipe ends it


def test_labels_come_from_a_terminal_one_key_each(home: Home) -> None:
    with Memory(home) as memory:
        told(memory, "Hello!", "My sister Nora lives in Lisbon.")
    ours, theirs = pty.openpty()
    code = "from mlx_plastic.cli.main import main; main()"
    arguments = ["--home", str(home.root), "memory", "route", "--label"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(theirs)
    assert process.stderr is not None
    for key in (b"b", b"q"):
        while process.stderr.read(1) not in (b">", b""):
            pass
        while process.poll() is None and termios.tcgetattr(ours)[3] & termios.ICANON:
            time.sleep(0.01)  # what is typed before the terminal is in raw mode would be thrown away
        os.write(ours, key)
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert b"1 turns labelled" in out
    with Memory(home) as memory:
        assert memory.run("SELECT route FROM labels") == [("both",)]
