"""One request's answers on their way from the worker to the client, and into the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from mlx_plastic.errors import PlasticError
from mlx_plastic.serve.batch import End, Job, Piece, Said, TokenInfo, Wanted, Worker

log = logging.getLogger(__name__)

Ended = Callable[["Answer"], Awaitable[None]]


@dataclass(eq=False)
class Answer:
    """What was said so far. index: among the answers to one request."""

    index: int
    text: str = ""
    tokens: list[TokenInfo] = field(default_factory=list)
    end: End | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens


class Answering:
    """The answers to one request. They go on and are logged also when nobody listens any more.

    ended: called once for each answer when it has ended, before the client is told so. streamed: whether
    `said` will be asked for what comes; if not, pieces do not wake the event loop, which with many answers
    at once takes the interpreter from the worker at every step.
    """

    def __init__(self, worker: Worker, wanted: list[Wanted], ended: Ended, *, streamed: bool) -> None:
        self.answers = [Answer(i) for i in range(len(wanted))]
        self._streamed = streamed
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._said: asyncio.Queue[tuple[Answer, Said]] = asyncio.Queue()
        self._told: asyncio.Queue[tuple[Answer, Said]] = asyncio.Queue()
        self._jobs: list[Job] = []
        try:
            for answer, one in zip(self.answers, wanted, strict=True):
                self._jobs.append(worker.submit(one, self._listener(answer)))
        except PlasticError:
            self.cancel()
            raise
        self.done = asyncio.create_task(self._pump())

    def cancel(self) -> None:
        for job in self._jobs:
            job.cancel()

    async def said(self) -> AsyncIterator[tuple[Answer, Said]]:
        """Everything in order, until every answer has ended; only where it is streamed."""
        left = len(self.answers)
        while left:
            answer, said = await self._told.get()
            left -= isinstance(said, End)
            yield answer, said

    async def whole(self) -> list[Answer]:
        """The answers, once all have ended."""
        await asyncio.shield(self.done)
        return self.answers

    def _listener(self, answer: Answer) -> Callable[[Said], None]:
        def tell(said: Said) -> None:
            if isinstance(said, Piece) and not self._streamed:
                answer.add(said)  # nobody reads it before its end came through the loop
            elif not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._said.put_nowait, (answer, said))

        return tell

    async def _pump(self) -> None:
        left = len(self.answers)
        while left:
            answer, said = await self._said.get()
            if isinstance(said, Piece):
                answer.add(said)
            elif answer.end is None:
                answer.end = said
                left -= 1
                said = await self._close(answer, said)
            self._told.put_nowait((answer, said))

    async def _close(self, answer: Answer, end: End) -> End:
        """The end as the client is told of it: an answer that cannot be logged has failed."""
        try:
            await self._ended(answer)
        except PlasticError as error:
            log.warning("an answer cannot be logged: %s", error.message)
            answer.end = End("error", end.prompt_tokens, end.answer_tokens, fault=error.message)
            return answer.end
        return end
