"""Passwords, PINs and keys that the words around give away: "the wifi password is hunter2"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlx_plastic.memory.privacy.lexicon import is_ordinary, lexicon
from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.randomness import is_random
from mlx_plastic.memory.privacy.secret_more import with_more
from mlx_plastic.memory.privacy.spans import LIKELY, POSSIBLE, Span
from mlx_plastic.memory.tags import tags_in

_KEY_OF = (
    "api|access|secret|private|encryption|signing|licen[sc]e|product|activation|ssh|gpg|pgp|aws|client|app|account|"
    "storage|master|deploy|service|subscription|shared|wi-?fi|network|wpa2?|security|recovery|host|webhook|admin|"
    "root|session|auth|oauth2?|refresh|bearer|personal|user|login|stripe|github|gitlab|openai|google|azure|gcp|slack|"
    "twilio|sendgrid|datadog|heroku|s3|db|database|integration|bot|cdn|maps|weather|model|my|our|the|new|old|live|test"
)
_CODE_OF = (
    "access|entry|door|gate|alarm|security|lock(?:er|box)?|safe|garage|verification|one[- ]time|recovery|"
    "backup|"
    "unlock|reset|auth(?:entication|orization)?|confirmation|2fa|mfa|login|sms|activation|vault|keypad|building|house|"
    "pass|pin|secret|authenticator|card|phone"
)
ABROAD = (  # "WLAN-Passwort", "Bankkennwort"
    r"(?:\w{1,20}-?)?(?:passwort|kennwort)|mot de passe|contrase(?:n|ñ)a|senha|parola|wachtwoord|lösenord|"
    r"adgangskode|salasana|hasł(?:o|em)|heslo|jelszó|şifre|пароль"
)
TONGUES = (  # one of these stands in each of them
    "kennwort", "passwort", "mot de passe", "contrase", "senha", "parola", "wachtwoord", "lösenord",
    "adgangskode", "salasana", "hasł", "heslo", "jelszó", "şifre", "пароль",
)  # fmt: skip
_NOUN = (  # in the third line "DB_PASSWORD="
    rf"(?P<noun>(?:(?:{_KEY_OF})[ _-]?){{1,3}}(?:keys?|tokens?|secrets?)(?:[ _-]?(?:id|key|value))?|"
    rf"(?:{_CODE_OF})(?:['\u2019]s)?[ -]?codes?|"
    r"(?:(?:[a-z0-9]{1,20}[_-]){1,4})?(?:pass(?:word|wd|phrase)?s?(?=\s?[:=])|secret(?=\s?[:=]))|"
    rf"pass[ -]?(?:words?|wd|codes?|keys?|phrases?)|{ABROAD}|pwd|pw|"
    r"pass(?=\s*[:=]|\sis\s)|pin(?:[ -]?(?:code|number|no\.?))?|pincode|otp|totp|cvv2?|cvc2?|csc|"
    r"combination|combo|"
    r"credentials?|creds?|seed ?phrase|mnemonic|recovery phrase|(?:security|secret) answer|"
    r"codes?|keys?|tokens?|secrets?|apikey)"
)
_FILLER = (
    "is|was|are|be|been|ist|es|est|to|remains?|stays?|equals?|changed|set|reset|now|currently|still|just|as|simply|"
    "literally|actually|called|named|use|using|try|it['\\u2019]?s|that['\\u2019]?s|which|would|will|should|going|"
    "by the way|"
    "btw|again|so|i|me|you|gave|with|have|get|got|put|made|it|pick|remember|save|please|and|then|of|like|from|#"
)
# "...password for the router at home is", "...code to the gate:", "PIN? It's"
_ABOUT = (
    r"(?:\s(?:for|to|of|on|at|in|from|with|behind|that|they|you|he|she|we|i|itself|du|de|del|da|do|der|für|zum)"
    r"(?:\s(?!(?:is|was|"
    r"are)\b)[\w'\u2019.@+\-]{1,30}){0,7}?)?"
)
_LINK = (
    rf"(?:['\u2019]s\s|[\s\"'\u2019*_`)]{{0,3}}(?:=>|->|→|:=|={{1,2}}|:|\?)\s{{0,3}}(?:it['\u2019]?s\s)?"
    rf"|[\s,;]{{1,3}}(?:(?:is|was|are|be|used to be|should be|ist|es|est|è|é|är|er|jest|lautet|hei(?:ß|ss)t|"
    rf"to|from|equals?|reads?|says|as|it['\u2019]?s|=|"
    rf"remains?|stays?|use|try)\b)"
    rf"(?:[\s,:;]{{1,3}}(?:{_FILLER})\b){{0,4}}[\s:,]{{1,3}})"
)
_OPEN = r"(?P<open>[\"'\u201c\u2018`\u00ab(\[*]{0,2})"
_VALUE = r"(?P<value>[^\s\"\u201d\u2019`\u00bb<>]{3,128})"
_TOLD = re.compile(rf"(?<![\w?&-]){_NOUN}(?![\w-]){_ABOUT}{_LINK}{_OPEN}(?={_VALUE})", re.IGNORECASE)
_BARE = re.compile(rf"(?<![\w?&-]){_NOUN}\s{{1,2}}{_OPEN}(?={_VALUE})", re.IGNORECASE)
_QUOTED = re.compile(
    rf"(?<![\w-]){_NOUN}(?![\w-]){_ABOUT}(?:{_LINK}|"
    rf"\s)(?:[\"\u201c\u201d`\u00ab](?P<value>[^\"\u201c\u201d`\u00bb\n]{{3,128}})"
    r"[\"\u201d`\u00bb]|'(?P<single>[^'\n]{3,128})')",
    re.IGNORECASE,
)
_OWNER = (
    r"(?:my|the|our|your|his|her|their|a|new|old|current|wi-?fi|router|email|bank|admin|root|login|"
    r"temporary|default|"
    r"main|master|strong|good|safe|secure|weak|bad|valid)"
)
_BACKWARDS = re.compile(  # "hunter2 is my password", "is hunter2 a strong password", "changed from x to y"
    r"(?<!\S)[\"'\u201c`(]?(?P<value>[^\s\"'\u201c\u201d`<>]{3,128})[\"'\u201d`)]?,?\s"
    rf"(?:(?P<verb>is|was|as|=|for|being)\s)?(?:{_OWNER}\s){{1,4}}{_NOUN}(?![\w-])",
    re.IGNORECASE,
)
_NEAR = re.compile(  # "the bank made me pick a new password so now it is hunter2"
    rf"(?<![\w-]){_NOUN}(?![\w-])[^.!?\n]{{1,60}}?\b(?:is|was|to|it|as|use|typed|"
    rf"entered)\s{_OPEN}(?={_VALUE})",
    re.IGNORECASE,
)
_QUOTE = re.compile(r"[\"'\u201c\u201d`\u00ab]")
_LINKS = re.compile(  # without one of these _TOLD and _NEAR have nothing to find
    r"[:=>\u2192?\u2019']|\b(?:is|was|are|be|used|should|ist|es|est|è|é|är|er|jest|lautet|hei(?:ß|ss)t|to|"
    r"from|equals?|reads?|says|as|it|remains?|stays?|use|try|typed|entered)\b",
    re.IGNORECASE,
)
_LOGIN = re.compile(
    r"\b(?:log ?in|sign ?in|login|credentials?|creds?|username|user|account)\b[\w\s]{0,24}?"
    r"(?:[:=]|\bwith\b|\bas\b|\bare\b|\bis\b|\busing\b)\s{0,2}[\"'`]?[\w.@+\-]{2,64}[\"'`]?\s{0,2}"
    r"(?:/|\||:|,|and|with|;|\bpw\b)\s{0,2}[\"'`]?(?P<value>[^\s\"'`]{4,128})"
    r"|\b(?:wi-?fi|wlan|ssid|network)\b\s?[:=]?\s[\"'`]?[\w.@+\-]{2,32}[\"'`]?\s?[/|,]\s?"
    r"(?P<net>[^\s\"'`/|,]{8,64})"
    r"|\b(?:user(?:name)?|login)\s[\w.@+\-]{2,64}[\s,;/]{1,3}(?:and\s)?pass(?:word|wd)?[\s:]{1,2}"
    r"(?P<said>[^\s\"'`]{4,128})"
    r"|\b(?:change|reset|set|update|switche?)d?\s(?:my|the|our|his|her|their)\s(?:[\w'\u2019]{1,20}\s){0,3}"
    r"pass\sto\s(?P<pass>[^\s\"'`]{5,128})",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"(?:seed ?phrase|mnemonic|(?:recovery|wallet|backup|secret) (?:phrase|words|seed)|pass ?phrase)s?\b"
    r"[^\n:=]{0,40}?(?:\bis\b|\bare\b|:|"
    r"=)\s{0,2}"
    r"[\"'\u201c`]?(?P<value>[a-z]{3,10}(?:[\s,-]{1,2}[a-z]{3,10}){3,24})",
    re.IGNORECASE,
)
SPOKEN = (
    "pass", "pw", "pin", "code", "otp", "cvv", "cvc", "cv2", "csc", "combination", "combo", "key", "token",
    "secret", "cred", "seed", "recovery", "mnemonic", "answer", "wallet", "wifi", "wi-fi", "wlan", "ssid",
    "network", "log", "sign", "user", *TONGUES,
)  # fmt: skip
_SIGN = re.compile(  # without one of these there is nothing to look for; no \b ahead, which would be slow
    r"pass(?:[wcpk]|\b)|pwd?\b|pin\b|pincode|codes?\b|otp\b|cv[vc]2?\b|csc\b|combination|combo\b|keys?\b|"
    r"tokens?\b|secret|creds?\b|credential|seed ?phrase|recovery|mnemonic|security answer|wallet|wi-?fi|wlan|"
    rf"ssid|network|{'|'.join(TONGUES)}|log ?in|sign ?in|user(?:name|\s)"
)
JOINED = (
    14  # letters of an unknown word that are more likely several words without spaces than a typing error
)
JOINED_LOUDLY = 10  # the same, with an exclamation mark behind
BEFORE, AFTER = 160, 240  # characters around such a sign

STOP = frozenset(  # words after "password is" that are no password
    """
    a about above across add after again ago all also always am an and another any anymore are as ask at
    be because been before below better between both box but by can cannot case change changed changing
    characters check combination correct could default did different do does doesn't don't due each
    email empty encrypted encryption enough entered error every expired expires expire failed field find
    fine first for forgot forgotten form format from generated generator get given go good got had has
    have haven't having help hidden hint his how i i'm if in incorrect input inside instead into invalid
    is isn't it it's its just known last least length less letters like listed locked long longer lost
    made make manager management mandatory many maybe me mean means might minimum missing more most must
    my need needed needs never new nice no none not nothing now null number numbers ok old on once one
    only optional or other our out over own page pending please policy possible protected protection
    provided public really recovery rejected remember required requirements reset right safe same save
    saved screen secret secure security see set settings shared should shown simple since so some
    something somehow soon still stolen storage stored strength strong stuck such supposed sure tell
    that that's the their them then there these they this those through to today too true false try two
    type under unique until update updated up us use used user username using valid value very via
    visible was wasn't way we weak well were what when where which while who why will with without won't
    word words work working works would wrong yes yet you your
""".split()
)
_STRONG = re.compile(rf"pass|\bpw|pin|cvv|cvc|otp|secret|wi-?fi|wpa|network|{ABROAD}", re.IGNORECASE)
_CODE = re.compile(r"\w[ -]?codes?|comb", re.IGNORECASE)  # "door code", not "code" alone
_WEAK = frozenset(("code", "codes", "key", "keys", "token", "tokens", "combination", "combo"))
_OTHER = re.compile(  # codes and keys that are none of these
    r"\b(?:production|product|country|zip|post(?:al)?|area|colou?r|hex|error|status|dress|source|bar|qr|promo|"
    r"discount|coupon|"
    r"bonus|voucher|style|model|airport|class|course|exit|return|fault|trouble|engine|primary|foreign|"
    r"answer|arrow|map|piano|"
    r"in|html|python|to)\s\Z",
    re.IGNORECASE,
)
_ONCE = re.compile(r"[A-Z]{1,3}-\d{4,8}")  # "G-447210"
_APP = re.compile(
    r"\bpassw(?:ord|ort)s?\b[^\n:=]{0,20}(?:\bis\b|[:=])\s{0,2}[\"']?"
    r"(?P<value>[a-z]{4}(?:[ -][a-z]{4}){3})(?!\w| [a-z])"
)
_PIN = re.compile(r"\d{3,8}")
_YEAR = re.compile(r"(?:19|20)\d\d")
_EXPRESSION = re.compile(r"(?:[A-Za-z_][\w.]*[(\[{]|https?:|www\.|\[|\{|\$\{|%\(|\(|\\|//)")
_STAND_IN = re.compile(r"your|example|placeholder|x{4}|\*{3}|\.{3}|…|changeme", re.IGNORECASE)
_QUOTES = "\"'\u201c\u2018`\u00ab"
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
_SIGN_INSIDE = re.compile(r"[^\w\s'\u2019/.,:-]")
_HUMP = re.compile(r"[a-z].*[A-Z]|.[A-Z].*[a-z]")
USUAL = re.compile(  # letters and digits, or both cases, in words of their own right
    r"\W?(?:1password\d?|keepass(?:xc)?|\d+(?:[.,]\d+)?(?:st|nd|rd|th|s|am|pm|km|kg|mm|cm|[kmgt]i?b|x|k|h|ms|px|bit)?|[A-Za-z]{1,4}-?\d{1,4}|"
    r"(?:windows|iphone|ipad|covid|android|ubuntu|galaxy|python|office)-?\d{1,4}|v?\d+(?:[.:/-]\d+)+|"
    r"[A-Za-z]+[-_/.'\u2019][A-Za-z.'\u2019/-]+|[@#].*|[\w.+-]+@[\w-]+\..*|[^A-Za-z0-9]*[A-Za-z]+[^A-Za-z0-9]*|\[.*)\W?",
    re.IGNORECASE,
)
_CLOSERS = ".,;:!?)]}'\"\u201d\u2019…"


def told(page: Page) -> Iterator[Span]:
    if not page.says(SPOKEN):
        return
    for low, high in page.near(_SIGN, BEFORE, AFTER):
        for span in _told(page.text, low, high):
            yield from with_more(page.text, span)


def _told(text: str, low: int, high: int) -> Iterator[Span]:
    for match in _QUOTED.finditer(text, low, high) if _QUOTE.search(text, low, high) else ():
        group = "value" if match["value"] else "single"
        if _STRONG.search(match["noun"]) and not (_is_talk(match[group]) or is_code(match[group])):
            yield Span(*match.span(group), "secret", LIKELY)
    for pattern in (_TOLD, _BARE, _NEAR) if _LINKS.search(text, low, high) else (_BARE,):
        for match in pattern.finditer(text, low, high):
            start, end = closed(text, *match.span("value"))
            noun, quoted = match["noun"], any(c in match["open"] for c in _QUOTES)
            if noun.lower() in _WEAK and _OTHER.search(text[max(0, match.start() - 24) : match.start()]):
                continue
            loud = text[end : end + 1] == "!"
            if sure := _confidence(text[start:end], noun, quoted=quoted, linked=pattern is _TOLD, loud=loud):
                yield Span(start, end, "secret", sure)
    for match in (m for pattern in (_BACKWARDS, _LOGIN) for m in pattern.finditer(text, low, high)):
        start, end = closed(text, *match.span(match.lastgroup or 0 if match.re is _LOGIN else "value"))
        found = text[start:end]
        if is_mixed(found) and not (is_code(found) or tags_in(found)):  # "#private my password is ..."
            yield Span(start, end, "secret", LIKELY)
    for match in _BACKWARDS.finditer(text, low, high):
        if match["verb"] and _STRONG.search(match["noun"]) and _PIN.fullmatch(match["value"]):
            yield Span(*match.span("value"), "secret", LIKELY)
    for match in (m for pattern in (_PHRASE, _APP) for m in pattern.finditer(text, low, high)):
        if match.re is _APP and all(map(is_ordinary, re.split(r"[ -]", match["value"]))):
            continue
        if not _is_talk(match["value"]):
            yield Span(*match.span("value"), "secret", LIKELY)


def closed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without the sentence's own marks at the end; a mark inside a password stays."""
    while end > start and text[end - 1] in _CLOSERS:
        end -= 1
    return start, end


def _is_talk(phrase: str) -> bool:
    """Whether it is talk about a password: common words alone."""
    words = [word.strip(_CLOSERS) for word in phrase.lower().split()]
    return all(word in STOP for word in words)


def is_code(value: str) -> bool:
    """Whether it is an expression, an address or a stand-in rather than a secret."""
    return _EXPRESSION.match(value) is not None or _STAND_IN.search(value[:40]) is not None


def _confidence(value: str, noun: str, *, quoted: bool, linked: bool, loud: bool = False) -> float:
    """How sure it is that `value`, said after `noun`, is the secret itself; 0.0: it is a word.

    linked: by "is", ":" and the like; else it just follows. loud: an exclamation mark does.
    """
    low = value.lower()
    if len(low) < 3 or low in STOP or is_code(value):
        return 0.0
    strong = _STRONG.search(noun) is not None
    if value.rstrip("#*").isdigit():
        if len(value) > 12:
            return POSSIBLE if linked else 0.0
        if _YEAR.fullmatch(value) and not (strong or _CODE.search(noun)):
            return 0.0
        return LIKELY if strong or _CODE.search(noun) else POSSIBLE if linked else 0.0
    if is_mixed(value):
        if is_random(value, least=12 if linked else 16) or (
            strong and (linked or (_DIGIT.search(value) and not USUAL.fullmatch(value)))
        ):
            return LIKELY
        if linked and _CODE.search(noun) and _ONCE.fullmatch(value):
            return LIKELY
        return POSSIBLE if linked or strong else 0.0
    if (
        strong
        and (linked or quoted)
        and len(low) >= 5
        and (quoted or not (is_ordinary(low) or "secret" in noun.lower()))
        and not _is_talk(low)
    ):
        joined = low.isalpha() and len(low) >= (JOINED_LOUDLY if loud else JOINED)
        return LIKELY if joined and low not in lexicon() else POSSIBLE
    return 0.0


def is_mixed(value: str) -> bool:
    """Whether it has two of letters, digits and signs, or both cases inside, as passwords have."""
    inner = value.strip(_CLOSERS)
    letters, digits = _LETTER.search(inner), _DIGIT.search(inner)
    if len(inner) < 4 or not (letters or digits):
        return False
    return bool((letters and digits) or _SIGN_INSIDE.search(inner) or _HUMP.search(inner))
