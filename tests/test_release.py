"""What is given to the world: a wheel that is whole, an sdist that can be built, licences that are told."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import mlx_plastic

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "mlx_plastic"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dist/ of what git would check out, built by the backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: Path) -> None:
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    own = {
        f"mlx_plastic/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {"mlx_plastic/py.typed", "mlx_plastic/base/nano/model.safetensors"} <= own
    assert {name for name in names if ".dist-info/" not in name} == own
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_its_own_test_command_needs(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"Makefile", "README.md", "LICENSE", "pyproject.toml", "tests/conftest.py"} <= names
    assert not [name for name in names if name.startswith((".venv", "dist", "build"))]


def test_what_is_installed_says_its_version_and_that_it_is_typed(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl")))
    about = wheel.read(next(n for n in wheel.namelist() if n.endswith("/METADATA"))).decode()
    assert f"Version: {mlx_plastic.__version__}" in about and "Typing :: Typed" in about
    assert "License-Expression: MIT" in about


def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "scripts" / "make_licences_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_and_everything_carried_is_on_the_page_of_licences() -> None:
    page, script = (ROOT / "docs" / "licences.md").read_text("utf-8"), licences()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    names = {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in asked}  # type: ignore[index]
    assert not [name for name in names if f"| {name} | yes |" not in page]
    assert "not stated" not in page
    for path, what, licence in script.CARRIED:
        assert (PACKAGE / path).exists() and f"| `{path}` | {what} | {licence} |" in page
    vendored = {f.stem.split("-")[0] for f in (PACKAGE / "serve/dashboard/static/vendor").iterdir()}
    assert vendored == {"htmx", "uPlot"}  # another one needs a line in CARRIED and its licence beside it
    for name in vendored:
        assert (PACKAGE / f"serve/dashboard/static/vendor/{name}.LICENSE").stat().st_size > 200
