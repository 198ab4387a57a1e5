"""A second set of sentences and values, written after the rules were made and by somebody else.

Each template belongs to one of two halves by its own hash: "seen", whose misses have been looked at and mended
since, and "kept", of which only the figures are ever printed. So what the second half says is of text that
nothing was built on.
"""

from __future__ import annotations

import base64
import hashlib
import random
import string
from collections.abc import Callable
from typing import Literal

from privacy.marked import Marked, filled, some, typed

Half = Literal["seen", "kept"]
LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
WORD, HEX = LOWER + UPPER + DIGITS, "0123456789abcdef"

NAMED = """
{n} asked whether the meeting could be moved to Thursday.
Could you draft a thank-you note to {n} for the housewarming gift?
I had a falling out with my flatmate {f} over the dishes.
My therapist, {n}, suggested keeping a journal.
we're naming the baby {f}, what do you think
Tell me a bedtime story in which {f} meets a dragon.
The contract was signed by {n} on behalf of the tenants.
Our neighbour {f} feeds the cat when we travel.
Hello, this is {n} calling about the invoice.
Best wishes,\\n{f}
Kind regards\\n{n}\\nHead of Logistics
Is there any news from {f} and {f}?
Mr {l} will see you now.
I am meeting Professor {l} at noon to talk about my thesis.
the vet says {f}'s owner should call back
My grandfather {n} came here in 1952 with one suitcase.
{f} is allergic to nuts, so plan the menu around that.
Please translate this letter from {n} into Spanish.
After the divorce {n} kept the dog.
They hired {n} instead of me.
It was {n} who found the wallet.
Rewrite this so that it sounds less angry: {f}, you never listen.
What should I get {f} for her birthday?
Patient {n} was admitted with chest pain.
Attendees: {n}, {n} and {n}.
{n} (born 1971) lives with {f} near the lake.
I'm {f} and this is my first week here.
Dear {f},\\nthank you for your patience.
My manager's name is {n}, and she is on leave.
Who else besides {n} has access?
I share an office with {f} and a very loud printer.
"I don't care," said {f}, and hung up.
My ex {f} keeps texting me.
Write a toast for {f} and {f}, who marry in June.
For questions contact {n}.
The deceased, {n}, left everything to her nephew {f}.
my daughter's teacher ms {l} gave her extra homework
{f} owes me forty euros since last summer
Coach {l} benched me again.
Ask {f} if the boiler has been repaired.
""".strip().splitlines()
NOISY = """
{f} is literally my fave human rn
omw to {f}s place brb
why tf did {n} block me
{n} dropping an album fri lesgo
not {f} crying over a sandwich 💀
ok but {n} was robbed
w {f} at the gym lol send help
miss u {f} 🥺
{n} u legend!!!
lmk if {f} shows up
somebody come get {f} pls
{n} hosting snl again??
imagine being {f} today yikes
{f} + me = chaos
shoutout 2 {n} 4 the ride home
i swear {f} never pays
tbh {n} deserved that oscar
gm everyone except {f}
me n {f} r done
just met {n} in line for coffee wtf
{f} u up??
ppl sleeping on {n} smh
{n} fans rise up
cant w {f} anymore 😂😂
""".strip().splitlines()
FIRSTS = """
Wanjiru Achieng Tendai Thabo Ngozi Chidi Oluwaseun Kwame Abena Amara Zanele Sipho Fatoumata Ousmane Habiba Tariq Leila Shirin Farhad
Parisa Noor Yasmin Khalid Rania Emre Elif Zeynep Burak Aylin Svetlana Dmitri Oksana Bohdan Agnieszka Zbigniew Jadwiga Katarzyna
Vlad Ioana Ilinca Dragana Goran Mirko Tihana Zoltan Ildiko Eszter Aino Eero Ilmari Sigrid Astrid Torbjorn Gudrun Einar Saoirse Niamh Eoghan
Aoife Rhiannon Gethin Maeve Siobhan Callum Priya Anjali Rohan Ananya Vikram Sunita Rajesh Deepika Arjun Lakshmi Thuy Minh Linh Hieu Duc
Mei Xiaoming Jian Haruka Kenji Yuki Satoshi Sakura Takumi Jiwoo Minseo Hyun Soo-jin Malia Kalani Tane Aroha Mateo Ximena Joaquin
Itzel Guadalupe Thiago Beatriz Joao Catarina Giulia Lorenzo Chiara Matteo Aurelien Solene Maelle Thibault Anneliese Jurgen Heike Wolfgang
Ulrike Femke Sanne Joost Maarten Stavros Eleni Kostas Marguerite Beckett Tatum Juniper Wren Jaxon Brielle Kaylee Trevon Lakeisha DeShawn
""".split()
LASTS = """
Wanyama Mwangi Moyo Dlamini Okonkwo Adeyemi Balogun Mensah Owusu Diallo Traore Keita Haddad Farouk Najjar Hosseini Rahimi Tehrani Yilmaz
Demir Kaya Ozturk Petrenko Kovalenko Shevchenko Wojciechowski Lewandowska Szymanski Nowakowski Dragomir Munteanu Popa Jovanovic Petrovic
Horvat Nagy Szabo Kovacs Virtanen Korhonen Makinen Lindholm Bergqvist Hedlund Nygaard Halvorsen Sigurdsson Gunnarsdottir Gallagher
O'Sullivan McAllister Llewellyn Pritchard Abernethy Cholmondeley Chatterjee Banerjee Subramaniam Venkataraman Iyer Deshpande Agarwal
Nguyen Pham Huynh Zhang Ouyang Takahashi Watanabe Nakamura Kobayashi Hwang Choi Kahananui Parata Castellanos Villanueva Etcheverry
Ramirez-Soto Quispe Figueiredo Carvalho Teixeira Esposito Bianchi Ricci Lefebvre Beauchamp Delacroix Schwarzenbach Oberhauser Vanderbilt
Dijkstra Hoekstra Papadopoulos Economou Featherstone Blackwood Thistlethwaite Rutherford Washington Jefferson-Cole Whitaker Oyelowo
""".split()

PLACED = """
My landlord lives at {a}.
We just bought a house, {a}, and need an electrician.
Deliver it to {a} before ten.
Can you find a plumber near {a}?
the party is at {a}, bring wine
Home address: {a}
How do I get from {a} to the airport?
My new address is {a}; please update your records.
I was born in a flat above a bakery, {a}.
Return to sender: {a}
The burglary took place at {a} on Sunday night.
Fill in the form for me: {a}
she moved out, now at {a}
Meet me outside {a} at half past eight.
Billing address {a}
The school bus stops in front of {a}.
{a} - is that a safe area?
Write to them at\\n{a}
Our office ({a}) is closed on Fridays.
The package for {a} never arrived.
""".strip().splitlines()
ENGLISH_STREETS = """
Marigold Bramble Copperfield Dunmore Elmhurst Foxhall Greystone Hawthorne Inverness Kingsley Lilac Mulberry Newbury Orchard Pinecrest
Queensbury Riverside Sycamore Turnberry Upton Verbena Willowbrook Martin Luther
""".split()
KINDS_OF_STREET = "St|Street|Rd|Road|Ave|Avenue|Ln|Lane|Drive|Dr|Blvd|Court|Ct|Place|Parkway|Close|Gardens|Mews|Way|Circle".split(
    "|"
)
TOWNS = "Harlow Bend|Fort Mason|Cedar Hollow|Kingsbridge|Lower Dunton|Saltburn|Westerly|Marlow|Two Rivers|Peterhead".split(
    "|"
)
STATES = "AK AR CT DE IA ID IN KS KY LA MD ME MO MS MT NE NH NJ NM NV OK OR RI SC SD TN UT VT WV WY".split()

PHONED = """
Call me back on {x}, any time.
My mobile number is {x}.
you can text me: {x}
If it is urgent, ring {x}.
the plumber's number is {x}
Phone: {x}
Contact: {x}
is {x} a scam caller?
I keep getting calls from {x}.
Save my new number, {x}, please
Emergency contact {f}, {x}
Mobile {x} / Office {x}
Could you dial {x} for me?
reach me on whatsapp {x}
his cell is {x} btw
fax it to {x}
I missed a call from {x} this morning.
hotline {x} (weekdays)
""".strip().splitlines()
PHONES = """
(4##) 6##-####|4##-6##-####|4##.6##.####|+1 (4##) 6##-####|+1-4##-6##-####|1 4## 6## ####|4##6######|+14##6######|+44 7### ### ###|
+44 (0)20 7### ####|07### ### ###|0121 ### ####|01632 9#####|+353 1 ### ####|+49 151 ########|0151 ########|+49 (0)89 #######|030/########|
+33 1 ## ## ## ##|06.##.##.##.##|+34 91 ### ## ##|+39 347 ### ####|+41 79 ### ## ##|079 ### ## ##|+43 664 #######|+31 (0)6 ########|+32 47# ## ## ##|
+45 ## ## ## ##|+47 4## ## ###|+46 8 ### ## ##|+358 40 ### ####|+48 5## ### ###|+420 6## ### ###|+7 9## ###-##-##|+90 5## ### ## ##|+972 5#-###-####|
+971 5# ### ####|+91 9####-#####|+86 13# #### ####|+81 90-####-####|+82 10-####-####|+61 2 9### ####|(02) 9### ####|04## ### ###|+64 21 ### ####|
+55 (11) 9####-####|+52 55 #### ####|+54 9 11 ####-####|+234 80# ### ####|+254 7## ######|+27 8# ### ####|4##-6##-#### ext. ###
""".replace("\n", "").split("|")

TOKEN = """
I pasted {x} into the config and nothing happens.
Is {x} still valid?
my colleague sent me {x}, where do I put it
Why does the server reject {x}?
Here you go: {x}
Can you write a curl command with {x}?
Oops, I committed {x} to a public repo.
use this {x} for the demo
export TOKEN={x}
This is what I got from the dashboard: {x}. What now?
{x} <- that's the one for production
I set it to "{x}" but it says unauthorized
Our deploy script prints {x} in the log, is this a problem?
rotate {x} asap
The header is Authorization: Bearer {x}
hey can u check if {x} works
""".strip().splitlines()
PASSWORD = """
My Netflix password is {x}, don't tell anyone.
The password for the guest wifi: {x}
the admin pw is {x}
Remember that my laptop password is {x}.
I changed my password to {x} yesterday.
Login is marta and the password is {x}
username: admin password: {x}
wifi: {x} (that's the password)
Is {x} a strong password?
my email password used to be {x}
root password = {x}
pass: {x}
Just log in with {x} as the password.
For the router use the password {x}, then reboot.
I always use {x} for my passwords.
The database password, by the way, is {x}
password is '{x}'
It asks for a password. I type {x} and it fails.
Credentials: bob / {x}
pwd {x}
My wife's phone passcode is {x}.
You need the password "{x}" to open the PDF.
i think the zip password was {x}
Set my password to {x} please
Mein Passwort ist {x}.
Mon mot de passe est {x}
mi contraseña es {x}
""".strip().splitlines()
PIN = """
My PIN is {d}.
the alarm code is {d}
Gate code: {d}
My bank card's PIN number is {d}, please remember it.
The door code at my office is {d}.
Her phone unlocks with {d}, that's the pin
use {d} as the pin for the safe
The verification code is {d}
your one-time code is {d}. It expires in 5 minutes.
the lockbox combination is {d}
voicemail pin {d}
2FA code {d}
entry code for the building {d}
the code for the garage is {d}
I set the luggage lock to {d}, remember that code
cvv {c}
the CVV on the back is {c}
security code: {c}
""".strip().splitlines()
KEY = """
My API key is {x}.
OPENAI_API_KEY={x}
api_key: "{x}"
secret = "{x}"
The client secret is {x}
here is my access token {x}
AWS secret access key: {x}
the encryption key we use is {x}
my weather api key: {x}
set the token to {x} in settings
license key {x}
The webhook secret is {x}, keep it safe.
private token {x} for gitlab
your session token is {x}
I generated this key: {x}
connection string: Server=db1;User Id=sa;Password={x};
app secret → {x}
Use X-Api-Key: {x}
""".strip().splitlines()
PHRASE = """
my seed phrase is {p}
Recovery phrase: {p}
The passphrase of my ssh key is "{p}"
wallet mnemonic: {p}
""".strip().splitlines()
PASSWORDS = """
Winter2024! Tr0ub4dor&3 P@ssw0rd123 letmein99 Liverpool1 qwerty12 abc123xyz MyD0gR3x! hunter42 sunflower77 iLoveP1zza Xk9#mQ2v
correcthorsebatterystaple dr4gonfire bl00mberg_9 Cheese-Cake-7 T!ger2020 monkey1984 S3cur3P4ss 7hIsIsS3cret Berlin1989 h4ppyH0me
trustno1 zaq12wsx 1q2w3e4r Passw0rt! camello2021 chouette_75 r2d2c3po N0rthern!Lights ponyboy85 goldfish#3 maxi2015 ab12CD34
""".split()
PHRASES = """
marble kitten ocean drift velvet hammer pilot castle ribbon lemon tower winter|
abandon copper giraffe humble island jungle kidney lunar mango noble orbit puzzle|
purple monkey dishwasher tango|river stone candle mountain forty
""".replace("\n", "").split("|")

# Talk about secrets, numbers and people in which there is none.
CLEAN = """
How do I reset my password if I no longer have access to my email?
My password doesn't work any more and I don't know why.
What makes a good password?
The password must contain at least one number and one symbol.
I think my password was leaked in a breach.
Should I use a password manager or a notebook?
Explain how public key cryptography works.
What is the difference between an API key and an access token?
The token limit is 4096 tokens.
The key point is that the code is never executed twice.
The code for this exercise is on page 12.
My secret ingredient is cinnamon.
The secret to good bread is time.
What's the area code of Chicago?
I need a promo code for the shoe shop.
The error code is 404, what does it mean?
The dress code is smart casual.
Which key is this song in?
Press any key to continue.
The combination of red and green is hard to read for some people.
I pinned the recipe to the fridge.
Where can I find my PIN for the app?
I was asked for a security code but never received one.
Why does it say my credentials are invalid?
Write a function that checks whether a password is strong.
def check(password): return len(password) >= 8
token = get_token()
The password is stored as a hash, never in plain text.
The login page is broken since the last update.
Is two-factor authentication worth it?
My account was locked after three attempts.
Give me five ideas for a username.
password: required, string, min length 8
Please enter your password and press enter.
The password field is empty.
The passphrase should be easy to remember.
The new password is too short.
The wifi password is on the back of the router.
My password is the same as before.
The pin is on the table next to the thread.
What year was the Treaty of Westphalia signed?
Add 4821 and 9077.
There were 18250 people at the concert in 2019.
The flight leaves at 14:35 and lands at 18:05.
The bus number 42 goes to the station.
ISO 27001 is a standard for information security.
The room is 4.5 m by 3.2 m and 2.6 m high.
Chapter 3, section 2.1.4 explains the method.
Python 3.11.7 and numpy 1.26.4 are installed.
He ran the marathon in 2:58:31.
The total comes to $1,249.99 including tax.
Model XR-2000 has been replaced by XR-3000.
We sold 1 200 345 units in the second quarter of 2023.
The Wi-Fi works on channel 11 at 2.4 GHz.
Subtract 1,003,004 from 2,000,000.
Mix 250 g flour with 125 ml milk and 2 eggs.
The score was 102 to 98 after overtime.
sha256 is a hash function, and md5 is broken.
A UUID has 128 bits.
git rebase -i HEAD~3 lets you edit the last three commits.
Use --token to pass the token on the command line.
SELECT name, token FROM users WHERE id = 7;
How many seconds are there in 365 days?
The recipe calls for three eggs and a pinch of salt.
The key to my heart is chocolate.
What do you call a group of crows?
Our team lost 3-0 on Saturday.
An IPv4 address has four numbers between 0 and 255.
An IBAN in Germany has 22 characters.
What is the meaning of the last digit of a credit card number?
How are phone numbers in France written?
Is my email address visible to other users?
The street was empty and the road was wet.
We walked up the hill, along the river and back to the square.
I live in a small town near the sea.
Turn left at the church and go on for 300 metres.
In 1969 people walked on the Moon for the first time.
May is a beautiful month, and June is even better.
Will you come with me on Sunday?
The rose bushes in the park are in bloom.
""".strip().splitlines()
BANK = """
Why was my payment declined?
How can I get a replacement for my broken card?
I lost my phone, how do I block the app?
When will my new card be delivered to Spain?
Is there a limit on transfers per day?
What exchange rate do you use for dollars?
I see a charge of 14.99 that I did not make
my top up of £50 has not arrived yet
how long does a transfer from the US take
Why is there a fee of 2% on my withdrawal?
I need to change my PIN, can I do that in the app?
Can I have a second card for my wife?
my cash withdrawal of 200 euros is still pending
why do you need to verify who I am
I want to close my account, what do I have to do?
Do you work with Mastercard or Visa?
the ATM at the corner swallowed my card!!
I entered the wrong PIN three times
how do I add Apple Pay on my watch
Where can I see my IBAN?
the person I sent money to says it's not there
You charged me 1.50 twice on 3 March
can my employer pay my salary into this account
I've been waiting 3 weeks for my card, order still not here
Please cancel my last transfer, I mistyped the account number
How old do my kids have to be for an account?
What does "reverted" mean next to my top-up?
is there any way to get cash without the card
Why is my balance not updated after a cheque deposit?
Can I use the card in Japan and Korea without fees?
my passcode is not working
it says my identity could not be verified
I forgot my passcode, what now?
my virtual card doesn't work in the shop
can you freeze my account, I think someone has my details
The code you texted me never arrived
""".strip().splitlines()


def half_of(template: str) -> Half:
    return "seen" if hashlib.sha256(template.encode("utf-8")).digest()[0] % 2 else "kept"


class Fresh:
    """Texts of one half, all from one seed."""

    def __init__(self, seed: int, half: Half) -> None:
        self.draw = random.Random(seed)
        self.half = half
        self.slots: dict[str, Callable[[], str]] = {
            "f": lambda: self.draw.choice(FIRSTS),
            "l": lambda: self.draw.choice(LASTS),
            "n": lambda: f"{self.draw.choice(FIRSTS)} {self.draw.choice(LASTS)}",
            "a": self.address,
        }
        s = self.some
        self.tokens: tuple[Callable[[], str], ...] = (
            lambda: "AKIA" + s(UPPER + "234567", 16),
            lambda: "ghp_" + s(WORD, 36),
            lambda: f"github_pat_{s(WORD, 22)}_{s(WORD, 59)}",
            lambda: "glpat-" + s(WORD + "-_", 20),
            lambda: f"xoxb-{s(DIGITS, 12)}-{s(DIGITS, 12)}-{s(WORD, 24)}",
            lambda: f"https://hooks.slack.com/services/T{s(UPPER + DIGITS, 8)}/B{s(UPPER + DIGITS, 8)}/{s(WORD, 24)}",
            lambda: f"https://discord.com/api/webhooks/{s(DIGITS, 18)}/{s(WORD + '-_', 68)}",
            lambda: f"M{s(WORD, 23)}.{s(WORD, 6)}.{s(WORD + '-_', 27)}",
            lambda: "sk-proj-" + s(WORD + "-_", 48),
            lambda: "sk-ant-api03-" + s(WORD + "-_", 93) + "AA",
            lambda: "sk-or-v1-" + s(HEX, 64),
            lambda: "sk-" + s(HEX, 32),
            lambda: "gsk_" + s(WORD, 52),
            lambda: "hf_" + s(LOWER + UPPER, 34),
            lambda: "AIzaSy" + s(WORD + "-_", 33),
            lambda: "dckr_pat_" + s(WORD + "-_", 27),
            lambda: "figd_" + s(WORD + "-_", 40),
            lambda: "sbp_" + s(HEX, 40),
            lambda: "dop_v1_" + s(HEX, 64),
            lambda: "xai-" + s(WORD, 80),
            lambda: f"lsv2_pt_{s(HEX, 32)}_{s(HEX, 10)}",
            lambda: "whsec_" + s(WORD, 32),
            lambda: "rk_live_" + s(WORD, 24),
            lambda: f"pk.eyJ1{s(WORD, 40)}.{s(WORD + '-_', 22)}",
            lambda: "EAAG" + s(WORD, 120),
            lambda: "AAAAAAAAAAAAAAAAAAAAA" + s(WORD, 30) + "%" + s(HEX, 2).upper() + s(WORD, 60),
            lambda: f"https://{s(HEX, 32)}@o{s(DIGITS, 6)}.ingest.sentry.io/{s(DIGITS, 7)}",
            lambda: f"eyJhbGciOiJIUzI1NiJ9.eyJ{s(WORD, 48)}.{s(WORD + '-_', 43)}",
            lambda: f"1/{s(DIGITS, 16)}:{s(HEX, 32)}",
            lambda: "hvs." + s(WORD + "-_", 95),
            lambda: base64.b64encode(self.draw.randbytes(30)).decode(),
            lambda: s(WORD + "/+", 40),
            lambda: s(HEX, 40),
            lambda: f"mongodb+srv://app:{s(WORD, 14)}@cluster0.x{s(LOWER, 4)}.mongodb.net/prod",
        )  # fmt: skip
        self.keys: tuple[Callable[[], str], ...] = (
            lambda: s(HEX, 32), lambda: s(WORD, 32), lambda: s(WORD, 24), lambda: s(WORD + "/+", 40), lambda: s(HEX, 64),
            lambda: f"{s(HEX, 8)}-{s(HEX, 4)}-{s(HEX, 4)}-{s(HEX, 4)}-{s(HEX, 12)}", lambda: s(WORD, 20),
            lambda: base64.b64encode(self.draw.randbytes(32)).decode(), lambda: s(LOWER + DIGITS, 18),
        )  # fmt: skip

    def some(self, letters: str, count: int) -> str:
        return some(self.draw, letters, count)

    def _of(self, templates: list[str]) -> list[str]:
        return [t for t in templates if half_of(t) == self.half]

    def _texts(self, templates: list[str], marks: dict[str, str], count: int) -> list[Marked]:
        own = self._of(templates)
        return [filled(self.draw.choice(own), self.slots, marks) for _ in range(count)]

    def named(self, count: int) -> list[Marked]:
        return self._texts(NAMED, dict.fromkeys("nfl", "name"), count)

    def noisy(self, count: int) -> list[Marked]:
        return [typed(m, self.draw) for m in self._texts(NOISY, dict.fromkeys("nfl", "noisy name"), count)]

    def placed(self, count: int) -> list[Marked]:
        return self._texts(PLACED, {"a": "address"}, count)

    def phoned(self, count: int) -> list[Marked]:
        self.slots["x"] = lambda: "".join(
            self.some(DIGITS, 1) if c == "#" else c for c in self.draw.choice(PHONES)
        )
        return self._texts(PHONED, {"x": "phone"}, count)

    def secret(self, count: int) -> list[Marked]:
        """Two in five tokens, three passwords in ten, the rest PINs, keys and phrases."""
        made = []
        groups = ((TOKEN, self.token), (PASSWORD, self.password), (PIN, str), (KEY, self.key), (PHRASE, str))
        self.slots |= {
            "d": lambda: self.some(DIGITS, self.draw.choice([4, 4, 4, 5, 6])),
            "c": lambda: self.some(DIGITS, 3),
            "p": lambda: self.draw.choice(PHRASES),
        }
        names = ("token", "password", "pin", "key", "phrase")
        for _ in range(count):
            (i,) = self.draw.choices(range(5), [40, 30, 10, 16, 4])
            templates, self.slots["x"] = groups[i]
            made += self._texts(templates, dict.fromkeys("xdcp", f"fresh {names[i]}"), 1)
        return made

    def token(self) -> str:
        return self.draw.choice(self.tokens)()

    def key(self) -> str:
        return self.draw.choice(self.keys)()

    def password(self) -> str:
        if self.draw.random() < 0.6:
            return self.draw.choice(PASSWORDS)
        return (
            self.some(WORD + "!#%&*+=?@_", self.draw.randint(7, 14))
            + self.some(DIGITS, 1)
            + self.some(LOWER, 1)
        )

    def clean(self) -> list[str]:
        return self._of(CLEAN)

    def bank(self) -> list[str]:
        return self._of(BANK)

    # -- addresses, in the ways of eleven countries

    def address(self) -> str:
        d = self.draw
        n, code = d.randint(1, 299), self.some("123456789", 5)
        street = f"{d.choice(ENGLISH_STREETS)} {d.choice(KINDS_OF_STREET)}"
        gap = d.choice([", ", ", ", "\n"])
        return d.choice(
            [
                lambda: f"{d.randint(10, 9999)} {d.choice(['', '', 'N ', 'SW ', 'East '])}{street}{gap}{d.choice(TOWNS)}, {d.choice(STATES)} {code}",
                lambda: f"{d.randint(10, 9999)} {street}, {d.choice(['Apt', 'Unit', 'Suite', 'Ste.'])} {d.randint(1, 90)}{d.choice('ABCD ')}".strip()
                + f"{gap}{d.choice(TOWNS)}, {d.choice(STATES)} {code}-{self.some(DIGITS, 4)}",
                lambda: f"{d.randint(1, 999)} {d.randint(1, 89)}{d.choice(['th'])} {d.choice(['Street', 'Ave', 'St'])}{gap}{d.choice(TOWNS)}, {d.choice(STATES)} {code}",
                lambda: f"{n} {street}",
                lambda: f"{n}{d.choice(['', 'a'])} {street}{gap}{d.choice(TOWNS)}{gap}{d.choice(['LS', 'BT', 'G', 'M', 'OX', 'NW'])}{d.randint(1, 12)} {d.randint(1, 9)}{d.choice('ABEH')}{d.choice('DFGN')}",
                lambda: f"Flat {d.randint(1, 20)}, {n} {street}{gap}{d.choice(TOWNS)}",
                lambda: f"{d.choice(['Goethestraße', 'Am Kirchberg', 'Lessingstr.', 'Mozartgasse', 'Rathausplatz', 'Eichenweg'])} {n}{gap}{code} {d.choice(['Mainz', 'Kassel', 'Bamberg', 'Graz'])}",
                lambda: f"{n} {d.choice(['rue Victor Hugo', 'avenue de la République', 'bd Saint-Michel', 'place Bellecour'])}{gap}{code} {d.choice(['Nantes', 'Dijon', 'Rennes'])}",
                lambda: f"{d.choice(['Calle de Alcalá', 'Avda. de América', 'Via Mazzini', 'Piazza Garibaldi', 'Rua das Flores'])} {n}, {code} {d.choice(['Sevilla', 'Torino', 'Porto'])}",
                lambda: f"{d.choice(['Keizersgracht', 'Stationsweg', 'Lange Voorhout'])} {n}{gap}{self.some('123456789', 4)} AB {d.choice(['Leiden', 'Haarlem'])}",
                lambda: f"{d.choice(['Storgatan', 'Drottninggatan', 'Kungsvägen'])} {n}, {code[:3]} {code[3:]} {d.choice(['Umeå', 'Lund'])}",
                lambda: f"ul. {d.choice(['Długa', 'Polna', 'Słoneczna'])} {n}/{d.randint(1, 40)}, {code[:2]}-{code[2:]} {d.choice(['Łódź', 'Gdańsk'])}",
                lambda: f"{n} {street}{gap}{d.choice(TOWNS)} {d.choice(['NSW', 'VIC', 'QLD', 'WA'])} {code[:4]}",
                lambda: f"{n} {street}{gap}{d.choice(TOWNS)}, {d.choice(['ON', 'BC', 'QC'])} {d.choice('KVM')}{d.randint(1, 9)}{d.choice('ABC')} {d.randint(1, 9)}{d.choice('XYZ')}{d.randint(1, 9)}",
                lambda: f"PO Box {d.randint(10, 9999)}{gap}{d.choice(TOWNS)}, {d.choice(STATES)} {code}",
            ]
        )()  # fmt: skip
