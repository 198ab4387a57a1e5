"""What can go wrong that a person can mend: each error says what happened and what to do next."""

from __future__ import annotations


class PlasticError(Exception):
    """A user's mistake or a state of their machine, never a bug of ours.

    message: what happened, with the values. hint: what to do next. Neither holds chat text.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class BadConfig(PlasticError):
    """config.toml, an option or an environment variable cannot be used."""


class BadData(PlasticError):
    """A file of samples or tasks does not follow its schema."""


class BaseNotFound(PlasticError):
    """No checkpoint at that path, hub id or built-in name."""


class BadCheckpoint(PlasticError):
    """A checkpoint is missing files, truncated, or of a kind that cannot be read."""


class BadPack(PlasticError):
    """A pack's files do not hold what a pack must hold."""


class BaseMismatch(PlasticError):
    """A pack learned on another base than the one at hand."""


class PackNotFound(PlasticError):
    """No pack of that name in the store, or none to go back to."""


class MemoryFault(PlasticError):
    """The memory log cannot be opened, read or written."""


class Busy(PlasticError):
    """Another process holds the lock."""


class TrainingFailed(PlasticError):
    """Training met numbers that are no numbers, or was given nothing to learn."""
