from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from mlx_plastic.errors import BadData
from mlx_plastic.samples import (
    Message,
    Sample,
    digest,
    encode,
    from_jsonl,
    parse_messages,
    part_of,
    read_chats,
    to_jsonl,
)

TALK = (
    Message("system", "Be brief."),
    Message("user", "Where does Nora live?"),
    Message("assistant", "In Lisbon."),
    Message("user", "And the cat?"),
    Message("assistant", "I do not know."),
)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(checkpoint)


def supervised(encoded: Any, tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.decode([t for t, on in zip(encoded.tokens, encoded.targets, strict=True) if on])


def test_the_mask_covers_what_the_assistant_says_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(Sample(TALK), tokenizer, max_tokens=256)
    assert supervised(encoded, tokenizer) == " In Lisbon.<|end|> I do not know.<|end|>"
    assert encoded.supervised == sum(encoded.targets)
    asked = encode(Sample(TALK[:2]), tokenizer, max_tokens=256)  # control: nobody answers
    assert asked.supervised == 0


def test_mode_all_counts_everything_but_the_first_token(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(Sample(TALK), tokenizer, max_tokens=256, loss_mode="all")
    assert encoded.targets == (False, *[True] * (len(encoded.tokens) - 1))


def test_a_sample_longer_than_the_window_says_both_lengths(tokenizer: PreTrainedTokenizerFast) -> None:
    length = len(encode(Sample(TALK), tokenizer, max_tokens=256).tokens)
    encode(Sample(TALK), tokenizer, max_tokens=length)
    with pytest.raises(BadData, match=f"of {length} tokens is longer than the window of {length - 1}"):
        encode(Sample(TALK), tokenizer, max_tokens=length - 1)


TURN = "<|{{ m['role'] }}|> {{ m['content'] }}<|end|>"
ASK = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
ODD_TEMPLATES = {
    "opens an answer otherwise than it asks": (
        "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}<|system|>{% endif %}",
        "behind the prompt that asks for it",
    ),
    "does not ask": ("{% for m in messages %}" + TURN.replace("<|", "") + "{% endfor %}", None),
    "drops the thoughts of earlier answers": (
        "{% for m in messages %}<|{{ m['role'] }}|>"
        "{% if loop.last and m['role'] == 'assistant' %} hm{% endif %} {{ m['content'] }}<|end|>{% endfor %}"
        + ASK,
        "otherwise once more is said",
    ),
    "glues the answer to its prompt": (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}1{% endif %}",
        "behind the prompt that asks for it",
    ),
    "refuses a system turn": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        + TURN
        + "{% endfor %}"
        + ASK,
        "refuses a conversation of system, user, assistant, user, assistant: TemplateError",
    ),
    "renders nothing": ("{{ '' }}", "renders a conversation as nothing"),
}


@pytest.mark.parametrize("oddity", ODD_TEMPLATES)
def test_a_template_that_would_make_the_mask_wrong_is_refused(
    oddity: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    template, message = ODD_TEMPLATES[oddity]

    class Odd:
        def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
            return tokenizer.apply_chat_template(conversation, chat_template=template, **options)

    if message is None:  # nothing to ask with, yet every place can be told: the mask is right
        assert "In Lisbon" in supervised(encode(Sample(TALK), Odd(), max_tokens=256), tokenizer)
        return
    with pytest.raises(BadData, match=message):
        encode(Sample(TALK), Odd(), max_tokens=256)


def test_a_tokenizer_without_a_template_cannot_chat() -> None:
    class Bare:
        def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
            raise ValueError("tokenizer.chat_template is not set")

    with pytest.raises(BadData, match="refuses") as caught:
        encode(Sample(TALK), Bare(), max_tokens=256)
    assert "without a template cannot chat" in caught.value.hint


def test_the_split_is_the_same_for_ever_and_near_its_shares() -> None:
    parts = [part_of(f"conversation {i}") for i in range(4000)]
    assert [part_of(key) for key in "abcdef"] == PARTS_OF_A_TO_F
    for part, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert parts.count(part) / 4000 == pytest.approx(share, abs=0.02)  # 4 standard deviations
    assert part_of("a", valid=0, test=0) == "train"


# pinned: if these change, what was tested on before is trained on
PARTS_OF_A_TO_F = ["train", "train", "valid", "test", "train", "valid"]


def test_samples_survive_the_trip_through_a_file() -> None:
    text = 'line\nbreak, \u2028 and \x85 and \x1e, an emoji \U0001f600, a quote "'
    samples = [
        Sample((Message("user", text), Message("assistant", "yes")), "key", ("t1", "t2"), "qa"),
        Sample(TALK),
    ]
    assert from_jsonl(to_jsonl(samples)) == samples
    assert digest(samples) == digest(from_jsonl(to_jsonl(samples)))
    assert digest(samples) != digest(samples[::-1])


def test_a_broken_file_of_ours_is_named_by_line() -> None:
    good = to_jsonl([Sample(TALK)])
    for bad in (b"{}\n", b"[1]\n", good.replace(b'"key"', b'"kee"'), good[:20] + b"\n"):
        with pytest.raises(BadData, match="line 2 is no sample"):
            from_jsonl(good + bad)


GOOD = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"messages": ' + b"1" * 5000 + b"}", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "no list 'messages'"),
        (b'{"messages": {}}', "no list 'messages'"),
        (b'{"messages": []}', "'messages' is empty"),
        (b'{"messages": [3]}', "messages[0] is not an object"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "messages[0].role is not one of"),
        (b'{"messages": [{"role": "user", "content": " "}]}', "messages[0].content is not a text"),
        (b'{"messages": [{"role": "user", "content": null}]}', "messages[0].content is not a text"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not valid Unicode"),
    ],
)
def test_a_bad_line_is_kept_aside_with_its_number_and_the_good_ones_are_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\n" + line + b"\n" + GOOD.encode())
    chats, bad = read_chats(file)
    assert chats == [parse_messages(json.loads(GOOD))] * 2
    assert [b.number for b in bad] == [3]
    assert reason in bad[0].reason


def test_a_file_that_is_not_there_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="No such file"):
        read_chats(tmp_path / "none.jsonl")
    with pytest.raises(BadData, match="Is a directory"):
        read_chats(tmp_path)
