"""Public texts whose licences allow a model trained on them to be given away; the model card names them.

They are looked for under the folder that MLX_PLASTIC_DATA names; without it nano is trained on our own text alone.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from nano_recipe.people import Chat

SOURCES = {
    "taskmaster4": "Taskmaster TM-4-2024, Google LLC (B. Byrne, S. Ganesh), CC BY 4.0",
    "chatterbot": "chatterbot-corpus, Gunther Cox and contributors, BSD-3-Clause",
    "tinystories-sample": "TinyStories excerpt (Eldan & Li), CDLA-Sharing-1.0",
    "oz-public-domain": "The Wonderful Wizard of Oz, L. Frank Baum, public domain",
}


def load(folder: Path) -> dict[str, list[Chat]]:
    """Chats and passages by source; a passage is a chat of one assistant turn."""
    found = {
        name: globals()[f"_{name.split('-')[0]}"](folder / name)
        for name in SOURCES
        if (folder / name).is_dir()
    }
    for chats in found.values():
        random.Random(0).shuffle(chats)
    return found


def _taskmaster4(folder: Path) -> list[Chat]:
    chats = []
    for file in sorted(folder.glob("data_0[0-3].json")):
        for dialog in json.loads(file.read_text("utf-8")):
            chat: Chat = []
            for turn in dialog["utterances"]:
                role = "user" if turn["speaker"] == "user" else "assistant"
                text = " ".join(turn["text"].split())
                if chat and chat[-1]["role"] == role:
                    chat[-1]["content"] += f" {text}"
                elif chat or role == "user":
                    chat.append({"role": role, "content": text})
            if 2 <= len(chat) <= 8 and sum(len(m["content"]) for m in chat) < 800:
                chats.append(chat)
    return chats


def _chatterbot(folder: Path) -> list[Chat]:
    chats = []
    for file in sorted(folder.glob("*.yml")):
        for block in re.split(r"^- - ", file.read_text("utf-8"), flags=re.M)[1:]:
            turns = [" ".join(t.split()).strip("'\"") for t in re.split(r"^  - ", block, flags=re.M)]
            if len(turns) == 2 and all(0 < len(t) < 250 for t in turns):
                chats.append(
                    [
                        {"role": role, "content": t}
                        for role, t in zip(("user", "assistant"), turns, strict=True)
                    ]
                )
    return chats


def _passages(text: str, characters: int = 600) -> list[Chat]:
    """Whole sentences, up to about `characters` in a passage."""
    passages = [""]
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        if len(passages[-1]) + len(sentence) > characters:
            passages.append("")
        passages[-1] = f"{passages[-1]} {sentence}".strip()
    asked = {"role": "user", "content": "Tell me a story."}
    return [[asked, {"role": "assistant", "content": p}] for p in passages if 0 < len(p) <= characters]


def _tinystories(folder: Path) -> list[Chat]:
    return _passages("\n\n".join(f.read_text("utf-8") for f in sorted(folder.glob("*.txt"))))


def _oz(folder: Path) -> list[Chat]:
    return _passages("\n\n".join(f.read_text("utf-8") for f in sorted(folder.glob("*.txt"))))
