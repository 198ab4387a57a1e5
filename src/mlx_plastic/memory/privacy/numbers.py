"""Numbers that name a person or their money: cards, IBANs, national ids, accounts."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from functools import cache

from stdnum import luhn
from stdnum.iso7064 import mod_97_10

from mlx_plastic.memory.privacy.page import DIGITS, Page
from mlx_plastic.memory.privacy.spans import CERTAIN, LIKELY, POSSIBLE, Span

_RUN = re.compile(r"(?<![\d.,])\d+(?:[ .\-\u2013\u00a0]\d+)*(?!\d|[.,]\d)")  # digits in groups
_PRINTED = ([4, 4, 4, 4], [4, 6, 5], [4, 6, 4])  # how cards group their digits
_CARD_WORDS = re.compile(
    r"\b(?:cards?|visa|master ?card|amex|american express|maestro|diners|discover|jcb|credit|debit|cc|"
    r"pan)\b|karte"
)
# The first digits that issuers use (ISO/IEC 7812): American Express and JCB, Diners, Visa, Mastercard and
# Maestro, Discover and UnionPay.
_ISSUER = re.compile(r"3[0-9]|4|5[0-8]|2[1-7]|6[0-9]|1800|2131|9")

_COUNTRY = (  # that have IBANs
    "A[DELTZ]|B[AEGHRY]|C[HRYZ]|D[EKO]|E[EGS]|F[IOR]|G[BEILRT]|H[RU]|I[ELQST]|JO|K[WZ]|L[BCITUVY]|M[CDEKRTUN]|"
    "N[LOI]|O[M]|P[KLST]|QA|R[OSU]|S[ACDEIKMTVO]|T[LNR]|UA|V[AG]|XK"
)
_IBAN = re.compile(
    rf"(?<![^\W_])(?:{_COUNTRY})[ -]?\d{{2}}(?:[ -]?[A-Z0-9]{{1,4}}){{2,9}}(?![^\W_])", re.IGNORECASE
)
_IBAN_WORDS = re.compile(r"iban|bank|account|transfer|konto|compte|cuenta|wire|deposit|pay")
_IBAN_LOOK = re.compile(rf"(?:{_COUNTRY})\d{{2}} ?(?:[A-Z0-9]{{4}} ?){{2,7}}[A-Z0-9]{{1,4}}(?![^\W_])")
_SWIFT = re.compile(
    r"\b(?:[Ss][Ww][Ii][Ff][Tt]|B[Ii][Cc])\b\W{0,3}(?:[Cc]ode|is|"
    r":)?\W{0,3}([A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?)\b"
)

_ACCOUNT = re.compile(
    r"\b(?:account|acct|acc|a/c|routing|sort code|bsb|customer|client|member(?:ship)?|policy|patient|"
    r"employee|"
    r"student|case|claim|loyalty|frequent flyer|medical record|mrn|konto(?:nummer)?|kundennummer|blz|booking|"
    r"confirmation|reference|tracking|serial|vin|imei)\b"
    r"(?:[ \t]{0,2}(?:number|num|no|nr|id|code|ref|#|is|was|are|ending(?: in)?|with|my|the|:|=|-|\.|,|"
    r"\()){0,5}"
    r"[ \t]{0,2}[#:(]?[ \t]{0,2}((?=[a-z-]{0,6}\d)[a-z0-9](?:[a-z0-9]|[-./ ](?=[a-z]{0,3}\d)){3,33})(?!\w)"
)
_SSN = re.compile(r"(?<![\w.-])\d{3}([- ])\d{2}\1\d{4}(?![\w-]|\.\d)")
_ID_WORDS = re.compile(
    r"\b(?:ssn|social[ -]?security|social|national[ -]?(?:id|insurance)|id[ -]?(?:number|no|nr|card|#)|"
    r"identity|"
    r"identification|passport|driv(?:er|ing)(?:'?s)?[ -]?(?:licen[cs]e|lic)|licen[cs]e|tax[ -]?(?:id|number|"
    r"file|payer)|"
    r"taxpayer|itin|ein|tin|nino?|ni|nhs|sin|aadhaa?r|pan|nif|nie|dni|nir|insee|cpf|cnpj|curp|rfc|pesel|bsn|"
    r"tfn|medicare|"
    r"personnummer|cpr|hetu|henkil\w{0,20}|steuer\w{0,20}|codice fiscale|fiscal code|citizen|resident|"
    r"registration|"
    r"rrn|ssn's|ahv|avs|egn|cnp|oib|rut|nric|fin|hkid|ic (?:number|no)|voter|kimlik|rodn[ée] číslo|"
    r"sozialversicherung\w{0,12}|주민등록번호|plate|visa number|health card|insurance (?:number|no|id)|vat)\b"
)
_ID_VALUE = re.compile(
    r"(?<![\w])(?=[a-z]{0,9}[-/. ]?\d)[a-z0-9](?:[a-z0-9]|[-./ ](?=[a-z]{0,3}\d|[a-z0-9]\b)){4,24}(?!\w)"
)
# Forms with check digits of their own. (form, module of python-stdnum, whether the form alone is enough)
_FORMS: tuple[tuple[str, str, bool], ...] = (
    (r"[a-ceghj-prstw-z][a-ceghj-npr-tw-z] ?\d{2} ?\d{2} ?\d{2} ?[a-d]", "", True),  # GB national insurance
    (r"[a-z]{6}\d{2}[abcdehlmprst]\d{2}[a-z]\d{3}[a-z]", "it.codicefiscale", True),
    (r"\d{8}-?[trwagmyfpdxbnjzsqvhlcke]", "es.dni", True),
    (r"[xyz]-?\d{7}-?[a-z]", "es.nie", True),
    (r"[a-z]{4}\d{6}[hm][a-z]{5}[a-z0-9]\d", "mx.curp", True),
    (r"\d{6}[-+a]\d{3}[0-9a-y]", "fi.hetu", True),
    (r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer", True),
    (r"\d{6}-\d{4}", "dk.cpr", True),
    (r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ch.ssn", True),
    (r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf", True),
    (r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[ab]) ?\d{3} ?\d{3} ?\d{2}", "fr.nir", True),
    (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn", True),
    (r"\d{6}-[1-8]\d{6}", "", True),  # South Korea; without check digits since 2020
    (r"\d{6}/\d{3,4}", "cz.rc", True),
    (r"\d{6}-\d{2}-\d{4}", "my.nric", True),
    (r"[a-z]{1,2}\d{6}\([0-9a]\)", "", True),  # Hong Kong
    (r"[stfgm]\d{7}[a-z]", "", False),  # Singapore
    (r"\d{17}[0-9x]", "cn.ric", True),
    (r"[2-9]\d{3} ?\d{4} ?\d{4}", "in_.aadhaar", False),
    (r"\d{11}", "pl.pesel", False),
    (r"\d{11}", "de.idnr", False),
    (r"\d{3} ?\d{3} ?\d{3}", "ca.sin", False),
    (r"\d{3} ?\d{3} ?\d{3}", "au.tfn", False),
    (r"\d{9}", "nl.bsn", False),
    (r"\d{3} ?\d{3} ?\d{4}", "gb.nhs", False),
)
_FORM = re.compile(  # the first look ahead is true of every form, and of few other places
    r"(?<![\w.,/-])(?=[a-z]{0,6}[ -]?\d)(?:"
    + "|".join(f"({form})" for form, _, _ in _FORMS)
    + r")(?![\w]|[-.]\w)"
)


def cards(page: Page) -> Iterator[Span]:
    """12 to 19 digits in any grouping that pass Luhn's check and begin as an issuer's, or stand by a card."""
    for match in (m for window in page.numbers(12) for m in _RUN.finditer(page.text, *window)):
        if match.end() - match.start() < 12:
            continue
        sizes = [len(part) for part in DIGITS.findall(match[0])]
        spoken = bool(_CARD_WORDS.search(page.before(match.start()) + " " + page.after(match.end())))
        whole = 12 <= sum(sizes) <= 19 and (spoken or sizes in _PRINTED)
        found = list(_checked_cards(match[0], spoken))
        if whole and (0, len(match[0])) not in found:
            yield Span(*match.span(), "card", LIKELY if spoken else POSSIBLE)
        for start, end in found:
            sure = CERTAIN if spoken or end - start > 13 else LIKELY
            yield Span(match.start() + start, match.start() + end, "card", sure)


def _checked_cards(run: str, spoken: bool) -> Iterator[tuple[int, int]]:
    """Stretches of whole groups that are cards: "12 4111 1111 1111 1111 03" holds one.

    All of them, also where they meet: one stretch in ten passes the check by chance and may end in a card.
    """
    groups = [m.span() for m in DIGITS.finditer(run)]
    for i, (first, end) in enumerate(groups):
        if end - first < 3:
            continue
        digits, sizes = "", list[int]()
        for start, end in groups[i : i + 6]:
            digits += run[start:end]
            sizes.append(end - start)
            if len(digits) > 19:
                break
            known = spoken or _ISSUER.match(digits)
            written = spoken or len(sizes) == 1 or set(sizes[:-1]) == {4} or sizes[:2] == [4, 6]
            if len(digits) >= 12 and known and written and len(set(digits)) > 1 and luhn.is_valid(digits):
                yield first, end


def ibans(page: Page) -> Iterator[Span]:
    """By its form and the check of ISO 7064; by the form alone if it is written as banks write it."""
    for window in page.numbers(10):
        for match in _IBAN.finditer(page.text, *window):
            for end in _ends(match):
                compact = re.sub(r"[ -]", "", page.text[match.start() : end]).upper()
                if 15 <= len(compact) <= 34 and mod_97_10.is_valid(compact[4:] + compact[:4]):
                    yield Span(match.start(), end, "iban", CERTAIN)
                    break
            else:
                if strict := _IBAN_LOOK.match(page.text, match.start()):
                    spoken = _IBAN_WORDS.search(page.before(match.start()))
                    yield Span(*strict.span(), "iban", LIKELY if spoken else POSSIBLE)
    if "swift" in page.low or "bic" in page.low:
        yield from (Span(*m.span(1), "iban", LIKELY) for m in _SWIFT.finditer(page.text))


def _ends(match: re.Match[str]) -> Iterator[int]:
    """Where an IBAN that is followed by words may end: its end, then each space before it."""
    yield match.end()
    for i in range(len(match[0]) - 1, 14, -1):
        if match[0][i] == " ":
            yield match.start() + i


def national_ids(page: Page) -> Iterator[Span]:
    """By their check digits, or as any number that the words call an id."""
    for low, high in page.numbers(9):
        yield from (Span(*m.span(), "national_id", CERTAIN) for m in _SSN.finditer(page.text, low, high))
    for match in (m for window in page.numbers(7) for m in _FORM.finditer(page.low, *window)):
        _, module, alone = _FORMS[(match.lastindex or 1) - 1]
        spoken = _ID_WORDS.search(page.before(match.start()))
        if (alone or spoken) and (not module or _checked(module)(match[0])):
            yield Span(*match.span(), "national_id", CERTAIN if spoken else LIKELY)
    for match in (m for window in page.numbers(4, before=90) for m in _ID_WORDS.finditer(page.low, *window)):
        value = _ID_VALUE.search(page.low, match.end(), match.end() + 60)
        if (
            value
            and sum(c.isdigit() for c in value[0]) >= 4
            and not _between(page.low[match.end() : value.start()])
        ):
            yield Span(*value.span(), "national_id", LIKELY)


def _between(gap: str) -> bool:
    """Whether a sentence ends between the words and the number."""
    return re.search(r"[.!?]\s|\n\n", gap) is not None


@cache
def _checked(module: str) -> Callable[[str], bool]:
    check: Callable[[str], bool] = importlib.import_module(f"stdnum.{module}").is_valid
    return check


def accounts(page: Page) -> Iterator[Span]:
    """Numbers that the words call an account, a policy, a customer and so on."""
    for low, high in page.numbers(4, before=90):
        for match in _ACCOUNT.finditer(page.low, low, high):
            if sum(c.isdigit() for c in match[1]) >= 4:
                yield Span(*match.span(1), "account", LIKELY)
