"""A night's training on several machines: a process on each, by mlx.launch, their gradients summed."""

from mlx_plastic.sleep.launch.hosts import Hosts, command, read_hosts
from mlx_plastic.sleep.launch.run import launched

__all__ = ["Hosts", "command", "launched", "read_hosts"]
