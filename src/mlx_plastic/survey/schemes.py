"""Quantization schemes: which there are, what they cost, and which an installed MLX knows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlx_plastic.errors import BadConfig

Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]
ScaleType = Literal["bfloat16", "float16", "float32"]

AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)
FIXED: dict[Mode, tuple[int, int]] = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}  # bits, group
SCALE_BITS = {"bfloat16": 16, "float16": 16, "float32": 32}
LEGAL = (
    "affine with bits 2, 3, 4, 5, 6 or 8 and group size 32, 64 or 128; "
    "mxfp4 (4 bits, group 32); mxfp8 (8 bits, group 32); nvfp4 (4 bits, group 16)"
)


@dataclass(frozen=True)
class Scheme:
    """One way to quantize. group_size: values of a row that share a scale."""

    name: str
    mode: Mode
    bits: int
    group_size: int

    def bits_per_weight(self, scale_type: ScaleType) -> float:
        """What one weight costs on disk: its code, and its share of the scale (and the bias of affine)."""
        if self.mode == "affine":
            return self.bits + 2 * SCALE_BITS[scale_type] / self.group_size
        return self.bits + 8 / self.group_size


DEFAULT_SCHEMES = (
    Scheme("affine_q4_g64", "affine", 4, 64),
    Scheme("affine_q8_g64", "affine", 8, 64),
    Scheme("mxfp4_g32", "mxfp4", 4, 32),
)


def read_schemes(given: Any) -> tuple[Scheme, ...]:
    """The enabled schemes of a config. Raises BadConfig for illegal ones, all of them at once."""
    if not isinstance(given, list | tuple):
        raise BadConfig(
            "quant_schemes is not a list", hint='write [{"name": …, "mode": "affine", "bits": 4, …}]'
        )
    faults: list[str] = []
    found: list[Scheme] = []
    for i, one in enumerate(given):
        try:
            scheme = _read(one, f"quant_schemes[{i}]")
        except BadConfig as error:
            faults.append(f"{error.message} ({error.hint})" if "unknown" in error.message else error.message)
            continue
        found += [scheme] if scheme else []
    twice = sorted({s.name for s in found if sum(t.name == s.name for t in found) > 1})
    if twice:
        faults.append(f"two schemes are named {', '.join(map(repr, twice))}")
    if faults:
        raise BadConfig("; ".join(faults), hint=f"legal are: {LEGAL}")
    return tuple(found)


def check_keys(given: Any, known: Sequence[str], where: str) -> None:
    """Raises BadConfig for what is no object, or has a key that is not known, naming the nearest one."""
    if not isinstance(given, Mapping):
        raise BadConfig(f"{where} is {given!r}, not an object", hint=f"known keys: {', '.join(known)}")
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise BadConfig(f"{where}: unknown key {key!r}", hint=meant)


def _read(one: Any, where: str) -> Scheme | None:
    check_keys(one, ("name", "mode", "bits", "group_size", "enabled"), where)
    if one.get("enabled", True) is False:
        return None
    mode: Any = one.get("mode", "affine")
    fixed = next((of for known, of in FIXED.items() if known == mode), (4, 64))
    bits, group = one.get("bits", fixed[0]), one.get("group_size", fixed[1])
    name = one.get("name") or f"{mode}_q{bits}_g{group}"
    legal = mode in get_args(Mode) and type(bits) is int and type(group) is int and isinstance(name, str)
    if legal and mode == "affine":
        legal = bits in AFFINE_BITS and group in AFFINE_GROUPS
    elif legal:
        legal = (bits, group) == FIXED[mode]
    if not legal:
        raise BadConfig(f"scheme {name!r}: mode {mode!r} {bits!r} bits, group size {group!r} is illegal")
    return Scheme(name, mode, bits, group)


def parse_schemes(words: Sequence[str]) -> list[dict[str, Any]]:
    """Schemes as a person types them ("q4g64", "q8", "mxfp4") in the form of a config. Raises BadConfig."""
    found: list[dict[str, Any]] = []
    for word in words:
        if word in FIXED:
            found.append({"name": f"{word}_g{FIXED[word][1]}", "mode": word})
            continue
        bits, _, group = word.removeprefix("affine_").removeprefix("q").replace("_", "").partition("g")
        if not bits.isdigit() or not (group or "64").isdigit():
            raise BadConfig(f"{word!r} is no scheme", hint="write q4g64, q8, mxfp4, mxfp8 or nvfp4")
        name = f"affine_q{bits}_g{group or 64}"
        found.append({"name": name, "mode": "affine", "bits": int(bits), "group_size": int(group or 64)})
    read_schemes(found)
    return found
