"""The tools that an assistant elsewhere gets, by the protocol's own client over stdin and stdout."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from typing import Any

import pytest

from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.samples import Sample, to_jsonl
from mlx_plastic.serve import mcp as tools

HERE = importlib.util.find_spec("mcp") is not None


@pytest.mark.skipif(not HERE, reason="the extra mcp is not installed")
def test_a_client_finds_adds_and_forgets(home: Home) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    with Memory(home) as memory:
        told = memory.remember(memory.new_conversation(), "user", "My locker is number 417.")
    samples = home.nights / "n1" / "train.jsonl"
    samples.parent.mkdir(parents=True)
    samples.write_bytes(to_jsonl([Sample((told.message,), turns=(told.id,))]))
    command = ["-c", "from mlx_plastic.cli.main import main; main()", "--home", str(home.root), "mcp"]

    async def talk() -> None:
        server = StdioServerParameters(command=sys.executable, args=command)
        async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            names = {tool.name for tool in (await session.list_tools()).tools}
            assert names == {"memory_search", "memory_add", "memory_forget"}

            async def call(name: str, **arguments: Any) -> Any:
                answer = await session.call_tool(name, arguments)
                return answer, [json.loads(part.text) for part in answer.content if not answer.is_error]

            _, (hit, *_) = await call("memory_search", question="Which number is my locker?")
            assert hit["text"] == "My locker is number 417." and hit["speaker"] == "user"
            _, (added,) = await call("memory_add", text="My bike is red.", tags=["no-train"])
            assert added["tags"] == ["no-train"]
            _, (shown,) = await call("memory_forget", turn=hit["turn"])
            assert "would_forget" in shown
            _, (gone,) = await call("memory_forget", turn=hit["turn"], sure=True)
            assert gone["forgot"] == 1
            refused, _ = await call("memory_forget", turn="t-nothing")
            assert refused.is_error

    asyncio.run(talk())
    with Memory(home) as memory:
        assert [turn.content for turn in memory.turns()] == ["My bike is red."]
    assert samples.read_bytes() == b""  # nor is it left in what a night has made of it


def test_tools_refuse_what_cannot_be_meant(home: Home) -> None:
    with Memory(home) as memory:
        for text in ("", "  ", "x" * 30_000):
            with pytest.raises(PlasticError, match="1 to 20000 characters"):
                tools.add(memory, text, [])
        with pytest.raises(PlasticError, match="unknown tag"):
            tools.add(memory, "x", ["secret"])
        kept = tools.add(memory, "I like tea.", [])["turn"]
        with pytest.raises(PlasticError):
            tools.forget(memory, kept[:6], print, sure=True)  # a part of an id might mean another turn
        assert tools.forget(memory, kept, print, sure=False)["would_forget"] == "I like tea."
        assert len(memory.turns()) == 1


@pytest.mark.skipif(HERE, reason="the extra mcp is installed")
def test_without_the_package_it_says_how_to_get_it(home: Home) -> None:
    with Memory(home) as memory, pytest.raises(PlasticError, match="mcp is not installed"):
        tools.make_mcp(memory, print)
