"""Where one person's memory, packs and nights live."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import platformdirs

from mlx_plastic.errors import PlasticError

HOME_VARIABLE = "MLX_PLASTIC_HOME"


@dataclasses.dataclass(frozen=True)
class Home:
    """One person's folder. Rooms ask it for paths; nobody joins strings elsewhere."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"

    @property
    def memory_db(self) -> Path:
        return self.root / "memory" / "log.sqlite"

    @property
    def memory_index(self) -> Path:
        return self.root / "memory" / "index.sqlite"

    @property
    def packs(self) -> Path:
        return self.root / "packs"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def nights(self) -> Path:
        return self.root / "nights"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def lock_file(self, what: str) -> Path:
        return self.root / "locks" / f"{what}.lock"


def find_home(explicit: str | Path | None = None) -> Home:
    """The home named on the command line, else by MLX_PLASTIC_HOME, else the platform's data folder.

    The folder is made (0700: it holds what a person said). Raises PlasticError if it cannot be.
    """
    named = explicit or os.environ.get(HOME_VARIABLE)
    root = Path(named).expanduser() if named else Path(platformdirs.user_data_dir("mlx-plastic"))
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PlasticError(
            f"cannot make the home folder {root}: {error.strerror}",
            hint=f"choose another with --home DIR or {HOME_VARIABLE}=DIR",
        ) from error
    return Home(root.resolve())
