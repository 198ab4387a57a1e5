from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadData
from mlx_plastic.evals.ledger import append_summary
from mlx_plastic.evals.retrieval import (
    SEED,
    Question,
    Said,
    Search,
    measure_retrieval,
    parse_time,
    read_questions,
    read_turns,
)
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory


def said(*names: str, conversation: str = "c") -> list[Said]:
    return [
        Said(conversation, "s", datetime(2024, 1, i, tzinfo=UTC), n, "a", n) for i, n in enumerate(names, 1)
    ]


def opener(**answers: Sequence[str]):  # type: ignore[no-untyped-def]
    """A search that gives fixed answers."""

    def open_search(turns: Sequence[Said]) -> Search:
        def search(text: str, limit: int, *, now: datetime | None) -> Sequence[str]:
            assert now == max(turn.at for turn in turns if turn.at)
            return answers[text][:limit]

        return search

    return open_search


def test_the_figures_are_what_they_are_called() -> None:
    ten = [f"t{i}" for i in range(10)]
    questions = [
        Question("c", "first", ("t0",), "easy"),
        Question("c", "half", ("t1", "t2"), "hard"),
        Question("c", "sixth", ("t5",), "hard"),
        Question("c", "never", ("t9",), "hard"),
    ]
    found = measure_retrieval(
        said(*ten),
        questions,
        opener(first=["t0"], half=["t8", "t2"], sixth=["x", "y", "z", "u", "v", "t5"], never=["t1"] * 30),
    ).as_dict()
    assert (found["n"], found["turns"]) == (4, 10)
    assert [found[f"recall@{k}"] for k in (1, 5, 10, 20)] == [0.25, 0.375, 0.625, 0.625]
    assert [found[f"hit@{k}"] for k in (1, 5, 10, 20)] == [0.25, 0.5, 0.75, 0.75]
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 6) / 4, abs=1e-6)
    assert found["categories"]["easy"]["recall@1"] == 1
    assert found["categories"]["hard"]["n"] == 3
    assert 0 <= found["p50_ms"] <= found["p95_ms"]


def test_questions_are_asked_in_their_own_conversation_and_strange_evidence_is_told() -> None:
    turns = [*said("a", "b"), *said("a", "z", conversation="d")]
    asked = [
        Question("d", "q", ("z", "nowhere"), "x"),
        Question("d", "q", ("b",), "x"),  # of the other conversation
        Question("e", "q", ("a",), "x"),  # of none
    ]
    result = measure_retrieval(turns, asked, opener(q=["z"]))
    assert (result.scores.n, result.unknown, result.left_out) == (1, 3, 2)
    assert result.scores.recall[1] == 1
    with pytest.raises(BadData, match="none of 1 questions has evidence among 2 turns"):
        measure_retrieval(said("a", "b"), asked[:1], opener(q=["z"]))


@pytest.mark.parametrize(
    "value",
    ["2023-05-08T13:56:00", "2023-05-08 13:56+00:00", "1:56 pm on 8 May, 2023", "08.05.2023, 13:56:00",
     "2023/05/08 (Mon) 13:56", 1683554160, 1683554160.0],
)  # fmt: skip
def test_times_of_many_sets_are_read(value: object) -> None:
    assert parse_time(value) == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)


def test_what_is_no_time_is_none() -> None:
    assert parse_time("some day in spring") is None
    assert parse_time(1e300) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{}", "KeyError"),
        ("no json", "JSONDecodeError"),
        ("[1]", "TypeError"),
        ('{"conversation": 1, "query": 2, "evidence": []}', "TypeError"),
        ('{"conversation": 1, "query": "q", "evidence": "t1"}', "TypeError"),
        ("[" * 100_000, "RecursionError|JSONDecodeError"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, why: str) -> None:
    good = '{"conversation": 1, "query": "q", "evidence": ["t1", "t1", 2]}'
    (tmp_path / "q.jsonl").write_text(f"\ufeff{good}\n\n{line}\n")
    with pytest.raises(BadData, match=rf"q.jsonl line 3 cannot be used: ({why})"):
        read_questions(tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text(good)
    assert read_questions(tmp_path / "q.jsonl") == [Question("1", "q", ("t1", "2"), "all")]
    with pytest.raises(BadData, match="cannot read"):
        read_turns(tmp_path)


def test_our_own_set_is_whole() -> None:
    turns, asked = read_turns(SEED / "turns.jsonl"), read_questions(SEED / "queries.jsonl")
    ids = {turn.turn for turn in turns}
    assert len(ids) == len(turns)
    assert all(set(question.evidence) <= ids for question in asked)
    assert {q.category for q in asked} == {
        "fact",
        "paraphrase",
        "when",
        "dated",
        "update",
        "several",
        "advice",
    }
    assert all(turn.at for turn in turns)


def test_the_command_measures_and_keeps_it(home: Home) -> None:
    for tag in ("one", "two"):
        done = CliRunner().invoke(plastic, ["eval", "retrieval", "--no-model", "--json", "--tag", tag])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
    assert found["embedder"] == ""
    assert found["recall@10"] > 0.7  # control: chance is 0.04
    assert found["categories"]["fact"]["recall@5"] > 0.9
    summary = json.loads((home.logs / "eval_summary.json").read_text())
    assert [entry["tag"] for entry in summary] == ["one", "two"]
    assert summary[1]["recall@20"] == found["recall@20"]
    done = CliRunner().invoke(plastic, ["eval", "retrieval", "--no-model"])
    assert "paraphrase" in done.output


def test_a_persons_own_files_are_measured(home: Home, tmp_path: Path) -> None:
    turns = [{"conversation": "c", "turn_id": f"t{i}", "text": f"thing number {i}"} for i in range(30)]
    queries = [{"conversation": "c", "query": "thing 17", "evidence": ["t17"]}]
    for name, rows in (("t", turns), ("q", queries)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--turns", str(tmp_path / "t"), "--queries", str(tmp_path / "q")]
    done = CliRunner().invoke(plastic, ["eval", "retrieval", *files, "--no-model", "--json"])
    assert json.loads(done.stdout)["recall@1"] == 1
    assert CliRunner().invoke(plastic, ["eval", "retrieval", *files[:2]]).exit_code == 2


def test_a_summary_that_is_torn_is_never_replaced(home: Home) -> None:
    path = append_summary(home, {"a": 1})
    path.write_text('[{"a": 1}')
    with pytest.raises(BadData, match="is not JSON"):
        append_summary(home, {"b": 2})
    path.write_text("{}")
    with pytest.raises(BadData, match="is no list"):
        append_summary(home, {"b": 2})
    assert path.read_text() == "{}"


# -- the memory's commands


def call(*arguments: str, text: str | None = None) -> str:
    done = CliRunner().invoke(plastic, ["memory", *arguments], input=text)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_is_added_is_found_shown_counted_and_forgotten(home: Home) -> None:
    added = json.loads(call("add", "The sledge is behind the chimney. #no-train", "--json"))
    assert added["tags"] == ["no-train"]
    call("add", "-", text="We sold the piano in June.")
    (first, second) = json.loads(call("search", "Where is the sledge?", "--json", "--no-model"))
    assert (first["turn"], first["text"]) == (added["turn"], "The sledge is behind the chimney. #no-train")
    assert first["score"] > second["score"]
    shown = call("search", "sledge", "--limit", "1", "--no-model")
    assert "behind the chimney" in shown
    assert "#no-train" in shown
    assert json.loads(call("stats", "--json"))["index"]["items"] == 2
    assert "2 turns in 2 chunks" in call("stats")
    call("forget", added["turn"], "--yes")
    assert [hit["text"] for hit in json.loads(call("search", "sledge", "--json", "--no-model"))] == [
        "We sold the piano in June."
    ]
    assert call("search", "sledge", "--until", "2000-01-01", "--no-model") == "nothing was found\n"
    assert b"chimney" not in b"".join(f.read_bytes() for f in home.memory_db.parent.iterdir())


def test_the_index_is_made_anew_pruned_and_compacted_on_request(home: Home) -> None:
    with Memory(home) as memory:
        for i in range(20):
            memory.remember("c", "user", f"fact number {i}, as it were")
    dry = json.loads(call("reindex", "--dry-run", "--json", "--no-model"))
    assert (dry["items"], dry["unread"]) == (0, 20)
    assert json.loads(call("reindex", "--json", "--no-model"))["items"] == 20
    assert json.loads(call("reindex", "--full", "--json", "--no-model"))["items"] == 20
    assert json.loads(call("reindex", "--prune-days", "1", "--json", "--no-model"))["pruned_now"] == 0
    assert "20 turns in 20 chunks" in call("reindex", "--no-model")


def test_nothing_to_remember_is_told(home: Home) -> None:
    done = CliRunner().invoke(plastic, ["memory", "add", "  "])
    assert done.exit_code == 1
    assert "there is nothing to remember" in done.output
