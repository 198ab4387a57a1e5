"""What the tests of nights share: the settings of a night of a second, as a config.toml as well."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from mlx_plastic.home import Home
from mlx_plastic.sleep.night import Settings


def write_config(home: Home, chosen: Settings, base: Path) -> None:
    """config.toml with what differs from the defaults, and the base by its folder."""
    lines = ["[base]", f"ref = {json.dumps(str(base))}"]
    plain = Settings()
    for section in dataclasses.fields(Settings):
        given, usual = getattr(chosen, section.name), getattr(plain, section.name)
        lines.append(f"[{section.name}]")
        for key in dataclasses.fields(given):
            value = getattr(given, key.name)
            if value != getattr(usual, key.name):
                lines.append(f"{key.name} = {json.dumps(value)}")
    home.config_file.write_text("\n".join(lines) + "\n")
