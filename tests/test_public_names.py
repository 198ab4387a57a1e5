"""What a program may build on: few names, listed on a page, and the page's program runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_plastic
from docs import DOCS
from mlx_plastic import Home, Store, load_base
from test_attach import pack_of, random_factors

PAGE = (DOCS / "python.md").read_text("utf-8")


def listed() -> set[str]:
    """The names in the first column of the page's table, and what they return."""
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    return {re.match(r"\w+", code)[0] for row in rows for code in re.findall(r"`(.+?)`", row)}  # type: ignore[index]


def test_the_page_lists_the_public_names_and_no_others() -> None:
    assert listed() == set(mlx_plastic.__all__)
    assert len(mlx_plastic.__all__) <= 15
    for name in mlx_plastic.__all__:
        assert getattr(mlx_plastic, name).__doc__, name


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'make_manifest'"):
        _ = mlx_plastic.make_manifest


def test_importing_the_package_loads_neither_mlx_nor_a_room() -> None:
    seen = (
        "import sys, mlx_plastic; print(sorted({m.split('.')[0] for m in sys.modules} & {'mlx', 'mlx_lm'}))"
    )
    for more, wanted in (("", "[]\n"), ("; mlx_plastic.load_base", "['mlx")):
        code = seen.replace("; print", f"{more}; print")
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert wanted in out


def test_the_pages_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, base = Home(tmp_path), load_base("nano")
    factors = random_factors(base, 0, 4, size=0.3)  # enough that another word is said
    pack = pack_of(base, factors, "mine")
    Store(home).add(pack.factors, pack.manifest)
    monkeypatch.setenv("MLX_PLASTIC_HOME", str(tmp_path))
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "docs/python.md", "exec"), {})
    plain, worn = capsys.readouterr().out.strip().splitlines()
    assert plain and plain != worn
    again = base.answers([[mlx_plastic.Message("user", "Hello!")]], max_tokens=20)[0]
    assert again == plain
    assert len(mlx_plastic.Memory(home).turns()) == 2
