"""Names of people and places, and the ordinary words of English, all from lists that may be redistributed.

Faker (MIT) has the names and towns of some seventy locales; `names` (MIT) has the United States census's
(public domain); symspellpy (MIT) has 82,765 English words by frequency, names among them. Of the census only
the commonest are given to the detector: the others are names that it has never seen, and measure it.
"""

from __future__ import annotations

import gzip
import importlib
import json
import pkgutil
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from mlx_plastic.memory.privacy.words import PARTICLES

FIRST_KNOWN, LAST_KNOWN = 1500, 12_000  # of the census, by frequency
# Latin, Greek and Cyrillic: scripts whose words have spaces between them and capitals at their beginning
SCRIPTS = re.compile(r"[A-Za-zÀ-ɏͰ-ϿЀ-ӿ][A-Za-zÀ-ɏͰ-ϿЀ-ӿ'\u2019 .-]*")
LETTERS = re.compile(r"[^\W\d_]+")


@cache
def first_names() -> dict[str, tuple[str, ...]]:
    """By locale."""
    return _people(r"first_names?(_|$)")


@cache
def last_names() -> dict[str, tuple[str, ...]]:
    return _people(r"last_names?(_|$)")


def _people(attribute: str) -> dict[str, tuple[str, ...]]:
    import faker.providers.person as person

    found: dict[str, tuple[str, ...]] = {}
    for module in pkgutil.iter_modules(person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        names = {n for a in dir(provider) if re.match(attribute, a) for n in _flat(getattr(provider, a))}
        kept = sorted(n for n in names if SCRIPTS.fullmatch(n) and 1 < len(n) < 30)
        if len(kept) >= 5:
            found[module.name] = tuple(kept)
    return found


def _flat(value: object) -> Iterator[str]:
    if isinstance(value, dict | list | tuple | set):
        for item in value:
            yield item if isinstance(item, str) else item[0]


@cache
def towns() -> tuple[str, ...]:
    return _places(
        r"cit(y|ies)(_names)?$|municipalities$|communes$|localities$|concelhos$|freguesias$|districts?$|bairros$"
    )


@cache
def regions() -> tuple[str, ...]:
    return _places(
        r"countries$|states$|counties$|provinces$|regions$|departments$|cantons$|estados$|distritos$"
    )


def _places(attribute: str) -> tuple[str, ...]:
    import faker.providers.address as address

    found: set[str] = set()
    for module in pkgutil.iter_modules(address.__path__):
        provider = importlib.import_module(f"faker.providers.address.{module.name}").Provider
        for name in dir(provider):
            if re.match(attribute, name):
                for value in _flat(getattr(provider, name)):
                    found.add(value if not value.isdigit() else "")
    return tuple(sorted(v for v in found if SCRIPTS.fullmatch(v) and 2 < len(v) < 40))


@cache
def countries() -> tuple[str, ...]:
    """In English."""
    from faker.providers.address.en import Provider

    return tuple(sorted(c.split(" (")[0] for c in Provider.countries if SCRIPTS.fullmatch(c.split(" (")[0])))


@cache
def census(kind: str) -> tuple[str, ...]:
    """ "first" or "last" names of the census of 1990, the commonest first."""
    import names

    files = {"first": ("dist.male.first", "dist.female.first"), "last": ("dist.all.last",)}[kind]
    share: dict[str, float] = {}
    for file in files:
        for line in Path(names.__file__).with_name(file).read_text("ascii").splitlines():
            name, percent, *_ = line.split()
            share[name.capitalize()] = share.get(name.capitalize(), 0.0) + float(percent)
    return tuple(sorted(share, key=lambda n: -share[n]))


def ordinary_words(data: Path, least: int = 3) -> list[str]:
    """Words that stand at least `least` times in lower case, and not five times as often with a capital."""
    small: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for text in texts(data):
        for word in LETTERS.findall(text):
            if word.islower():
                small[word] += 1
            elif word[1:].islower():
                capital[word.lower()] += 1
    return [w for w, n in small.most_common() if n >= least and len(w) > 1 and capital[w] <= 5 * n]


def frequent_words(most: int = 60_000) -> list[str]:
    """English words by frequency in books, lower-cased, names among them."""
    import symspellpy

    file = Path(symspellpy.__file__).with_name("frequency_dictionary_en_82_765.txt")
    return [line.split()[0] for line in file.read_text("utf-8-sig").splitlines()[:most]]


def texts(data: Path) -> Iterator[str]:
    """Text that may be redistributed in changed form, and that benchmarks/bench_privacy.py does not measure on."""
    for line in (data / "gsm8k/train.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)["question"]
    for number in range(5):
        for talk in json.loads((data / f"taskmaster4/data_0{number}.json").read_text("utf-8")):
            yield from (turn["text"] for turn in talk["utterances"])
    for line in (data / "self-instruct/seed_tasks.jsonl").read_text("utf-8").splitlines():
        task = json.loads(line)
        yield task["instruction"]
        for instance in task["instances"]:
            yield from (instance["input"], instance["output"])
    for line in (data / "self-instruct/user_oriented_instructions.jsonl").read_text("utf-8").splitlines():
        task = json.loads(line)
        yield task["instruction"]
        for instance in task["instances"]:
            yield from (instance["input"], instance["output"])
    for file in sorted((data / "chatterbot").glob("*.yml")):
        for line in file.read_text("utf-8").splitlines():
            yield line.strip(" -'\"")
    yield from (data / "tinystories-sample/tinystories_a.txt").read_text("utf-8").split("<|endoftext|>")
    yield from (data / "tinyshakespeare/input.txt").read_text("utf-8").split("\n\n")
    for file in ("p_codes.txt", "other_codes.txt"):
        yield from (data / "dtc" / file).read_text("utf-8").splitlines()


def parts(names: Iterable[str]) -> set[str]:
    """The lower-cased words of names, without particles and initials."""
    words = (w.lower() for name in names for w in LETTERS.findall(name))
    return {w for w in words if len(w) > 1 and w not in PARTICLES}


def lexicon(data: Path) -> dict[str, str]:
    """What is known of each lower-cased word, as letters: w an ordinary word, W a very ordinary one,
    f a first name, l a last name, t a town, r a country or region."""
    words = ordinary_words(data)
    groups = {
        "W": set(words[:3000]),
        "f": parts(n for names in first_names().values() for n in names)
        | parts(census("first")[:FIRST_KNOWN]),
        "l": parts(n for names in last_names().values() for n in names) | parts(census("last")[:LAST_KNOWN]),
        "t": parts(towns()),
        "r": parts(regions()),
    }
    names = groups["f"] | groups["r"]
    frequent = [w for w in frequent_words() if len(w) > 1 and w not in names]
    groups["w"] = set(words) | set(frequent[:6000]) | (set(frequent) - groups["l"] - groups["t"])
    known: dict[str, str] = {}
    for letter, group in groups.items():
        for word in group:
            known[word] = known.get(word, "") + letter
    return known


def write_lexicon(known: dict[str, str], path: Path) -> None:
    """One word a line, by what is known of it, compressed without a time stamp: the same words, the same bytes."""
    by_flags: dict[str, list[str]] = {}
    for word, flags in known.items():
        by_flags.setdefault(flags, []).append(word)
    text = "".join(f"{flags} {' '.join(sorted(words))}\n" for flags, words in sorted(by_flags.items()))
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
