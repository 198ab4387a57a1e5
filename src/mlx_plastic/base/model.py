"""The immutable base in memory: loaded once, frozen, asked for answers and for losses."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.backend import mx
from mlx_plastic.base.checkpoint import NANO, fingerprint, resolve
from mlx_plastic.base.generate import generate, picker, trimmed, until
from mlx_plastic.base.score import score
from mlx_plastic.base.widen import count_parameters, widen
from mlx_plastic.errors import BadCheckpoint, BadData
from mlx_plastic.samples import Encoded, LossMode, Message, Sample, encode

log = logging.getLogger(__name__)

CHECK_EVERY = 8  # tokens between two searches for a stop text

WINDOW_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
DEFAULT_WINDOW = 2048  # tokens, for a config that names none

# for a base that has no chat template; set on its tokenizer, so that training and chat agree
PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}"
    "{{ eos_token if eos_token and m.role == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOP = "\nUser:"


@dataclass
class Base:
    """A loaded checkpoint.

    model: an mlx-lm model, frozen, in eval mode. tokenizer: mlx-lm's TokenizerWrapper. note: what was
    done at load that a person may want to know; may be empty. stop: texts that end an answer.
    """

    ref: str
    path: Path
    fingerprint: str
    config: dict[str, Any]
    model: Any
    tokenizer: Any
    note: str = ""
    stop: tuple[str, ...] = ()

    @property
    def window(self) -> int:
        """How many tokens the base was made for, prompt and answer together, as far as its config says."""
        parts = (self.config, self.config.get("text_config") or {})
        named = (part.get(name) for part in parts for name in WINDOW_NAMES)
        return next((n for n in named if isinstance(n, int) and n > 0), DEFAULT_WINDOW)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The conversation as tokens, up to where the assistant begins to speak."""
        chat = [m.as_dict() for m in messages]
        return list(self.tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True))

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """What the assistant says next in each conversation, without surrounding space; decoded in batches.

        Temperature 0 gives the likeliest tokens, the same as asked one by one (up to float rounding
        of near ties). Otherwise the same seed gives the same texts.
        """
        found: list[list[int]] = [[] for _ in prompts]

        def goes_on(row: int, token: int) -> bool:
            if token in self.tokenizer.eos_token_ids:
                return False
            found[row].append(token)
            return not (self.stop and len(found[row]) % CHECK_EVERY == 0 and self._stops(found[row]))

        tokens = [self.prompt(messages) for messages in prompts]
        pick = picker(temperature, seed)
        generate(self.model, tokens, max_tokens=max_tokens, pick=pick, goes_on=goes_on)
        return [until(self.tokenizer.decode(answer), self.stop).strip() for answer in found]

    def _stops(self, answer: list[int]) -> bool:
        text = self.tokenizer.decode(answer)
        return any(stop in text for stop in self.stop)

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[str]:
        """The same answer as `answers([messages], …)`, in pieces as they come."""
        from mlx_lm.generate import stream_generate

        pick = picker(temperature, seed)
        responses = stream_generate(
            self.model,
            self.tokenizer,
            self.prompt(messages),
            max_tokens=max_tokens,
            sampler=lambda logprobs: pick(logprobs, [0]),
        )
        return trimmed((response.text for response in responses), self.stop)

    def encode_chats(
        self, chats: Sequence[Sequence[Message]], loss_mode: LossMode = "answer"
    ) -> tuple[list[Encoded], int]:
        """The chats as samples whose answers are targets, and how many were longer than the window."""
        fitting: list[Encoded] = []
        for chat in chats:
            sample = Sample(tuple(chat))
            with contextlib.suppress(BadData):
                fitting.append(encode(sample, self.tokenizer, max_tokens=self.window, loss_mode=loss_mode))
        return fitting, len(chats) - len(fitting)

    def nll(self, batch: Sequence[Encoded]) -> list[tuple[float, int]]:
        """Per sample: the summed negative log likelihood of its targets in nats, and their number.

        Logits are taken to float32 first. Samples share forward passes, padded to few lengths.
        """
        sums = score(self.model, batch)
        return [(value, sample.supervised) for value, sample in zip(sums, batch, strict=True)]

    def logits(self, tokens: Sequence[int]) -> mx.array:
        """(n, vocab) for n tokens, in the model's own dtype."""
        out: mx.array = self.model(mx.array(list(tokens))[None])[0]
        return out


def load_base(ref: str = NANO, *, cache: Path | None = None, weights: bool = True) -> Base:
    """The checkpoint `ref` (see `resolve`) in memory, ready to answer.

    cache: a folder for file digests, so that an unchanged checkpoint is hashed once. Where low
    precision is slow (any CPU) and memory allows, weights are widened to float32. weights: False reads none;
    the model is then one that must not be asked. Code that comes with a checkpoint is never run.
    Raises BaseNotFound or BadCheckpoint.
    """
    from mlx_lm.utils import load_tokenizer

    path = resolve(ref)
    model, config = load_lazily(path)
    with _by_mlx_lm(path):
        tokenizer = load_tokenizer(path, eos_token_ids=config.get("eos_token_id"))
    notes = [widen(model) if weights else "", _give_template(tokenizer)]
    if weights:
        mx.eval(model.parameters())
    model.freeze()
    model.eval()
    stop = (PLAIN_STOP,) if notes[1] else ()
    note = "; ".join(filter(None, notes))
    base = Base(ref, path, fingerprint(path, cache=cache), config, model, tokenizer, note, stop)
    size = count_parameters(model) / 1e6
    log.info("base %s: %s, %.1fM parameters%s", ref, config["model_type"], size, note and f"; {note}")
    return base


def load_lazily(path: Path) -> tuple[Any, dict[str, Any]]:
    """(model, config) of a whole checkpoint; no weight is read before it is evaluated."""
    from mlx_lm.utils import load_model

    with _by_mlx_lm(path):
        return load_model(path, lazy=True)


@contextlib.contextmanager
def _by_mlx_lm(path: Path) -> Iterator[None]:
    """What mlx-lm raises is told as BadCheckpoint."""
    from mlx_lm.utils import load_config

    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # mlx-lm raises whatever a foreign checkpoint leads it into
        kind = load_config(path)["model_type"]
        raise BadCheckpoint(
            f"mlx-lm cannot load {path} (model type {kind!r}): {str(error)[:300] or type(error).__name__}",
            hint="mlx-lm has to know the model type, and the weights have to fit config.json",
        ) from error


def _give_template(tokenizer: Any) -> str:
    if tokenizer.has_chat_template:
        return ""
    tokenizer.chat_template = PLAIN_TEMPLATE
    return "it has no chat template: asked as plain text, 'User: …' and 'Assistant: …'"
