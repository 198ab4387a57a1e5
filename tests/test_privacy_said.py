"""Secrets as people tell them in a chat: what the log masks is all of it, and talk about secrets stays."""

from __future__ import annotations

import pytest

from mlx_plastic.memory.privacy import Placeholders, policy_for, redact, redact_all, scan

SURE = [
    "mein WLAN-Passwort: |kaffeekanne_99|",
    "het wachtwoord is |Fiets!2022|, hasło to |Zupa_9Pomid0r|",
    "root pw on the nas = |ilikecheese!!|",
    "my password is |Winter24!|",
    "i changed my netflix pass to |pandaExpress55| btw",
    "for the router, user root password |toor1234|",
    "wifi: CafeBlau / |espresso#doppio|",
    "the hotel's wifi key is |seaview2024|",
    "set SMTP_PASSWORD=|mail4Ever_x| in the env",
    "mysql -u root -p|S3cretRoot| fails",
    "run it with --token |a8Fk29dLqZ0p|",
    "my gmail app password: |wxyz qrst mnop abcd|",
    "my wallet phrase: |siren vault maple echo hazard tunnel nephew gloom rocket salad pivot urge|",
    "the safe combination is |32-18-7|",
    "the key for the bike lock is |4-7-1-9|",
    "backup codes: |4821-9930|, |5510-2287| and |0418-7725|.",
    "bitlocker recovery key |482913-110284-559201-338472|",
    "the verification code they texted me was |G-447210|",
    "use code |558203| to sign in to my bank",
    "to unlock the tablet type |258036|",
    "the alarm is disarmed with |3391|",
    "|558203| is your bank's login code",
]
TALK = [
    "he had to pass 3 exams to get in, and the bus pass is 49 euros",
    "we got a boarding pass to Gate2B and a free pass to EuroDisney2024",
    "log in with user accounts, then enter the password twice",
    "the wifi in room 12, or network 5, is slow",
    "the key for this song is C minor, 4-4 time",
    "my password is incorrect!! my password is wrong!",
    "the passphrase is made of several common words chosen by chance",
    "run it with --token $TOKEN, --password <yours> or --secret-file key.txt",
    "set DB_PASSWORD=your_password in the file, and SORT_KEY=name_2",
    "the error code is E-404 and the postal code is SW-1234",
    "press 4471 times, dial in at 1400 hours, open with 2000 people",
    "2024 is the year of my code and 4821 is my highest score",
    "the area codes are 030 and 040, page numbers: 12-14, 20-25",
    "is 1Password better than KeePass for passwords?",
    "the combination of 10 and 20 is 30, the lock-up is 2024-05-06",
]


@pytest.mark.parametrize("marked", SURE)
def test_a_secret_that_is_told_is_masked_in_the_log(marked: str) -> None:
    parts = marked.split("|")
    text = "".join(parts)
    assert [text[s.start : s.end] for s in scan(text, policy_for("storage"))] == parts[1::2]


@pytest.mark.parametrize("text", TALK)
def test_talk_about_secrets_stays_in_the_log(text: str) -> None:
    assert [text[s.start : s.end] for s in scan(text, policy_for("storage"))] == []


def test_a_password_that_ends_with_a_mark_is_known_again_without_it() -> None:
    told, used = "my password is Winter24!", "I typed Winter24 and it failed"
    assert redact(used, policy_for("storage")).text == used  # control: nothing tells it there
    assert redact_all([told, used], policy_for("storage"))[1].text == "I typed [SECRET_1] and it failed"
    earlier = Placeholders()
    redact(told, policy_for("storage"), earlier)
    assert redact(used, policy_for("storage"), earlier).text == "I typed [SECRET_1] and it failed"


def test_what_others_leave_of_a_find_has_no_space_at_its_ends() -> None:
    text = "card 4539 1488 0343 6467 exp 04/29, pw hunter2hunter, Nora Lindqvist"
    found = [text[s.start : s.end] for s in scan(text)]
    assert "4539 1488 0343 6467" in found and "hunter2hunter" in found
    assert found == [f.strip() for f in found]


def test_a_fraction_is_no_phone_and_a_uuid_no_address() -> None:
    text = "the ratio was 0.6180339887 exactly; uuid 123e4567-e89b-12d3-a456-426614174000 looks fine"
    assert {s.kind for s in scan(text, policy_for("index"))} <= {"secret"}
    text = "call 030 61803398, 17 Rosewood Lane"  # control
    assert {s.kind for s in scan(text, policy_for("index"))} == {"phone", "address"}


def test_a_small_word_with_an_article_is_a_thing_and_no_name() -> None:
    for text in ("the robin came back to the feeder", "she plays the viola", "we caught a pike"):
        assert not scan(text), text
    assert [s.kind for s in scan("robin came back")] == ["person"]  # control
    assert [s.kind for s in scan("the kevin malone show")] == ["person"]
