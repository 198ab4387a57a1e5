"""One question to any OpenAI-compatible server, over the standard library's HTTP."""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from mlx_plastic.sleep.teacher.reply import Passing, Reply, TeacherFailed

MOST_BYTES = 2_000_000  # of an answer
PIECE = 65_536
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
MOST_TOKENS = 1024  # of an answer


class OpenAILine:
    """POST <url>/chat/completions. Follows no redirect: the key and the note would go elsewhere with it."""

    def __init__(self, url: str, model: str, key: str, timeout_s: float) -> None:
        self.url, self.model, self.key, self.timeout_s = urlsplit(url), model, key, timeout_s

    def ask(self, prompt: str) -> Reply:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": MOST_TOKENS,
            "temperature": 0.7,
        }
        return _reply(self._post(json.dumps(body).encode("utf-8")))

    def _post(self, body: bytes) -> bytes:
        """The body of a 200. Raises Passing or TeacherFailed; the answer's text stands in neither."""
        deadline = time.monotonic() + self.timeout_s
        line = self._connection()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            line.request("POST", f"{self.url.path.rstrip('/')}/chat/completions", body, headers)
            response = line.getresponse()
            data = _read(response, line, deadline)
        except TimeoutError as error:
            raise Passing(f"the teacher took longer than {self.timeout_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise TeacherFailed(
                "the teacher's certificate does not hold", hint="check [teacher] url"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Passing(f"the teacher cannot be reached: {type(error).__name__}") from error
        finally:
            line.close()
        if response.status in PASSING:
            raise Passing(f"the teacher answered {response.status}", after_s=_wait(response))
        if response.status != 200:
            raise TeacherFailed(
                f"the teacher answered {response.status}",
                hint="check url, model and key_variable in [teacher]",
            )
        return data

    def _connection(self) -> http.client.HTTPConnection:
        host = self.url.hostname or ""
        if self.url.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, self.url.port, timeout=self.timeout_s, context=context)
        return http.client.HTTPConnection(host, self.url.port, timeout=self.timeout_s)


def _read(response: http.client.HTTPResponse, line: http.client.HTTPConnection, deadline: float) -> bytes:
    """The whole body, within the deadline however slowly it drips, and never more than MOST_BYTES."""
    data = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if isinstance(line.sock, socket.socket):
            line.sock.settimeout(left)
        piece = response.read1(PIECE)
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > MOST_BYTES:
            raise TeacherFailed(f"the teacher's answer is longer than {MOST_BYTES} bytes")


def _wait(response: http.client.HTTPResponse) -> float:
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _reply(data: bytes) -> Reply:
    try:
        value: Any = json.loads(data)
        text = value["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise TeacherFailed(
            "the teacher's answer is no chat completion", hint="check [teacher] url"
        ) from error
    if not isinstance(text, str):
        raise TeacherFailed("the teacher's answer holds no text", hint="check [teacher] model")
    usage = value.get("usage")
    return Reply(text, *(count(usage, name) for name in ("prompt_tokens", "completion_tokens")))


def count(usage: Any, name: str) -> int:
    """A number of tokens as the other side tells it; 0 for anything that can be none."""
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 10**9 else 0
