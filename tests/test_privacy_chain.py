"""The two ways of walking a chain of words say the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from mlx_plastic.memory.privacy.chain import marginals, marginals_by_blocks
from mlx_plastic.memory.privacy.once import once
from mlx_plastic.memory.privacy.tagger import GATE, LONG, Tagger, _stretches, tagger
from mlx_plastic.memory.privacy.words import lines_of

CHANCE = np.random.default_rng(0)
ODDS = np.exp(CHANCE.normal(0, 2, (3, 3))).tolist()


def by_hand(scores: np.ndarray, begins: bool, ends: bool) -> np.ndarray:
    """Over all readings of the words, one by one."""
    words = len(scores)
    shares = np.zeros((words, 3))
    for number in range(3**words):
        labels = [number // 3**i % 3 for i in range(words)]
        steps = list(pairwise(labels))
        steps += [] if begins else [(0, labels[0])]
        steps += [] if ends else [(labels[-1], 0)]
        weight = np.exp(sum(scores[i, label] for i, label in enumerate(labels)))
        weight *= np.prod([ODDS[a][b] for a, b in steps])
        for i, label in enumerate(labels):
            shares[i, label] += weight
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("words", [1, 2, 3, 5, 8])
def test_both_ways_say_what_all_readings_say(words: int, begins: bool, ends: bool) -> None:
    scores = CHANCE.normal(0, 2, (words, 3))
    wanted = by_hand(scores, begins, ends)
    for found in (
        marginals(scores.tolist(), ODDS, begins=begins, ends=ends),
        marginals_by_blocks(scores, ODDS, begins=begins, ends=ends),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-9)  # float64
    other = marginals(scores.tolist(), ODDS, begins=not begins, ends=ends)
    assert not np.allclose(other, wanted)  # control: where a text begins makes a difference


@pytest.mark.parametrize("words", [10, 99, 100, 101, 4000])
def test_the_blocks_lose_no_word(words: int) -> None:
    scores = CHANCE.normal(0, 40, (words, 3))  # far apart: nothing overflows, nothing becomes 0 / 0
    plain = marginals(scores.tolist(), ODDS, begins=True, ends=False)
    np.testing.assert_allclose(
        marginals_by_blocks(scores, ODDS, begins=True, ends=False), plain, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("words", [1, 2, 3, 6])
def test_no_word_is_passed_over_that_some_run_could_hold(words: int) -> None:
    """Against every run of one label among words that are O."""
    moves = CHANCE.normal(0, 2, (3, 3))
    seen = Tagger({}, None, moves)
    runs = [(a, b, k) for a in range(words) for b in range(a + 1, words + 1) for k in (1, 2)]
    kept = []
    for scores in CHANCE.normal(-3, 4, (100, words, 3)):
        wanted = np.zeros(words, bool)
        for low, high, label in runs:
            labels = [label if low <= i < high else 0 for i in range(words)]
            ahead = sum(scores[i, label] - scores[i, 0] for i, label in enumerate(labels))
            ahead += sum(moves[before, after] - moves[0, 0] for before, after in pairwise(labels))
            wanted[low:high] |= ahead > -GATE
        assert np.array_equal(seen._may_be(scores), wanted)
        kept.append(wanted.mean())
    assert 0.1 < np.mean(kept) < 0.99  # control: some are passed over, some are not


def test_a_stretch_has_a_word_more_on_both_sides_and_joins_what_it_meets() -> None:
    active = np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0], bool)
    assert list(_stretches(active)) == [(2, 8), (10, 14)]
    assert list(_stretches(active[:4])) == [(2, 4)] and list(_stretches(active[3:5])) == [(0, 2)]
    assert list(_stretches(active[:3])) == []


def test_the_tagger_says_the_same_of_a_long_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of("Nora Lindqvist, Leon Berg, " * LONG)
    by_blocks = tagger().probabilities(lines)
    assert any(len(odds) > LONG for _, odds in by_blocks)
    monkeypatch.setattr("mlx_plastic.memory.privacy.tagger.LONG", 10**9)
    plain = tagger().probabilities(lines)
    assert [low for low, _ in plain] == [low for low, _ in by_blocks]
    for (_, one), (_, other) in zip(plain, by_blocks, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert isinstance(tagger(), Tagger)


def test_threads_that_meet_new_words_at_once_find_what_one_finds() -> None:
    shipped = tagger()
    texts = [f"Ask w{i}ra Lindq{i % 7}vist or M{i}na, 12 R{i}se Lane." for i in range(300)]
    lines = [lines_of(text) for text in texts]

    def fresh() -> Tagger:
        return Tagger(shipped.rows, shipped.weights, shipped.moves)

    shared = fresh()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(shared.probabilities, lines))
    alone = fresh()
    assert found == [alone.probabilities(line) for line in lines]
    assert sum(map(bool, found)) > 200  # control: there is something to find


def test_a_view_is_made_once_and_only_when_asked_for() -> None:
    made: list[int] = []

    class Text:
        @once
        def view(self) -> list[int]:
            made.append(1)
            return [len(made)]

    text = Text()
    assert made == []
    assert text.view is text.view
    assert Text().view == [2]  # control: another one has its own
