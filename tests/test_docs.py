"""The pages are true to the program: every command exists, the site needs nobody else, no page is lost."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs import DOCS, ROOT, Said, fault, ours, pages, said
from mlx_plastic.cli.main import plastic

sys.path.insert(0, str(ROOT / "scripts"))
import make_cli_page

OLDER = """chat.py sleep.py run_cycle.py eval_loss.py eval_harness.py build_synthetic.py compress_llm_mlx.py
bench_memory.py init_run.py collect_data.py build_tables.py""".split()


# -- commands


def test_every_command_on_every_page_exists_with_its_options() -> None:
    found = [s for page in pages() for s in said(page)]
    assert len(found) > 150  # control: they were looked for
    faults = [f"{s}: {why}" for s in found if (why := fault(ours(_plain(s)), whole=s.block))]
    assert faults == []


def _plain(said: Said) -> str:
    """Without the brackets around what may be left out; of a choice like bash|zsh the first."""
    text = re.sub(r"\[(-[^\]]*|[A-Z]+)\]", r"\1", said.text)
    return text if said.block else re.sub(r"(\w+)(\\?\|\w+)+", r"\1", text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("plastic slep", "no command 'slep' of plastic"),
        ("plastic sleep --nap", "No such option"),
        ("packs eval --base nano --pack sql", "data_path is missing"),
        ("plastic packs convert sql --to onnx --out x", "'onnx' is not"),
        ("plastic nights show one two", "unexpected ['two']"),
        ("plastic schedule instal", "no command 'instal'"),
    ],
)
def test_control_a_command_that_does_not_exist_is_found(text: str, why: str) -> None:
    assert why in fault(text.split(), whole=True)


def test_a_command_is_found_in_blocks_and_sentences_and_behind_pipes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Use `plastic sleep` or `ls`.\n\n    packs create --name a \\\n        --base nano  # note\n    ls\n"
        "\n```console\n$ A=1 plastic digest\n```\n```python\nplastic(1)\n```\n    echo x | plastic chat\n"
    )
    assert [ours(s.text) for s in said(page)] == [
        ["plastic", "sleep"],
        ["packs", "create", "--name", "a", "--base", "nano"],
        ["plastic", "digest"],
        ["plastic", "chat"],
    ]


def scripts_named() -> Iterator[tuple[str, str]]:
    """Each `python FILE ...` of ours, and each `make TARGET`, with the page."""
    for page in pages():
        text = page.read_text("utf-8").replace("\\\n", " ")
        for found in re.findall(r"python ((?:benchmarks|scripts)/[^\n`|]*)", text):
            yield page.name, found
        for found in re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE):
            yield page.name, f"make {found}"


def test_every_script_and_target_on_every_page_exists_with_its_options() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named, faults = list(scripts_named()), []
    for page, text in named:
        words = text.split()
        if words[0] == "make":
            faults += [f"{page}: {text}"] if words[1] not in targets else []
        elif not (file := ROOT / words[0].rstrip(".,;:)")).is_file():
            faults.append(f"{page}: {words[0]}")
        else:
            options = re.findall(r"(--[a-z][a-z-]*)", text)
            faults += [f"{page}: {words[0]} {o}" for o in options if not _takes(file, o)]
    assert len(named) > 30  # control
    assert faults == []


def _takes(file: Path, option: str) -> bool:
    """Whether the script, or one of the room that is called like it, names the option."""
    room = file.parent / file.stem.removeprefix("bench_")
    return any(f'"{option}"' in f.read_text("utf-8") for f in (file, *room.glob("*.py")))


def test_every_one_of_the_older_tools_is_named() -> None:
    text = (DOCS / "older-tools.md").read_text("utf-8")
    assert [name for name in OLDER if f"{name}" not in text] == []


# -- the page of every command


def test_the_page_of_every_command_is_current() -> None:
    """Up to where lines are broken, which another version of click may do elsewhere."""
    assert make_cli_page.PAGE.read_text("utf-8").split() == make_cli_page.page(plastic).split(), (
        "run python scripts/make_cli_page.py"
    )


def test_control_a_help_that_was_changed_is_noticed() -> None:
    @click.command()
    def other() -> None:
        """Does something else."""

    group = click.Group("plastic", commands={"other": other})
    before = make_cli_page.page(group)
    other.help = "Does nothing."
    assert make_cli_page.page(group).split() != before.split()


# -- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` builds them; a link to nowhere or a page that is in no menu fails it."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


FROM_ELSEWHERE = (
    r"""<(?!a\b)[^>]+\b(?:src|href|srcset|data|poster)\s*=\s*["']?\s*(?:https?:)?//[^>]*""",
    r"""url\(\s*["']?(?:https?:)?//[^)]*|@import\s+["'](?:https?:)?//[^;]*""",
)


def loaded_from_elsewhere(folder: Path) -> list[str]:
    """What a browser that opens these files would fetch from another machine. A link is not fetched."""
    found = list[str]()
    for file in folder.rglob("*"):
        if file.suffix in (".html", ".css", ".svg", ".xml") and file.name != "sitemap.xml":
            text = file.read_text("utf-8")
            for pattern in FROM_ELSEWHERE:
                found += [f"{file.name}: {m[:200]}" for m in re.findall(pattern, text)]
    return found


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    assert (site / "quickstart.html").is_file() and (site / "cli.html").is_file()
    assert (site / "how-sleep-works.svg").is_file()
    assert loaded_from_elsewhere(site) == []


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        "<link rel=stylesheet href=//fonts.example/x.css>",
        "<img alt='' src='http://example/x.png'>",
        "<style>@import 'https://example/x.css';</style>",
        "<style>b { background: url(https://example/x.png) }</style>",
    ],
)
def test_control_an_asset_from_elsewhere_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.html").write_text(f'<a href="https://example">a link is not fetched</a>{text}')
    assert len(loaded_from_elsewhere(tmp_path)) == 1


def test_control_a_link_to_nowhere_stops_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[there](is-none.md)")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nvalidation:\n  links:\n    not_found: warn\n")
    config = load_config(str(tmp_path / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site"))
    with pytest.raises(Abort):
        build(config)
