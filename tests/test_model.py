from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from families import tiny_models
from mlx_plastic.backend import mx, nn, tree_flatten
from mlx_plastic.base import Base, load_base
from mlx_plastic.base import widen as widening
from mlx_plastic.base.generate import ROWS, _batches, generate, picker, trimmed, until
from mlx_plastic.base.score import halves
from mlx_plastic.base.weights import Weights
from mlx_plastic.errors import BadCheckpoint
from mlx_plastic.samples import Encoded, Message, Sample, encode
from tiny import make_checkpoint

ACCEPT = os.environ.get("MLX_PLASTIC_DATA")
REAL = ("stories260K", "BabyLlama-tok105")


def ask(text: str) -> list[Message]:
    return [Message("user", text)]


QUESTIONS = [ask("What is my name? " + "Nora lives in Lisbon. " * (i % 9) + str(i)) for i in range(24)]


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture(scope="module", params=REAL)
def real(request: pytest.FixtureRequest) -> Base:
    if not ACCEPT:
        pytest.skip("set MLX_PLASTIC_DATA to the folder of the acceptance data")
    return load_base(str(Path(ACCEPT) / "models" / request.param))


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


# -- loading


OPENED: list[tuple[str, Any, int]] = []


def test_every_byte_is_unchanged_and_nothing_was_opened_for_writing(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "base")
    before = digests(folder)
    OPENED.clear()
    sys.addaudithook(_watch)
    base = load_base(str(folder), cache=tmp_path / "cache")
    base.answers(QUESTIONS[:3], max_tokens=4)
    inside = [(name, mode, flags) for name, mode, flags in OPENED if name.startswith(str(folder))]
    assert any(name.endswith("config.json") for name, _, _ in inside)  # control: the hook sees files
    assert [entry for entry in inside if _writes(*entry)] == []
    assert digests(folder) == before
    assert sorted(p.name for p in folder.iterdir()) == sorted(before)


CHANGES = ("os.rename", "os.remove", "os.truncate", "os.mkdir", "os.link", "os.symlink")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        OPENED.append((os.fspath(arguments[0]), arguments[1], arguments[2]))  # type: ignore[arg-type]
    elif event in CHANGES and isinstance(
        arguments[0], str | os.PathLike
    ):  # or a descriptor, of a file opened
        OPENED.append((os.fspath(arguments[0]), event, os.O_WRONLY))


def _writes(name: str, mode: Any, flags: int) -> bool:
    return bool(set(mode or "") & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR))


def test_the_watch_for_writes_can_fail(tmp_path: Path) -> None:
    sys.addaudithook(_watch)
    OPENED.clear()
    (tmp_path / "f").write_text("x")
    assert any(_writes(*entry) for entry in OPENED if entry[0] == str(tmp_path / "f"))


def test_a_read_only_folder_is_enough(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "base")
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert load_base(str(folder)).fingerprint
    finally:
        folder.chmod(0o755)


def test_the_model_is_frozen_and_in_eval_mode(base: Base) -> None:
    assert tree_flatten(base.model.trainable_parameters()) == []
    assert not base.model.training
    assert base.note == ""


def damaged(folder: Path, **changes: Any) -> str:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(BadCheckpoint) as caught:
        load_base(str(folder))
    assert caught.value.hint
    return caught.value.message


def test_a_model_type_unknown_to_mlx_lm_is_named(tmp_path: Path) -> None:
    assert "'martian'" in damaged(make_checkpoint(tmp_path), model_type="martian")


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    message = damaged(make_checkpoint(tmp_path), num_hidden_layers=3)
    assert "model type 'qwen3'" in message


def test_a_config_without_what_the_architecture_needs_is_refused(tmp_path: Path) -> None:
    assert "model type 'qwen3'" in damaged(make_checkpoint(tmp_path), hidden_size=None)


def test_code_that_comes_with_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "base")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "evil.py" in damaged(folder, model_file="evil.py")
    assert not (tmp_path / "ran").exists()


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    assert "cannot load" in damaged(folder)


# -- low precision


def quantized(source: Path, target: Path, **how: Any) -> Path:
    """A copy of the checkpoint as mlx-lm itself quantizes and saves it."""
    from mlx_lm.utils import load_config, load_model, quantize_model, save_model

    shutil.copytree(source, target)
    (target / "model.safetensors").unlink()
    model, _ = load_model(source)
    model.set_dtype(mx.bfloat16)  # as published ones are: 16-bit scales
    model, config = quantize_model(model, load_config(source), **how)
    save_model(target, model)
    (target / "config.json").write_text(json.dumps(config))
    return target


MODES = [
    {"group_size": 32, "bits": 4},
    {"group_size": 32, "bits": 8},
    {"group_size": 32, "bits": 4, "mode": "mxfp4"},
]


@pytest.mark.parametrize("how", MODES, ids=lambda how: f"{how.get('mode', 'affine')}-{how['bits']}")
def test_a_quantized_base_is_widened_to_the_very_numbers_mlx_dequantizes(
    tmp_path: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm.utils import load_model

    monkeypatch.setattr(widening, "is_slow_low_precision", lambda: True)
    folder = quantized(make_checkpoint(tmp_path / "full", hidden=64), tmp_path / "packed", **how)
    packed, _ = load_model(folder)
    expected = {
        f"{path}.weight": mx.dequantize(
            m.weight,
            m.scales if m.get("biases") is None else m.scales.astype(mx.float32),
            None if m.get("biases") is None else m.biases.astype(mx.float32),
            group_size=m.group_size,
            bits=m.bits,
            mode=m.mode,
        )
        for path, m in packed.named_modules()
        if "scales" in m
    }
    base = load_base(str(folder))
    found = dict(tree_flatten(base.model.parameters()))
    assert expected.keys() <= found.keys()
    assert "model.layers.0.mlp.up_proj.weight" in expected
    for name, weight in expected.items():
        assert found[name].dtype == mx.float32
        assert mx.array_equal(found[name], weight.astype(mx.float32)).item(), name
    assert not any("scales" in m for _, m in base.model.named_modules())
    assert f"dequantized {how['bits']}-bit to float32" in base.note


def test_the_logits_of_a_widened_base_are_those_of_the_packed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm.utils import load_model

    folder = quantized(make_checkpoint(tmp_path / "full", hidden=64), tmp_path / "packed", **MODES[0])
    packed, _ = load_model(folder)
    packed.set_dtype(mx.float32)  # scales only: the same numbers, multiplied packed
    tokens = list(range(5, 40))
    expected = packed(mx.array([tokens]))[0]
    monkeypatch.setattr(widening, "is_slow_low_precision", lambda: True)
    logits = load_base(str(folder)).logits(tokens)
    assert logits.shape == expected.shape
    assert mx.abs(logits - expected).max().item() < 1e-4  # float32, sums of 128 terms, 2 layers


def test_a_16_bit_base_is_cast_where_that_is_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path, dtype="float16")
    monkeypatch.setattr(widening, "is_slow_low_precision", lambda: False)
    assert load_base(str(folder)).logits([5, 6]).dtype == mx.float16  # control
    monkeypatch.setattr(widening, "is_slow_low_precision", lambda: True)
    base = load_base(str(folder))
    assert base.logits([5, 6]).dtype == mx.float32
    assert base.note.startswith("cast float16 to float32 (")


def test_what_does_not_fit_into_memory_is_left_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widening, "is_slow_low_precision", lambda: True)
    monkeypatch.setattr(widening, "available_memory_bytes", lambda: 1000)
    base = load_base(str(make_checkpoint(tmp_path, dtype="float16")))
    assert base.logits([5]).dtype == mx.float16
    assert "left in float16" in base.note


def test_packed_parameters_are_counted_unpacked(tmp_path: Path) -> None:
    from mlx_lm.utils import load_model

    full = make_checkpoint(tmp_path / "full", hidden=64)
    packed, _ = load_model(quantized(full, tmp_path / "packed", **MODES[0]))
    assert widening.count_parameters(packed) == widening.count_parameters(load_base(str(full)).model)


# -- answers


def reference(base: Base, messages: list[Message], max_tokens: int) -> list[int]:
    """Greedy decoding without any cache or batch: the whole text again for every token."""
    tokens = base.prompt(messages)
    found: list[int] = []
    while len(found) < max_tokens:
        token = int(mx.argmax(base.logits([*tokens, *found])[-1]).item())
        if token in base.tokenizer.eos_token_ids:
            break
        found.append(token)
    return found


def check_batched(base: Base, questions: list[list[Message]], max_tokens: int) -> list[str]:
    batched = base.answers(questions, max_tokens=max_tokens)
    assert batched == [base.answers([q], max_tokens=max_tokens)[0] for q in questions]
    assert batched == ["".join(base.stream(q, max_tokens=max_tokens)) for q in questions]
    plain = [base.tokenizer.decode(reference(base, q, max_tokens)) for q in questions]
    assert batched == [until(text, base.stop).strip() for text in plain]
    return batched


def test_batched_answers_are_those_given_one_by_one(base: Base) -> None:
    check_batched(base, QUESTIONS, max_tokens=8)


def test_batched_answers_of_real_checkpoints_are_those_given_one_by_one(real: Base) -> None:
    said = check_batched(real, [*QUESTIONS[:6], ask("Once upon a time"), ask("The dog")], max_tokens=16)
    assert len(set(said)) > 1  # control: it is not one text for all


def test_answers_come_in_the_order_of_the_questions(base: Base) -> None:
    forward = base.answers(QUESTIONS, max_tokens=6, temperature=0.0)
    assert base.answers(QUESTIONS[::-1], max_tokens=6) == forward[::-1]


def decoded(base: Base, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Sampled tokens, row i ending after lengths[i]."""
    found: list[list[int]] = [[] for _ in prompts]

    def goes_on(row: int, token: int) -> bool:
        found[row].append(token)
        return len(found[row]) < lengths[row]

    generate(base.model, prompts, max_tokens=12, pick=picker(1.0, 5), goes_on=goes_on)
    return found


def test_rows_that_end_leave_the_batch_and_the_others_do_not_notice(base: Base) -> None:
    prompts = [base.prompt(q) for q in QUESTIONS]
    whole = decoded(base, prompts, [12] * len(prompts))
    assert len({tuple(row) for row in whole}) == len(whole)  # control: every row has something else to say
    lengths = [1 + (7 * i) % 12 for i in range(len(prompts))]
    assert decoded(base, prompts, lengths) == [r[:n] for r, n in zip(whole, lengths, strict=True)]


def test_an_answer_ends_before_the_end_token(base: Base) -> None:
    text = base.answers(QUESTIONS[:1], max_tokens=12, temperature=1.0, seed=1)[0]
    assert text
    usual = base.tokenizer.eos_token_ids
    base.tokenizer.eos_token_ids = set(range(base.config["vocab_size"]))
    try:
        assert base.answers(QUESTIONS[:1], max_tokens=12, temperature=1.0, seed=1) == [""]
    finally:
        base.tokenizer.eos_token_ids = usual


def test_the_same_seed_says_the_same_and_company_does_not_matter(base: Base) -> None:
    said = base.answers(QUESTIONS, max_tokens=8, temperature=1.0, seed=3)
    assert said == base.answers(QUESTIONS, max_tokens=8, temperature=1.0, seed=3)
    assert said[:5] == base.answers(QUESTIONS[:5], max_tokens=8, temperature=1.0, seed=3)
    assert said[0] == "".join(base.stream(QUESTIONS[0], max_tokens=8, temperature=1.0, seed=3))
    assert said != base.answers(QUESTIONS, max_tokens=8, temperature=1.0, seed=4)  # control
    assert said != base.answers(QUESTIONS, max_tokens=8)


def test_sampling_follows_the_distribution() -> None:
    logits = mx.log(mx.array([[0.5, 0.3, 0.2]]))
    pick = picker(1.0, 0)
    counts = np.zeros(3)
    for _ in range(20):
        counts += np.bincount(np.array(pick(mx.repeat(logits, 100, axis=0), range(100))), minlength=3)
    assert np.abs(counts / 2000 - [0.5, 0.3, 0.2]).max() < 0.04  # 3.5 standard errors of 0.011


def test_a_low_temperature_is_nearly_greedy() -> None:
    logits = mx.array([[0.0, 1.0, 0.5]] * 50)
    assert set(np.array(picker(0.01, 0)(logits, range(50))).tolist()) == {1}


def test_no_questions_no_answers(base: Base) -> None:
    assert base.answers([], max_tokens=4) == []


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"max_tokens": 4, "temperature": -1.0}])
def test_settings_that_make_no_sense_are_a_callers_mistake(base: Base, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        base.answers(QUESTIONS[:1], **options)


def test_a_long_prompt_is_read_in_pieces(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = base.answers(QUESTIONS, max_tokens=5)
    monkeypatch.setattr("mlx_plastic.base.generate.CHUNK", 7)
    assert base.answers(QUESTIONS, max_tokens=5) == whole
    monkeypatch.setattr("mlx_plastic.base.generate.POSITIONS", 100)  # and in small batches
    assert base.answers(QUESTIONS, max_tokens=5) == whole


def test_a_base_without_a_chat_template_is_asked_as_plain_text(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    base = load_base(str(folder))
    assert "no chat template" in base.note
    chat = [Message("user", "Hello."), Message("assistant", "Hi."), Message("user", "Name?")]
    assert (
        base.tokenizer.decode(base.prompt(chat))
        == "User: Hello.\nAssistant: Hi.<|end|>\nUser: Name?\nAssistant:"
    )
    lesson = encode(Sample(tuple(chat[:2])), base.tokenizer, max_tokens=99)
    taught = [t for t, counts in zip(lesson.tokens, lesson.targets, strict=True) if counts]
    assert base.tokenizer.decode(taught) == " Hi.<|end|>\n"


# -- text


def test_the_text_ends_before_a_stop() -> None:
    assert until("Yes.\nUser: more\nUser: x", ("\nUser:",)) == "Yes."
    assert until("Yes.\nUse it", ("\nUser:",)) == "Yes.\nUse it"


@pytest.mark.parametrize("size", [1, 2, 3, 50])
@pytest.mark.parametrize(
    "text",
    ["  Yes, I do. \n", "Yes.\nUser: and", "Yes.\nUse it\n\nUser", "", "  ", " a  b\n\nc", "\nUser: x"],
)
def test_pieces_of_a_stream_make_the_whole_answer(text: str, size: int) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    said = list(trimmed(iter(pieces), ("\nUser:",)))
    assert "".join(said) == until(text, ("\nUser:",)).strip()
    assert all(said)


def test_a_stream_says_each_word_as_soon_as_it_is_sure() -> None:
    taken: list[str] = []

    def slowly() -> Iterator[str]:
        for piece in ["Yes", ",", " I", " do"]:
            taken.append(piece)
            yield piece

    first = next(trimmed(slowly(), ("\nUser:",)))
    assert (first, taken) == ("Yes", ["Yes"])


# -- losses


def samples(base: Base) -> list[Encoded]:
    answer = Message("assistant", "Nora lives in Lisbon.")
    return [encode(Sample((*q, answer)), base.tokenizer, max_tokens=999) for q in QUESTIONS]


def expected_nll(base: Base, sample: Encoded) -> float:
    """In float64, straight from the definition."""
    logits = np.array(base.logits(sample.tokens).astype(mx.float32)).astype(np.float64)
    log_p = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    log_p -= logits.max(-1, keepdims=True)
    return -sum(
        log_p[i - 1, token]
        for i, (token, counts) in enumerate(zip(sample.tokens, sample.targets, strict=True))
        if counts
    )


@pytest.mark.parametrize("whole", [True, False], ids=["halves", "no-halves"])
def test_the_loss_is_the_definitions(base: Base, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not whole:
        monkeypatch.setattr("mlx_plastic.base.score.halves", lambda model: None)
    monkeypatch.setattr("mlx_plastic.base.score.LOGITS_BYTES", 20_000)  # in several pieces
    batch = [*samples(base), Encoded((1, 2, 3), (False,) * 3), Encoded((1,), (False,))]
    found = base.nll(batch)
    assert [n for _, n in found] == [s.supervised for s in batch]
    for (value, _), sample in zip(found, batch, strict=True):
        assert value == pytest.approx(expected_nll(base, sample), rel=1e-5, abs=1e-6)  # float32 logits
    assert found[-2:] == [(0.0, 0), (0.0, 0)]


def test_the_loss_of_real_checkpoints_is_the_definitions(real: Base) -> None:
    batch = samples(real)[:4]
    for (value, _), sample in zip(real.nll(batch), batch, strict=True):
        assert value == pytest.approx(expected_nll(real, sample), rel=1e-5)


def test_a_model_that_scales_its_logits_has_no_halves(base: Base) -> None:
    class Scaled(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner
            self.model = inner.model

        def __call__(self, tokens: mx.array) -> mx.array:
            out: mx.array = self.inner(tokens) * 0.5
            return out

    assert halves(base.model) is not None  # control
    assert halves(Scaled(base.model)) is None


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"n_positions": 77}, 77),
        ({}, 2048),
        ({"max_position_embeddings": None, "text_config": None}, 2048),
    ],
)
def test_the_window_is_the_configs(base: Base, config: dict[str, object], window: int) -> None:
    assert dataclasses.replace(base, config=config).window == window


def test_chats_beyond_the_window_are_counted_and_left_out(base: Base) -> None:
    assert base.window == 512
    chats = [
        (*QUESTIONS[0], Message("assistant", "Nora.")),
        (*ask("Nora " * 600), Message("assistant", "Yes.")),
    ]
    fitting, too_long = base.encode_chats(chats)
    assert (len(fitting), too_long) == (1, 1)


def test_a_long_prompt_does_not_pad_many_short_ones() -> None:
    lengths = [10] * 70 + [300] + [12] * 3
    batches = list(_batches(lengths, max_tokens=32))
    assert sorted(row for batch in batches for row in batch) == list(range(74))  # each once
    assert [70] in batches
    assert max(map(len, batches)) == ROWS  # control: like lengths share a batch


def test_weights_are_the_parameters_of_every_architecture_and_nothing_else(tmp_path: Path) -> None:
    own = 0
    for name, _, model in tiny_models():
        found = Weights(name, tmp_path, "", {}, model)
        parameters: Any = tree_flatten(model.parameters())
        assert found.shapes == {k: tuple(v.shape) for k, v in parameters}, name
        keys = [key for module in found.modules.values() for key in module if key.startswith("_")]
        own += any("freqs" in key for key in keys)
    assert own > 3  # control: some have arrays that they compute themselves
