"""The server by itself: a systemd user service or a launchd agent that starts when its user logs in."""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from typing import Any

from mlx_plastic.home import Home
from mlx_plastic.sleep import units
from mlx_plastic.sleep.units import Done, Found, Kind, Run, Unit, kind_here, plastic, run_tool

NAME = "mlx-plastic-serve"
LABEL = "org.mlx-plastic.serve"
AGAIN_S = 5  # after a crash
TRIES = 5  # in TRIES_S seconds, after which systemd leaves it: asking does not free a port that is taken
TRIES_S = 300
SPARE_S = 15  # to log what was being said, beyond the time that answers get to end


def unit(home: Home, kind: Kind, *, grace_s: float, environ: Mapping[str, str] | None = None) -> Unit:
    """grace_s: how long answers may take to end when it is stopped. All else it reads from config.toml."""
    command, stop_s = plastic(home, "serve"), round(grace_s) + SPARE_S
    folder = units.folder(kind, environ)
    if kind == "launchd":
        return Unit(kind, LABEL, {folder / f"{LABEL}.plist": _plist(home, command, stop_s)})
    return Unit(kind, f"{NAME}.service", {folder / f"{NAME}.service": _service(command, stop_s)})


def _service(command: tuple[str, ...], stop_s: int) -> bytes:
    return f"""[Unit]
Description=mlx-plastic: answer clients on this machine, and show days and nights
Documentation=man:systemd.service(5)
StartLimitIntervalSec={TRIES_S}
StartLimitBurst={TRIES}

[Service]
Type=exec
ExecStart={units.exec_start(command)}
Restart=on-failure
RestartSec={AGAIN_S}
KillSignal=SIGTERM
TimeoutStopSec={stop_s}
UMask=0077
NoNewPrivileges=yes

[Install]
WantedBy=default.target
""".encode()


def _plist(home: Home, command: tuple[str, ...], stop_s: int) -> bytes:
    log = str(home.logs / "serve.log")
    value: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": TRIES_S // TRIES,
        "ExitTimeOut": stop_s,
        "ProcessType": "Interactive",  # a person waits for what it says: not throttled as a night is
        "Umask": 0o077,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(value)


def install(home: Home, *, grace_s: float, kind: Kind | None = None, run: Run = run_tool) -> Done:
    """As `units.install`. Repeat it after another Python or another home."""
    return units.install(home, unit(home, kind or kind_here(), grace_s=grace_s), run)


def remove(home: Home, *, kind: Kind | None = None, run: Run = run_tool) -> Done:
    """Stop it, once what it says is said, and delete the file."""
    return units.remove(unit(home, kind or kind_here(), grace_s=0.0), run)


def status(home: Home, *, kind: Kind | None = None, run: Run = run_tool) -> Found:
    return units.look(unit(home, kind or kind_here(), grace_s=0.0), run)
