"""hosts.json, as mlx.launch reads it, checked before anything is started; and the command that starts all."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadConfig, NotInstalled
from mlx_plastic.home.config import nearest

HERE = "127.0.0.1"  # the one name that mlx.launch starts without ssh
BACKENDS = ("ring", "jaccl", "jaccl-ring")  # sums are made by the CPU, which nccl cannot
FIRST_PORT, LAST_PORT = 32423, 60999  # behind those that mlx.launch takes by itself
WORKER = "mlx_plastic.sleep.launch.worker"
MOST_BYTES = 1 << 20
EXAMPLE = '[{"ssh": "127.0.0.1", "ips": ["192.168.1.5"]}, {"ssh": "ada", "ips": ["192.168.1.6"]}]'

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Host:
    """ssh: what it is reached by. ips: where the others reach it."""

    ssh: str
    ips: tuple[str, ...]


@dataclass(frozen=True)
class Hosts:
    """file: absolute. backend: what the sums go through."""

    file: Path
    hosts: tuple[Host, ...]
    backend: str

    def name(self, rank: int) -> str:
        """A host for people, by its number among all."""
        host = self.hosts[rank] if 0 <= rank < len(self.hosts) else None
        return f"host {rank} ({host.ssh})" if host else f"host {rank}"


def read_hosts(file: Path) -> Hosts:
    """The hosts of a launch. Raises BadConfig with everything that is wrong with the file."""
    value = _parsed(file)
    listed = value if isinstance(value, dict) else {"hosts": value}
    faults = _unknown(listed, {"hosts", "backend", "envs"}, "")
    backend = listed.get("backend") or "ring"
    if backend not in BACKENDS:
        faults.append(f"backend is {_shown(backend)}, not one of {', '.join(BACKENDS)}")
    envs = listed.get("envs") or []
    if not (isinstance(envs, list) and all(_is_setting(entry) for entry in envs)):
        faults.append('envs is not a list of texts such as "NAME=value"')
    entries = listed.get("hosts")
    if not (isinstance(entries, list) and entries):
        entries = []
        faults.append("there is no list of hosts")
    hosts = [_host(i, entry, faults, needs_ip=backend == "ring") for i, entry in enumerate(entries)]
    if len(entries) == 1:
        faults.append("there is one host only: a launch needs two or more")
    if hosts and hosts[0].ssh not in (HERE, ""):
        faults.append(f"the first host is {_shown(hosts[0].ssh)}: it must be this machine, as {HERE}")
    if faults:
        raise _bad(file, faults)
    return Hosts(file.resolve(), tuple(hosts), backend)


def command(hosts: Hosts, folder: Path) -> list[str]:
    """What starts a process on each host. folder: where the first finds its job. Raises NotInstalled."""
    launcher = Path(sys.executable).with_name("mlx.launch")
    found = str(launcher) if launcher.exists() else shutil.which("mlx.launch")
    if not found:
        raise NotInstalled("mlx.launch is not there", hint="it comes with mlx: install mlx-plastic again")
    port = free_ports(len(hosts.hosts) + sum(len(host.ips) for host in hosts.hosts))
    start = [found, "--backend", hosts.backend, "--hostfile", str(hosts.file), "--starting-port", str(port)]
    return [*start, "--", sys.executable, "-P", "-m", WORKER, str(folder)]


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on here; those of the others are not known."""
    for first in range(FIRST_PORT, LAST_PORT - count, count):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise BadConfig(
        f"no {count} free ports in a row from {FIRST_PORT} up", hint="end what listens on them: ss -ltn"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError:
            return False
    return True


def _parsed(file: Path) -> Any:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise _bad(file, [f"it has more than {MOST_BYTES} bytes"])
        return json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise _bad(file, [f"it cannot be read: {error.strerror}"]) from error
    except (ValueError, RecursionError) as error:
        where = (
            f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        )
        raise _bad(file, [f"it is no JSON: {where}"]) from error


def _host(number: int, entry: Any, faults: list[str], *, needs_ip: bool) -> Host:
    if not isinstance(entry, dict):
        faults.append(f"host {number} is no object")
        return Host("", ())
    faults += _unknown(entry, {"ssh", "ips", "rdma"}, f"host {number}: ")
    ssh, ips = entry.get("ssh"), entry.get("ips", [])
    if not (isinstance(ssh, str) and ssh and not ssh.startswith("-") and ssh.isprintable()):
        faults.append(f"host {number} has no ssh, the name it is reached by")
        ssh = ""
    if not (isinstance(ips, list) and all(_is_ip(ip) for ip in ips)):
        faults.append(f"host {number}: ips is not a list of IPv4 addresses")
        ips = []
    elif needs_ip and not ips:
        faults.append(f"host {number} has no ips, which the ring goes through")
    return Host(ssh, tuple(ips))


def _unknown(value: Mapping[str, Any], known: set[str], where: str) -> list[str]:
    return [f"{where}unknown key {_shown(key)}; {nearest(key, known)}" for key in value if key not in known]


def _is_ip(value: Any) -> bool:
    try:
        return isinstance(value, str) and ipaddress.ip_address(value).version == 4
    except ValueError:
        return False


def _is_setting(value: Any) -> bool:
    return isinstance(value, str) and bool(_KEY.fullmatch(value.partition("=")[0])) and "\0" not in value


def _shown(value: Any) -> str:
    return ascii(value)[:60]


def _bad(file: Path, faults: list[str]) -> BadConfig:
    shown = faults[:20] + ([f"and {len(faults) - 20} more"] if len(faults) > 20 else [])
    return BadConfig(f"{file}: {'; '.join(shown)}", hint=f"it looks like {EXAMPLE}")
