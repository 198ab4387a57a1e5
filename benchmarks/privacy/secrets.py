"""Secrets as people tell them to a chat: made-up tokens of real forms, passwords, PINs, keys, in prose."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

from privacy.marked import Marked, filled, some

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
WORD, HEX = LOWER + UPPER + DIGITS, "0123456789abcdef"

TOKEN = """
Something is off: {x} gets me a 403 every time.
Would you mind checking {x}?
I stuck {x} on a slide by accident, how bad is that?
Before you ask, yes, I used {x}.
Can {x} be restricted to read only?
The docs say to replace YOUR_TOKEN, so I wrote {x} there.
{x} belongs to the old tenant
Does {x} expire?
A customer just sent us {x} in a ticket!
Run it again, this time with {x}
{x}, {x} and nothing else is in the vault.
who made {x}?
""".strip().splitlines()
PASSWORD = """
I keep forgetting it: my password is {x}
Her laptop opens with the password {x}.
the new router password is {x} (capital letters matter)
Sign in as guest with password {x}
Make {x} my new password
He told me his password, {x}, on the phone.
passcode: {x}
Please memorise: PayPal password = {x}
It rejected the password {x} three times.
I think {x} was the password before the update.
username kim, password {x}
My passwords are {x} and {x}.
Never use {x} as your password again.
PW for the wiki: {x}
the vault's passphrase is {x}
""".strip().splitlines()
PIN = """
I chose {d} as my PIN.
my sim pin is {d}
Pin: {d}
The access code to the parking lot is {d}.
Your login code: {d}
grandma's door code is {d}, ring twice
the keypad code changed to {d}
Enter the PIN {d} at the machine.
the safe's combination is {d}
use verification code {d} within ten minutes
""".strip().splitlines()
KEY = """
Their API key is {x}, mine is still pending.
private key: {x}
token={x}
My Last.fm secret key is {x}
Here is the activation key {x} for your copy.
API_SECRET={x}
Keep this recovery key: {x}
the deploy key was {x}
bearer token {x}
auth key is {x} as far as I know
""".strip().splitlines()
PHRASE = """
seed phrase = {p}
My wallet's recovery phrase is: {p}
I set the passphrase to "{p}".
""".strip().splitlines()

HUMAN = """
Giraffe_88! november2003 d0ntT3llAny1 happyfeet21 Schn33mann% nirvana1994 g00dm0rning! L1m3_Soda apfelstrudel3 K1lim4njar0
Hemingway$61 zxcvbnm1 Lofoten2022 madrid_1936 fl4mingo? birdlady12 T3rr4ria Neon*green9 pepper&Salt3 r0ckyB0y#
""".split()
PHRASES = """
basket comet lobster prairie whistle candle fossil dragon mitten pepper saucer nickel|hollow parrot engine ribbon|
copper island yogurt banner fabric walrus cradle pilot donkey temple magnet quartz|nine gentle hammers singing
""".replace("\n", "").split("|")


class Secrets:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        s = self.some
        self.tokens: dict[str, Callable[[], str]] = {
            "aws": lambda: self.draw.choice(["AKIA", "ASIA"]) + s(UPPER + "234567", 16),
            "aws-secret": lambda: base64.b64encode(self.draw.randbytes(30)).decode(),
            "github": lambda: self.draw.choice(["ghp_", "gho_", "ghs_"]) + s(WORD, 36),
            "gitlab": lambda: "glpat-" + s(WORD + "-_", 20),
            "slack": lambda: f"xoxp-{s(DIGITS, 11)}-{s(DIGITS, 12)}-{s(DIGITS, 12)}-{s(HEX, 32)}",
            "stripe": lambda: self.draw.choice(["sk_live_", "rk_test_"]) + s(WORD, self.draw.choice([24, 99])),
            "google": lambda: "AIza" + s(WORD + "-_", 35),
            "openai": lambda: f"sk-{self.draw.choice(['', 'proj-'])}{s(WORD, 20)}T3BlbkFJ{s(WORD, 20)}",
            "anthropic": lambda: "sk-ant-admin01-" + s(WORD + "-_", 93) + "AA",
            "huggingface": lambda: "hf_" + s(LOWER + UPPER, 34),
            "sendgrid": lambda: f"SG.{s(WORD + '-_', 22)}.{s(WORD + '-_', 43)}",
            "twilio": lambda: "AC" + s(HEX, 32),
            "npm": lambda: "npm_" + s(WORD, 36),
            "telegram": lambda: f"{s(DIGITS, 9)}:AA{s(WORD + '-_', 33)}",
            "jwt": lambda: f"eyJ{s(WORD, 20)}.eyJ{s(WORD, 60)}.{s(WORD + '-_', 43)}",
            "azure": lambda: base64.b64encode(self.draw.randbytes(64)).decode(),
            "login url": lambda: f"mysql://root:{s(WORD, 12)}@10.0.3.7/shop",
            "shopify": lambda: "shpss_" + s(HEX, 32),
            "grafana": lambda: f"glsa_{s(WORD, 32)}_{s(HEX, 8)}",
            "heroku": lambda: "HRKU-" + s(WORD + "-_", 60),
            "notion": lambda: "ntn_" + s(DIGITS, 11) + s(WORD, 35),
            "ssh key": lambda: f"-----BEGIN OPENSSH PRIVATE KEY-----\n{s(WORD, 70)}\n{s(WORD, 70)}\n-----END OPENSSH PRIVATE KEY-----",
            "unknown issuer": lambda: f"{s(LOWER, 4)}_{s(WORD, 40)}",
        }  # fmt: skip
        self.keys: tuple[Callable[[], str], ...] = (
            lambda: s(HEX, 32), lambda: s(HEX, 64), lambda: s(WORD, 28), lambda: s(WORD, 40),
            lambda: "-".join(s(UPPER + DIGITS, 4) for _ in range(5)),
            lambda: base64.urlsafe_b64encode(self.draw.randbytes(24)).decode(),
            lambda: f"{s(HEX, 8)}-{s(HEX, 4)}-{s(HEX, 4)}-{s(HEX, 4)}-{s(HEX, 12)}",
        )  # fmt: skip

    def some(self, letters: str, count: int) -> str:
        return some(self.draw, letters, count)

    def password(self) -> str:
        kind = self.draw.random()
        if kind < 0.5:
            return self.draw.choice(HUMAN)
        if kind < 0.8:
            inner = self.some(WORD + "!#%&*+=?@^_~", self.draw.randint(6, 16))
            return self.some(LOWER, 1) + inner + self.some(DIGITS, 1)
        return self.some(LOWER, self.draw.randint(4, 10)) + self.some(DIGITS, self.draw.randint(1, 4))

    def texts(self, count: int) -> list[Marked]:
        """Two in five issuers' tokens, three passwords in ten, the rest PINs, keys and phrases."""
        made = []
        for _ in range(count):
            group = self.draw.choices([TOKEN, PASSWORD, PIN, KEY, PHRASE], [40, 30, 10, 16, 4])[0]
            what, make = "", self.password
            if group is TOKEN:
                what = self.draw.choice(list(self.tokens))
                make = self.tokens[what]
            elif group is KEY:
                make = self.draw.choice(self.keys)
            slots = {
                "x": make,
                "d": lambda: self.some(DIGITS, self.draw.choice([3, 4, 4, 6])),
                "p": lambda: self.draw.choice(PHRASES),
            }
            name = {
                id(TOKEN): "token",
                id(PASSWORD): "password",
                id(PIN): "pin",
                id(KEY): "key",
                id(PHRASE): "phrase",
            }[id(group)]
            made.append(
                filled(
                    self.draw.choice(group), slots, dict.fromkeys("xdp", f"{name}: {what}" if what else name)
                )
            )
        return made
