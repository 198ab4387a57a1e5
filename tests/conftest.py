from __future__ import annotations

from pathlib import Path

import pytest

from mlx_plastic.home import Home, find_home
from tiny import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint; tests that change files copy it first."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MLX_PLASTIC_HOME", str(tmp_path / "home"))
    return find_home()
