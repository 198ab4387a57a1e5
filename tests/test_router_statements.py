"""Plain statements about people who are named are learned; talk in which somebody is only mentioned is not.

None of these lines, and no filling of their wordings, is in the seed set: they were written before it was
widened for such statements, and are no family of it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from mlx_plastic.memory import Turn
from mlx_plastic.memory.router import plain_router
from mlx_plastic.memory.router.features import CLAUSE
from mlx_plastic.memory.router.model import seed_set
from mlx_plastic.memory.router.people import begins_with_a_name, names_somebody

TOLD = """
Bram repairs clocks for a living.
Annika's trade is bricklaying.
Every autumn Torsten picks chanterelles.
Leonie spends her evenings on embroidery.
Wilhelmina cannot eat walnuts.
Ruben breaks out in hives from strawberries.
Gustav has two canaries at home.
The pet of Fatima is a gecko.
Matteo's mother tongue is Catalan.
Saskia speaks fluent Czech.
Anton spent his youth in Leipzig.
Rosalia was born in Palermo.
Yusuf has settled in Malmo.
Ottilie resides in Brno.
Cosima's instrument is the oboe.
Bastian blows the trombone.
On Sundays Hedwig bakes rye bread.
Nothing pleases Florian more than goulash.
What Ludmila likes best is plum cake.
Whenever he is nervous, Thorben whistles.
When it rains Agnes stays in bed.
If you ask Rafael, tea beats coffee.
Konrad is a vegetarian.
Mina is mad about cherries.
Jorge drinks nothing but water.
Elif adores the colour lilac.
Sander dislikes crowds.
Ingeborg teaches chemistry.
Pascal studies geology.
Tomasz drives a tram.
Beatriz raises goats.
Lucian keeps bees.
Nobody skis better than Henning.
Friederike runs marathons.
Kaspar's favourite season is autumn.
Maike's boyfriend is Danish.
Nikita and Vera are twins.
Zuzana has three brothers.
Gregor hates flying.
Emilia trained as a pastry cook.
Soren earns his money as a diver.
Chiara owns a vineyard.
Philippa used to be a nun.
Samira wears only black.
Dagmar, by the way, is left-handed.
Ernesto loves to fish.
Lennart goes to the sauna every Friday.
Marisol sings in the church choir.
Otto suffers from hay fever.
Priya is good at chess.
""".strip().splitlines()

MENTIONED = """
Say hello to Annika.
Bram just walked in.
Greetings from Leonie!
Torsten is asking for you.
Ask Matteo, not me.
Gustav is late again today.
Fatima sends her love.
What would Ruben say?
Is Saskia a German name?
How do you pronounce Wilhelmina?
Write a poem about Anton.
Tell me a story in which Rosalia meets a bear.
Good night, Yusuf.
Thanks, Ottilie!
Ha, that sounds like Cosima.
Who is Bastian?
Does Hedwig bake?
Where does Florian live?
Do you remember what Ludmila likes?
Let me think, says Thorben.
Oh Agnes.
Rafael is typing.
Konrad says ok.
Call Mina a fool in Latin.
Never mind Jorge.
Elif is in the kitchen right now.
Make it sound like Shakespeare.
Pretend that you are Napoleon.
Sander laughed.
Ingeborg is waiting outside.
Gold is heavier than iron.
Oxygen is a gas.
Rain makes the street wet.
Iron rusts in damp air.
Honey never spoils.
Paris is the capital of France.
Venus is closer to the sun than Mars.
The Danube flows into the Black Sea.
Snow is frozen water.
A violin has four strings.
""".strip().splitlines()


def learned(lines: list[str]) -> list[str]:
    router = plain_router()
    return [s for s in lines if router.decide(Turn("t", "c", "user", s, datetime.now(UTC))).learned]


def test_what_is_told_of_somebody_by_name_is_learned_and_a_mere_mention_mostly_is_not() -> None:
    assert len(learned(TOLD)) >= 0.9 * len(TOLD)
    assert len(learned(MENTIONED)) <= 0.4 * len(MENTIONED)  # control: not everything with a name is
    assert not set(TOLD + MENTIONED) & {example.text for example in seed_set()}


def test_a_question_about_them_is_not_learned() -> None:
    asked = [f"Is it true? {line.removesuffix('.')}?" for line in TOLD]
    assert len(learned(asked)) <= 2


@pytest.mark.parametrize(
    ("text", "somebody"),
    [
        ("Olaf's hobby is beadwork.", True),
        ("oh, Tamsin called", True),  # in no list
        ("I saw Hazel there", True),
        ("Hazel grows in hedges.", False),  # a word with the capital of its sentence
        ("and Will you", False),  # a very common one
        ("Water boils at a hundred degrees.", False),
        ("THE END OF IT ALL", False),
        ("olaf knits", False),
        ("", False),
    ],
)
def test_a_name_is_told_by_its_capital_and_the_lists(text: str, somebody: bool) -> None:
    assert names_somebody(text) is somebody


def test_a_name_ahead_is_told_from_one_inside() -> None:
    assert begins_with_a_name("Well, Olaf knits.")
    assert not begins_with_a_name("Yesterday Olaf knitted.")


def test_a_clause_ahead_is_no_question() -> None:
    assert CLAUSE.match("When it rains Agnes stays in bed.")
    assert CLAUSE.match("What Nora likes best is tea.")
    assert not CLAUSE.match("When does Agnes get up.")
    assert not CLAUSE.match("What Nora likes best is what?")
    assert not CLAUSE.match("How to cook rice.")


def test_a_page_of_capitals_is_read_in_no_time() -> None:
    began = time.process_time()
    assert names_somebody("Zqx " * 250_000)
    assert not names_somebody("The " * 250_000)
    assert time.process_time() - began < 2.0  # CPU seconds; it stops after so many words
