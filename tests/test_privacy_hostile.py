"""No text takes more than a second per 100 KB, however it was made to."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from mlx_plastic.memory.privacy import Placeholders, PrivacyConfig, policy_for, redact

SIZE = 30_000  # characters; the bound is scaled to it
BOUND_S = 1.0 * SIZE / 100_000
CHANCE = random.Random(0)
POLICY = policy_for("training", PrivacyConfig(policy="strict", code="same"))

PATTERNS = [
    *(
        "a.",
        "\n",
        "1",
        "1 ",
        "123 ",
        "@",
        "a@",
        "a@a.",
        "[",
        "(",
        "()",
        '"',
        "a'",
        "`",
        "```\n",
        ":",
        "a:",
        "1::",
    ),
    *(
        "/",
        "http://",
        "password ",
        "password is ",
        "pass: ",
        "api key ",
        'password "',
        "?key=",
        "-",
        "A",
        "Aa",
    ),
    *(
        "Nora ",
        "THE END ",
        "\0",
        "שלום ",
        "مرحبا بك ",
        "😀",
        "😀 ",
        "你好",
        "İ",
        "e\u0301",
        "_",
        "=",
        "a=",
        "$",
    ),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "GB82 WEST 1234 5698 7654 32 ", "4111 1111 1111 1111 "),
    *("4111111111111112 ", "id number ", "account number is ", "1, 2, 3, ", "sk-", "a_", "ab_abcdefgh", "a-"),
    *(
        "eyJ.",
        "eyJaaaaaaaa.",
        "x = 1;\n",
        "for in ",
        "if ( ",
        "<",
        "<a",
        "*",
        "f*",
        "f*ck ",
        "u",
        ".",
        "word. ",
    ),
    *(
        "www.",
        "a/b.c/",
        "\t",
        " ",
        "\r\n",
        "login with a, ",
        "a at b dot c ",
        "1.2.3.4 ",
        "1.",
        "+",
        "+1",
        "(1",
    ),
    *("1-", "x1", "[PERSON_1]", "[PERSON_", "Nora\n", "12345 Berlin\n", "12 Rosewood Lane, ", "Nora Smith, "),
    *("seed phrase is abc ", "~~~\n", "é"),
    *(
        ':épassword "',
        "```\npass: ",
        "a:İ",
        "f*ck pass: ",
        "=secret the",
        "code `4111 1111 1111 1111 ",
    ),  # a search
]


def drawn(count: int, make: Callable[[], str], between: str = "") -> str:
    return between.join(make() for _ in range(count))


MADE = {
    "digits": drawn(SIZE, lambda: CHANCE.choice("0123456789")),
    "base64": drawn(SIZE, lambda: CHANCE.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789+/")),
    "ascii": drawn(SIZE, lambda: chr(CHANCE.randint(32, 126))),
    "anything": drawn(SIZE, lambda: chr(CHANCE.randint(1, 0x2FFF))),
    "nine digits": drawn(SIZE // 10, lambda: str(CHANCE.randint(10**8, 10**9)), " "),
    "phones": drawn(SIZE // 13, lambda: f"0{CHANCE.randint(100, 999)} {CHANCE.randint(10**5, 10**6)}", ", "),
    "names": drawn(SIZE // 6, lambda: CHANCE.choice(["Nora", "Smith", "5", "Street,", "Lisbon"]), " "),
    "words": drawn(SIZE // 7, lambda: drawn(6, lambda: CHANCE.choice("abcdefghijklmnop")), " "),
    "bytes that are no text": CHANCE.randbytes(SIZE).decode("utf-8", "replace"),
    "a url and brackets": "http://a" + ")" * SIZE,
    "a seed phrase without end": "seed phrase is " + "abc " * (SIZE // 4),
    "one long line of code": "x = (" + "f(a, " * (SIZE // 5),
    "a fence that never ends": "```\n" + "Nora Smith\n" * (SIZE // 11),
}
TEXTS = {f"{p!r}": (p * SIZE)[:SIZE] for p in PATTERNS} | MADE


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    redact("Nora Smith, 5 Main Street, call 0171 2345678, password: hunter2!x", POLICY)


def quickest(do: Callable[[str], object], text: str, bound: float) -> float:
    """CPU seconds, the best of five, or the first within the bound: other work is no fault of ours."""
    best = 9e9
    for _ in range(5):
        start = time.process_time()
        do(text)
        best = min(best, time.process_time() - start)
        if best <= bound:
            break
    return best


def blows_up(do: Callable[[str], object], text: str) -> str:
    """Why the time for a text is out of bounds; empty if it is within, or grows only as the text does.

    A slow machine misses the bound by a factor that is the same for half the text; what blows up does not.
    """
    whole = quickest(do, text, BOUND_S)
    if whole <= BOUND_S:
        return ""
    half = quickest(do, text[: len(text) // 2], 0)
    if whole <= 3 * half and whole <= 10 * BOUND_S:
        return ""
    return f"{whole:.2f} s for {len(text)} characters, {half:.2f} s for half; the bound is {BOUND_S:.2f} s"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_blows_up(text: str) -> None:
    assert not blows_up(lambda text: redact(text, POLICY), text)


def test_many_secrets_told_before_do_not_blow_up() -> None:
    told = Placeholders()
    for i in range(300):
        told.of("secret", f"pass{i:06d}" + "x" * (i % 60))
    assert not blows_up(lambda text: redact(text, POLICY, told), ("pass000001 passx " * SIZE)[:SIZE])


def test_what_blows_up_would_be_seen() -> None:
    def cubed(text: str) -> int:
        return sum(text.count("b") for _ in range(len(text) ** 2 // 600_000))

    assert "for half" in blows_up(cubed, "a" * 4 * SIZE)
