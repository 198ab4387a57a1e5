"""What any client of an OpenAI server can ask for, over HTTP."""

from mlx_plastic.serve.api.app import make_app
from mlx_plastic.serve.api.config import ServeConfig
from mlx_plastic.serve.api.service import Service

__all__ = ["ServeConfig", "Service", "make_app"]
