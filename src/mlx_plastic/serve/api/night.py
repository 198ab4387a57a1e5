"""A night beside the server: whether one computes now, and what becomes of requests meanwhile."""

from __future__ import annotations

import asyncio
import logging

from mlx_plastic.home import Home, is_locked
from mlx_plastic.serve.api.config import ServeConfig
from mlx_plastic.serve.api.errors import ApiError
from mlx_plastic.serve.batch import Worker

log = logging.getLogger(__name__)

LOCK = "night"  # held by whatever trains or forgets on this home, in any process
RETRY_S = 30  # what a client is told to wait for; the openai clients wait no longer than a minute
LOOK_S = 1.0  # between two looks, where the base is to leave memory for a night


class Nights:
    """[serve] nights: "answer" answers on, slower; "wait" gives the night the memory of the base."""

    def __init__(self, home: Home, config: ServeConfig) -> None:
        self.home = home
        self.waits = config.nights == "wait"

    def running(self) -> bool:
        return is_locked(self.home, LOCK)

    @property
    def closed(self) -> bool:
        """Whether answers have to wait now."""
        return self.waits and self.running()

    def let_in(self) -> None:
        """Raises ApiError if answers have to wait for the morning."""
        if self.closed:
            raise ApiError(
                503,
                "a night is running, and the base has left memory for it; ask again later",
                code="night_running",
                retry_s=RETRY_S,
            )

    async def make_room(self, worker: Worker) -> None:
        """Until cancelled, have the base leave memory while a night runs, once what is being said is said."""
        before = False
        while self.waits:
            now = await asyncio.get_running_loop().run_in_executor(None, self.running)
            if now != before:
                log.info("a night has %s", "begun: answers wait" if now else "ended: answers go on")
            worker.rest(now)
            before = now
            await asyncio.sleep(LOOK_S)
