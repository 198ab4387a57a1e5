"""Pages that show what was said, learned and worn, and undo it: with nothing from elsewhere."""

from mlx_plastic.serve.dashboard.doors import Doors
from mlx_plastic.serve.dashboard.routes import pages

__all__ = ["Doors", "pages"]
