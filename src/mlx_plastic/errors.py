"""What can go wrong that a person can mend: each error says what happened and what to do next.

Each class has a code that stays the same for ever; docs/errors.md is written from these docstrings, of which
the first line tells what happened and the paragraph behind "To do:" the way out.
"""

from __future__ import annotations

from typing import ClassVar

PAGE = "docs/errors.md"


class PlasticError(Exception):
    """Something is not as a command needs it; there is no narrower kind for it.

    To do: the message has the values, and the hint names the next step.
    """

    # message: what happened, with the values. hint: what to do next. Neither holds chat text.

    code: ClassVar[str] = "PLASTIC-E001"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, str]:
        """As a script reads it."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "page": page_of(self.code)}


def page_of(code: str) -> str:
    """Where the documentation tells of an error."""
    return f"{PAGE}#{code.lower()}"


class Taken(PlasticError):
    """There is something of that name already, and nothing is overwritten.

    To do: choose another name or folder, or remove what is there first.
    """

    code = "PLASTIC-E002"


class NotInstalled(PlasticError):
    """A package that only some commands need is not installed.

    To do: install the extra that the hint names, in the same environment as mlx-plastic.
    """

    code = "PLASTIC-E003"


class Busy(PlasticError):
    """Another process is at work on the same home, and both at once would do harm.

    To do: wait until it has ended, or end it: a night stops at a good place on SIGTERM, a server on Ctrl-C.
    """

    code = "PLASTIC-E004"


class MachineFault(PlasticError):
    """The disk is full, a file may not be read or written, or the machine refuses in another way.

    To do: mend what the message names (space, quota, owner, modes) and give the same command again. What was
    there before is whole: files are written beside and renamed.
    """

    code = "PLASTIC-E005"


class NoRoom(PlasticError):
    """What is to be written does not fit on the disk; it was seen before anything was written.

    To do: free some space, write elsewhere, or remove old packs: `plastic packs gc`.
    """

    code = "PLASTIC-E006"


class BadConfig(PlasticError):
    """config.toml, an option or an environment variable cannot be used.

    To do: the message names file, section and key, the hint the nearest known name or the legal values.
    `plastic config show --origin` shows every setting and where its value comes from; `plastic config set`
    checks before it writes.
    """

    code = "PLASTIC-C001"


class NoConsent(PlasticError):
    """The person has not agreed to what the command would do: to keep what is said, or to learn from it.

    To do: if you do agree, `plastic config set consent.log true` (keep what is said) or
    `plastic config set consent.train true` (nights may learn from it), or `plastic init`.
    """

    code = "PLASTIC-C002"


class BadData(PlasticError):
    """A file of samples, tasks, figures or settings does not follow its schema.

    To do: mend the lines that the message names. JSONL has one object a line:
    `{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}`.
    """

    code = "PLASTIC-D001"


class BadArchive(PlasticError):
    """A file that should hold an exported home is torn, was changed, or holds what no home holds.

    To do: nothing was written. Copy the file again from where it was made, or export the home once more.
    """

    code = "PLASTIC-D002"


class BaseNotFound(PlasticError):
    """No checkpoint at that path, hub id or built-in name.

    To do: check the spelling; `nano` is always there. A hub id needs the network once, and some need their
    terms accepted: `hf auth login`.
    """

    code = "PLASTIC-B001"


class BadCheckpoint(PlasticError):
    """A checkpoint is missing files, is truncated, or is of a kind that cannot be read.

    To do: every fault is in the message; a download that was broken off is mended by giving it again.
    """

    code = "PLASTIC-B002"


class BaseMismatch(PlasticError):
    """A pack learned on another base than the one at hand.

    To do: load that base with `--base`, wear another pack (`plastic rollback`), or teach this base anew
    (`plastic sleep --retry`).
    """

    code = "PLASTIC-B003"


class BadPack(PlasticError):
    """A pack's files do not hold what a pack must hold, or not what its manifest says.

    To do: `plastic packs verify` tells what is wrong. Wear another one (`plastic rollback`), or take the pack
    in again from where it came from. A pack that does not verify is never worn.
    """

    code = "PLASTIC-P001"


class PackNotFound(PlasticError):
    """No pack of that name in the store, or none to go back to.

    To do: `plastic packs list` shows what is there.
    """

    code = "PLASTIC-P002"


class Quarantined(PlasticError):
    """The pack was set apart: a night's gate refused it, or it learned from what was forgotten.

    To do: `plastic packs inspect NAME` tells why. It is worn or composed only with `--force`.
    """

    code = "PLASTIC-P003"


class BadKey(PlasticError):
    """A key that signs packs, or checks their signatures, cannot be used.

    To do: a private key is a PEM file that only you can read (`chmod 600 FILE`); `plastic packs keygen FILE`
    makes one.
    """

    code = "PLASTIC-P004"


class MemoryFault(PlasticError):
    """The memory log cannot be opened, read or written, or holds no such turn.

    To do: the hint says what to look at. A damaged log is never replaced by an empty one: restore it from an
    export (`plastic import`), or move it away to begin anew.
    """

    code = "PLASTIC-M001"


class TrainingFailed(PlasticError):
    """Training met numbers that are no numbers, or was given nothing to learn.

    To do: give more samples, or a lower learning rate; nothing of it is worn.
    """

    code = "PLASTIC-T001"
