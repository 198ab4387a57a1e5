"""What each module's update weighs: its singular values, from the factors alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mlx_plastic.base.roles import natural
from mlx_plastic.lowrank.svd import product_svd
from mlx_plastic.packs.format.pack import Pack
from mlx_plastic.packs.format.tensors import Factors


@dataclass(frozen=True)
class Spectrum:
    """One module's update in numbers, or the mean of several."""

    module: str  # path, or role
    modules: int  # how many it is the mean of
    ranks: tuple[int, int]  # least and most
    alphas: tuple[float, float]
    norm: float  # Frobenius, of (alpha / rank) * B @ A; of stacked experts the mean
    singular_values: tuple[float, ...]  # of the same, falling; of stacked experts the means


def spectra(pack: Pack) -> list[Spectrum]:
    """The spectrum of every module, in the order of the model's layers."""
    return [_spectrum(path, pack.factors[path]) for path in sorted(pack.factors, key=natural)]


def by_role(found: Iterable[Spectrum]) -> list[Spectrum]:
    """The means over the layers, one for each role: self_attn.q_proj and so on."""
    groups: dict[str, list[Spectrum]] = {}
    for one in found:
        groups.setdefault(role(one.module), []).append(one)
    return [_mean(name, group) for name, group in groups.items()]


def role(path: str) -> str:
    """What stands behind the number of the layer; the whole path if there is none."""
    parts = path.split(".")
    last = max((i for i, part in enumerate(parts) if part.isdigit()), default=-1)
    return ".".join(parts[last + 1 :]) or path


def _spectrum(path: str, f: Factors) -> Spectrum:
    s = product_svd(f.b, f.a)[1] * f.scale
    norms = np.sqrt(np.square(s).sum(axis=-1))
    s, norm = s.reshape(-1, s.shape[-1]).mean(axis=0), float(np.mean(norms))
    return Spectrum(path, 1, (f.rank, f.rank), (f.alpha, f.alpha), norm, tuple(map(float, s)))


def _mean(name: str, group: list[Spectrum]) -> Spectrum:
    width = max(len(one.singular_values) for one in group)
    values = np.zeros((len(group), width))  # a smaller rank has zeros where others have values
    for row, one in zip(values, group, strict=True):
        row[: len(one.singular_values)] = one.singular_values
    ranks = [r for one in group for r in one.ranks]
    alphas = [a for one in group for a in one.alphas]
    return Spectrum(
        name,
        len(group),
        (min(ranks), max(ranks)),
        (min(alphas), max(alphas)),
        float(np.mean([one.norm for one in group])),
        tuple(map(float, values.mean(axis=0))),
    )
