"""Where a rule ends: what it must find, and beside it the nearest text that it must leave alone."""

from __future__ import annotations

import pytest

from mlx_plastic.memory.privacy import Policy, PrivacyConfig, policy_for, redact_all, scan
from mlx_plastic.memory.privacy.code import code_in
from mlx_plastic.memory.privacy.page import GAP, Page
from mlx_plastic.memory.privacy.second import named
from mlx_plastic.memory.privacy.tagger import REACH, counted, tagger

STRICT = PrivacyConfig(policy="strict")
TRAINING, STORAGE = policy_for("training", STRICT), policy_for("storage", STRICT)

# |what is found|, and a neighbour in which nothing is
TRAINED = [
    ("my tel|(0171) 2345678|, evenings", "my tel (0171) 23, evenings"),
    ("her old line was |030 123456| I think", "it counted 0301 234567890 I think"),
    ("the code is |90210|", "the zip code is 90210"),
    ("[PERSON_1]|nora@example.org|[PHONE_1]", "[EMAIL_1][PHONE_1]"),
    ("the door opens: |123e4567-e89b-12d3-a456-426614174000|/", "the door opens: 123e4567/"),
    ("the password: |blue horse and lamp|", "the password: blue and the lamp"),
    ("DNI |12345678Z|", "DNI 123"),
    ("its |5 hauptstraße india btw|", "its 5 in india btw"),
    ("|66780 Oak Ave poland, texas|", "66780 of it"),
    ("CANT BELIEVE |TAMMERA| IS MOVING", "CANT BELIEVE IT IS MOVING"),
    ("u seen |shavonne|", "u seen it"),
    ("see |kayce|", "see portugal"),
    ("|5 Green Creek| at noon", "Green Creek at noon"),
    ("|kevinMalone| lol", "use dataFrame here"),
    ("İİİİİİ: my passport number is |L01X00T47|", "İİİİİİ: my passport is blue"),  # lower() makes it longer
    ("write to |nora{at}example.org| or |leon[at]example.org|", "write to them {at} noon or [at] night"),
    ("@ me: |nora@example.org|", "@ me: at home"),
    ("security answer: |Bluebell7|", "the key Gate2B hangs here"),
]
STORED = [
    ("it reads |3782 822463 10005| on the slip", "it reads 378 282 246 310 005 on the slip"),
    ("it reads |4111111111111111| on the slip", "it reads 41111 11111 111111 on the slip"),
    ("it reads |4111 1111 1111 1111| on the slip", "it reads 4111 11111 1111 111 on the slip"),
    ("it reads |501800001239| on the slip", "it reads 60370000123456789092 on the slip"),  # from 12 digits
    ("it reads |6037000012345678909| on the slip", "it reads 01800001239 on the slip"),  # to 19
    ("my card 20240101 |378 282 246 310 005|", "my code 20240101 378 282 246 310 005"),
    # by chance, 20240101 12 4111 passes the check of cards, so do 4451 9568 3237 and 4821 4320 9416 6380
    ("my card |20240101 12 4111 1111 1111 1111|", "my card 20240101 12"),
    ("it reads |4451 9568 3237 4184| on the slip", "it reads 4451 9568 3238 on the slip"),
    ("it reads |4821 4320 9416 6380 3294| on the slip", "it reads 4821 4320 9416 on the slip"),
    ("the cvv is |123|", "the cvv is 12"),
    ("the slip says |Xk9vQ2mZr7Tn4Lp6Vb1YcA==|", "the slip says a==b and c==d"),
    ("the verification code was |G-447210|", "security answer: Bluebell7"),  # training takes it
    ("the password from the desk, |Blue7!xKq|, works", "the password works. We bought Blue7!xKq there."),
    ("log in with nora / |hunter2!x|", "log in with nora / a guest"),
]


@pytest.mark.parametrize(
    ("policy", "marked", "left"),
    [(policy, *pair) for policy, pairs in ((TRAINING, TRAINED), (STORAGE, STORED)) for pair in pairs],
)
def test_a_rule_finds_all_of_a_thing_and_nothing_in_its_neighbour(
    policy: Policy, marked: str, left: str
) -> None:
    text = marked.replace("|", "")
    assert [text[s.start : s.end] for s in scan(text, policy)] == marked.split("|")[1::2]
    assert scan(left, policy) == []


def test_a_guess_does_not_spread_to_other_turns_and_what_is_sure_does() -> None:
    guess = ["my password is sunshine", "what a day of sunshine"]
    sure = ["my password is sunshine7", "what a day of sunshine7"]
    assert redact_all(guess)[0].text == redact_all(sure)[0].text == "my password is [SECRET_1]"
    assert redact_all(guess)[1].text == guess[1]
    assert redact_all(sure)[1].text == "what a day of [SECRET_1]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`a` and\n```\nx = 1\ny = 2\nz = f(x)\n```\nbye", ["a", "\nx = 1\ny = 2\nz = f(x)\n"]),
        ("`a` and\n\nx = 1\ny = `ls`\nz = 3\n\nbye", ["a", "x = 1\ny = `ls`\nz = 3\n"]),
        ("x = 1\ny = 2\nz = 3\n" + "we went on and on\n" * 20 + "w = 4\n", ["x = 1\ny = 2\nz = 3\n"]),
        ("x = 1\ny = 2\n" + "we went on and on\n" * 20 + "w = 4\n", []),  # two lines are too few
    ],
)
def test_code_that_is_met_twice_is_one_stretch_and_ends_where_talk_begins(
    text: str, found: list[str]
) -> None:
    assert [text[start:end] for start, end in code_in(text)] == found


def test_a_number_is_looked_for_only_where_so_many_digits_stand_together() -> None:
    text = "room 12 of 345" + " " * 90 + "67" + " " * GAP + "8901" + " " * (GAP + 1) + "23"
    page = Page(text)
    assert list(page.numbers(7, 0, 0)) == []
    assert [text[a:b] for a, b in page.numbers(6, 0, 0)] == ["67" + " " * GAP + "8901"]
    assert [text[a:b] for a, b in page.numbers(5, 0, 0)] == ["12 of 345", "67" + " " * GAP + "8901"]
    assert list(Page("no digit").numbers(1)) == []


@pytest.mark.parametrize(
    ("said", "found"),
    [("Will", ["Will"]), ("will", []), ("The", []), ("the", []), ("rosalind", ["rosalind"])],
)
def test_a_reader_names_a_common_word_only_where_it_is_written_as_a_name(said: str, found: list[str]) -> None:
    text = "The boat is late, will you tell rosalind or Will, the cook"
    assert [text[s.start : s.end] for s in named(text, f"name: {said}")] == found


def test_the_shipped_tagger_weighs_a_feature_only_at_the_places_where_it_counts() -> None:
    shipped = tagger()
    used = dict.fromkeys(range(-REACH, REACH + 1), 0)
    for name, row in shipped.rows.items():
        for place in used:
            weighs = bool(shipped.weights[row, place + REACH].any())
            assert counted(name, place) or not weighs, (name, place)
            used[place] += weighs
    assert all(count > 1000 for count in used.values())  # control: at each of them something does
    assert [counted("c=pl0Xx", place) for place in used] == [False, True, True, True, False]
    assert [counted("e=ova", place) for place in used] == [False, False, True, False, False]
