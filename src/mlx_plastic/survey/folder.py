"""A run folder, runs/<model-id>/<run-name>: one survey of one model, with all that it was made from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlx_plastic import __version__
from mlx_plastic.errors import BadConfig, BadData
from mlx_plastic.home import write_json
from mlx_plastic.survey.config import CONFIG_FILE, SurveyConfig, parse_config, read_config

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FOLDERS = ("data", "tables", "plots", "logs")


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of one run lie."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / CONFIG_FILE

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def parts(self) -> Path:
        return self.path / "data" / "parts"

    @property
    def tables(self) -> Path:
        return self.path / "tables"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def config(self) -> SurveyConfig:
        return read_config(self.config_file)

    def manifest(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / MANIFEST).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BadData(
                f"{self.path / MANIFEST} cannot be read: {error}", hint="mend or remove it"
            ) from error
        return found if isinstance(found, dict) else {}

    def note(self, **what: Any) -> None:
        """Adds to the manifest."""
        write_json(self.path / MANIFEST, self.manifest() | what)

    def make(self) -> None:
        try:
            for name in FOLDERS:
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadConfig(
                f"{error.filename} is no folder", hint="choose another --root or --name"
            ) from error
        except PermissionError:
            raise  # a command says which and what to do
        except OSError as error:
            raise BadConfig(
                f"{error.filename} cannot be made ({error.strerror})", hint="choose another --root"
            ) from error


def is_run(path: Path) -> bool:
    return (path / CONFIG_FILE).is_file()


def open_run(path: Path) -> RunFolder:
    """Raises BadConfig if there is no config in the folder."""
    if not is_run(path):
        raise BadConfig(
            f"{path} is no run folder: it has no {CONFIG_FILE}", hint="plastic survey init makes one"
        )
    run = RunFolder(path)
    run.make()
    return run


def init_run(
    root: Path, given: dict[str, Any], *, model_id: str | None = None, name: str | None = None
) -> tuple[RunFolder, bool]:
    """A new run folder with its config, or the one that is there, left as it is. given: of the config.

    Returns the run and whether its config is new. Raises BadConfig for a config that cannot be used.
    """
    config = parse_config(given, where="the new config")
    model_id = model_id or model_name(config.model_path)
    for what, word in (("model id", model_id), ("run name", name or "default")):
        if not re.fullmatch(r"[\w.+-][\w.+ -]*", word) or word in (".", ".."):
            raise BadConfig(
                f"the {what} {word!r} is no name of a folder", hint="letters, digits, dots and dashes"
            )
    run = RunFolder(root / model_id / (name or "default"))
    run.make()
    if not run.manifest():
        run.note(
            format_version=FORMAT_VERSION,
            model_id=model_id,
            run_name=name or "default",
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            mlx_plastic=__version__,
        )
    if run.config_file.exists():
        return run, False
    write_json(run.config_file, config.as_dict())
    return run, True


def model_name(path: str) -> str:
    """A name for the model at a path or URL."""
    tail = path.rstrip("/").rpartition("/")[2] or "model"
    return re.sub(r"[^\w.+-]+", "-", tail.removesuffix(".safetensors")).strip("-") or "model"
