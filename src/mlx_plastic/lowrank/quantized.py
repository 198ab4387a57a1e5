"""Arrays in 8 or 4 bits with one scale per group of a row: what a small pack stores of its factors."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bits = Literal[8, 4]

GROUP_SIZE = 64
LARGEST = {8: 127, 4: 7}  # symmetric: -128 and -8 are never a value
CLIPS = {8: (), 4: (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)}  # at 8 bits clipping gains nothing
PAD = 8  # the nibble of -8: it fills the last byte of a row of odd width, and is found nowhere else

_BYTES = np.arange(256, dtype=np.int16)
_NIBBLES = ((np.stack([_BYTES & 0xF, _BYTES >> 4], axis=1) ^ 8) - 8).astype(np.int8)
_PAIRS = _NIBBLES.view(np.int16).ravel()  # the two values of each byte, as one item to look up


def quantize_rows(x: Array, bits: Bits = 8, group_size: int = GROUP_SIZE) -> tuple[Array, Array]:
    """`x` as small integers and one float16 scale per group of its last axis; x is about q * scale.

    x: (..., n) finite, within float16. The last group of a row may be shorter than group_size.
    Returns q, int8 (..., n) or, of 4 bits, uint8 (..., ceil(n / 2)) with the even index in the low nibble;
    and scales, float16 (..., ceil(n / group_size)).
    The scale of a group is the one of smallest squared error among absmax / 127 (or / 7), its nearest
    float16 neighbours and, of 4 bits, 0.95, 0.9, ... 0.7 of it, which clip. What it decodes to is a fixed
    point: quantized again, it gives the very same q and scales.
    """
    if bits not in LARGEST or group_size < 1:
        raise ValueError(f"{bits} bits in groups of {group_size}: only 8 or 4 bits, groups of 1 or more")
    if not x.size or not (np.abs(x) <= np.finfo(np.float16).max).all():
        raise ValueError(f"an array {list(x.shape)} that is empty or not finite in float16")
    groups = _grouped(np.asarray(x, np.float32), group_size)
    scales = _nearest(groups, bits, CLIPS[bits])
    decoded = _decoded(_rounded(groups, scales, bits), scales)
    for _ in range(16):  # one round, a few if the scales are subnormal
        groups = decoded.astype(np.float32)
        scales = _nearest(groups, bits, ())
        decoded = _decoded(_rounded(groups, scales, bits), scales)
        if np.array_equal(decoded, groups):  # of scales that decode to the same, always the smallest
            break
    rows = _rounded(groups, scales, bits).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    q = np.ascontiguousarray(rows, np.int8)
    return (_packed(q) if bits == 4 else q), np.ascontiguousarray(scales.reshape(*x.shape[:-1], -1))


def dequantize_rows(q: Array, scales: Array, *, bits: Bits = 8, group_size: int = GROUP_SIZE) -> Array:
    """The float16 array (..., n) that `quantize_rows` stored; too large a product becomes infinite.

    Raises ValueError if shapes, values or padding are not what quantize_rows gives.
    """
    values = _unpacked(q) if bits == 4 else q
    if bits == 8 and q.min(initial=0) < -LARGEST[8]:
        raise ValueError("an integer is -128, which is no value")
    width = values.shape[-1]
    if scales.shape != (*q.shape[:-1], -(-width // group_size)):
        raise ValueError(f"scales {list(scales.shape)} for rows of {width} in groups of {group_size}")
    groups = _grouped(values.astype(np.float32), group_size)
    flat = _decoded(groups, scales.reshape(-1, 1)).reshape(*q.shape[:-1], -1)
    return np.ascontiguousarray(flat[..., :width])


def stored_width(width: int, bits: Bits) -> int:
    """How many bytes one row of `width` values takes, without its scales."""
    return width if bits == 8 else -(-width // 2)


def _grouped(x: Array, group_size: int) -> Array:
    """(..., n) as (groups, group_size), each row filled with zeros to whole groups.

    A row that is shorter than one group is one group of its own length: group_size costs no memory.
    """
    group_size = min(group_size, x.shape[-1])
    short = -x.shape[-1] % group_size
    whole = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)]) if short else x
    return whole.reshape(-1, group_size)


def _nearest(groups: Array, bits: Bits, clips: tuple[float, ...]) -> Array:
    """The scales (groups, 1) of smallest squared error; of equal ones the smallest."""
    ideal = np.abs(groups).max(axis=1, keepdims=True) / LARGEST[bits]
    best = np.zeros((len(groups), 1), np.float16)
    least = np.square(groups).sum(axis=1, keepdims=True)
    for scales in [*_neighbours(ideal.astype(np.float16)), *((ideal * c).astype(np.float16) for c in clips)]:
        error = np.square(groups - _decoded(_rounded(groups, scales, bits), scales))
        error = error.sum(axis=1, keepdims=True)
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    return best


def _neighbours(scales: Array, steps: int = 2) -> list[Array]:
    """The float16 numbers up to two steps below and above `scales`, non-negative, in rising order."""
    found = [scales]
    for _ in range(steps):
        below = np.maximum(np.nextafter(found[0], np.float16(-1)), np.float16(0))
        found = [below, *found, np.nextafter(found[-1], np.float16(np.inf))]
    return found


def _rounded(groups: Array, scales: Array, bits: Bits) -> Array:
    most = LARGEST[bits]
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.rint(groups / scales.astype(np.float32))
    q[np.isnan(q)] = 0  # 0 / 0: a group of zeros
    return np.asarray(np.clip(q, -most, most))


def _decoded(groups: Array, scales: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        decoded: Array = (groups * scales.astype(np.float32)).astype(np.float16)
    return decoded


def _packed(q: Array) -> Array:
    """int8 (..., n) within [-7, 7] as uint8 (..., ceil(n / 2)), two values a byte."""
    nibbles = (q & 0xF).astype(np.uint8)
    if q.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.full((*q.shape[:-1], 1), PAD, np.uint8)], axis=-1)
    return np.ascontiguousarray(nibbles[..., ::2] | (nibbles[..., 1::2] << 4))


def _unpacked(q: Array) -> Array:
    """The int8 values of `_packed`. Raises ValueError for a -8 that does not pad every row."""
    values = np.take(_PAIRS, q).view(np.int8)
    width = values.shape[-1] - bool((values[..., -1] == -8).all())
    if values[..., :width].min() == -8:
        raise ValueError("a nibble is -8, which is no value")
    return values[..., :width]
