from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.base.score import hits, tally
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadData
from mlx_plastic.home import Home
from mlx_plastic.lowrank.quick import nlls
from mlx_plastic.packs import Pack, Store
from mlx_plastic.packs.create.data import encoded, read_data
from mlx_plastic.packs.measure.inputs import read_inputs, stripped
from mlx_plastic.packs.measure.measure import COLUMNS, described, evaluate
from mlx_plastic.packs.measure.throughput import batch_rows, speeds
from mlx_plastic.packs.wear.attach import attached
from test_attach import pack_of, random_factors, random_pack

CHATS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": answer}]}
    for n, answer in enumerate(["Nora lives in Lisbon.", "I do not know.", "The cat is called Rex."])
]


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture
def pack(home: Home, tiny: Base) -> Pack:
    found = random_pack(tiny, name="rex")
    Store(home).add(found.factors, found.manifest)
    return found


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return write(tmp_path / "chats.jsonl", *CHATS)


def write(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(plastic, [str(a) for a in arguments], prog_name="plastic")


# -- eval


def test_one_pass_tells_the_loss_and_how_often_the_likeliest_token_is_right(tiny: Base, chats: Path) -> None:
    samples = encoded(read_data(chats), tiny, "answer")
    found = tally(tiny.model, samples, nlls, hits)
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in tiny.nll(samples)])
    for sample, (_, right) in zip(samples, found, strict=True):
        likeliest = np.array(mx.argmax(tiny.logits(sample.tokens), axis=-1))
        at = [i for i, counts in enumerate(sample.targets) if counts]
        assert right == sum(likeliest[i - 1] == sample.tokens[i] for i in at)


def test_the_row_is_the_models_perplexity_with_and_without_the_pack(tiny: Base, chats: Path) -> None:
    pack = random_pack(tiny, name="rex")
    samples = encoded(read_data(chats), tiny, "answer")
    found = evaluate(tiny, lambda: pack, samples)
    count = sum(sample.supervised for sample in samples)
    bare = sum(nats for nats, _ in tiny.nll(samples)) / count
    with attached(tiny.model, {"rex": pack}, fingerprint=tiny.fingerprint):
        worn = sum(nats for nats, _ in tiny.nll(samples)) / count
        right = sum(right for _, right in tally(tiny.model, samples, nlls, hits)) / count
    row = found.row
    assert row["ppl_base"] == pytest.approx(math.exp(bare), rel=1e-4)
    assert row["ppl_pack"] == pytest.approx(math.exp(worn), rel=1e-4)
    assert row["ppl_delta_pct"] == pytest.approx(100 * (math.exp(worn - bare) - 1), abs=1e-3)
    assert row["domain_metric"] == pytest.approx(right, abs=1e-4)
    assert found.more["kl_nats"] > 0 and found.more["tokens"] == count
    assert row["load_ms"] > 0 and row["tps"] > 0 and row["vram_GB"] > 0


def test_a_known_base_is_not_measured_again(tiny: Base, chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_plastic.packs.measure import measure

    pack, samples = random_pack(tiny), encoded(read_data(chats), tiny, "answer")
    with attached(tiny.model, {}, fingerprint=tiny.fingerprint):
        bare = measure.quality(tiny, measure.pieces_of(tiny, samples))
    whole = evaluate(tiny, lambda: pack, samples).row
    calls: list[int] = []
    real = measure.quality
    monkeypatch.setattr(measure, "quality", lambda *a, **k: calls.append(1) or real(*a, **k))
    known = evaluate(tiny, lambda: pack, samples, bare=bare).row
    assert len(calls) == 1
    assert [known[c] for c in COLUMNS[8:]] == [whole[c] for c in COLUMNS[8:]]


def test_ranks_are_told_by_role_and_layer_by_layer_where_they_differ(tiny: Base) -> None:
    factors = random_factors(tiny, 0, 4)
    kept = {p: f for p, f in factors.items() if p.endswith(("q_proj", "down_proj"))}
    row = described(pack_of(tiny, kept).manifest)
    ranks = [f.rank for p, f in sorted(kept.items()) if p.endswith("q_proj")]
    assert row["layers"] == "attn.q_proj+mlp.down_proj"
    told = json.loads(row["rank_map"])
    assert told["attn.q_proj"] == (ranks if len(set(ranks)) > 1 else ranks[0])
    assert isinstance(row["alpha"], str | float) and row["size_MB"] > 0


def test_eval_appends_one_row_of_exactly_the_columns(
    pack: Pack, chats: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "evals.csv"
    arguments = ("packs", "eval", "--base", checkpoint, "--pack", "rex", "--data-path", chats, "--csv", out)
    for _ in range(2):
        done = run(*arguments)
        assert done.exit_code == 0, done.stderr
    with open(out, newline="") as file:
        lines = list(csv.reader(file))
    assert ",".join(lines[0]) == (
        "pack_name,layers,rank_map,alpha,size_MB,load_ms,vram_GB,tps,ppl_base,ppl_pack,ppl_delta_pct,domain_metric"
    )
    assert len(lines) == 3 and lines[1][0] == "rex" and lines[1][8:] == lines[2][8:]
    value = json.loads(run(*arguments[:-2], "--json").stdout)
    assert value["domain_metric_name"] == "token_accuracy" and tuple(value)[:12] == COLUMNS


def test_eval_reads_every_form_and_measures_every_token_of_a_text(
    pack: Pack, checkpoint: Path, tmp_path: Path, tiny: Base
) -> None:
    text = write(tmp_path / "text.jsonl", {"text": "Nora lives in Lisbon."})
    pair = write(tmp_path / "pair.jsonl", {"prompt": "Who?", "completion": "Nora."})
    tokens = {}
    for path in (text, pair):
        done = run("packs", "eval", "--base", checkpoint, "--pack", "rex", "--data-path", path, "--json")
        assert done.exit_code == 0, done.stderr
        tokens[path] = json.loads(done.stdout)["tokens"]
    assert tokens[text] == len(tiny.tokenizer.encode("Nora lives in Lisbon."))  # and the end of the text
    assert tokens[pair] == len(tiny.tokenizer.encode(" Nora.")) + 1


def test_a_sample_longer_than_the_window_is_measured_whole(tiny: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "long.jsonl", {"text": "Nora lives in Lisbon. " * 200})
    (sample,) = encoded(read_data(path), tiny, "all")
    assert len(sample.tokens) > tiny.window
    assert evaluate(tiny, lambda: random_pack(tiny), [sample]).more["tokens"] == len(sample.tokens) - 1


# -- eval-batch


def test_each_batch_size_gives_base_and_pack_the_same_perplexity_as_any_other(
    tiny: Base, tmp_path: Path
) -> None:
    pack = random_pack(tiny, name="rex")
    path = tmp_path / "inputs.txt"
    path.write_text("Nora lives in Lisbon.\n\nThe cat is called Rex.\nI do not know.\n")
    inputs, remark = read_inputs(path, tiny, length=16, thinking="keep")
    assert len(inputs) == 3 and remark == ""
    rows = list(batch_rows(tiny, {"rex": pack}, inputs, batch_sizes=[1, 2, 4], length=16, thinking="keep"))
    assert [(row.pack_name, row.batch_size) for row in rows] == [
        (name, size) for size in (1, 2, 4) for name in ("base", "rex")
    ]
    for name in ("base", "rex"):
        found = [row.ppl for row in rows if row.pack_name == name]
        assert found == pytest.approx([found[0]] * 3, rel=1e-4)
    assert rows[0].ppl != pytest.approx(rows[1].ppl, rel=1e-3)  # control: the pack does act
    assert all(r.prefill_tps > 0 and r.decode_tps > 0 and r.first_token_ms > 0 for r in rows)


def test_the_speeds_are_of_the_tokens_read_and_written(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_plastic.packs.measure import throughput

    clock = iter([0.0, 2.0, 5.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    found = speeds(tiny.model, mx.zeros((3, 10), mx.int32), new_tokens=4)
    assert (found.prefill_tps, found.decode_tps, found.first_token_ms) == (15.0, 4.0, 2000.0)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>so</think>Rex.", "Rex."),
        ("a <think>b</think> c <think>d</think> e", "a  c  e"),
        ("Rex. <think>cut off", "Rex."),
        ("no thoughts </think>", "no thoughts </think>"),
    ],
)
def test_thoughts_are_stripped(text: str, left: str) -> None:
    assert stripped(text) == left


def test_stripping_takes_linear_time() -> None:
    assert stripped("<think>" * 200_000) == ""


def test_thoughts_are_kept_or_stripped_as_asked(tiny: Base, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "<think>hm</think>Rex."}]
    plain = [said[0], {"role": "assistant", "content": "Rex."}]
    with_thoughts, without = (
        write(tmp_path / f"{i}.jsonl", {"messages": m}) for i, m in enumerate([said, plain])
    )
    (stripped_,), _ = read_inputs(with_thoughts, tiny, length=256, thinking="strip")
    (kept,), _ = read_inputs(with_thoughts, tiny, length=256, thinking="keep")
    (wanted,), _ = read_inputs(without, tiny, length=256, thinking="keep")
    assert stripped_ == wanted != kept


def test_inputs_that_are_cut_are_counted_and_bad_ones_named(tiny: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", {"prompt": "Nora lives in Lisbon. " * 9}, {"prompt": "Who?"})
    inputs, remark = read_inputs(path, tiny, length=32, thinking="keep")
    assert len(inputs[0].tokens) == 32 and remark == "1 of 2 inputs are cut to 32 tokens"
    bad = write(tmp_path / "bad.jsonl", {"prompt": "Who?"}, {"question": "Who?"}, {"text": 3})
    with pytest.raises(BadData) as caught:
        read_inputs(bad, tiny, length=32, thinking="keep")
    assert "2 lines cannot be used" in caught.value.message
    assert "line 2: it has no 'messages', 'prompt' or 'text'" in caught.value.message
    assert "Who" not in caught.value.message
    thoughts = write(tmp_path / "t.jsonl", {"text": "<think>only</think>"})
    with pytest.raises(BadData, match="without its thoughts"):
        read_inputs(thoughts, tiny, length=32, thinking="strip")


def test_the_command_measures_every_batch_size(
    pack: Pack, chats: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "batch.csv"
    done = run(
        *(
            "packs",
            "eval-batch",
            "--base",
            checkpoint,
            "--pack",
            "rex",
            "--input",
            chats,
            "--batch-size",
            "1,2",
        ),
        *("--sequence-length", 32, "--thinking", "strip", "--csv", out, "--json"),
    )
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["batch_size"] for row in rows] == [1, 1, 2, 2]
    assert len(out.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch-size", "8,x"], "whole numbers from 1 up"),
        (["--batch-size", "0"], "whole numbers from 1 up"),
        (["--thinking", "maybe"], "strip"),
    ],
)
def test_wrong_usage_is_told(chats: Path, arguments: list[str], told: str) -> None:
    done = run("packs", "eval-batch", "--pack", "rex", "--input", chats, *arguments)
    assert done.exit_code == 2 and told in done.stderr
