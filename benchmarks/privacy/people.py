"""Names and postal addresses in sentences of other shapes than those the tagger was trained on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from mlx_plastic.memory.privacy.lexicon import lexicon
from privacy.marked import Marked, filled, pick, typed

NAMED = """
Since Tuesday {n} has been in hospital.
Whenever {f} cooks, the alarm goes off.
We owe {n} an apology.
Could somebody wake {f}?
The violin belonged to {n}, then to her niece.
Her supervisor, {n}, signed it.
Between {f} and me there is nothing left to say.
Neither {f} nor {f} turned up.
I am writing on behalf of {n}.
That was {f}'s idea, not mine.
According to {n} the boat leaks.
Yours truly,\\n{n}
Witnesses: {n}; {n}
Remember {f} from the choir?
{f} broke her ankle skiing.
{n} sold us the van.
Apparently {n} and {n} share a flat.
The plumber is called {n}.
You should have seen {f} dance.
No one but {n} has the keys.
My godson {f} turned nine.
Sorry {f}, I overslept.
Regards to {f} and the twins.
Which of these did {n} paint?
Passenger: {n}
In the photo, from left: {f}, {f} and {n}.
Please book a room for {n} and one for {n}.
The landlady, Mrs {l}, wants the deposit.
Dr. {l} moved my appointment.
Sergeant {l} took the statement.
It's {f}, let me in.
I married {n} in 1998.
what does {n} do for a living
I have known {f} {l} since kindergarten.
He introduced himself as {n}.
Invite {f}, but not {f}.
"{f}, hurry up!" she called.
Guests: {n}, {n}, {n}
The estate of {n} was auctioned.
Has {f} fed the rabbits?
""".strip().splitlines()
NOISY = """
so {f} just texted me AGAIN lmaooo
@wanderer22 did u hear bout {n}?? smh
{n} going live at 9 dont miss it
bruh {f} ate my leftovers 😭
stan {n} for clear skin
ngl {n} kinda slayed
HBD {f}!!! 🎂🎂
thinking bout {f} rn
{n} > everyone else in that movie
idk why but {f} reminds me of {f}
pls someone tell {f} to chill
rt if u think {n} deserves better
{f} was like nah n i was like ok
congrats {n} u earned it
me: exists. {f}: why tho
this is so {f} coded
saw {n} at the airport!!! no pic tho
free {n}
unpopular opinion: {n} cant act
{f} & {f} breaking up = end of an era
ty {f} for the soup 🍜
yo {f} wya
cant believe {f} is moving
new vid w/ {n} out now
ugh {f} again
""".strip().splitlines()
PLACED = """
The keys are with the neighbours, {a}.
Our workshop has moved to {a}.
Pick up the sofa from {a}.
Whoever lost a parrot: it sits on the roof of {a}.
Her last known address was {a}.
Send flowers to {a}.
{a} is where it all began.
The ambulance was called to {a}.
Please register my bike at {a}.
From {a} it is ten minutes on foot.
We rent a cellar at {a}.
Invoice address:\\n{a}
Did you ever live at {a}?
The parcel was left at {a} instead of {a}.
my gran's place: {a}
""".strip().splitlines()
STREETS = """
Juniper Foxglove Harrowgate Pemberton Quarry Wexcombe Saltmarsh Thistledown Blackthorn Cinderhall Dovecote Eastmere Fallowfield
Gorse Hazelnut Ironmonger Jubilee Kestrel Larchmont Millrace Nightingale Otter Plover Ravensworth Sparrow Tanglewood Umber
Vesper Windermere Yarrow
""".split()
ENGLISH = "Street Road Avenue Lane Drive Close Court Way Place Terrace Blvd St. Rd Ave Crescent".split()
GERMAN = "Lindenstraße|Am Mühlbach|Gartenweg|Bahnhofstr.|Schillerplatz|Kirchgasse|Ahornallee|Wiesenring|Birkenweg".split(
    "|"
)
FRENCH = "rue des Tilleuls|avenue Jean Moulin|boulevard Voltaire|impasse du Moulin|place de la Gare|chemin des Vignes".split(
    "|"
)
SPANISH = "Calle Mayor|Avenida de la Constitución|Paseo del Prado|Plaza Nueva|Calle del Sol".split("|")
ITALIAN = "Via Garibaldi|Corso Vittorio Emanuele|Piazza San Marco|Viale dei Tigli|Via Roma".split("|")
DUTCH = "Dorpsstraat|Kerklaan|Prinsengracht|Molenweg|Stationsplein".split("|")
TOWNS = "Larkmere|Port Haverly|Stonebridge|Eldham|Crowhurst|Maple Falls|Oakdene|Ashcombe|New Tarvin|Wellbrook".split(
    "|"
)
STATES = "AL AZ CA CO FL GA IL MA MI MN NC NY OH OR PA TX VA WA WI".split()
GERMAN_TOWNS = "Rosenheim|Bad Aibling|Oldenburg|Görlitz|Neustadt|Wittenberg".split("|")
FRENCH_TOWNS = "Annecy|Saint-Malo|Poitiers|Bayonne|Colmar".split("|")
HELD_OUT = json.loads(Path(__file__).with_name("names.json").read_text("utf-8"))


class People:
    """names: "known" draws from the detector's own lists, "unseen" from names that are in none of them."""

    def __init__(self, seed: int, names: str) -> None:
        self.draw = random.Random(seed)
        if names == "known":
            known = lexicon()
            self.firsts = [
                w.capitalize()
                for w, flags in sorted(known.items())
                if "f" in flags and "w" not in flags and w.isascii()
            ]
            self.lasts = [
                w.capitalize()
                for w, flags in sorted(known.items())
                if "l" in flags and "w" not in flags and w.isascii()
            ]
        else:
            self.firsts, self.lasts = HELD_OUT["first"], HELD_OUT["last"]
        self.slots: dict[str, Callable[[], str]] = {
            "f": lambda: self.draw.choice(self.firsts),
            "l": lambda: self.draw.choice(self.lasts),
            "n": self.name,
            "a": self.address,
        }

    def name(self) -> str:
        first, last = self.draw.choice(self.firsts), self.draw.choice(self.lasts)
        middle = self.draw.choice(["", "", "", " " + self.draw.choice("ABCDEGHJKLMNPRST") + "."])
        return f"{first}{middle} {last}"

    def named(self, count: int) -> list[Marked]:
        return [
            filled(self.draw.choice(NAMED), self.slots, dict.fromkeys("nfl", "name")) for _ in range(count)
        ]

    def noisy(self, count: int) -> list[Marked]:
        made = (
            filled(self.draw.choice(NOISY), self.slots, dict.fromkeys("nfl", "noisy name"))
            for _ in range(count)
        )
        return [typed(marked, self.draw) for marked in made]

    def placed(self, count: int) -> list[Marked]:
        return [filled(self.draw.choice(PLACED), self.slots, {"a": "address"}) for _ in range(count)]

    # -- addresses

    def address(self) -> str:
        return pick(
            self.draw,
            [
                self.american,
                self.american,
                self.british,
                self.german,
                self.french,
                self.southern,
                self.dutch,
                self.box,
            ],
        )

    def number(self, most: int = 200) -> str:
        return str(self.draw.randint(1, most)) + self.draw.choice(["", "", "", "", "a", "B"])

    def street(self) -> str:
        return f"{self.draw.choice(STREETS)} {self.draw.choice(ENGLISH)}"

    def gap(self) -> str:
        return self.draw.choice([", ", ", ", "\n"])

    def american(self) -> str:
        gap = self.gap()
        unit = self.draw.choice(
            [
                "",
                "",
                f"{gap}Apt {self.draw.randint(1, 40)}",
                f" Suite {self.draw.randint(100, 900)}",
                f", #{self.draw.randint(1, 99)}",
            ]
        )
        end = f"{self.draw.choice(TOWNS)}, {self.draw.choice(STATES)} {self.draw.randint(10000, 99999)}"
        return f"{self.draw.randint(1, 19999)} {self.street()}{unit}{gap}{end}"

    def british(self) -> str:
        code = f"{self.draw.choice(['SW', 'NE', 'LS', 'B', 'CF', 'EH'])}{self.draw.randint(1, 20)} {self.draw.randint(1, 9)}{self.draw.choice('ABDEFGHJLN')}{self.draw.choice('ABDEFGHJLN')}"
        gap = self.gap()
        flat = self.draw.choice(["", "", f"Flat {self.draw.randint(1, 30)}{gap}"])
        return f"{flat}{self.number()} {self.street()}{gap}{self.draw.choice(TOWNS)}{self.draw.choice([gap, ' '])}{code}"

    def german(self) -> str:
        return f"{self.draw.choice(GERMAN)} {self.number()}{self.gap()}{self.draw.randint(10000, 99999)} {self.draw.choice(GERMAN_TOWNS)}"

    def french(self) -> str:
        return f"{self.number()} {self.draw.choice(FRENCH)}{self.gap()}{self.draw.randint(10000, 95000)} {self.draw.choice(FRENCH_TOWNS)}"

    def southern(self) -> str:
        street, town = self.draw.choice(
            [(SPANISH, "Salamanca"), (ITALIAN, "Bologna"), (SPANISH, "Granada"), (ITALIAN, "Lecce")]
        )
        return f"{self.draw.choice(street)}{self.draw.choice([', ', ' '])}{self.number()}, {self.draw.randint(10000, 50000)} {town}"

    def dutch(self) -> str:
        return f"{self.draw.choice(DUTCH)} {self.number()}, {self.draw.randint(1000, 9999)} {self.draw.choice('ABCDE')}{self.draw.choice('GHJKL')} {self.draw.choice(['Zwolle', 'Delft', 'Breda'])}"

    def box(self) -> str:
        return f"{self.draw.choice(['P.O. Box', 'PO Box', 'Box'])} {self.draw.randint(10, 9999)}, {self.draw.choice(TOWNS)}, {self.draw.choice(STATES)} {self.draw.randint(10000, 99999)}"
