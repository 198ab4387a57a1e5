"""The home folder: where a person's memory, packs and nights live, and how files get there whole."""

from mlx_plastic.home.config import from_mapping, settings
from mlx_plastic.home.consent import ConsentConfig, consent, require_log, require_train
from mlx_plastic.home.files import append_line, sync, sync_folder, write_atomic, write_json
from mlx_plastic.home.locks import SEEN_S, is_locked, locked
from mlx_plastic.home.place import HOME_VARIABLE, Home, find_home

__all__ = [
    "HOME_VARIABLE",
    "SEEN_S",
    "ConsentConfig",
    "Home",
    "append_line",
    "consent",
    "find_home",
    "from_mapping",
    "is_locked",
    "locked",
    "require_log",
    "require_train",
    "settings",
    "sync",
    "sync_folder",
    "write_atomic",
    "write_json",
]
