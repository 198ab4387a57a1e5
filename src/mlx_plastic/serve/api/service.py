"""From a request that was read to answers that are on their way: wear, recall, log, ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from mlx_plastic.errors import Busy, NoConsent
from mlx_plastic.home import consent
from mlx_plastic.home.aliases import read_aliases
from mlx_plastic.samples import Message
from mlx_plastic.serve.api.answering import Answer, Answering
from mlx_plastic.serve.api.config import ServeConfig
from mlx_plastic.serve.api.constrain import Constrainer
from mlx_plastic.serve.api.diary import Diary, Entry
from mlx_plastic.serve.api.errors import bad
from mlx_plastic.serve.api.metrics import Metrics
from mlx_plastic.serve.api.names import Choice, Names
from mlx_plastic.serve.api.night import Nights
from mlx_plastic.serve.api.requests import ChatRequest, Consent, Defaults, Speaking
from mlx_plastic.serve.batch import Wanted, Worker

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.memory import Memory
    from mlx_plastic.memory.embed import MiniLM
    from mlx_plastic.packs import Pack, Store
    from mlx_plastic.serve.engine import ChatConfig
    from mlx_plastic.serve.notes import Notes

log = logging.getLogger(__name__)

T = TypeVar("T")


class Service:
    """What the routes ask. base: without its model, which is the worker's. notes: None looks nothing up."""

    def __init__(
        self,
        worker: Worker,
        base: Base,
        store: Store,
        memory: Memory,
        *,
        config: ServeConfig,
        chat: ChatConfig,
        notes: Callable[[], Notes] | None = None,
        embedder: MiniLM | None = None,
    ) -> None:
        self.worker, self.base, self.store, self.memory, self.config = worker, base, store, memory, config
        self.embedder = embedder
        self.names = Names(
            base,
            store,
            embedder=embedder.name.split("/")[0] if embedder else "",
            aliases=lambda: read_aliases(store.home),
        )
        self._temperature = chat.temperature
        self.diary = Diary(memory)
        self.metrics = Metrics()
        self.constrainer = Constrainer(base.tokenizer)
        self.running: set[Answering] = set()
        self.nights = Nights(store.home, config)
        self.leaving = threading.Event()  # the server has begun to go down
        self._notes = notes
        self._tokenizing = threading.Lock()  # the tokenizer is not made for several threads

    @property
    def defaults(self) -> Defaults:
        """For what a request does not say. Whether what is said may be kept is read each time."""
        keeps = self.config.memory and consent(self.store.home).log
        return Defaults(self.config.max_tokens, self._temperature, keeps, self.config.rag)

    # -- asking

    async def chat(self, request: ChatRequest) -> tuple[Answering, Choice]:
        """Answers to a conversation. Its question is on the disk when this returns.

        Raises ApiError, or PlasticError for what the rooms below refuse.
        """
        constraint = self._constraint(request)
        await in_thread(self._let_in)
        choice, packs = await self._wear(request.model, request.packs)
        tokens = await in_thread(self.prompt, request.messages, request.tools)
        wanted = self._wanted(tokens, request.speaking, packs, choice, request.consent)
        self._room(request.speaking.answers)
        entry = await in_thread(self._asked, request)
        if request.consent.rag and entry is not None:
            noted = await in_thread(self._noted, request, entry)
            if noted is not None:
                wanted = replace(wanted, tokens=noted)
        wanted = replace(wanted, constraint=constraint, stop=(*wanted.stop, *self.base.stop))
        each = [replace(wanted, sampling=_seeded(wanted, i)) for i in range(request.speaking.answers)]
        return self._start(each, request.speaking, entry, choice, request.consent), choice

    async def complete(
        self, prompts: Sequence[str | list[int]], model: str | None, packs: list[Any], speaking: Speaking
    ) -> tuple[Answering, Choice]:
        """Texts that go on; nothing of it is remembered."""
        await in_thread(self._let_in)
        choice, worn = await self._wear(model, packs)
        wanted = []
        for prompt in prompts:
            tokens = await in_thread(self._encoded, prompt)
            one = self._wanted(tokens, speaking, worn, choice, Consent(log=False))
            wanted += [replace(one, strip=False, sampling=_seeded(one, i)) for i in range(speaking.answers)]
        self._room(len(wanted))
        return self._start(wanted, speaking, None, choice, Consent(log=False)), choice

    def _start(
        self, wanted: list[Wanted], how: Speaking, entry: Entry | None, choice: Choice, consent: Consent
    ) -> Answering:
        async def ended(answer: Answer) -> None:
            assert answer.end is not None
            self.metrics.ended(answer.end)
            log.info(
                "answered with %d tokens in %.2f s to a prompt of %d tokens, %d of them read before (%s)",
                *(answer.end.answer_tokens, answer.end.seconds, answer.end.prompt_tokens),
                *(answer.end.reused, answer.end.finish),
            )
            if entry is not None and answer.index == 0:
                cut = answer.end.finish in ("cancelled", "error")
                with contextlib.suppress(NoConsent):  # it was taken back while this was being said
                    await in_thread(
                        lambda: self.diary.answer(
                            entry, answer.text, worn=choice.packs, tags=consent.tags, interrupted=cut
                        )
                    )

        answering = Answering(self.worker, wanted, ended, streamed=how.stream)
        self.running.add(answering)
        answering.done.add_done_callback(lambda _: self.running.discard(answering))
        return answering

    async def _wear(self, model: str | None, packs: list[Any]) -> tuple[Choice, dict[str, Pack]]:
        choice = await in_thread(self.names.choose, model, packs)
        read = await in_thread(self.names.read, choice)
        await asyncio.wrap_future(self.worker.admit(read, choice.scales))
        return choice, read

    def _wanted(
        self, tokens: tuple[int, ...], how: Speaking, packs: dict[str, Pack], choice: Choice, consent: Consent
    ) -> Wanted:
        room = self.base.window - len(tokens)
        if room < 1:
            raise bad(
                # programs look for these first words to know that a talk has to be cut
                f"This model's maximum context length is {self.base.window} tokens; "
                f"the prompt has {len(tokens)}, with one for the answer {1 - room} too many",
                "messages",
                "context_length_exceeded",
            )
        return Wanted(
            tokens,
            min(how.max_tokens, room),
            packs,
            choice.scales,
            how.sampling,
            how.stop,
            how.logprobs,
            remember=consent.log,
        )

    def _let_in(self) -> None:
        self.nights.let_in()
        self.worker.rest(False)  # the night may have ended since it was last looked for

    def _room(self, answers: int) -> None:
        if sum(len(a.answers) for a in self.running) + answers > self.config.requests:
            raise Busy(f"{self.config.requests} answers are on their way already", hint="ask again later")

    def _constraint(self, request: ChatRequest) -> Any:
        if request.tools and not self.base.tokenizer.has_tool_calling:
            raise bad("the chat template of this base knows no tools", "tools", "unsupported_parameter")
        if request.schema is not None and request.tools:
            raise bad("response_format cannot be combined with tools here", "response_format")
        if request.must_call:
            return self.constrainer.call(request.tools, request.must_call)
        return None if request.schema is None else self.constrainer.schema(request.schema)

    # -- memory

    def _asked(self, request: ChatRequest) -> Entry | None:
        if not request.consent.log:
            self.metrics.turns["private"] += 1
            return None
        entry = self.diary.ask(request.messages, request.consent.tags, retry=request.consent.retry)
        self.metrics.turns["housekeeping" if entry is None else "logged"] += 1
        return entry

    def _noted(self, request: ChatRequest, entry: Entry) -> tuple[int, ...] | None:
        """The prompt with what was said before quoted beside the question; None if nothing helps or fits."""
        from mlx_plastic.serve.notes import SHARE, with_notes

        last = request.messages[-1]
        if self._notes is None or last["role"] != "user":
            return None
        hits = self._notes().about(last["content"], self.diary.turns(entry))
        question = [Message("user", last["content"])]
        told, used = with_notes(question, hits, self._count, self.base.window // SHARE)
        if not used:
            return None
        messages = [*request.messages[:-1], {"role": "user", "content": told[-1].content}]
        tokens = self.prompt(messages, request.tools)
        return tokens if len(tokens) + request.speaking.max_tokens // 2 < self.base.window else None

    def _count(self, messages: Sequence[Message]) -> int:
        return len(self.prompt([m.as_dict() for m in messages], []))

    # -- tokens

    def prompt(self, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]]) -> tuple[int, ...]:
        """The conversation as the base's template renders it. Raises ApiError if it refuses."""
        options: dict[str, Any] = {"tools": tools} if tools else {}
        try:
            with self._tokenizing:
                found = self.base.tokenizer.apply_chat_template(
                    merged(messages), tokenize=True, add_generation_prompt=True, **options
                )
        except Exception as error:  # templates are programs of others: they raise what they like
            roles = ", ".join(dict.fromkeys(m["role"] for m in messages))
            raise bad(
                f"the base's chat template refuses these messages (roles: {roles}): {type(error).__name__}",
                "messages",
            ) from None
        return tuple(int(token) for token in found)

    def _encoded(self, prompt: str | list[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            with self._tokenizing:
                tokens: list[int] = self.base.tokenizer.encode(prompt)
        else:
            tokens, size = prompt, self.base.tokenizer.vocab_size
            if any(token >= size for token in tokens):
                raise bad(f"prompt has a token that this base has not: it has {size}", "prompt")
        if not tokens:
            raise bad("prompt is empty", "prompt")
        return tuple(tokens)

    # -- going down

    async def close(self) -> None:
        """Let answers end, cut what is left, and log all of it."""
        await in_thread(self.worker.stop, self.config.grace_s)
        if self.running:
            await asyncio.wait([a.done for a in self.running])


def merged(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One message where the same side speaks twice in a row; most templates refuse anything but turns."""
    found: list[dict[str, Any]] = []
    for message in messages:
        plain = message["role"] != "tool" and not message.get("tool_calls")
        if plain and found and found[-1]["role"] == message["role"] and not found[-1].get("tool_calls"):
            found[-1] = found[-1] | {"content": f"{found[-1]['content']}\n{message['content']}"}
        else:
            found.append(message)
    return found


async def in_thread(action: Callable[..., T], *args: Any) -> T:
    """Run what may wait for the disk beside the event loop, also when the client leaves meanwhile."""
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, action, *args))


def _seeded(wanted: Wanted, index: int) -> Any:
    return replace(wanted.sampling, seed=wanted.sampling.seed + index)
