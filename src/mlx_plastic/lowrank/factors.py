"""A matrix as three factors: made, told how far off, quantized, and as the bytes of a SafeTensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy

from mlx_plastic.lowrank.quantized import GROUP_SIZE, Bits, dequantize_rows, quantize_rows
from mlx_plastic.lowrank.svd import Array, Method, Svd, balanced, relative_residual, truncated_svd

FORMAT_VERSION = 1
FLOAT16_BOUND = 2.0**-10  # what two rounded factors lose of their product, at most: 2 * 2**-11


@dataclass(frozen=True)
class QuantizedFactors:
    """u * root(s) and root(s) * vt, each as small integers with a float16 scale per group of a row.

    b: (out, rank) and a: (rank, in), as `quantize_rows` packs them along the last axis of b.T and a.
    error: ||u s vt - b a|| / ||u s vt||, measured.
    """

    bt: Array
    bt_scales: Array
    a: Array
    a_scales: Array
    bits: Bits
    group_size: int
    error: float

    @property
    def nbytes(self) -> int:
        return int(sum(x.nbytes for x in (self.bt, self.bt_scales, self.a, self.a_scales)))

    def matrix(self) -> Array:
        """(out, in) float32: what the factors decode to."""
        how = {"bits": self.bits, "group_size": self.group_size}
        bt = dequantize_rows(self.bt, self.bt_scales, **how)  # type: ignore[arg-type]
        a = dequantize_rows(self.a, self.a_scales, **how)  # type: ignore[arg-type]
        product: Array = bt.astype(np.float32).T @ a.astype(np.float32)
        return product


def factorized_lowrank(w: Array, rank: int, method: Method = "gram", *, seed: int = 0) -> Svd:
    """(u, s, vt) with u * s @ vt the best fit of that rank to w (out, in): Eckart & Young 1936.

    u: (out, rank), s: (rank,) falling, vt: (rank, in). See `truncated_svd` for methods and errors.
    """
    return truncated_svd(w, rank, method, seed=seed)


def svd_lowrank(w: Array, rank: int, method: Method = "gram", *, seed: int = 0) -> tuple[Array, float]:
    """The best fit of that rank as a matrix (out, in), and ||w - fit|| / ||w|| in Frobenius norm."""
    u, s, vt = factorized_lowrank(w, rank, method, seed=seed)
    return (u * s[..., None, :]) @ vt, relative_residual(w, u, s, vt)


def quantize_factors(
    u: Array, s: Array, vt: Array, bits: Bits = 8, group_size: int = GROUP_SIZE
) -> QuantizedFactors:
    """The product u * s @ vt in 8 or 4 bits; each factor takes the root of s, so that both round alike.

    u: (out, rank), s: (rank,), vt: (rank, in). Raises ValueError for values beyond float16.
    """
    b, a = balanced(u, s, vt)
    how = {"bits": bits, "group_size": group_size}
    found = (*quantize_rows(np.ascontiguousarray(b.T), **how), *quantize_rows(a, **how))  # type: ignore[arg-type]
    whole = b.astype(np.float64) @ a
    size = float(np.linalg.norm(whole))
    lost = QuantizedFactors(*found, bits, group_size, 0.0).matrix() - whole
    return QuantizedFactors(*found, bits, group_size, float(np.linalg.norm(lost)) / size if size else 0.0)


def factors_to_bytes(factors: Mapping[str, Svd], *, dtype: str = "float32") -> bytes:
    """A SafeTensors file of named factors: <name>.u (out, rank), <name>.s (rank,), <name>.vt (rank, in).

    dtype: "float32" gives the very same factors back; "float16" gives products within `FLOAT16_BOUND` of
    their norm times the root of the rank, s staying float32. Raises ValueError for values beyond it.
    """
    kind = {"float32": np.float32, "float16": np.float16}[dtype]
    arrays: dict[str, Array] = {}
    for name, (u, s, vt) in factors.items():
        with np.errstate(over="ignore"):  # told below
            parts = {"u": u.astype(kind), "s": s.astype(np.float32), "vt": vt.astype(kind)}
        for part, value in parts.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{name}.{part} holds values that {dtype} cannot")
            arrays[f"{name}.{part}"] = np.ascontiguousarray(value)
    about = {"format_version": str(FORMAT_VERSION), "factors": json.dumps(sorted(factors))}
    return safetensors.numpy.save(arrays, metadata=about)


def factors_from_bytes(data: bytes) -> dict[str, Svd]:
    """What `factors_to_bytes` wrote. Raises ValueError if that is not what it is."""
    try:
        arrays = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a SafeTensors file: {error}") from error
    names = sorted({name.rpartition(".")[0] for name in arrays})
    found = {}
    for name in names:
        try:
            u, s, vt = (arrays[f"{name}.{part}"] for part in ("u", "s", "vt"))
        except KeyError as error:
            raise ValueError(f"{name} lacks {error}") from error
        if not u.shape[-1] == s.shape[-1] == vt.shape[-2]:
            raise ValueError(f"{name}: {u.shape}, {s.shape}, {vt.shape} are no factors of one rank")
        found[name] = (u, s, vt)
    return found
