"""[teacher] of config.toml."""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from mlx_plastic.errors import BadConfig

GEMINI_KEY = "GEMINI_API_KEY"
LEAST = {"retries": 0, "requests": 1, "questions": 1, "dollars_in": 0, "dollars_out": 0}


@dataclass(frozen=True)
class TeacherConfig:
    """Who writes questions beside the base. Empty, as it is by default, for nobody."""

    kind: Literal["", "openai", "gemini"] = ""
    url: str = ""  # of an OpenAI-compatible API, up to /v1; of Gemini: its own
    model: str = ""
    key_variable: str = ""  # the environment variable that holds the key; GEMINI_API_KEY for gemini
    timeout_s: float = 60.0  # of one request, from beginning to end
    retries: int = 3  # of a request that failed in a way that may pass
    requests: int = 200  # in one night
    questions: int = 8  # asked for about one note
    dollars_in: float = 0.0  # for a million tokens sent; 0: not counted
    dollars_out: float = 0.0  # for a million tokens answered

    def __post_init__(self) -> None:
        """Raises BadConfig with everything that cannot be."""
        faults = [
            f"{name} is {getattr(self, name)}"
            for name, least in LEAST.items()
            if not (getattr(self, name) >= least and math.isfinite(getattr(self, name)))
        ]
        if not 0 < self.timeout_s < math.inf:
            faults.append(f"timeout_s is {self.timeout_s}")
        if self.kind and not self.model:
            faults.append("model is empty")
        if self.kind == "openai" and not self.url:
            faults.append("url is empty")
        if self.url and (wrong := _wrong(self.url)):
            faults.append(wrong)
        if faults:
            raise BadConfig(
                f"[teacher]: {'; '.join(faults)}",
                hint='such as kind = "openai", url = "http://127.0.0.1:8080/v1", model = "name"',
            )

    @property
    def key_name(self) -> str:
        return self.key_variable or (GEMINI_KEY if self.kind == "gemini" else "")


def _wrong(url: str) -> str:
    """What is wrong with the address; "" if nothing is. Beyond this machine only https will do."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "url is none"
    if parts.scheme not in ("http", "https") or not host:
        return "url is not http:// or https://"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "url holds a password, a query or a fragment"
    if parts.scheme == "http" and not is_loopback(host):
        return f"{host} is another machine, and http would send what was said in the clear"
    return ""


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
