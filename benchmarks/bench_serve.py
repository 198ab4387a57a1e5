"""Serving in figures: many packs in one batch, against pack by pack, the bare base and mlx-lm's own server.

    python benchmarks/bench_serve.py --json

On a random Llama (hidden 512, 8 layers) with four packs of ranks 2, 4, 8 and 16 on all its linear layers;
eight requests, two for each pack. What is compared runs in turns with ours, round by round, and medians are
told: `mixed_vs_sequential` and `mixed_vs_mlxlm_server` are how many times the tokens/s,
`mixed_vs_base_slowdown` is the share of time that packs cost the same batch, `warm_ttft_ratio` the time to
the first token behind a long beginning that was read before, over that behind a new one. `parity` is whether
every request's tokens were those of its pack alone. `cpu` has the first ratios in seconds of processor time:
on a machine that does other things too, those tell more than the clock.

mlx_lm.server is started as its users do, with the same checkpoint and the packs as its adapters, and asked by
the same client in turns with ours; `--skip-mlxlm` leaves it out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench_packs import random_pack
from models import make_llama

from mlx_plastic.backend import BLAS
from mlx_plastic.base import Base, load_base
from mlx_plastic.home import Home
from mlx_plastic.packs import Pack, Store
from mlx_plastic.packs.convert import export_pack
from mlx_plastic.samples import Message
from mlx_plastic.serve.batch import BatchConfig, End, Piece, Said, TokenInfo, Wanted, Worker

RANKS = (2, 4, 8, 16)
REQUESTS = 8
LONG = 1200  # words of the beginning that is read once


class Listener:
    """One answer: its text, its tokens and when it began and ended."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens: list[TokenInfo] = []
        self.ended = threading.Event()
        self.end: End | None = None

    def __call__(self, said: Said) -> None:
        if isinstance(said, Piece):
            self.text += said.text
            self.tokens += said.tokens
        else:
            self.end = said
            self.ended.set()


def prompts(base: Base, count: int) -> list[tuple[int, ...]]:
    texts = [f"Question {i}: tell me about packs, nights and the number {i * i}." for i in range(count)]
    return [tuple(base.prompt([Message("user", text)])) for text in texts]


Lap = tuple[float, float]  # seconds by the clock, and of processor time


def run(worker: Worker, wanted: Sequence[Wanted]) -> tuple[Lap, list[Listener]]:
    """How long until all have ended."""
    listeners = [Listener() for _ in wanted]
    start, cpu = time.perf_counter(), time.process_time()
    for one, listener in zip(wanted, listeners, strict=True):
        worker.submit(one, listener)
    for listener in listeners:
        listener.ended.wait()
    return (time.perf_counter() - start, time.process_time() - cpu), listeners


def batches(
    worker: Worker, base: Base, packs: Sequence[dict[str, Pack]], *, tokens: int, rounds: int
) -> dict[str, Any]:
    """The eight requests at once, pack by pack, and at once without packs."""
    asked = prompts(base, REQUESTS)
    mixed = [Wanted(asked[i], tokens, packs[i % len(packs)], remember=False) for i in range(REQUESTS)]
    bare = [Wanted(tokens_, tokens, remember=False) for tokens_ in asked]
    by_pack = [mixed[p :: len(packs)] for p in range(len(packs))]
    laps: dict[str, list[Lap]] = {"mixed": [], "sequential": [], "base": []}
    parity = True
    for round_ in range(rounds + 1):  # the first one warms up
        took, together = run(worker, mixed)
        alone_s, alone = (0.0, 0.0), dict[int, str]()
        for p, group in enumerate(by_pack):
            group_s, found = run(worker, group)
            alone_s = alone_s[0] + group_s[0], alone_s[1] + group_s[1]
            alone |= {p + len(packs) * i: one.text for i, one in enumerate(found)}
        parity = parity and [one.text for one in together] == [alone[i] for i in range(REQUESTS)]
        base_s, _ = run(worker, bare)
        if round_:
            for name, lap in zip(laps, (took, alone_s, base_s), strict=True):
                laps[name].append(lap)
    said = sum(one.end.answer_tokens for one in together if one.end)
    return {"laps": laps, "tokens": said, "parity": parity and parity_alone(worker, mixed, together)}


def parity_alone(worker: Worker, mixed: Sequence[Wanted], together: Sequence[Listener]) -> bool:
    """Each request by itself, with nobody beside it."""
    return all(
        run(worker, [one])[1][0].text == listener.text for one, listener in zip(mixed, together, strict=True)
    )


def first_tokens(worker: Worker, base: Base, pack: dict[str, Pack], rounds: int) -> dict[str, list[float]]:
    """Seconds to the first token, behind a new long beginning and behind one that was read."""
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    for round_ in range(rounds + 1):
        words = " ".join(f"word{(i * 7 + round_) % 97}" for i in range(LONG))[:4000]
        for name, question in (("cold", "What was first?"), ("warm", "And what was the last of them all?")):
            tokens = tuple(base.prompt([Message("user", f"{round_} {words} {question}")]))
            _, (listener,) = run(worker, [Wanted(tokens, 2, pack)])
            assert listener.end
            if round_:
                found[name].append(listener.end.first_s)
    return found


# -- over HTTP, against mlx-lm's server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[int]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            while not answers(port):
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(said.read().decode("utf-8", "replace")[-2000:])
                time.sleep(0.2)
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def ask(port: int, body: dict[str, Any]) -> int:
    """Tokens of the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        data = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(str(data)[:500])
        return int(data["usage"]["completion_tokens"])


def tokens_per_s(port: int, bodies: Sequence[dict[str, Any]]) -> float:
    """All at once, as several people would ask."""
    start = time.perf_counter()
    with ThreadPoolExecutor(len(bodies)) as pool:
        said = sum(pool.map(lambda body: ask(port, body), bodies))
    return said / (time.perf_counter() - start)


def against_mlxlm(
    checkpoint: Path, home: Home, packs: Sequence[dict[str, Pack]], *, tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Tokens/s of both servers, asked in turns."""
    adapters = []
    for named in packs:
        for name, pack in named.items():
            export_pack(pack, "mlx-lm", home.root / "adapters" / name)
            adapters.append((name, str(home.root / "adapters" / name)))
    ours, theirs = free_port(), free_port()
    plastic = [
        sys.executable,
        "-c",
        "from mlx_plastic.cli.main import main; main()",
        "--home",
        str(home.root),
    ]
    plastic += ["serve", "--base", str(checkpoint), "--port", str(ours), "--no-memory"]
    mlxlm = [sys.executable, "-m", "mlx_lm", "server", "--model", str(checkpoint), "--port", str(theirs)]
    texts = [f"Question {i}: tell me about packs, nights and the number {i * i}." for i in range(REQUESTS)]
    common = [
        {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0.0}
        for text in texts
    ]
    our_bodies = [body | {"model": adapters[i % len(adapters)][0]} for i, body in enumerate(common)]
    their_bodies = [
        body | {"model": str(checkpoint), "adapters": adapters[i % len(adapters)][1]}
        for i, body in enumerate(common)
    ]
    found: dict[str, list[float]] = {"ours": [], "mlx_lm_server": []}
    with served(plastic, ours), served(mlxlm, theirs):
        for round_ in range(rounds + 1):
            for name, port, bodies in (("ours", ours, our_bodies), ("mlx_lm_server", theirs, their_bodies)):
                speed = tokens_per_s(port, bodies)
                if round_:
                    found[name].append(speed)
    return found


# -- for a long time


def soak(folder: Path, seconds: float) -> dict[str, Any]:
    """Answers of many kinds, clients that leave, and what the server holds over time."""
    checkpoint = make_llama(folder / "base", hidden=128, layers=4, vocab=4096)
    base, home = load_base(str(checkpoint)), Home(folder / "home")
    home.root.mkdir()
    for rank in RANKS:
        pack = random_pack(base, f"r{rank}", rank=rank, seed=rank)
        Store(home).add(pack.factors, pack.manifest)
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from mlx_plastic.cli.main import main; main()",
        "--home",
        str(home.root),
    ]
    command += ["serve", "--base", str(checkpoint), "--port", str(port)]
    asked, failed = [0], list[str]()
    held: list[dict[str, float]] = []

    def client(number: int, until: float) -> None:
        dice = random.Random(number)
        while time.monotonic() < until:
            asked[0] += 1
            body = {
                "model": dice.choice(["base", "r2", "r4", "r8", "r16", "r2+r8"]),
                "messages": [
                    {"role": "user", "content": "word " * dice.randint(1, 400) + str(dice.random())}
                ],
                "max_tokens": dice.randint(1, 40),
                "stream": dice.random() < 0.3,
            }
            try:
                leave_early(port, body) if dice.random() < 0.2 else ask(port, body | {"stream": False})
            except (OSError, RuntimeError, ValueError) as error:
                failed.append(type(error).__name__)

    with served(command, port) as process, ThreadPoolExecutor(8) as pool:
        until = time.monotonic() + seconds
        working = [pool.submit(client, number, until) for number in range(8)]
        for _ in range(20):
            time.sleep(seconds / 20)
            held.append(holds(process))
        for one in working:
            one.result()
    half = held[len(held) // 2 :]
    return {
        "seconds": seconds,
        "requests": asked[0],
        "failed": failed,
        **{name: [one[name] for one in held] for name in held[0]},
        "growth_in_second_half": {name: half[-1][name] - half[0][name] for name in held[0]},
    }


def leave_early(port: int, body: dict[str, Any]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body | {"stream": True}), headers)
        connection.getresponse().read(200)


def holds(process: int) -> dict[str, float]:
    """Its memory, and where the system tells them its threads and open files."""
    found = {"memory_mb": resident_mb(process)}
    folder = Path(f"/proc/{process}")
    if folder.is_dir():
        found["threads"] = len(list((folder / "task").iterdir()))
        found["files"] = len(list((folder / "fd").iterdir()))
    return found


def resident_mb(process: int) -> float:
    told = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True
    )
    return int(told.stdout) / 1024


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    checkpoint = make_llama(folder / "base", hidden=512, layers=8, vocab=8192)
    base = load_base(str(checkpoint))
    packs = [{f"r{r}": random_pack(base, f"r{r}", rank=r, seed=r)} for r in RANKS]
    worker = Worker(lambda: base, BatchConfig(rows=REQUESTS))
    worker.start()
    batched = batches(worker, base, packs, tokens=args.tokens, rounds=args.rounds)
    firsts = first_tokens(worker, base, packs[2], args.rounds)
    worker.call(lambda loaded: loaded.mixer.undress()).result()
    worker.stop()
    seconds, cpu = (
        {name: [lap[kind] for lap in laps] for name, laps in batched["laps"].items()} for kind in (0, 1)
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    found: dict[str, Any] = {
        "mixed_vs_sequential": ratio(seconds["sequential"], seconds["mixed"]),
        "mixed_vs_base_slowdown": ratio(seconds["mixed"], seconds["base"]) - 1,
        "warm_ttft_ratio": statistics.median(firsts["warm"]) / statistics.median(firsts["cold"]),
        "parity": batched["parity"],
        "mixed_vs_mlxlm_server": None,
        "cpu": {
            "mixed_vs_sequential": ratio(cpu["sequential"], cpu["mixed"]),
            "mixed_vs_base_slowdown": ratio(cpu["mixed"], cpu["base"]) - 1,
        },
        "tokens_per_s": {name: batched["tokens"] / value for name, value in median.items()},
        "first_token_s": {name: statistics.median(values) for name, values in firsts.items()},
        "rounds": args.rounds,
        "tokens": args.tokens,
        "blas": BLAS.kind,
    }
    if not args.skip_mlxlm:
        home = Home(folder / "home")
        home.root.mkdir()
        for named in packs:
            for pack in named.values():
                Store(home).add(pack.factors, pack.manifest)
        speeds = against_mlxlm(checkpoint, home, packs, tokens=args.tokens, rounds=max(1, args.rounds // 2))
        found["mixed_vs_mlxlm_server"] = statistics.median(speeds["ours"]) / statistics.median(
            speeds["mlx_lm_server"]
        )
        found["http_tokens_per_s"] = {name: statistics.median(v) for name, v in speeds.items()}
    found["spread"] = {
        "mixed_vs_sequential": spread(seconds["sequential"], seconds["mixed"]),
        "mixed_vs_base": spread(seconds["mixed"], seconds["base"]),
    }
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median over rounds of a ratio: what slows a machine for a while slows both sides of a round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def spread(over: Sequence[float], under: Sequence[float]) -> list[float]:
    ratios = sorted(a / b for a, b in zip(over, under, strict=True))
    return [ratios[0], ratios[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve many packs at once, and measure it.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=7, help="whose medians are told")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--skip-mlxlm", action="store_true", help="do not start mlx_lm.server")
    parser.add_argument(
        "--soak", type=float, metavar="S", help="answer for S seconds instead, and watch memory"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), args.soak) if args.soak else measure(Path(folder), args)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<24} {value}")


if __name__ == "__main__":
    main()
