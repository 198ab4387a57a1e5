"""Each kind of find: what it must find whole, and what only looks like it."""

from __future__ import annotations

import pytest

from mlx_plastic.memory.privacy import policy_for, scan
from mlx_plastic.memory.privacy.randomness import is_random

FOUND = {
    "email": [
        "write to |nora.l+x@mail.example.co.uk|.",
        "mail (|o'neil_99@example.org|)".replace("o'neil", "oneil"),
        "|jörg.müller@example.de| ist gut",
        "nora |nora at example dot com| please",
        "<|nora@example.museum|>",
    ],
    "url": [
        "see |https://example.org/a_(b)?c=d#e|, ok",
        "(|http://example.org/a|)",
        "at |www.example.org| now",
        "my page |example.co.uk/me|.",
        "|nora.example.com| is up",
        "clone |git://example.org/x.git|",
    ],
    "ip": [
        "ping |192.168.0.1| now",
        "at |10.0.0.1:8080|,",
        "|2001:db8:85a3::8a2e:370:7334| is mine",
        "|fe80::1ff:fe23:4567:890a|",
        "mac |00:1A:2b:3c:4D:5e|",
    ],
    "card": [
        "my card |4111 1111 1111 1111| is lost",
        "|378282246310005| (amex)",
        "pay with |5555-5555-5555-4444|.",
        "card: 12 |3530111333300000|",
        "|4111.1111.1111.1111| exp 12/27",
        "card number is |1234 5678 9012 3456|",
    ],
    "iban": [
        "to |DE89370400440532013000| please",
        "IBAN |GB82 WEST 1234 5698 7654 32| thanks",
        "|FR14 2004 1010 0505 0001 3M02 606|",
        "|NL91-ABNA-0417-1643-00|",
        "transfer to |DE89 3704 0044 0532 0130 01|",
    ],
    "national_id": [
        "SSN |078-05-1120|",
        "ni number |QQ 12 34 56 C|",
        "|RSSMRA85T10A562S| is it",
        "DNI |12345678Z|",
        "my passport number is |L01X00T47|",
        "personnummer |811218-9876|",
        "driver's license |D1234567|",
        "CPF |390.533.447-05|",
        "|900101-1234567| is Korean",
        "rodné číslo |780123/3540|",
        "|880101-14-5678|, Malaysia",
        "HKID |A123456(3)|",
        "my NRIC is |S1234567D|",
    ],
    "account": [
        "my account number is |12345678|",
        "policy no. |AB-123456|",
        "customer id: |8812345|",
    ],
    "phone": [
        "call |(555) 867-5309| now",
        "|+46 70 123 45 67|",
        "reach me at |0171/2345678|.",
        "|555-867-5309 x123|",
        "phone: |8675309|",
        "ring |020 7946 0958| please",
        "whatsapp |98765 43210|",
        "|+1-202-555-0143|, ask for me",
    ],
    "secret": [
        "my password is |hunter2|",
        "the wifi password: |kaktus-77x|",
        "PIN |4821| please",
        "use |ghp_abcdefghijklmnopqrstuvwxyz0123456789| to push",
        "|AKIAQ3EGRIYLWOQ7AB2C| leaked",
        "postgres://svc:|s3cr3tpw|@db:5432/app",
        "the code to the gate is |90733|#",
        '"api_key": "|41c1b8fcf289485807746ca7a63049ed|"',
        "|hunter2!x| is my password",
        "the passphrase is |lemon ladder walrus copper trumpet violin|",
        "send it to |0x52908400098527886E0F7030069857D2E4169EE7|",
        "Authorization: Bearer |eyJhbGciOi.J9abcXYZ0123456|",
        "commit |3f786850e387550fdab836ed7e6dc881de23001b|",
        "log in with nora / |hunter2!x|",
        "The garage opens with |90733|",
        "It asks for a password. I typed |hunter42| and it failed.",
        "entry code for the building |58895|",
        "my password is |sunshine|.",
        "das Passwort lautet |apfelbaum|",
        "the password: |blue horse lamp|",
        "密码是|hunter2abc|\uff0c谢谢",
        "the kucoin key = |5f36f60bb1810f1be3983afc|",
        "rotate |dckr_pat_ZlLlOKQKZE-GWQpLxXMyvEi7eLI| asap",
        "post to |https://hooks.slack.com/services/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|",
    ],
    "person": [
        "My name is |Nora Lindqvist|.",
        "i met |oyelaran| yesterday",
        "Please ask Mr. |Brzezinski| about it.",
        "|Leon|'s dog",
        "|Anne-Marie O'Brien| called",
        "|J. R. Vandermeer| wrote it",
        "cc: |Nora|, |Leon| and |Mina|",
        "ask |@nora_l| or |@leon99|!",
    ],
    "address": [
        "I live at |12 Rosewood Lane, Springfield, IL 62704|.",
        "nach |Hauptstraße 5, 12345 Lichtenfels|",
        "send it to |Flat 3, 27 Abbey Road\nLondon NW8 9AY|",
        "ship to |P.O. Box 1234, Denver, CO 80201|",
        "at |12 rue de la Paix, 75002 Paris|.",
    ],
}
NOTHING = [
    "There are 1,234,567 people and 12.5 % of 3.14159 in 2024-01-15 at 10:20:30.",
    "The years 1990-2000, pages 100-2000, room 4821, version 1.2.3.4 and 5 x 7 = 35.",
    "5 million dollars, 250 000 km, $409,500 - $400,000 = $9,500, [1, 2, 3, 40, 500]",
    "My password is wrong. I forgot my password. The password must be at least eight characters long.",
    "Use std::vector and a::b.  It has get_user_by_id_and_name().",
    "We drove down the road for 30 miles, e.g. to the sea, i.e. home.Then we slept.",
    "The capital of Germany is Berlin. In May and June it is warm. On Sunday we rest.",
    "the key to success is hard work and the code is easy to read",
    "def add(a, b):\n    token = next(tokens)\n    return a + b\n",
    "ISBN 978-3-16-148410-0 is a book, and 12 345 678 is a number",
    "Which pin do I press? The combination of the two is better than one secret ingredient.",
    "Turn left, go straight on for 200 m and then right.",
    "The password is in the drawer, and the wifi password is on the back of the router.",
    "My password is compromised. The password was leaked. My password is the same as before.",
    "The shop opens with 200 people waiting. The error code appeared 4821 times.",
    "He kept it a secret from grandpapa.",
    "Meet me @ noon, install @types/node, call @decorator(x).",
    "我叫李娜\uff0c你好。اسمي نورا",
]


@pytest.mark.parametrize(("kind", "marked"), [(k, t) for k, texts in FOUND.items() for t in texts])
def test_all_of_it_is_found(kind: str, marked: str) -> None:
    parts = marked.split("|")
    text = "".join(parts)
    spans = [s for s in scan(text) if s.kind == kind]
    at = 0
    for i, part in enumerate(parts):
        if i % 2:
            inside = [c for c in range(at, at + len(part)) if text[c].isalnum()]
            covered = {c for s in spans for c in range(s.start, s.end)}
            assert covered.issuperset(inside), [(s.kind, text[s.start : s.end]) for s in scan(text)]
        else:
            ahead, behind = at, at + len(part)
            assert not any(s.start >= ahead and s.end <= behind for s in spans), spans
        at += len(part)


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert [(s.kind, text[s.start : s.end]) for s in scan(text)] == []


@pytest.mark.parametrize("text", [t for t in NOTHING if "\n" not in t])
def test_storage_finds_even_less(text: str) -> None:
    assert scan(text, policy_for("storage")) == []


def test_a_private_key_is_found_with_all_its_lines_and_also_when_its_end_is_missing() -> None:
    body = "\n".join("MIIEpAIBAAKCAQEA" * 4 for _ in range(5))
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    (span,) = scan(f"here: {key} ok", policy_for("storage"))
    assert (span.start, span.end) == (6, 6 + len(key))
    (span,) = scan(f"here: {key[:200]}", policy_for("storage"))
    assert (span.start, span.end) == (6, 206)


@pytest.mark.parametrize(
    "text", ["4f9aX2kQ81mZtB7c", "3f786850e387550fdab836ed7e6dc881de23001b", "VPcXJzdPARfbkXpdq4TVbeWn"]
)
def test_chance_is_told_from_words(text: str) -> None:
    assert is_random(text)


@pytest.mark.parametrize(
    "text",
    [
        "getUserByIdAndName2",
        "summer-2024-collection-v2",
        "SQLServerConnectionFactory",
        "aaaaaaaaaaaaaaaaaaaa",
        "12345678901234567890",
    ],
)
def test_words_are_told_from_chance(text: str) -> None:
    assert not is_random(text)


def test_a_tag_ahead_of_a_secret_is_no_secret_itself() -> None:
    text = "#private my pin is 7713 and my password is Zebra!Piano9"
    assert [text[s.start : s.end] for s in scan(text)] == ["7713", "Zebra!Piano9"]
    text = "#Hunter2x is my password"  # control: what only looks like one
    assert [text[s.start : s.end] for s in scan(text)] == ["#Hunter2x"]
