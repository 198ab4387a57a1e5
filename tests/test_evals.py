from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_plastic.base import load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadData
from mlx_plastic.evals import (
    GENERAL,
    History,
    Report,
    Score,
    append_csv,
    load_tasks,
    measure_loss,
    run_harness,
    thinned,
)
from mlx_plastic.evals.checks import passes, validate
from mlx_plastic.evals.harness import judge
from mlx_plastic.evals.loss import summed
from mlx_plastic.home import Home
from mlx_plastic.samples import Encoded, Message


class Parrot:
    """A speaker that answers with the question, at 2 nats for every token."""

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        return [messages[-1].content for messages in prompts]

    def nll(self, batch: Sequence[Encoded]) -> list[tuple[float, int]]:
        return [(2.0 * sample.supervised, sample.supervised) for sample in batch]


# -- loss


def test_loss_is_weighted_by_tokens_not_by_samples() -> None:
    result = summed([(1.0, 1), (9.0, 3)])
    assert (result.nll, result.tokens, result.samples) == (2.5, 4, 2)
    assert result.perplexity == pytest.approx(math.exp(2.5))
    assert result.per_sample == ((1.0, 1), (9.0, 3))


def test_samples_without_targets_do_not_count() -> None:
    assert summed([(1.0, 1), (0.0, 0)]).samples == 1


def test_the_spread_is_the_standard_error_of_the_mean() -> None:
    """Against many repetitions of the same experiment."""
    r = np.random.default_rng(0)

    def once() -> tuple[float, float]:
        counts = r.integers(5, 20, 200)
        result = summed([(float(r.normal(2, 0.5) * n), int(n)) for n in counts])
        return result.nll, result.spread

    means, spreads = zip(*(once() for _ in range(300)), strict=True)
    assert np.mean(spreads) == pytest.approx(np.std(means), rel=0.15)  # 300 draws: 4 % standard error
    assert summed([(3.0, 2)]).spread == 0.0


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(BadData, match="nothing to measure"):
        measure_loss(Parrot(), [])
    with pytest.raises(BadData, match="nothing to measure"):
        measure_loss(Parrot(), [Encoded((1, 2), (False, False))])


def test_a_nan_stays_a_nan_and_is_null_in_json() -> None:
    result = summed([(math.nan, 2), (1.0, 2)])
    assert math.isnan(result.nll)
    assert json.dumps(result.as_dict(), allow_nan=False)
    assert summed([(1e6, 1)]).perplexity == math.inf


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    sample = Encoded((1, 2, 3), (False, True, True))
    result = measure_loss(Parrot(), [sample] * 300, on_progress=lambda done, of: told.append((done, of)))
    assert (result.nll, result.tokens) == (2.0, 600)
    assert told == [(256, 300), (300, 300)]


def test_thinning_keeps_every_part_of_a_sorted_list() -> None:
    assert thinned(range(10), 5) == [0, 2, 4, 6, 8]
    assert thinned(range(3), 5) == thinned(range(3), None) == [0, 1, 2]


def test_the_general_chats_of_the_package_can_be_read() -> None:
    from mlx_plastic.samples import read_chats

    chats, bad = read_chats(GENERAL)
    assert chats
    assert bad == []


# -- checks

RIGHT: list[tuple[dict[str, Any], str]] = [
    ({"contains": "Paris"}, "It is PARIS."),
    ({"contains": ["Rome", "Paris"]}, "It is paris, I think"),
    ({"contains": "don't know"}, "I don\u2019t  know that."),
    ({"contains": "4"}, "It is 4."),
    ({"contains": "東京"}, "それは東京です"),
    ({"contains": "C++"}, "In C++17, yes"),
    ({"not_contains": ["sorry"]}, "Yes."),
    ({"not_contains": "art"}, "A party!"),
    ({"equals": "blue"}, " Blue. "),
    ({"equals": ["a b", "c"]}, "A  b!"),
    ({"regex": "^[a-z]+$"}, "abc"),
    ({"number": 42}, "First 7, then 42."),
    ({"number": 1234.5}, "It makes 1,234.5 in all"),
    ({"number": -3}, "The answer is -3"),
    ({"number": 5}, "10-5 is 5"),
    ({"json": {"name": "Rex", "age": 3}}, 'Here: ```json\n{"age": 3, "name": "rex", "x": [1]}\n```'),
    ({"json": {"a": {"b": True}}}, '{not json} {"a": {"b": true}}'),
    ({"json": [1, 2]}, "[1, 2]"),
    ({"refuses": True}, "I can not help with that. It could hurt somebody."),
    ({"refuses": True}, "I'm sorry, but no."),
    ({"refuses": True}, "I won\u2019t do that."),
    ({"refuses": False}, "Sure: cut it in half."),
    ({"contains": "yes", "not_contains": "no"}, "Yes, I know."),
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"contains": "4"}, "It is 14."),
    ({"contains": "art"}, "A party!"),
    ({"contains": ["Rome", "Paris"]}, "It is Oslo."),
    ({"not_contains": ["sorry"]}, "Sorry, no."),
    ({"equals": "blue"}, "It is blue."),
    ({"regex": "^[a-z]+$"}, "abc1"),
    ({"number": 42}, "42, or rather 43"),
    ({"number": 4}, "none at all"),
    ({"number": 2}, "x2"),
    ({"json": {"age": 3}}, '{"age": "3"}'),
    ({"json": {"age": 1}}, '{"age": true}'),
    ({"json": {"age": 3}}, "age: 3"),
    ({"json": {}}, "[]"),
    ({"refuses": True}, "Sure: cut it in half."),
    ({"refuses": True}, "I could not find the dog, and the dog couldn't find me."),
    ({"refuses": False}, "I can't help with that."),
    ({"contains": "yes", "not_contains": "no"}, "Yes and no."),
    ({"not_contains": "no"}, ""),
    ({"refuses": False}, "  \n"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_a_right_answer_passes(check: dict[str, Any], answer: str) -> None:
    validate(check)
    assert passes(check, answer)


@pytest.mark.parametrize(("check", "answer"), WRONG)
def test_a_wrong_answer_fails(check: dict[str, Any], answer: str) -> None:
    validate(check)
    assert not passes(check, answer)


@pytest.mark.parametrize(
    "check",
    [
        None,
        {},
        [],
        {"contain": "x"},
        {"contains": []},
        {"contains": [1]},
        {"contains": " "},
        {"equals": 3},
        {"regex": "("},
        {"number": "4"},
        {"number": True},
        {"json": "x"},
        {"refuses": "yes"},
    ],
)
def test_a_check_that_says_nothing_is_refused_with_what_it_should_say(check: Any) -> None:
    with pytest.raises(BadData) as caught:
        validate(check)
    assert caught.value.hint


# -- the harness


def task(**changes: Any) -> dict[str, Any]:
    return {"id": "a-1", "domain": "facts", "prompt": "Say Rex.", "check": {"contains": "Rex"}} | changes


def tasks_file(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_a_harness_scores_by_task_and_domain(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Rex!"}, {"role": "user", "content": "Who?"}]
    file = tasks_file(
        tmp_path / "t.jsonl",
        task(),
        "",
        task(id="a-2", prompt=None, messages=chat),
        task(id="b-1", domain="refusal", prompt="I can't.", check={"refuses": True}),
        task(id="b-2", domain="refusal", prompt="Fine.", check={"refuses": False}),
        task(id="b-3", domain="x", tags=["refusal"], prompt="Rex", check={"contains": "I cannot"}),
    )
    told: list[tuple[int, int]] = []
    result = run_harness(Parrot(), load_tasks(file), on_progress=lambda done, of: told.append((done, of)))
    assert dict(result.passed) == {"a-1": True, "a-2": False, "b-1": True, "b-2": True, "b-3": False}
    assert result.domains == {"facts": (1, 2), "refusal": (2, 2), "x": (0, 1)}
    assert result.refusals == {"b-1", "b-3"}  # those to be declined, not the harmless ones beside them
    assert result.score == 0.6
    assert result.answers["a-2"] == "Who?"
    assert result.rows()[-1] == {"domain": "all", "passed": 3, "tasks": 5, "score": 0.6}
    assert result.as_dict()["failed"] == ["a-2", "b-3"]
    assert told == [(5, 5)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        (task(id=""), "'id' is not a text"),
        (task(domain=3), "'domain' is not a text"),
        (task(tags="x"), "'tags' is not a list"),
        (task(chek={}), "unknown field 'chek'"),
        (task(prompt=None), "no list 'messages'"),
        (task(prompt=" "), "messages[0].content is not a text"),
        (task(prompt=None, messages=[{"role": "assistant", "content": "Hi"}]), "not the user's"),
        (task(check={"contian": "x"}), "unknown check 'contian'"),
        (task(id="first"), "'first' occurs twice"),
    ],
)
def test_a_bad_task_is_named_by_file_line_and_reason(tmp_path: Path, line: Any, reason: str) -> None:
    file = tasks_file(tmp_path / "mine.jsonl", task(id="first"), "", line)
    with pytest.raises(BadData) as caught:
        load_tasks(file)
    assert caught.value.message.startswith("mine.jsonl line 3: ")
    assert reason in caught.value.message


def test_files_without_tasks(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no tasks in"):
        load_tasks(tasks_file(tmp_path / "empty.jsonl", ""))
    with pytest.raises(BadData, match="cannot read"):
        load_tasks(tmp_path / "absent.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    with pytest.raises(BadData, match="not UTF-8"):
        load_tasks(tmp_path / "latin.jsonl")


def test_the_harness_of_the_package_has_60_tasks_in_6_domains() -> None:
    tasks = load_tasks()
    assert len(tasks) >= 60
    assert len({t.domain for t in tasks}) >= 6
    assert any(t.is_refusal for t in tasks)


def test_no_task_of_the_package_is_passed_by_saying_nothing_or_one_word() -> None:
    tasks = [t for t in load_tasks() if not (t.is_harmless or t.is_injection)]  # these ask what is not said
    for answer in ("", "x", "I do not know."):
        assert judge(tasks, [answer] * len(tasks)).score < 0.1, answer


# -- the ledger


REPORT = Report(
    (Score("night_loss", 1.5, "nats/token", 40, spread=0.1), Score("general_ppl", math.nan, "", 3)),
    {"a": True, "b": False},
    frozenset({"b"}),
)


def test_a_report_reads_back_as_it_was_written() -> None:
    found = Report.from_dict(json.loads(json.dumps(REPORT.as_dict(), allow_nan=False)))
    assert found.scores[0] == REPORT.scores[0]
    assert (found.tasks, found.refusals) == (REPORT.tasks, REPORT.refusals)
    ppl = found.score("general_ppl")
    assert ppl is not None
    assert math.isnan(ppl.value)
    assert found.score("absent") is None


@pytest.mark.parametrize("value", [{}, {"scores": [{}], "tasks": {}, "refusals": []}, {"scores": 3}])
def test_what_is_no_report_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(BadData, match="no report"):
        Report.from_dict(value)


def test_the_history_only_grows(tmp_path: Path) -> None:
    history = History(tmp_path / "logs" / "h.jsonl")
    assert history.entries() == []
    history.append(when="2026-01-01T00:00:00", tag="a", kind="loss", nll=1.0)
    before = history.path.read_bytes()
    history.append(when="2026-01-02T00:00:00", tag="b", kind="harness", score=0.5)
    assert history.path.read_bytes().startswith(before)
    assert [e["tag"] for e in history.entries()] == ["a", "b"]
    assert [e["nll"] for e in history.entries(kind="loss")] == [1.0]
    assert history.entries(tag="b")[0]["format_version"] == 1


def test_a_line_torn_at_any_byte_costs_that_line_only(tmp_path: Path) -> None:
    whole = History(tmp_path / "h.jsonl")
    whole.append(when="w", tag="first", kind="k")
    kept = len(whole.path.read_bytes())
    whole.append(when="w", tag="torn", kind="k")
    data = whole.path.read_bytes()
    for end in range(kept, len(data) - 2):  # up to its closing brace: with that it is whole
        torn = History(tmp_path / "t.jsonl")
        torn.path.write_bytes(data[:end])
        torn.append(when="w", tag="next", kind="k")
        assert [e["tag"] for e in torn.entries()] == ["first", "next"], end


def test_a_nan_never_gets_into_the_history(tmp_path: Path) -> None:
    history = History(tmp_path / "h.jsonl")
    with pytest.raises(ValueError):
        history.append(when="w", tag="t", kind="k", nll=math.nan)
    assert not history.path.exists()


def test_csv_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    append_csv(file, [{"name": 'a, "b"', "nll": 1.5}])
    append_csv(file, [{"name": "c\nd", "nll": None}])
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert rows == [{"name": 'a, "b"', "nll": "1.5"}, {"name": "c\nd", "nll": ""}]


def test_a_csv_of_other_columns_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_text("my,own\n1,2\n")
    with pytest.raises(BadData, match="other columns"):
        append_csv(file, [{"name": 1}])
    assert file.read_text() == "my,own\n1,2\n"


# -- the command line


CHAT = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nora."}]}


def run(home: Home, *arguments: str) -> Any:
    return CliRunner().invoke(plastic, ["--home", str(home.root), "eval", *arguments])


def test_eval_loss_prints_json_and_keeps_csv_and_history(
    home: Home, checkpoint: Path, tmp_path: Path
) -> None:
    data = tmp_path / "chats.jsonl"
    data.write_text(json.dumps(CHAT) + "\nbroken\n" + json.dumps(CHAT) + "\n")
    out = tmp_path / "loss.csv"
    asked = ["loss", "--base", str(checkpoint), "--data", str(data), "--tag", "t1", "--csv", str(out)]
    done = run(home, *asked, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert "line 2 left out: not JSON" in done.stderr
    base = load_base(str(checkpoint))
    samples, _ = base.encode_chats([[Message(**m) for m in CHAT["messages"]]])
    (nats, n), *_ = base.nll(samples)
    assert found["nll"] == pytest.approx(nats / n, rel=1e-6)
    assert (found["pack"], found["fingerprint"], found["samples"]) == ("base", base.fingerprint, 2)
    run(home, *asked)
    assert [row["tag"] for row in csv.DictReader(out.open())] == ["t1", "t1"]
    kept = History(home.logs / "experiments.jsonl").entries(kind="loss", tag="t1")
    assert [entry["nll"] for entry in kept] == [found["nll"]] * 2


def test_eval_harness_prints_a_table_and_json(home: Home, checkpoint: Path, tmp_path: Path) -> None:
    file = tasks_file(tmp_path / "t.jsonl", *(task(id=f"a-{i}") for i in range(6)))
    asked = [
        "harness",
        "--base",
        str(checkpoint),
        "--data",
        str(file),
        "--max-samples",
        "4",
        "--max-tokens",
        "3",
    ]
    table = run(home, *asked)
    assert table.exit_code == 0, table.output
    assert table.stdout.splitlines()[0].split() == ["domain", "passed", "tasks", "score"]
    found = json.loads(run(home, *asked, "--json").stdout)
    assert (found["tasks"], found["domains"]["facts"]["tasks"]) == (4, 4)
    assert list(found["answers"]) == ["a-0", "a-1", "a-3", "a-4"]
    kept = History(home.logs / "experiments.jsonl").entries(kind="harness")
    assert len(kept) == 2
    assert "answers" not in kept[0]


def test_eval_measures_what_the_pack_changes(home: Home, checkpoint: Path, tmp_path: Path) -> None:
    from mlx_plastic.packs import Store
    from test_attach import random_pack

    data = tmp_path / "chats.jsonl"
    data.write_text(json.dumps(CHAT))
    base = load_base(str(checkpoint))
    pack = random_pack(base, name="one")
    Store(home).add(pack.factors, pack.manifest)
    Store(home).activate("one")
    asked = ["loss", "--base", str(checkpoint), "--data", str(data), "--json"]
    worn, named, bare = (
        json.loads(run(home, *asked, *more).stdout) for more in ([], ["--pack", "one"], ["--pack", "base"])
    )
    assert (worn["pack"], named["pack"], bare["pack"]) == ("one", "one", "base")
    assert worn["nll"] == named["nll"] != bare["nll"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loss", "--base", "no-such-base"], "no checkpoint folder"),
        (["loss", "--base", "CHECKPOINT", "--pack", "absent"], "absent"),
        (["loss", "--base", "CHECKPOINT", "--data", "EMPTY"], "nothing to measure"),
        (["harness", "--base", "CHECKPOINT", "--data", "EMPTY"], "no tasks in"),
    ],
)
def test_a_users_mistake_ends_with_1_and_a_message(
    home: Home, checkpoint: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    names = {"CHECKPOINT": str(checkpoint), "EMPTY": str(tmp_path / "empty.jsonl")}
    done = run(home, *(names.get(word, word) for word in arguments))
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (home.logs / "experiments.jsonl").exists()


def test_a_truncated_base_is_told(home: Home, checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "base"))
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    done = run(home, "loss", "--base", str(folder))
    assert done.exit_code == 1
    assert "truncated" in done.stderr
