"""What the slots of the templates are filled with; nobody's data."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable

SLOT = re.compile(r"\{(([A-Za-z]+)\d?)\}")

SINGLE = {
    "name": """Alma Bela Carla Dorian Edda Finn Greta Hugo Ines Jannis Katrin Lars Maren Nils Olga Piotr Rosa
        Silas Thea Ulla Vito Wanda Yannick Zora Amir Bao Chidi Daria Emeka Farah Goran Hana Imran Jin""",
    "surname": """Bergmann Castelli Dvorak Ferreira Haugen Ibsen Kovacs Lindqvist Moreau Novak Okafor Petrov
        Quist Rossi Sato Tanaka Varga Weiss Yilmaz Zeller""",
    "city": """Aarhus Bergen Bologna Bristol Cork Dresden Ghent Graz Izmir Krakow Leeds Lucerne Lyon Malaga
        Montreal Nagoya Oslo Pune Quito Riga Seville Tampere Turin Utrecht Vigo Zagreb""",
    "country": """Albania Brazil Canada Denmark Estonia Finland Ghana Hungary Iceland Japan Kenya Latvia
        Mexico Norway Peru Portugal Slovenia Tunisia Uruguay Vietnam""",
    "job": """nurse carpenter translator gardener pilot librarian electrician baker surveyor midwife welder
        cellist potter clerk chemist farmer referee lawyer""",
    "colour": "turquoise crimson grey yellow indigo beige orange olive white violet",
    "season": "spring summer autumn winter",
    "sport": "badminton volleyball fencing rowing hockey judo basketball squash",
    "instrument": "accordion trombone harp clarinet banjo viola drums oboe",
    "language": "Italian Greek Polish Korean Swedish Arabic Dutch Hindi Basque Finnish",
    "things": "stamps maps radios postcards bottles coins cameras",
    "allergen": "peanuts sesame shellfish soy celery walnuts pollen kiwi",
    "pet": "dog cat rabbit tortoise parrot hamster canary hedgehog donkey",
    "petname": "Biscuit Mocha Luna Oscar Pepper Nelson Suki Waffle Bruno Ziggy",
    "flower": "peony lily sunflower rose lupin iris poppy",
    "subject": "geology economics botany linguistics algebra philosophy robotics medicine theology acoustics",
    "car": "Volvo Fiat Skoda Honda Renault Toyota Saab",
    "month": "January February March April June July August September October November December",
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "tech": "Python Rust Go Postgres Kotlin React Redis Elixir SQLite Swift",
    "project": "Lighthouse Atlas Kestrel Marmot Harbour Sundial Orchard Beacon",
    "ident": "load_rows parse user_id tick render fetch_all node queue checksum retry_count worker",
    "Ident": "Reader Worker TickStore Parser RowSet",
    "IDENT": "API APP WORKER CACHE",
    "host": "build.internal node7.lan api.example.org registry.example.net db.staging.lan",
    "file": "reports/summary.xlsx src/main.rs /etc/app/config.yaml lib/parser.py data/raw.csv notes.md",
    "word": "serendipity candid lattice brisk umbrella mellow threshold gossip ephemeral",
}
SEVERAL = {
    "food": "lentil soup|gnocchi|risotto|pancakes|falafel|couscous|goulash|ramen|pizza|blue cheese|liver|"
    "mushrooms|fried fish|dumplings|rhubarb cake|curry",
    "drink": "green tea|black tea|cocoa|cider|tonic water|apple juice|oat milk|buttermilk|beer|coffee",
    "music": "jazz|folk music|techno|opera|reggae|old punk records|baroque music|hip hop",
    "film": "horror|crime|science fiction|western|silent|romantic|animated",
    "hobby": "birdwatching|fishing|sailing|baking|hiking|bouldering|swimming in the lake|dancing|sketching|"
    "mushroom picking|geocaching",
    "rel": "sister|brother|mother|father|aunt|uncle|cousin|daughter|son|wife|husband|grandmother|girlfriend|"
    "flatmate|niece|nephew|partner|best friend|mother-in-law|stepson",
    "nick": "Boss|Skipper|Doc|Ace|Chief|Duchess|Sparky|Maestra|Bear|Sir|Coach|Lady B|Big Al",
    "bye": "Cheers, mate|Onwards|Over and out|So it goes|Have a calm day",
    "tool": "Obsidian|Excel|a paper diary|Trello|Emacs|Notion|sticky notes",
    "med": "metformin|ramipril|ibuprofen|thyroxine|cortisone|vitamin D|melatonin|losartan|amoxicillin",
    "machine": "ThinkPad|MacBook Air|Framework 13|iPhone|Mac mini|Pixel|Surface",
    "os": "Debian|Ubuntu Server|FreeBSD|Arch|Windows 11|NixOS|Fedora",
    "company": "Norvik|Halden & Sons|Brightwater|the city library|Otter Labs|a publisher|Tornio Steel",
}
LISTS = {k: v.split() for k, v in SINGLE.items()} | {k: v.split("|") for k, v in SEVERAL.items()}


def _code(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(string.ascii_uppercase + string.digits, k=length))


def _date(draw: random.Random) -> str:
    day, month = draw.randint(1, 28), draw.choice(LISTS["month"])
    forms = (f"{day} {month}", f"{month} {day}", f"the {day}th of {month}", f"{day}.{draw.randint(1, 12)}.")
    return draw.choice(forms)


def _url(draw: random.Random) -> str:
    host = draw.choice(("www.example.org", "news.example.com", "wiki.example.net"))
    return f"https://{host}/" + draw.choice(("docs/v2/auth", "blog/batteries", "p/8812", "watch?v=a81Kx"))


def _amount(draw: random.Random) -> str:
    number = draw.choice((f"{draw.randint(2, 99)}0", f"{draw.randint(1, 40)},{draw.randint(100, 999)}"))
    return draw.choice((f"{number} euros", f"${number}", f"{number} kr", f"£{number}"))


MADE: dict[str, Callable[[random.Random], str]] = {
    "small": lambda d: str(d.randint(2, 9)),
    "two": lambda d: str(d.randint(12, 79)),
    "num": lambda d: str(d.randint(120, 880)),
    "mm": lambda d: f"{d.randint(0, 59):02d}",
    "year": lambda d: str(d.randint(1985, 2025)),
    "shoe": lambda d: str(d.randint(36, 47)),
    "dose": lambda d: d.choice(("5", "10", "25", "50", "100", "500")),
    "ram": lambda d: d.choice(("8", "16", "32", "64")),
    "disk": lambda d: d.choice(("1", "2", "4", "8")),
    "port": lambda d: str(d.randint(3000, 9900)),
    "time": lambda d: d.choice((f"{d.randint(6, 21)}:{d.choice(('00', '15'))}", f"{d.randint(1, 11)} pm")),
    "ver": lambda d: f"{d.randint(0, 5)}.{d.randint(0, 20)}.{d.randint(0, 9)}",
    "order": lambda d: d.choice(("A-", "#", "", "INV-")) + str(d.randint(20_000, 990_000)),
    "track": lambda d: _code(d, 2) + str(d.randint(10**8, 10**11)),
    "flight": lambda d: d.choice(("SK", "LH", "AF", "TP")) + str(d.randint(110, 4800)),
    "letters": lambda d: _code(d, 6),
    "row": lambda d: d.choice("ABCDEF") + str(d.randint(1, 40)),
    "date": _date,
    "url": _url,
    "amount": _amount,
}  # fmt: skip


def fill(template: str, draw: random.Random) -> str:
    """The template with every slot filled: {name} the same wherever it stands, {name2} another, numbers anew.

    Braces with another word between them are no slots: templates hold JSON and code too.
    """
    filled: dict[str, str] = {}

    def one(match: re.Match[str]) -> str:
        slot, kind = match.groups()
        if kind in MADE:
            return MADE[kind](draw)
        if kind not in LISTS:
            return match[0]
        if slot not in filled:
            filled[slot] = draw.choice([v for v in LISTS[kind] if v not in filled.values()])
        return filled[slot]

    return SLOT.sub(one, template.replace("\\n", "\n"))
