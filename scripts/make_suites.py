"""Write the suites that ship with the package, from the held-out side of nano's recipe; seeded.

    python scripts/make_suites.py          # evals/suites/*.jsonl and sleep/general_prompts.jsonl

core.jsonl: the harness, small tasks of many domains. told.jsonl, untold.jsonl: facts in a context, asked for in
wordings and about people that nano has not read. general.jsonl: conversations for general perplexity.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from nano_recipe import mixture, people, skills
from nano_recipe.people import Chat

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "mlx_plastic"
PER_DOMAIN = 6
EXACT = {"copying", "format", "code", "counting", "months"}  # the answer is the whole of it


def task(domain: str, number: int, chat: Chat, check: dict[str, Any], *tags: str) -> dict[str, Any]:
    return {
        "id": f"{domain}-{number:03d}",
        "domain": domain,
        "tags": [domain, *tags],
        "messages": chat[:-1],
        "check": check,
    }


def check_of(domain: str, said: str) -> dict[str, Any]:
    """What an answer must hold; as lenient on form as the task allows."""
    if domain == "refusal":
        return {"refuses": said == skills.REFUSAL}
    if domain == "arithmetic":
        return {"number": int(said.split()[-1])}
    if domain == "format" and said[0] in "[{" and '"' in said:
        return {"json": json.loads(said)}
    if domain in EXACT or domain in ("style", "reasoning", "summarizing"):
        return {"equals": said.rstrip(".")}
    if domain == "facts":
        return {"contains": [said.rstrip(".").replace(" legs", "").split()[-1]]}
    return {"contains": [said.rstrip(".")]}


def distinct(r: random.Random, skill: skills.Skill, count: int) -> list[Chat]:
    found: dict[str, Chat] = {}
    while len(found) < count:
        chat = skill(r, True)
        found.setdefault(chat[0]["content"], chat)
    return list(found.values())


def core(r: random.Random) -> list[dict[str, Any]]:
    tasks = []
    for domain, (skill, _) in skills.SKILLS.items():
        if domain in ("about", "months"):
            continue
        for i, chat in enumerate(distinct(r, skill, PER_DOMAIN), 1):
            tasks.append(task(domain, i, chat, check_of(domain, chat[-1]["content"])))
    for i in range(1, PER_DOMAIN + 1):
        known, chat = a_talk(r, facts=2)
        tasks.append(task("recall", i, *asked(r, known, chat)))
    for i in range(1, PER_DOMAIN + 1):
        known, chat = a_talk(r, facts=3)
        chat += mixture.some_skills(r, 5, held=True)
        tasks.append(task("long-recall", i, *asked(r, known, chat)))
    return tasks


def a_talk(r: random.Random, *, facts: int) -> tuple[list[people.Fact], Chat]:
    known = people.some_facts(r, facts, held=True, unusual=0.1, people=2)
    chat = []
    for fact in known:
        chat += people.exchange(people.statement(r, fact, held=True), f"Noted. {people.answer(fact)}")
    return known, chat


def asked(r: random.Random, known: list[people.Fact], chat: Chat) -> tuple[Chat, dict[str, Any]]:
    """A question about one of the known facts in a held-out wording; its value must come."""
    fact = r.choice(known)
    question = people.question(r, fact.subject, fact.attribute, held=True)
    return chat + people.exchange(question, people.answer(fact)), {"contains": [fact.value]}


def told(r: random.Random, count: int) -> list[dict[str, Any]]:
    tasks = []
    for i in range(1, count + 1):
        known, chat = a_talk(r, facts=r.randint(1, 4))
        if r.random() < 0.3:
            notes = "\n".join(f"- {people.statement(r, f, held=True)}" for f in known)
            chat = [{"role": "system", "content": f"Notes from earlier talks:\n{notes}"}]
        tasks.append(task("told", i, *asked(r, known, chat)))
    return tasks


def untold(r: random.Random, count: int) -> list[dict[str, Any]]:
    """Questions about people nobody has spoken of: any of the attribute's values would be a chance hit."""
    tasks = []
    for i in range(1, count + 1):
        fact = people.some_facts(r, 1, held=True, unusual=0.0, people=1)[0]
        chat = people.exchange(people.question(r, fact.subject, fact.attribute, held=True), "")
        tasks.append(task("untold", i, chat, {"contains": [fact.value]}))
    return tasks


def general(r: random.Random, count: int) -> list[dict[str, Any]]:
    now = mixture.stage(1.0)
    chats = [mixture.some_skills(r, r.randint(3, 5), held=True) for _ in range(count // 2)]
    chats += [people.told_then_asked(r, untold=now.untold, unusual=0.2, facts=2, asks=3) for _ in range(count // 2)]
    return [{"messages": chat} for chat in chats]


def general_prompts(r: random.Random, count: int) -> list[dict[str, Any]]:
    """What a base is asked so that its own answers can be rehearsed; nothing here is in the suites."""
    chats: dict[str, Chat] = {}
    while len(chats) < count:
        name = r.choice([*skills.SKILLS, "nothing", "nothing", "nothing", "greeting", "note"])
        if name == "nothing":
            chat = people.nothing_told(r, 1)
        elif name == "greeting":
            chat = people.exchange(people.greeting(r), people.greet_back(None))
        elif name == "note":
            fact = people.some_facts(r, 1, held=False, unusual=0.1, people=1)[0]
            chat = people.exchange(people.statement(r, fact), "")
        else:
            chat = skills.SKILLS[name][0](r, False)
        chats.setdefault(chat[0]["content"], chat)
    return [{"messages": chat[:1]} for chat in chats.values()]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    print(f"{path.relative_to(PACKAGE)}: {len(rows)}")


def main() -> None:
    suites = PACKAGE / "evals" / "suites"
    write(suites / "core.jsonl", core(random.Random("core")))
    write(suites / "told.jsonl", told(random.Random("told"), 120))
    write(suites / "untold.jsonl", untold(random.Random("untold"), 120))
    write(suites / "general.jsonl", general(random.Random("general"), 80))
    write(PACKAGE / "sleep" / "general_prompts.jsonl", general_prompts(random.Random("prompts"), 160))


if __name__ == "__main__":
    main()
