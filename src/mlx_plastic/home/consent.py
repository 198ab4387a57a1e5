"""What the person has agreed to: that what is said is kept, and that nights learn from it."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_plastic.errors import NoConsent
from mlx_plastic.home.config import settings
from mlx_plastic.home.place import Home


@dataclass(frozen=True)
class ConsentConfig:
    """[consent] of config.toml; `plastic init` asks for each apart."""

    log: bool = True  # what is said is kept in this home
    train: bool = True  # nights learn from what was kept


def consent(home: Home) -> ConsentConfig:
    """Read anew each time: what is taken back holds from then on. Raises BadConfig."""
    return settings(home, "consent", ConsentConfig)


def require_log(home: Home) -> None:
    """Raises NoConsent if nothing that is said may be kept."""
    if not consent(home).log:
        raise NoConsent(
            f"{home.config_file} does not allow to keep what is said",
            hint="to allow it: plastic config set consent.log true",
        )


def require_train(home: Home) -> None:
    """Raises NoConsent if no night may learn."""
    if not consent(home).train:
        raise NoConsent(
            f"{home.config_file} does not allow nights to learn from what was said",
            hint="to allow it: plastic config set consent.train true",
        )
