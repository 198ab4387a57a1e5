"""A home's service: its base on a worker, its packs, its memory."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from mlx_plastic.home import Home, settings
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.serve.api.config import ServeConfig
from mlx_plastic.serve.api.night import Nights
from mlx_plastic.serve.api.service import Service
from mlx_plastic.serve.batch import BatchConfig, Worker
from mlx_plastic.serve.engine import ChatConfig

if TYPE_CHECKING:
    from mlx_plastic.serve.notes import Notes


def open_service(home: Home, config: ServeConfig, *, base: str) -> Service:
    """Ready to answer. Raises whatever opening the log or loading the base raises."""
    from mlx_plastic.base import load_base
    from mlx_plastic.memory.embed import find_embedder

    chat = settings(home, "chat", ChatConfig)
    memory = Memory(home)  # first: a damaged log is told before a long load
    worker = Worker(lambda: load_base(base, cache=home.cache), settings(home, "batch", BatchConfig))
    try:
        if Nights(home, config).closed:
            worker.begin()
            loaded = replace(load_base(base, cache=home.cache, weights=False), model=None)
        else:
            loaded = worker.start()
    except BaseException:
        memory.close()
        raise

    @functools.cache
    def notes() -> Notes:
        from mlx_plastic.serve.notes import Notes

        return Notes(memory.recall(), chat.notes, chat.least_match)

    return Service(
        worker,
        loaded,
        Store(home),
        memory,
        config=config,
        chat=chat,
        notes=notes,
        embedder=find_embedder(),
    )
