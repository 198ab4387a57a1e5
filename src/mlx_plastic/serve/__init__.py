"""One turn of talk: what was said before goes in, what is said goes to memory."""

from mlx_plastic.serve.engine import ChatConfig, Engine, Why, fit

__all__ = ["ChatConfig", "Engine", "Why", "fit"]
