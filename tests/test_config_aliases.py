"""[aliases]: a short name means the same at every door, and one thing only."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import fingerprint
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadConfig
from mlx_plastic.home import Home, find_home
from mlx_plastic.home.aliases import base_of, pack_of, read_aliases, resolved
from mlx_plastic.packs import Store
from mlx_plastic.serve.api import ServeConfig
from serving import live
from test_engine import add_pack


def run(home: Home, *arguments: object, says: str = "") -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), *map(str, arguments)], input=says)


def test_an_alias_of_an_alias_leads_to_the_end() -> None:
    given = {"me": "small", "small": "org/model", "work": "2026-11-19"}
    assert resolved(given, where="") == {"me": "org/model", "small": "org/model", "work": "2026-11-19"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": "b", "b": "c", "c": "a"}, "aliases in a circle: a -> b -> c -> a"),
        ({"a": "b", "b": "b"}, "aliases in a circle: b -> b"),
        ({"nano": "x"}, "'nano' means something else already"),
        ({"plastic": "x"}, "'plastic' means something else already"),
        ({"a:b": "x"}, "'a:b' cannot be an alias"),
        ({"../a": "x"}, "cannot be an alias"),
        ({"": "x"}, "cannot be an alias"),
        ({"a": 3}, "a stands for no name"),
        ({"a": " "}, "a stands for no name"),
    ],
)
def test_what_is_no_alias_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        resolved(given, where="")
    assert message in caught.value.message


def test_names_that_would_mean_two_things_are_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.config_file.write_text('[aliases]\nsmall = "nano"\nwork = "monday"\n')
    assert base_of(home, "small") == "nano" and base_of(home, "org/x") == "org/x"
    assert pack_of(home, "work", ["monday"]) == "monday" and pack_of(home, "other", ["monday"]) == "other"
    with pytest.raises(BadConfig, match="there is a pack 'work' as well"):
        pack_of(home, "work", ["monday", "work"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    with pytest.raises(BadConfig, match="and a folder here") as caught:
        base_of(home, "small")
    assert caught.value.hint == "for the folder: ./small"
    assert base_of(home, "./small") == "./small"


def test_a_chat_takes_aliases_for_its_base_and_its_pack(home: Home, checkpoint: Path) -> None:
    add_pack(Store(home), "monday", fingerprint(checkpoint, cache=None))
    assert run(home, "config", "set", "aliases.tiny", checkpoint, "aliases.work", "monday").exit_code == 0
    done = run(home, "chat", "--base", "tiny", "--pack", "work", "--max-tokens", 4, says="hello\n/why\n")
    assert done.exit_code == 0, done.stderr
    assert "monday" in done.stderr
    home.config_file.write_text(home.config_file.read_text() + '\n[base]\nref = "tiny"\n')
    assert run(home, "chat", "--max-tokens", 4, says="hello\n").exit_code == 0  # as the configured base, too
    assert run(home, "config", "set", "aliases.tiny", "work", "aliases.work", "tiny").exit_code == 1
    assert read_aliases(home)["work"] == "monday"


def test_a_server_answers_to_aliases_of_base_and_packs(tmp_path: Path, checkpoint: Path) -> None:
    home = find_home(tmp_path / "home")
    for name in ("monday", "tuesday"):
        add_pack(Store(home), name, fingerprint(checkpoint, cache=None))
    home.config_file.write_text(
        f'[aliases]\ntiny = "{checkpoint}"\nwork = "monday"\nboth = "monday+tuesday"\nfar = "org/other"\n'
    )
    with live(home, base=checkpoint, config=ServeConfig(port=0, max_tokens=4)) as server:
        names = server.service.names
        assert names.choose("tiny", []).packs == ()
        assert names.choose("work", []).packs == ("monday",)
        assert names.choose("tiny:work", []).packs == ("monday",)
        assert names.choose("work+tuesday", []).packs == names.choose("both", []).packs
        assert server.ask("hello", model="work")["model"] == "work"
        listed = {model["id"]: model.get("packs") for model in names.list()}
        assert listed["work"] == ["monday"] and listed["both"] == ["monday", "tuesday"]
        assert listed["tiny"] == [] and "far" not in listed  # another base is not to be had here
        status, error = server.post(
            "/v1/chat/completions", {"model": "wrok", "messages": [{"role": "user", "content": "x"}]}
        )
        assert status == 404 and "'work'" in error["error"]["message"]
        add_pack(Store(home), "work", fingerprint(checkpoint, cache=None))
        status, error = server.post(
            "/v1/chat/completions", {"model": "work", "messages": [{"role": "user", "content": "x"}]}
        )
        assert status >= 400 and "there is a pack 'work' as well" in error["error"]["message"]
