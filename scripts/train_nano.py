"""Train nano, the base that ships with the package, from the committed recipe.

    python scripts/train_nano.py --data FOLDER        # the whole recipe; resumes where it stopped
    python scripts/train_nano.py --toy --out /tmp/x   # the same code, small and short

Every batch is drawn from (seed, step), so a run that was stopped and resumed reads the same text as one
that was not. Torch trains (it is the fastest here) and a stock Qwen3 checkpoint comes out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

from nano_recipe import corpora as public
from nano_recipe import mixture, people, skills
from nano_recipe.attributes import ATTRIBUTES
from nano_recipe.people import Chat

ROOT = Path(__file__).resolve().parent.parent
PAD, USER, ASSISTANT, END = 0, 2, 3, 4
Row = tuple[list[int], list[float]]  # tokens and their weights
WORDS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


@dataclass(frozen=True)
class Recipe:
    """tokens: read in the main run, padding included; polish: after it, from `polish_rate` of the peak.
    batch, window: rows, tokens a row. rates: Muon, AdamW."""

    tokens: int = 13_500_000
    polish: int = 3_300_000
    polish_rate: float = 0.4
    batch: int = 16
    window: int = 256
    vocab: int = 4096
    hidden: int = 256
    layers: int = 5
    inner: int = 512
    heads: int = 4
    kv_heads: int = 2
    rate_matrices: float = 0.012
    rate_vectors: float = 0.003
    warmup: float = 0.01
    decay: float = 0.3
    user_weight: float = 0.1
    seed: int = 7
    chats_for_tokenizer: int = 30_000

    @property
    def main_steps(self) -> int:
        return self.tokens // (self.batch * self.window)

    @property
    def steps(self) -> int:
        return self.main_steps + self.polish // (self.batch * self.window)


TOY = Recipe(
    tokens=350_000, polish=50_000, batch=8, window=128, vocab=1024, hidden=64, layers=2, inner=128,
    chats_for_tokenizer=1500,
)  # fmt: skip


def make_tokenizer(recipe: Recipe, texts: dict[str, list[Chat]]) -> Tokenizer:
    """Byte-level BPE; digits stand alone, a word carries the space before it."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab,
        special_tokens=mixture.SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    r = random.Random(recipe.seed)
    last = mixture.stage(1.0)
    drawn = (mixture.draw(r, last, texts) for _ in range(recipe.chats_for_tokenizer))
    # Every value is shown as often as a common word, so that it becomes one token.
    listed = [
        [{"role": "user", "content": f"a {v} {v}"}] for a in ATTRIBUTES for v in a.values for _ in range(20)
    ]
    tokenizer.train_from_iterator((f" {m['content']}" for chat in [*drawn, *listed] for m in chat), trainer)
    return tokenizer


class Reader:
    """Conversations as rows of tokens: several to a row, none of which sees another."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, texts: dict[str, list[Chat]]) -> None:
        self.recipe, self.tokenizer, self.texts = recipe, tokenizer, texts

    def encode(self, chats: list[Chat]) -> list[Row]:
        """Tokens and weights: what the assistant says counts 1, the rest little."""
        encoded = self.tokenizer.encode_batch([mixture.render(c) for c in chats], add_special_tokens=False)
        rows = []
        for e in encoded:
            speaking, weights = False, []
            for token in e.ids:
                weights.append(1.0 if speaking else self.recipe.user_weight)
                if token in (USER, ASSISTANT, 1):
                    weights[-1] = 0.0
                    speaking = token == ASSISTANT
                elif token == END:
                    speaking = False
            rows.append((e.ids, weights))
        return rows

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of `step`, whatever came before it."""
        recipe = self.recipe
        r = random.Random(recipe.seed * 1_000_003 + step)
        now = mixture.stage(step / recipe.main_steps)
        chats = [mixture.draw(r, now, self.texts) for _ in range(recipe.batch * recipe.window // 60)]
        return pack(self.encode(chats), rows=recipe.batch, window=recipe.window)


def pack(encoded: list[Row], *, rows: int, window: int) -> dict[str, torch.Tensor]:
    """First fit: tokens, weights and a mask of who may see whom; what does not fit is left out."""
    tokens = torch.full((rows, window), PAD, dtype=torch.long)
    weights = torch.zeros(rows, window)
    which = torch.zeros(rows, window, dtype=torch.long)  # 0 is padding
    free = [0] * rows
    for number, (ids, given) in enumerate(encoded, 1):
        ids, given = ids[: window * 2], given[: window * 2]
        if len(ids) > window:
            continue
        row = next((i for i in range(rows) if free[i] + len(ids) <= window), None)
        if row is None:
            continue
        span = slice(free[row], free[row] + len(ids))
        tokens[row, span] = torch.tensor(ids)
        weights[row, span] = torch.tensor(given)
        which[row, span] = number
        free[row] = span.stop
    same = which[:, :, None] == which[:, None, :]
    return {"tokens": tokens, "weights": weights, "mask": same.tril()[:, None]}


def make_model(recipe: Recipe) -> Qwen3ForCausalLM:
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=recipe.vocab,
            hidden_size=recipe.hidden,
            num_hidden_layers=recipe.layers,
            intermediate_size=recipe.inner,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.hidden // recipe.heads,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=None,
            eos_token_id=END,
            pad_token_id=PAD,
        )
    )


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized (Jordan et al. 2024), in float32: this CPU has no fast bfloat16."""

    def __init__(self, params: list[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                look = torch.stack(
                    [p.grad.lerp(self.state[p]["momentum"], group["momentum"]) for p in params]
                )
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, orthogonalized(look), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def orthogonalized(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest half-orthogonal matrices of an (n, rows, cols) stack, by Newton-Schulz iteration."""
    flip = g.shape[1] > g.shape[2]
    x = g.mT if flip else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if flip else x


def optimizers(model: Qwen3ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    return [
        Muon(inside, lr=recipe.rate_matrices),
        torch.optim.AdamW(others, lr=recipe.rate_vectors, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(recipe: Recipe, step: int) -> float:
    """Warm up, hold, then fall to a twentieth, and once more in the polish: the share of the peak rate."""
    if step >= recipe.main_steps:
        left = (recipe.steps - step) / (recipe.steps - recipe.main_steps)
        return recipe.polish_rate * (0.02 + 0.98 * left)
    done = step / recipe.main_steps
    if done < recipe.warmup:
        return done / recipe.warmup + 1e-3
    left = max(0.0, (1 - done) / recipe.decay)
    return min(1.0, 0.05 + 0.95 * left)


def token_losses(model: Any, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each next token the nats it cost, and whether it was the likeliest: (rows, window - 1) each."""
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
    flat = logits.reshape(-1, logits.shape[-1])
    nll = torch.nn.functional.cross_entropy(flat, tokens[:, 1:].reshape(-1), reduction="none")
    return nll.view(tokens.shape[0], -1), logits.argmax(-1) == tokens[:, 1:]


def held_out_chats(seed: int = 1) -> dict[str, list[Chat]]:
    """What is measured on the way: held-out wordings, people and items, by kind; the last answer counts."""
    r = random.Random(seed)
    kinds: dict[str, list[Chat]] = {"told": [], "untold": []}
    while len(kinds["told"]) < 150:
        known = people.some_facts(r, r.randint(1, 4), held=True, unusual=0.1, people=2)
        said = [
            people.exchange(people.statement(r, f, held=True), f"Noted. {people.answer(f)}") for f in known
        ]
        told = [message for chat in said for message in chat]
        kinds["told"].append(told + people.ask(r, known, untold=0.0, held=True))
        kinds["untold"].append(told + people.ask(r, known, untold=1.0, held=True))
    kinds["wish"] = [people.wish_then_greeting(r, held=True) for _ in range(40)]
    kinds |= {name: [skill(r, True) for _ in range(40)] for name, (skill, _) in skills.SKILLS.items()}
    return kinds


def one_each(encoded: list[Row], rows: int = 32) -> Iterator[dict[str, torch.Tensor]]:
    """Batches with one conversation a row, of like lengths."""
    ordered = sorted(encoded, key=lambda e: len(e[0]))
    for start in range(0, len(ordered), rows):
        some = ordered[start : start + rows]
        window = len(some[-1][0])
        alone = [pack([e], rows=1, window=window) for e in some]
        yield {name: torch.cat([row[name] for row in alone]) for name in alone[0]}


@torch.no_grad()
def measure(model: Any, reader: Reader, kinds: dict[str, list[Chat]]) -> dict[str, float]:
    """Share of chats whose last answer would come out whole, word for word, under greedy decoding."""
    scores = {}
    for kind, chats in kinds.items():
        right = 0
        for batch in one_each(reader.encode(chats)):
            tokens = batch["tokens"]
            _, best = token_losses(model, tokens, batch["mask"])
            for row, hits in zip(tokens.tolist(), best, strict=True):
                start = len(row) - row[::-1].index(ASSISTANT)
                stop = len(row) - row[::-1].index(END)
                right += bool(hits[start - 1 : stop - 1].all())
        scores[kind] = round(right / len(chats), 3)
    return scores


@torch.no_grad()
def held_out_perplexity(model: Any, reader: Reader) -> float:
    """Over what the assistant says in conversations that were never read."""
    r = random.Random(10**9)
    chats = [mixture.draw(r, mixture.stage(1.0), {}) for _ in range(120)]
    chats += [chat for source in reader.texts.values() for chat in source[:8]]
    total, count = 0.0, 0.0
    for batch in one_each(reader.encode(chats)):
        nll, _ = token_losses(model, batch["tokens"], batch["mask"])
        counted = (batch["weights"][:, 1:] == 1.0).float()
        total, count = total + float((nll * counted).sum()), count + float(counted.sum())
    return math.exp(total / count)


def export(model: Qwen3ForCausalLM, tokenizer: Tokenizer, recipe: Recipe, out: Path) -> None:
    """A stock checkpoint in float16: config, weights, tokenizer with its template."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {n: p.detach().to(torch.float16).contiguous() for n, p in model.named_parameters()}
    save_file(weights, out / ".model.part", metadata={"format": "pt"})
    os.replace(out / ".model.part", out / "model.safetensors")
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "vocab_size": recipe.vocab,
        "hidden_size": recipe.hidden,
        "num_hidden_layers": recipe.layers,
        "intermediate_size": recipe.inner,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.kv_heads,
        "head_dim": recipe.hidden // recipe.heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "torch_dtype": "float16",
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "chat_template": mixture.TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    tokenizer.save(str(out / "tokenizer.json"))


class Run:
    """A training: model, optimizers, the step it stands at. What is saved is enough to go on."""

    def __init__(self, recipe: Recipe, texts: dict[str, list[Chat]], work: Path, *, compile_it: bool) -> None:
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "tokenizer.json").exists():
            make_tokenizer(recipe, texts).save(str(work / "tokenizer.json"))
        self.recipe, self.work, self.step = recipe, work, 0
        self.reader = Reader(recipe, Tokenizer.from_file(str(work / "tokenizer.json")), texts)
        self.kinds = held_out_chats()
        self.model = make_model(recipe)
        self.optimizers = optimizers(self.model, recipe)
        self.peaks = [group["lr"] for group in self.groups()]
        self.losses = torch.compile(token_losses) if compile_it else token_losses
        if (work / "state.pt").exists():
            self.resume(torch.load(work / "state.pt", weights_only=True))

    def groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def resume(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        print(f"resumed at step {self.step}", flush=True)

    def advance(self) -> float:
        """One update; returns the loss before it, in nats per weighted token."""
        for group, peak in zip(self.groups(), self.peaks, strict=True):
            group["lr"] = peak * rate(self.recipe, self.step)
        batch = self.reader.batch(self.step)
        nll, _ = self.losses(self.model, batch["tokens"], batch["mask"])
        counted = batch["weights"][:, 1:]
        loss = (nll * counted).sum() / counted.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        if not math.isfinite(loss.item()):
            sys.exit(f"the loss is {loss.item()} at step {self.step}: lower the rates")
        return loss.item()

    def measured(self, loss: float) -> dict[str, Any]:
        """A line of the curve, written to the work folder as well."""
        line = {"step": self.step, "tokens": self.step * self.recipe.batch * self.recipe.window}
        line |= {"loss": round(loss, 4), "perplexity": round(held_out_perplexity(self.model, self.reader), 4)}
        line |= measure(self.model, self.reader, self.kinds)
        with open(self.work / "curve.jsonl", "a") as curve:
            curve.write(json.dumps(line) + "\n")
        return line

    def save(self) -> None:
        state = {"step": self.step, "model": self.model.state_dict()}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(state, self.work / ".state.part")
        os.replace(self.work / ".state.part", self.work / "state.pt")


def train(run: Run, *, out: Path, every: int, stop_at: int | None) -> None:
    """Train on from where `run` stands; measure, save and export as it goes and at the end."""
    recipe = run.recipe
    per_step, end = recipe.batch * recipe.window, min(recipe.steps, stop_at or recipe.steps)
    began, first = time.time(), run.step
    while run.step < end:
        loss = run.advance()
        if run.step % 25 == 0:
            speed = (run.step - first) * per_step / (time.time() - began)
            left = (end - run.step) * per_step / speed / 60
            print(
                f"step {run.step}/{end} loss {loss:.3f} {speed:.0f} tokens/s, {left:.0f} min left", flush=True
            )
        if run.step % every == 0 or run.step == end:
            print(json.dumps(run.measured(loss)), flush=True)
            run.save()
            export(run.model, run.reader.tokenizer, recipe, out)
            began, first = time.time(), run.step


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data, work = os.environ.get("MLX_PLASTIC_DATA", ""), ROOT / ".checkpoints" / "nano"
    parser.add_argument("--data", default=data, help="folder of the public corpora")
    parser.add_argument("--work", type=Path, default=work, help="state and curve; resumed from")
    parser.add_argument("--out", type=Path, default=ROOT / "src" / "mlx_plastic" / "base" / "nano")
    parser.add_argument("--tokens", type=int, help="tokens to read in the main run")
    parser.add_argument("--polish", type=int, help="tokens to read after it")
    parser.add_argument("--every", type=int, default=200, help="steps between measurements and saved states")
    parser.add_argument("--stop-at", type=int, help="stop after this step; a later run goes on")
    parser.add_argument("--toy", action="store_true", help="two layers, 64 wide, a few hundred steps")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args(arguments)
    recipe = TOY if options.toy else Recipe()
    given = {name: getattr(options, name) for name in ("tokens", "polish")}
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    folder = Path(options.data)
    texts = public.load(folder / "data" if (folder / "data").is_dir() else folder) if options.data else {}
    print(f"texts beside our own: {', '.join(texts) or 'none'}", flush=True)
    compile_it = not (options.no_compile or options.toy)
    run = Run(recipe, texts, options.work, compile_it=compile_it)
    train(run, out=options.out, every=options.every, stop_at=options.stop_at)


if __name__ == "__main__":
    main()
