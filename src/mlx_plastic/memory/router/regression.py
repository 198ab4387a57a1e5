"""Logistic regression over several classes, fitted with NumPy alone.

scikit-learn's LogisticRegression minimizes the same function with the same method, but is 30 MB and a second
of import for these few lines; `scripts/fit_router.py --check` compares the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Objective = Callable[[Array], tuple[float, Array]]


def softmax(scores: Array) -> Array:
    """(n, classes) probabilities of (n, classes) scores."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return found


def fit(
    x: Array, y: NDArray[np.int64], weights: Array, *, classes: int, penalty: float
) -> tuple[Array, Array]:
    """(features, classes) coefficients and (classes,) intercepts of least mean log loss + L2.

    x: (n, features). y: (n,) in [0, classes). weights: (n,) how much each counts. penalty: of half the sum of
    squares of the coefficients, in units of one sample's loss; intercepts are free. Convex: there is one
    answer, found to a gradient below 1e-6 of the samples' weight.
    """
    n, features = x.shape
    wanted = np.zeros((n, classes))
    wanted[np.arange(n), y] = 1.0
    total = float(weights.sum())

    def objective(flat: Array) -> tuple[float, Array]:
        table = flat.reshape(features + 1, classes)
        scores = x @ table[:-1] + table[-1]
        top = scores.max(axis=1)
        norm = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        loss = float(weights @ (norm - scores[np.arange(n), y]))
        loss += 0.5 * penalty * float(np.sum(table[:-1] ** 2))
        error = (np.exp(scores - norm[:, None]) - wanted) * weights[:, None]
        slope = np.vstack([x.T @ error + penalty * table[:-1], error.sum(axis=0)])
        return loss / total, slope.ravel() / total

    table = minimize(objective, np.zeros((features + 1) * classes)).reshape(features + 1, classes)
    return table[:-1], table[-1] - table[-1].mean()


def minimize(
    objective: Objective, start: Array, *, memory: int = 10, steps: int = 500, tolerance: float = 1e-6
) -> Array:
    """Where a smooth convex function is least, by L-BFGS with backtracking.

    objective: gives the value and the gradient. tolerance: of the gradient's largest entry.
    Source: Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 and 3.1.
    """
    x, (value, slope) = start, objective(start)
    past: deque[tuple[Array, Array, float]] = deque(maxlen=memory)
    for _ in range(steps):
        if np.abs(slope).max() < tolerance:
            break
        direction = -_times_inverse_hessian(slope, past)
        reach = float(slope @ direction)
        step = 1.0 if past else min(1.0, 1.0 / float(np.abs(slope).sum()))
        while True:
            new_value, new_slope = objective(x + step * direction)
            if new_value <= value + 1e-4 * step * reach or step < 1e-10:
                break
            step /= 2
        moved, turned = step * direction, new_slope - slope
        if (curvature := float(moved @ turned)) > 1e-12:
            past.append((moved, turned, curvature))
        x, value, slope = x + moved, new_value, new_slope
    return x


def _times_inverse_hessian(slope: Array, past: deque[tuple[Array, Array, float]]) -> Array:
    """The two loops: what the last steps tell of the curvature, applied to the gradient."""
    found = slope.copy()
    used = []
    for moved, turned, curvature in reversed(past):
        share = float(moved @ found) / curvature
        found -= share * turned
        used.append(share)
    if past:
        moved, turned, curvature = past[-1]
        found *= curvature / float(turned @ turned)
    for (moved, turned, curvature), share in zip(past, reversed(used), strict=True):
        found += (share - float(turned @ found) / curvature) * moved
    return found
