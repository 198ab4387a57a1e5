from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mlx_plastic.home import Home, find_home
from tiny import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint; tests that change files copy it first."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def _logs_as_they_come() -> None:
    """A command that another test ran in this process has set how much is logged."""
    logging.getLogger("mlx_plastic").setLevel(logging.NOTSET)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MLX_PLASTIC_HOME", str(tmp_path / "home"))
    return find_home()
