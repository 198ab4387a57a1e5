"""Where the server listens, whom it answers, and how much it takes from one request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mlx_plastic.home.config import check_bounds

BOUNDS = {
    "port": (0, 65_535),  # 0: any that is free
    "max_tokens": (1, math.inf),
    "body_kb": (1, math.inf),
    "header_s": (0.01, math.inf),
    "body_s": (0.01, math.inf),
    "send_s": (0.01, math.inf),
    "connections": (1, math.inf),
    "requests": (1, math.inf),
    "grace_s": (0, 1e9),  # a thread can wait so long
}


@dataclass(frozen=True)
class ServeConfig:
    """[serve] of config.toml."""

    host: str = "127.0.0.1"
    port: int = 8377
    hosts: str = ""  # names under which browsers may reach it besides localhost, with commas between them
    memory: bool = True  # what is said is remembered, unless a request says otherwise
    rag: bool = False  # look up what was said before, unless a request says otherwise
    nights: Literal["answer", "wait"] = (
        "answer"  # while one runs: go on, slower, or give it the base's memory
    )
    max_tokens: int = 1024  # of an answer, where a request says nothing
    body_kb: int = 4096  # of one request
    header_s: float = 10.0  # for a client to send the head of a request
    body_s: float = 30.0  # for its body
    send_s: float = 60.0  # for a client to take what is sent
    connections: int = 512  # open at once
    requests: int = 80  # answered or waiting at once
    grace_s: float = 30.0  # for answers to end when the server goes down

    def __post_init__(self) -> None:
        """Raises BadConfig for a number that makes no sense."""
        check_bounds("serve", self, BOUNDS)
