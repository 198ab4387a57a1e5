"""Emails, addresses of sites and machines, cards, bank accounts, ids and telephones, in plain sentences."""

from __future__ import annotations

import random
import string

from privacy.marked import Marked, filled, some

TEMPLATES = {
    "email": """
        Best to reach me under {x}.
        {x} bounced again, any idea?
        Add {x} and {x} to the invitation.
        is {x} still your address
        Unsubscribe {x} from the newsletter!
        My new mail: {x}
        Forward it to <{x}>, thanks
        Login: {x}
        the supplier ({x}) never answers
    """,
    "iban": """
        The rent goes to {x} every month.
        IBAN: {x}
        Refund me on {x}, please.
        Which bank does {x} belong to?
        can you check if {x} is valid
        Our association's account, {x}, was closed.
    """,
    "card": """
        They charged {x} twice.
        Card {x}, valid until 09/29
        Remove {x} from my wallet app please
        is {x} a visa or a mastercard
        I typed {x} into a fake shop yesterday!
        Please block {x}.
    """,
    "national_id": """
        Her social security number is {ssn}.
        SSN {ssn}
        I wrote {ssn} on the form.
        National insurance: {nino}
        el DNI es {dni}
        codice fiscale {cf}
        PESEL {pesel}, born in Gdynia
        my Aadhaar is {aadhaar}
        personnummer {swedish}
        henkilötunnus {finnish}
    """,
    "ip": """
        The printer sits on {v4}.
        {v4} is hammering our login page
        route add {v4} via {v4}
        Ping {v6} from the laptop.
        DNS answers with {v6}, is that ours?
        blocked: {v4}
    """,
    "url": """
        The recipe is on {x}
        Have you read {x}?
        {x} gives me a 404
        Bookmark {x} and {x}.
        (source: {x})
        Their shop, {x}, is down.
    """,
    "phone": """
        You can phone me on {x} after six.
        Tel. {x}
        my sister's mobile is {x}
        Fax: {x}
        {x} keeps calling and hangs up, can you text them?
        Dial {x} for the reception.
        WhatsApp {x} is fine too
        The new number is {x}.
        leave a message at {x}
    """,
}
COUNTRIES = {  # how long the account part is, and whether it begins with letters
    "DE": (18, 0), "FR": (23, 0), "ES": (20, 0), "NL": (14, 4), "GB": (18, 4), "IT": (23, 1), "CH": (17, 0),
    "AT": (16, 0), "PL": (24, 0), "SE": (20, 0), "BE": (12, 0), "NO": (11, 0), "PT": (21, 0), "IE": (18, 4),
}  # fmt: skip
HOSTS = "larkmail quillpost zephyrbox tundra-net fernwood hollerith bluegate pinecone vantage oxbow".split()
ENDS = "com net org de co.uk fr io eu info biz se ch".split()
USERS = (
    "j.abernathy k_osei mirelle tkowal88 w.van.dyke ivo-s r2 contact p.t.barnes hello+news zoe1990".split()
)
PHONES = """
    +1 ### ### ####|(2##) 5##-####|6##-4##-####|+44 20 7### ####|020 8### ####|07### ######|+49 30 #######|
    0170 #######|089/######|+33 6 ## ## ## ##|01 ## ## ## ##|+34 6## ### ###|6## ## ## ##|+39 0## #######|
    +46 70-### ## ##|070-### ## ##|+61 4## ### ###|+91 98### #####|98########|+41 44 ### ## ##|+31 6 ########|
    06-########|+48 6## ### ###|+351 91# ### ###|+55 11 9####-####|1-800-###-####|4##.5##.####|+353 87 ### ####
""".replace("\n", "").split("|")


class Numbers:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.makers = {
            "email": self.email, "iban": self.iban, "card": self.card, "url": self.url, "phone": self.phone,
            "v4": self.v4, "v6": self.v6, "ssn": self.ssn, "nino": self.nino, "dni": self.dni, "cf": self.fiscal,
            "pesel": self.pesel, "aadhaar": self.aadhaar, "swedish": self.swedish, "finnish": self.finnish,
        }  # fmt: skip

    def texts(self, kind: str, count: int) -> list[Marked]:
        lines = [line.strip() for line in TEMPLATES[kind].strip().splitlines()]
        slots = self.makers | ({"x": self.makers[kind]} if kind in self.makers else {})
        marks = dict.fromkeys(slots, kind)
        return [filled(self.draw.choice(lines), slots, marks) for _ in range(count)]

    def digits(self, count: int) -> str:
        return some(self.draw, string.digits, count)

    def hashed(self, shape: str) -> str:
        return "".join(self.digits(1) if c == "#" else c for c in shape.strip())

    def email(self) -> str:
        return f"{self.draw.choice(USERS)}@{self.draw.choice(HOSTS)}.{self.draw.choice(ENDS)}"

    def url(self) -> str:
        host = f"{self.draw.choice(HOSTS)}.{self.draw.choice(ENDS)}"
        path = self.draw.choice(["", "/", "/kitchen/soup-17.html", "/a/b?q=stew&p=2", "/~ida/#top"])
        head = self.draw.choice(["https://", "http://", "https://www.", "www."])
        return head + host + path

    def v4(self) -> str:
        return ".".join(str(self.draw.randint(1, 254)) for _ in range(4))

    def v6(self) -> str:
        groups = [f"{self.draw.randint(0x100, 0xFFFF):x}" for _ in range(8)]
        if self.draw.random() < 0.4:
            groups[2:6] = [""]
        return ":".join(groups)

    def iban(self) -> str:
        country = self.draw.choice(list(COUNTRIES))
        length, letters = COUNTRIES[country]
        body = some(self.draw, string.ascii_uppercase, letters) + self.digits(length - letters)
        check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
        whole = f"{country}{check:02d}{body}"
        spaced = " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))
        return self.draw.choice([whole, spaced, spaced])

    def card(self) -> str:
        prefix, length = self.draw.choice(
            [
                ("4", 16),
                ("5", 16),
                ("51", 16),
                ("2221", 16),
                ("34", 15),
                ("37", 15),
                ("6011", 16),
                ("36", 14),
                ("3528", 16),
            ]
        )
        if prefix == "5":
            prefix += self.draw.choice("12345")
        body = prefix + self.digits(length - len(prefix) - 1)
        doubled = [sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(body))]
        whole = body + str(-sum(doubled) % 10)
        cut = [4, 10, 15] if length in (14, 15) else [4, 8, 12, 16]
        parts = [whole[a:b] for a, b in zip([0, *cut], [*cut, None], strict=False) if whole[a:b]]
        return self.draw.choice([whole, " ".join(parts), "-".join(parts)])

    def phone(self) -> str:
        return self.hashed(self.draw.choice(PHONES))

    def ssn(self) -> str:
        return (
            f"{self.draw.randint(1, 665):03d}-{self.draw.randint(1, 99):02d}-{self.draw.randint(1, 9999):04d}"
        )

    def nino(self) -> str:
        pair = self.draw.choice(["AB", "CE", "JG", "PW", "SY", "TK"])
        return self.draw.choice(["{} {} {} {} {}", "{}{}{}{}{}"]).format(
            pair, *(self.digits(2) for _ in range(3)), self.draw.choice("ABCD")
        )

    def dni(self) -> str:
        number = self.digits(8)
        return number + self.draw.choice(["", "-"]) + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]

    def fiscal(self) -> str:
        from stdnum.it.codicefiscale import calc_check_digit

        body = f"{some(self.draw, 'BCDFGLMNRST', 6)}{self.digits(2)}{self.draw.choice('ABCDEHLMPRST')}{self.draw.randint(1, 31):02d}H{self.digits(3)}"
        return body + calc_check_digit(body)

    def pesel(self) -> str:
        body = f"{self.draw.randint(40, 99)}{self.draw.randint(1, 12):02d}{self.draw.randint(1, 28):02d}{self.digits(4)}"
        check = -sum(int(d) * w for d, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=True)) % 10
        return f"{body}{check}"

    def aadhaar(self) -> str:
        from stdnum import verhoeff

        body = self.draw.choice("23456789") + self.digits(10)
        whole = body + verhoeff.calc_check_digit(body)
        return self.draw.choice([whole, f"{whole[:4]} {whole[4:8]} {whole[8:]}"])

    def swedish(self) -> str:
        from stdnum import luhn

        body = f"{self.draw.randint(40, 99)}{self.draw.randint(1, 12):02d}{self.draw.randint(1, 28):02d}{self.digits(3)}"
        return f"{body[:6]}-{body[6:]}{luhn.calc_check_digit(body)}"

    def finnish(self) -> str:
        date = f"{self.draw.randint(1, 28):02d}{self.draw.randint(1, 12):02d}{self.draw.randint(40, 99)}"
        number = f"{self.draw.randint(2, 899):03d}"
        return f"{date}-{number}" + "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(date + number) % 31]


def numbers(kind: str, count: int, seed: int) -> list[Marked]:
    return Numbers(seed).texts(kind, count)
