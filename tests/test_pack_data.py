from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlx_plastic.base import Base, load_base
from mlx_plastic.errors import BadData
from mlx_plastic.packs.create.data import VALID_SAMPLES, encoded, read_data, split_data
from mlx_plastic.samples import Message, Sample, encode, to_jsonl
from test_measure_packs import CHATS, write


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def test_each_form_is_told_by_its_first_line(tmp_path: Path) -> None:
    chats = read_data(write(tmp_path / "a.jsonl", *CHATS))
    pairs = read_data(write(tmp_path / "b.jsonl", {"prompt": "Who?", "completion": "Rex.", "id": 3}))
    texts = read_data(write(tmp_path / "c.jsonl", {"text": "Nora"}))
    assert (chats.form, pairs.form, texts.form) == ("messages", "completion", "text")
    assert pairs.records[0].sample and pairs.records[0].sample.messages == (
        Message("user", "Who?"),
        Message("assistant", "Rex."),
    )
    assert pairs.ignored == {"id": 1} and not chats.ignored
    assert (chats.natural_mode, texts.natural_mode) == ("answer", "all")


def test_every_bad_line_is_named_with_its_field_and_never_its_text(tmp_path: Path) -> None:
    good = json.dumps(CHATS[0])
    lines = [
        good,
        "",
        "{secret",
        json.dumps({"messages": [{"role": "user", "content": "secret"}, {"role": "robot", "content": "s"}]}),
        json.dumps({"messages": [{"role": "user", "content": None}]}),
        json.dumps({"text": "secret"}),
        '["secret"]',
        json.dumps(CHATS[1] | {"turns": "secret"}),
        json.dumps({"messages": []}),
    ]
    path = tmp_path / "bad.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"messages": "\xff"}\n')
    with pytest.raises(BadData) as caught:
        read_data(path)
    told = caught.value.message
    assert told.startswith(f"{path}: 8 lines cannot be used:")
    for fault in (
        "line 3: not JSON",
        "line 4: messages[1].role is not one of system, user, assistant",
        "line 5: messages[0].content is not a text",
        "line 6: no 'messages', which the lines before it have",
        "line 7: not a JSON object",
        "line 8: 'turns' is not a list of ids",
        "line 9: 'messages' is empty",
        "line 10: not UTF-8",
    ):
        assert f"\n  - {fault}" in told
    assert "secret" not in str(caught.value)
    assert "prompt" in caught.value.hint  # which forms there are
    path.write_text(good)
    assert len(read_data(path).records) == 1  # control: the good line alone is read


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="30 lines cannot be used") as caught:
        read_data(write(tmp_path / "bad.jsonl", {"text": "fine"}, *[{"text": 3}] * 30))
    assert "\n  - and 20 more" in caught.value.message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no sample"),
        ('{"question": "?"}\n' * 3, "line 1: it has none of 'messages', 'prompt' with 'completion', 'text'"),
        ('{"prompt": "?", "completion": " "}', "line 1: 'completion' is not a text"),
        ('{"text": "\\ud800"}', "line 1: 'text' is not valid Unicode"),
    ],
)
def test_what_is_no_data_is_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(content)
    with pytest.raises(BadData) as caught:
        read_data(path)
    assert told in caught.value.message


def test_a_file_as_windows_saves_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, CHATS)).encode())
    assert len(read_data(path).records) == 3


def test_answers_are_supervised_and_texts_end(tiny: Base, tmp_path: Path) -> None:
    (sample, *_) = encoded(read_data(write(tmp_path / "a.jsonl", *CHATS)), tiny, "answer")
    said = tuple(Message(m["role"], m["content"]) for m in CHATS[0]["messages"])  # type: ignore[arg-type]
    assert sample == encode(Sample(said), tiny.tokenizer, max_tokens=999)
    (whole, *_) = encoded(read_data(tmp_path / "a.jsonl"), tiny, "all")
    assert whole.supervised == len(whole.tokens) - 1 > sample.supervised
    (text,) = encoded(read_data(write(tmp_path / "c.jsonl", {"text": "Nora"})), tiny, "all")
    assert text.tokens == (*tiny.tokenizer.encode("Nora"), tiny.tokenizer.eos_token_id)


def test_a_text_has_no_answers(tiny: Base, tmp_path: Path) -> None:
    texts = read_data(write(tmp_path / "c.jsonl", {"text": "Nora"}))
    with pytest.raises(BadData, match="no part of them is an answer") as caught:
        encoded(texts, tiny, "answer")
    assert caught.value.hint == "add --loss-mode all"


def test_a_base_without_a_template_does_not_guess_where_answers_are(tmp_path: Path, checkpoint: Path) -> None:
    import shutil

    folder = tmp_path / "plain"
    shutil.copytree(checkpoint, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    base = load_base(str(folder))
    chats = read_data(write(tmp_path / "a.jsonl", *CHATS))
    with pytest.raises(BadData, match="has no chat template") as caught:
        encoded(chats, base, "answer")
    assert "--loss-mode all" in caught.value.hint
    assert all(sample.supervised for sample in encoded(chats, base, "all"))


def test_a_chat_without_an_answer_is_an_error_with_its_line(tiny: Base, tmp_path: Path) -> None:
    asks = {"messages": CHATS[0]["messages"][:1]}
    path = write(tmp_path / "a.jsonl", CHATS[0], asks, CHATS[1], asks)
    with pytest.raises(BadData, match="2 lines cannot be used") as caught:
        encoded(read_data(path), tiny, "answer")
    assert "line 2: nothing in it is to be learned" in caught.value.message
    assert "line 4: " in caught.value.message


def many(count: int) -> list[dict[str, str]]:
    return [{"text": f"Nora {n}"} for n in range(count)]


def test_the_same_samples_are_held_out_every_time_and_never_trained_on(tiny: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *many(60), *many(10))
    one, two = (split_data(read_data(path), tiny, "all", valid_share=0.3) for _ in range(2))
    assert (one.train, one.valid) == (two.train, two.valid)
    assert 8 < len(one.valid) < 35 and len(one.train) + len(one.valid) == 70
    assert not {s.tokens for s in one.train} & {s.tokens for s in one.valid}  # also not the ones told twice
    assert split_data(read_data(path), tiny, "all", valid_share=0.0).valid == ()


def test_no_more_is_held_out_than_can_be_measured_often(tiny: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *many(1000))
    assert (
        len(split_data(read_data(path), tiny, "all", valid_share=0.9).valid) < 1.3 * VALID_SAMPLES
    )  # a hash decides


def test_a_file_of_its_own_is_held_out_whole_and_what_is_in_both_is_told(tiny: Base, tmp_path: Path) -> None:
    train, valid = (
        write(tmp_path / "a.jsonl", *many(9)),
        write(tmp_path / "b.jsonl", *many(3), {"text": "Rex"}),
    )
    data = split_data(read_data(train), tiny, "all", valid=valid)
    assert (len(data.train), len(data.valid)) == (9, 4)
    assert data.notes == (f"3 of 4 samples of {valid} are trained on too",)


def test_what_is_passed_over_is_told(tiny: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"text": "Nora", "tools": []} for _ in range(3)))
    data = split_data(read_data(path), tiny, "all", valid_share=0.0)
    assert data.notes[0] == f"{path}: passed over 'tools' in 3 lines"
    assert "no sample is held out" in data.notes[1]


def test_a_nights_own_file_keeps_its_lineage_and_its_keys(tmp_path: Path) -> None:
    samples = [Sample((Message("user", "Who?"), Message("assistant", "Rex.")), "k", ("t1", "t2"), "qa")]
    path = tmp_path / "train.jsonl"
    path.write_bytes(to_jsonl(samples))
    data = read_data(path)
    assert [record.sample for record in data.records] == samples
    assert data.records[0].key == "k" and not data.ignored
