"""The door of memory/privacy: what is found, what a policy makes of it, and that no network is used."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_plastic.errors import BadConfig
from mlx_plastic.home import Home
from mlx_plastic.memory.privacy import (
    PrivacyConfig,
    Span,
    policy_for,
    read_policy,
    redact,
    redact_all,
    scan,
)
from mlx_plastic.memory.privacy.placeholders import Placeholders
from mlx_plastic.memory.privacy.spans import settle

STRICT = policy_for("training", PrivacyConfig(policy="strict"))
EVERYTHING = (
    "My name is Nora Lindqvist, mail nora.l@example.org or call +46 70 123 45 67. My card is"
    " 4111 1111 1111 1111, my IBAN DE89 3704 0044 0532 0130 00, my SSN 078-05-1120, the server 10.20.30.40."
    " See https://example.org/me. I live at 12 Rosewood Lane, Springfield, IL 62704. My password is hunter2!x"
    "."
)


def kinds(text: str) -> dict[str, str]:
    return {span.kind: text[span.start : span.end] for span in scan(text)}


def test_one_text_with_everything_in_it() -> None:
    found = kinds(EVERYTHING)
    assert found == {
        "person": "Nora Lindqvist",
        "email": "nora.l@example.org",
        "phone": "+46 70 123 45 67",
        "card": "4111 1111 1111 1111",
        "iban": "DE89 3704 0044 0532 0130 00",
        "national_id": "078-05-1120",
        "ip": "10.20.30.40",
        "url": "https://example.org/me",
        "address": "12 Rosewood Lane, Springfield, IL 62704",
        "secret": "hunter2!x",
    }


def test_a_text_without_anything_stays_as_it_is() -> None:
    text = "How many apples are left if 12 of 30 are eaten? The password is wrong, says the app."
    assert scan(text) == []
    assert redact(text).text == text
    assert redact("").text == ""


def test_training_keeps_the_names_that_a_person_tells_and_masks_the_rest() -> None:
    done = redact(EVERYTHING)
    assert "Nora Lindqvist" in done.text
    for gone in (
        "nora.l@",
        "+46 70",
        "4111",
        "DE89",
        "078-05",
        "10.20",
        "example.org",
        "Rosewood",
        "hunter2",
    ):
        assert gone not in done.text
    assert "[EMAIL_1]" in done.text and "[SECRET_1]" in done.text
    assert done.actions["person", "keep"] == 1
    assert done.actions["email", "mask"] == 1
    assert "Nora" not in redact(EVERYTHING, STRICT).text


def test_storage_masks_secrets_alone_and_only_sure_ones() -> None:
    storage = policy_for("storage")
    assert redact(EVERYTHING, storage).text == EVERYTHING.replace("hunter2!x", "[SECRET_1]")
    commit = "fixed in 3f786850e387550fdab836ed7e6dc881de23001b, see the log"
    assert redact(commit, storage).text == commit
    assert redact(commit).text != commit  # control: training takes no chance


def test_the_index_keeps_names_and_addresses_of_sites() -> None:
    done = redact(EVERYTHING, policy_for("index"))
    assert "Nora Lindqvist" in done.text and "https://example.org/me" in done.text
    assert "4111" not in done.text and "nora.l@" not in done.text


def test_a_thing_has_one_placeholder_all_through_a_conversation() -> None:
    turns = [
        "My friend Nora Lindqvist lives near Leon Fischer. Her mail is nora@example.org.",
        "Sure, I can write to nora@example.org for you.",
        "Nora asked for it. Leon's mail is leon@example.org, and Nora Lindqvist knows.",
    ]
    first, second, third = (done.text for done in redact_all(turns, STRICT))
    assert "[PERSON_1] lives near [PERSON_2]" in first
    assert second == "Sure, I can write to [EMAIL_1] for you."
    assert third.startswith("[PERSON_1] asked for it. [PERSON_2]'s mail is [EMAIL_2], and [PERSON_1] knows.")


def test_placeholders_of_an_earlier_pass_are_left_alone_and_not_given_again() -> None:
    done = redact("the old one is [SECRET_3], my password is hunter2!x")
    assert done.text == "the old one is [SECRET_3], my password is [SECRET_4]"
    assert redact(done.text).text == done.text


def test_what_was_found_once_is_found_wherever_it_stands() -> None:
    turns = [
        "my wifi password is kaktus77x",
        "so I typed kaktus77x and it worked",
        "kaktus77xy is another word",
    ]
    done = redact_all(turns)
    assert done[1].text == "so I typed [SECRET_1] and it worked"
    assert done[2].text == turns[2]
    assert scan(turns[1]) == []  # control: alone it says nothing
    shouted = redact_all(["Please ask Oyelaran about it.", "i told oyelaran that already"], STRICT)
    assert shouted[1].text == "i told [PERSON_1] that already"


def test_the_own_names_are_found_in_any_case() -> None:
    config = PrivacyConfig(policy="strict", people=["Potato", "Ada Sofa"])
    policy = policy_for("training", config)
    text = "the potato is on the sofa"
    assert redact(text, policy).text == "the [PERSON_1] is on the [PERSON_2]"
    assert redact(text, STRICT).text == text  # control


def test_code_has_a_policy_of_its_own() -> None:
    text = (
        "Look:\n```\nowner = 'Nora Lindqvist'  # nora@example.org\nkey = 'AKIAQ3EGRIYLWOQ7AB2C'\n```\nby Nora"
    )
    done = redact(text, STRICT)
    assert "'Nora Lindqvist'" in done.text
    assert "nora@example.org" not in done.text and "AKIA" not in done.text
    assert done.text.endswith("by [PERSON_1]")
    same = policy_for("training", PrivacyConfig(policy="strict", code="same"))
    assert "Nora Lindqvist" not in redact(text, same).text
    keep = policy_for("training", PrivacyConfig(code="keep"))
    assert "AKIA" in redact(text, keep).text


def test_a_kind_can_be_masked_kept_or_drop_the_turn(home: Home) -> None:
    home.config_file.write_text('[privacy.training]\nperson = "mask"\nemail = "keep"\nphone = "drop"\n')
    policy = read_policy(home, "training")
    done = redact("Ask Nora Lindqvist, nora@example.org", policy)
    assert done.text == "Ask [PERSON_1], nora@example.org"
    assert not done.dropped
    assert redact("call me at (555) 867-5309", policy).dropped
    assert not redact("call me at (555) 867-5309", read_policy(home, "storage")).dropped


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[privacy]\npolicy = "strikt"', "policy is 'strikt'", "'balanced', 'strict'"),
        ("[privacy]\npeople = [3]", "people is no list of names", "people = "),
        ('[privacy.training]\npersom = "mask"', "unknown kind 'persom'", "did you mean 'person'?"),
        ('[privacy.index]\nemail = "hide"', "email is 'hide'", "mask, drop, keep"),
        ('[privacy]\nstorage = "all"', "is no table", "[privacy.storage]"),
        ('[privacy]\ncodes = "same"', "unknown key 'codes'", "did you mean 'code'?"),
    ],
)
def test_a_wrong_setting_is_told(home: Home, text: str, message: str, hint: str) -> None:
    home.config_file.write_text(text)
    with pytest.raises(BadConfig) as caught:
        read_policy(home, "training")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_rude_words_drop_a_turn_from_training_and_nothing_else() -> None:
    for text in ("what a shitty day", "sh1tty day", "you f*cking liar", "fuuuuck this"):
        assert redact(text).dropped, text
        assert not redact(text, policy_for("index")).dropped
    for text in (
        "The class assessed Scunthorpe's classic cocktail.",
        "assets, 5*3*2, a*b",
        "Dick and Moby Dick",
    ):
        assert not redact(text).dropped, text


def test_spans_that_overlap_are_settled_without_losing_ground() -> None:
    text = "0123456789abcdef"
    spans = [
        Span(0, 10, "address", 0.5),
        Span(4, 8, "phone", 0.8),
        Span(2, 6, "phone", 0.5),
        Span(7, 12, "url", 0.9),
    ]
    settled = settle(spans, text)
    assert [(s.start, s.end, s.kind) for s in settled] == [
        (0, 2, "address"),
        (2, 8, "phone"),
        (8, 12, "url"),
    ]


def test_a_part_of_a_name_has_the_number_of_the_whole_one() -> None:
    given = Placeholders()
    assert given.of("person", "Nora Lindqvist") == "[PERSON_1]"
    assert given.of("person", "NORA") == "[PERSON_1]"
    assert given.of("person", "Leon") == "[PERSON_2]"
    assert given.of("person", "Nora Berg") == "[PERSON_3]"
    assert given.of("card", "4111 1111") == given.of("card", "4111-1111") == "[CARD_1]"


# -- no network, no model, no delay


def test_nothing_opens_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", denied)
    monkeypatch.setattr(socket, "create_connection", denied)
    monkeypatch.setattr(socket, "getaddrinfo", denied)
    with pytest.raises(AssertionError):
        socket.create_connection(("127.0.0.1", 9))  # control
    assert len(kinds(EVERYTHING)) == 10


def test_a_fresh_process_finds_all_of_it_without_sockets() -> None:
    code = (
        "import sys\n"
        "def hook(event, args):\n"
        "    if event.startswith('socket.'): raise SystemExit(f'{event} {args}')\n"
        "sys.addaudithook(hook)\n"
        "from mlx_plastic.memory.privacy import scan\n"
        f"print(len(scan({EVERYTHING!r})))\n"
        "print({'mlx', 'mlx_lm', 'torch', 'sklearn'} & set(sys.modules))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["10", "set()"]


def test_importing_the_door_loads_no_detector() -> None:
    code = (
        "import sys, mlx_plastic.memory.privacy;"
        "print(sorted({'numpy', 'phonenumbers', 'stdnum', 'safetensors'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


ODD = {
    "null bytes": "my \0password is hun\0ter2!x",
    "right to left": "שמי נורה, nora@example.org, والسلام",
    "emoji": "call 📞 +46 70 123 45 67 😀‍👩‍👧",
    "mixed scripts": "Моя почта nora@example.org 你好 4111 1111 1111 1111",
    "lower case changes the length": "İİİİİİ my password is hunter2!x",
    "surrogates": "\ud800 nora@example.org \udfff",
    "combining": "e\u0301" * 50 + " nora@example.org",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_text_is_read(text: str) -> None:
    spans = scan(text)
    assert spans
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert redact(text).text.count("_1]") >= 1


def test_a_megabyte_takes_ten_times_what_a_tenth_takes() -> None:
    piece = EVERYTHING + "\n" + "Tomorrow we go on with the garden and the fence behind it. " * 20 + "\n"

    def taken(times: int) -> float:
        start = time.process_time()
        assert len(scan(piece * times)) >= times * 10
        return time.process_time() - start

    assert len(piece * 650) > 900_000
    taken(10)
    tenth = min(taken(65) for _ in range(3))
    assert taken(650) < 30 * tenth  # what grows as the square takes 100 times as long


def test_the_data_holds_no_pickle() -> None:
    import mlx_plastic.memory.privacy as privacy

    names = {file.name for file in (Path(privacy.__file__).parent / "data").iterdir()}
    assert names == {"SOURCES.md", "lexicon.txt.gz", "names.json", "names.safetensors", "profanity.txt"}
