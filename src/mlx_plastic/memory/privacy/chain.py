"""What a linear chain says of each of its words: the forward-backward algorithm (Rabiner 1989), twice.

Plainly for the short stretches that most text has, and by blocks for text that is one long stretch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FURTHEST = 60.0  # nats between two labels' scores; what is further apart is as good as certain


def marginals(
    scores: list[list[float]], odds: list[list[float]], *, begins: bool, ends: bool
) -> list[list[float]]:
    """p(label) of each word, by the forward-backward algorithm; what lies outside the stretch is O.

    begins, ends: nothing lies there, the text begins or ends with the stretch.
    """
    (oo, op, oa), (po, pp, pa), (ao, ap, aa) = odds
    exp = math.exp
    weights = [(1.0, exp(min(p - o, FURTHEST)), exp(min(a - o, FURTHEST))) for o, p, a in scores]
    forward = []
    o, p, a = 1.0, 0.0, 0.0
    for i, (_, wp, wa) in enumerate(weights):
        if begins and i == 0:
            o, p, a = 1.0, wp, wa
        else:
            o, p, a = (
                o * oo + p * po + a * ao,
                (o * op + p * pp + a * ap) * wp,
                (o * oa + p * pa + a * aa) * wa,
            )
        total = o + p + a
        o, p, a = o / total, p / total, a / total
        forward.append((o, p, a))
    found = []
    bo, bp, ba = (1.0, 1.0, 1.0) if ends else (oo, po, ao)
    for (_, wp, wa), (o, p, a) in zip(reversed(weights), reversed(forward), strict=True):
        jo, jp, ja = o * bo, p * bp, a * ba
        total = jo + jp + ja
        found.append([jo / total, jp / total, ja / total])
        wp, wa = wp * bp, wa * ba
        total = bo + wp + wa
        bo, wp, wa = bo / total, wp / total, wa / total
        bo, bp, ba = oo * bo + op * wp + oa * wa, po * bo + pp * wp + pa * wa, ao * bo + ap * wp + aa * wa
    found.reverse()
    return found


def marginals_by_blocks(
    scores: Any, odds: list[list[float]], *, begins: bool, ends: bool
) -> list[list[float]]:
    """The same in a number of steps that grows with the square root of the words. scores: (words, labels).

    A word's step is a matrix; the products of the blocks of words say what enters each block from both sides,
    and then all blocks are walked through at once.
    """
    words, labels = scores.shape
    length = math.isqrt(words)  # of a block
    count = -(-words // length)
    weights = np.exp(np.minimum(scores - scores[:, :1], FURTHEST).astype(np.float64))
    steps = np.tile(np.eye(labels), (count * length, 1, 1))  # beyond the last word: as if nothing were there
    steps[:words] = np.array(odds) * weights[:, None, :]
    if begins:
        steps[0] = np.diag(weights[0])
    steps = steps.reshape(count, length, labels, labels)
    block = np.tile(np.eye(labels), (count, 1, 1))
    for j in range(length):
        block = block @ steps[:, j]
        block /= block.sum(axis=(1, 2), keepdims=True)
    ahead, behind = np.ones((count, labels)), np.ones((count, labels))
    if not begins:
        ahead[0] = np.eye(labels)[0]
    if not ends:
        behind[-1] = np.array(odds)[:, 0]
    for k in range(1, count):
        ahead[k] = _normal(ahead[k - 1] @ block[k - 1])
        behind[-k - 1] = _normal(block[-k] @ behind[-k])
    forward, backward = np.empty((2, count, length, labels))
    for j in range(length):
        forward[:, j] = ahead = _normal((ahead[:, None] @ steps[:, j])[:, 0])
        backward[:, -j - 1] = behind
        behind = _normal((steps[:, -j - 1] @ behind[:, :, None])[:, :, 0])
    found: list[list[float]] = _normal(forward * backward).reshape(-1, labels)[:words].tolist()
    return found


def _normal(shares: Any) -> Any:
    return shares / shares.sum(axis=-1, keepdims=True)
