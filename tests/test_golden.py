"""Style against golden transcripts, recall from long contexts, and benchmarks of lm-evaluation-harness."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlx_plastic.base import load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadData, PlasticError
from mlx_plastic.evals import History
from mlx_plastic.evals.golden import golden_turns, measure_style, style_match
from mlx_plastic.evals.harness import judge
from mlx_plastic.evals.lm_tasks import run_benchmarks
from mlx_plastic.evals.long_context import long_tasks, summary
from mlx_plastic.home import Home
from mlx_plastic.samples import Message
from test_evals import Parrot

CHAT = [
    Message("system", "Be kind."),
    Message("user", "What time is it?"),
    Message("assistant", "It is four o'clock in the afternoon."),
    Message("user", "Thanks."),
    Message("assistant", "You are very welcome, dear friend."),
]


def run(home: Home, *arguments: str) -> Any:
    return CliRunner().invoke(plastic, ["--home", str(home.root), "eval", *arguments])


# -- golden


def test_every_golden_answer_is_asked_for_behind_what_was_said_before_it() -> None:
    turns = golden_turns([CHAT])
    assert [said for _, said in turns] == [CHAT[2].content, CHAT[4].content]
    assert [len(history) for history, _ in turns] == [2, 4]
    with pytest.raises(BadData, match="no transcript"):
        golden_turns([[Message("assistant", "Hello, I begin.")], CHAT[:2]])


def test_style_is_told_as_the_field_counts_it() -> None:
    pytest.importorskip("sacrebleu")
    golden = [CHAT[2].content, CHAT[4].content]
    same, near, far = (
        style_match(answers, golden)
        for answers in (
            golden,
            ["It is three o'clock in the afternoon.", "You are welcome, my friend."],
            ["No.", "Go away now, whoever you are!"],
        )
    )
    assert same.bleu == pytest.approx(100) and same.chrf == pytest.approx(100) and same.exact == 1.0
    assert same.bleu > near.bleu > far.bleu and same.chrf > near.chrf > far.chrf
    assert near.exact == 0.0 and near.chrf_margin is not None and near.chrf_margin > 0
    assert "nc:6" in near.signature
    assert style_match(golden[:1], golden[:1]).bleu_margin is None  # one answer has no spread
    import sacrebleu

    assert (
        near.chrf
        == sacrebleu.corpus_chrf(
            ["It is three o'clock in the afternoon.", "You are welcome, my friend."], [golden]
        ).score
    )


def test_a_model_is_compared_by_its_own_answers() -> None:
    pytest.importorskip("sacrebleu")
    turns = golden_turns([CHAT] * 50)
    told: list[tuple[int, int]] = []
    found = measure_style(Parrot(), turns, on_progress=lambda done, of: told.append((done, of)))
    assert found.answers == 100 and found.exact == 0.0  # it repeats the question
    assert told == [(64, 100), (100, 100)]
    again = golden_turns([[Message("user", "Say so."), Message("assistant", "Say so.")]])
    assert measure_style(Parrot(), again).exact == 1.0  # control


def test_without_sacrebleu_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(PlasticError, match="sacrebleu is not installed") as caught:
        measure_style(Parrot(), golden_turns([CHAT]))
    assert "mlx-plastic[golden]" in caught.value.hint


def test_eval_golden_prints_json_and_keeps_rows(home: Home, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    data, rows = tmp_path / "golden.jsonl", tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"messages": [m.as_dict() for m in CHAT]}) + "\nbroken\n")
    asked = ["golden", "--base", str(checkpoint), "--max-tokens", "4"]
    done = run(home, *asked, "--data", str(data), "--jsonl", str(rows), "--json", "--tag", "t")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["answers"] == 2 and found["perplexity"] > 1 and 0 <= found["chrf"] <= 100
    assert "line 2 left out" in done.stderr
    assert json.loads(rows.read_text()) == found
    assert (
        History(home.logs / "experiments.jsonl").entries(kind="golden", tag="t")[0]["bleu"] == found["bleu"]
    )
    unset = run(home, *asked)
    assert unset.exit_code == 1 and "no golden transcripts" in unset.stderr
    home.config_file.write_text(f'[judge]\ngolden = "{data}"\n')
    assert run(home, *asked).exit_code == 0  # those that the nights are judged by


# -- long contexts


def length(messages: Sequence[Message]) -> int:
    return sum(len(m.content.split()) + 1 for m in messages)


def test_a_long_task_is_as_long_as_asked_and_tells_its_fact_where_asked() -> None:
    talk = [[Message("user", f"Say {i} again."), Message("assistant", f"It is {i} now.")] for i in range(9)]
    tasks = long_tasks([100, 400], [0.0, 0.5, 1.0], talk, length, each=3)
    assert len({t.id for t in tasks}) == len(tasks) == 18
    assert tasks == long_tasks([100, 400], [0.0, 0.5, 1.0], talk, length, each=3)
    for task in tasks:
        size, depth = int(task.tags[0].split()[0]), float(task.tags[1].split()[1])
        assert size - 16 <= length(task.messages) <= size  # one exchange more would be too much
        (value,) = task.check["contains"]
        told = next(i for i, m in enumerate(task.messages) if value in m.content)
        assert abs(told / (len(task.messages) - 3) - depth) < 0.2
        assert value not in task.messages[-1].content
        roles = [m.role for m in task.messages]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
    passed = dict(judge(tasks, [t.check["contains"][0] if "400" in t.id else "?" for t in tasks]).passed)
    rows = summary(tasks, passed)
    assert {(r["tokens"], r["recall"], r["n"]) for r in rows} == {(100, 0.0, 3), (400, 1.0, 3)}


def test_a_length_that_cannot_be_is_told(home: Home, checkpoint: Path) -> None:
    with pytest.raises(BadData, match="5 tokens do not hold"):
        long_tasks([5], [0.5], [CHAT], length)
    with pytest.raises(BadData, match="no talk"):
        long_tasks([500], [0.5], [[Message("user", "Alone.")]], length)
    over = run(home, "recall", "--base", str(checkpoint), "--lengths", "4096")
    assert over.exit_code == 1 and "no length fits the window of 512" in over.stderr
    assert run(home, "recall", "--base", str(checkpoint), "--depths", "2").exit_code == 2
    assert run(home, "recall", "--base", str(checkpoint), "--lengths", "x").exit_code == 2


def test_eval_recall_measures_lengths_within_the_window(home: Home, checkpoint: Path) -> None:
    asked = ["recall", "--base", str(checkpoint), "--lengths", "400,4096", "--depths", "0,1", "--each", "1"]
    done = run(home, *asked, "--json")
    assert done.exit_code == 0, done.output
    assert [(r["tokens"], r["depth"], r["n"]) for r in json.loads(done.stdout)["rows"]] == [
        (400, 0, 1),
        (400, 1, 1),
    ]
    assert "4096 left out" in done.stderr


# -- the harness by tags


def test_only_tasks_of_the_tags_asked_for_are_run(home: Home, checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    tasks = [
        {"id": f"t{i}", "domain": d, "tags": tags, "prompt": "Hi", "check": {"contains": "x"}}
        for i, (d, tags) in enumerate((("a", ["red"]), ("a", ["blue"]), ("b", ["red"])))
    ]
    file.write_text("".join(json.dumps(t) + "\n" for t in tasks))
    asked = [
        "harness",
        "--base",
        str(checkpoint),
        "--data",
        str(file),
        "--max-tokens",
        "2",
        "--json",
        "--only",
    ]
    for only, count, tags in (("red", 2, {"red": 2}), ("a", 2, {"red": 1, "blue": 1}), ("b,blue", 2, None)):
        found = json.loads(run(home, *asked, only).stdout)
        assert found["tasks"] == count
        assert tags is None or {t: v["tasks"] for t, v in found["tags"].items()} == tags
    unknown = run(home, *asked, "green")
    assert unknown.exit_code == 2 and "green" in unknown.stderr


# -- lm-evaluation-harness


def test_without_lm_eval_it_is_said_how_to_get_it(
    home: Home, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run(home, "benchmarks", "arc_easy", "--base", str(checkpoint))
    assert done.exit_code == 1
    assert "mlx-plastic[lm-eval]" in done.stderr


@pytest.mark.slow
def test_the_real_harness_measures_the_model_that_is_loaded(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    examples = tmp_path / "examples.jsonl"
    examples.write_text("".join(json.dumps({"q": f"{i} is", "a": i % 2}) + "\n" for i in range(6)))
    task = {
        "task": "even_or_odd",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(examples)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": ["even", "odd"],
        "doc_to_target": "a",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (tmp_path / "task.yaml").write_text(json.dumps(task))  # JSON is YAML
    base = load_base(str(checkpoint))
    (found,) = run_benchmarks(base.model, base.tokenizer, ["even_or_odd"], window=512, folder=tmp_path)
    choices = [min(("even", "odd"), key=lambda c, i=i: base_nll(base, f"{i} is", f" {c}")) for i in range(6)]
    right = sum(c == ("even", "odd")[i % 2] for i, c in enumerate(choices)) / 6
    assert (found.task, found.metric, found.n) == ("even_or_odd", "acc", 6)
    assert found.value == pytest.approx(right)  # as our own losses have it


def base_nll(base: Any, before: str, after: str) -> float:
    from mlx_plastic.samples import Encoded

    head, whole = base.tokenizer.encode(before), base.tokenizer.encode(before + after)
    targets = tuple(i >= len(head) for i in range(len(whole)))
    return float(base.nll([Encoded(tuple(whole), targets)])[0][0])
