"""What any client of an OpenAI server can ask for, over HTTP."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlx_plastic.serve.api.config import ServeConfig

if TYPE_CHECKING:
    from mlx_plastic.serve.api.app import make_app
    from mlx_plastic.serve.api.service import Service

__all__ = ["ServeConfig", "Service", "make_app"]
LATE = {"Service": "service", "make_app": "app"}  # they need an HTTP server, the settings do not


def __getattr__(name: str) -> Any:
    if name in LATE:
        return getattr(importlib.import_module(f"mlx_plastic.serve.api.{LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
