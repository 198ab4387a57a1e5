"""A pack's numbers: the factors of each module, and the named tensors that store them.

Per module `<path>.lora.A` (rank, in), `.lora.B` (out, rank) and `.lora.alpha` (); int8 and int4 store B
transposed, so that the groups of one scale run along the long axis of both, and add `.lora.A.scales` and
`.lora.B.scales`. docs/pack-format.md is the contract.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mlx_plastic.lowrank.quantized import GROUP_SIZE, Bits, dequantize_rows, quantize_rows, stored_width
from mlx_plastic.packs.format.manifest import Storage
from mlx_plastic.packs.format.untrusted import Tensors

Array = NDArray[Any]
Shape = tuple[int, ...]

TENSORS = "pack.safetensors"

MAX_MODULES = 2048  # the largest open bases have about 900 linear layers
MAX_NAME = 256  # characters of a tensor's name
MAX_GAIN = 1000.0

BITS: dict[Storage, Bits] = {"int8": 8, "int4": 4}
KINDS: dict[Storage, dict[str, str]] = {  # dtype of each part of a module
    "float16": {"A": "F16", "B": "F16", "alpha": "F32"},
    "int8": {"A": "I8", "A.scales": "F16", "B": "I8", "B.scales": "F16", "alpha": "F32"},
    "int4": {"A": "U8", "A.scales": "F16", "B": "U8", "B.scales": "F16", "alpha": "F32"},
}

_NAME = re.compile(r"((?:[A-Za-z0-9_]+\.)+)lora\.(A|B|A\.scales|B\.scales|alpha)")


@dataclass(frozen=True)
class Factors:
    """One module's update: W + (alpha / rank) * B @ A.

    a: (rank, in), b: (out, rank), both float16; with stacked experts (E, rank, in) and (E, out, rank).
    """

    a: Array
    b: Array
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.a.shape[-2])

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def parameters(self) -> int:
        return self.a.size + self.b.size


def tensor_bytes(
    factors: Mapping[str, Factors], storage: Storage = "float16", group_size: int = GROUP_SIZE
) -> bytes:
    """The factors as a safetensors file; the same factors give the same bytes.

    group_size: values that share one scale, of int8 and int4. What such a file decodes to gives the very
    same file again. Raises ValueError for factors that no reader would take back.
    """
    faults = factor_faults(factors)
    if faults:
        raise ValueError("; ".join(faults))
    tensors: dict[str, Array] = {}
    for path, f in factors.items():
        tensors |= {f"{path}.lora.{part}": t for part, t in _encoded(f, storage, group_size).items()}
    return safetensors.numpy.save(tensors)


def parse_factors(
    tensors: Tensors | None, storage: Storage, group_size: int | None, faults: list[str]
) -> dict[str, Factors]:
    """The factors that a file of verified bytes holds, or nothing and the reasons why."""
    if tensors is None:
        return {}
    before = len(faults)
    modules = _modules(tensors, storage, faults)
    if len(faults) > before:
        return {}
    factors = {}
    for path in sorted(modules):
        parts = {part: tensors.array(name) for part, name in modules[path].items()}
        faults += _scale_faults(path, parts)
        try:
            factors[path] = _decoded(parts, storage, group_size or GROUP_SIZE)
        except ValueError as error:
            faults.append(f"{path} is no {storage} of groups of {group_size}: {error}")
    if len(faults) == before:
        faults += factor_faults(factors)
    return factors if len(faults) == before else {}


def stored_factors(
    factors: Mapping[str, Factors], storage: Storage, group_size: int = GROUP_SIZE
) -> dict[str, Factors]:
    """The factors as a reader of that storage gets them: what a pack will do, before it is written."""
    return {p: _decoded(_encoded(f, storage, group_size), storage, group_size) for p, f in factors.items()}


def stored_bytes(
    out: int, width: int, rank: int, storage: Storage, experts: int = 1, *, group_size: int = GROUP_SIZE
) -> int:
    """The bytes that one module's tensors take, alpha's 4 included; the header of the file comes on top.

    out, width: the shape of the weight that is updated.
    """
    if storage == "float16":
        return 2 * experts * rank * (out + width) + 4
    row = sum(stored_width(n, BITS[storage]) + 2 * -(-n // group_size) for n in (out, width))
    return experts * rank * row + 4


def _encoded(f: Factors, storage: Storage, group_size: int) -> dict[str, Array]:
    a, b = np.ascontiguousarray(f.a, np.float16), np.ascontiguousarray(f.b, np.float16)
    parts: dict[str, Array] = {"A": a, "B": b, "alpha": np.array(f.alpha, np.float32)}
    if storage != "float16":
        parts["A"], parts["A.scales"] = quantize_rows(a, BITS[storage], group_size)
        parts["B"], parts["B.scales"] = quantize_rows(b.mT, BITS[storage], group_size)
    return parts


def _decoded(parts: Mapping[str, Array], storage: Storage, group_size: int) -> Factors:
    """Raises ValueError if the shapes or the packing are not those of the storage."""
    a, b, alpha = parts["A"], parts["B"], float(parts["alpha"])
    if storage != "float16":
        bits = BITS[storage]
        a = dequantize_rows(a, parts["A.scales"], bits=bits, group_size=group_size)
        b = dequantize_rows(b, parts["B.scales"], bits=bits, group_size=group_size)
        b = np.ascontiguousarray(b.mT)
    return Factors(a, b, alpha)


def _modules(tensors: Tensors, storage: Storage, faults: list[str]) -> dict[str, dict[str, str]]:
    """Tensor names by part and module path; wrong names, dtypes and numbers of axes are faults."""
    modules: dict[str, dict[str, str]] = {}
    kinds = KINDS[storage]
    for name, entry in tensors.entries.items():
        match = _NAME.fullmatch(name) if len(name) <= MAX_NAME else None
        if match is None or match[2] not in kinds:
            known = ", .".join(kinds)
            faults.append(f"tensor {name[:MAX_NAME]!a} is not <module path>.lora.{known} of {storage}")
            continue
        part = match[2]
        if entry.dtype != kinds[part]:
            faults.append(f"tensor {name!r} is {entry.dtype}, not {kinds[part]}")
        if len(entry.shape) not in ((0,) if part == "alpha" else (2, 3)) or 0 in entry.shape:
            wanted = "a scalar" if part == "alpha" else "(rows, columns), or (experts, rows, columns)"
            faults.append(f"tensor {name!r} has shape {list(entry.shape)}, not {wanted}")
        modules.setdefault(match[1][:-1], {})[part] = name
    if len(modules) > MAX_MODULES:
        faults.append(f"{len(modules)} modules are more than {MAX_MODULES}")
    for path, parts in modules.items():
        faults += [f"{path} has no lora.{part}" for part in kinds if part not in parts]
    return modules


def _scale_faults(path: str, parts: Mapping[str, Array]) -> list[str]:
    return [
        f"{path}.lora.{part} has scales that are negative or not finite"
        for part, t in parts.items()
        if part.endswith(".scales") and not (np.isfinite(t).all() and (t >= 0).all())
    ]


def factor_faults(factors: Mapping[str, Factors]) -> list[str]:
    """Why no reader may take these factors: names, shapes, ranks, values not finite or too large."""
    faults = [
        f"module {path[:MAX_NAME]!a} is no path of a module"
        for path in factors
        if len(path) > MAX_NAME - 20 or not _NAME.fullmatch(f"{path}.lora.A")
    ]
    for path, f in factors.items():
        faults += _shape_faults(path, f.a.shape, f.b.shape) or _value_faults(path, f)
    return faults


def _shape_faults(path: str, a: Shape, b: Shape) -> list[str]:
    if len(a) not in (2, 3) or len(a) != len(b) or 0 in a or 0 in b:
        return [f"{path} has A {list(a)} and B {list(b)}, not (rank, in) and (out, rank)"]
    if a[-2] != b[-1]:
        return [f"{path} has rank {a[-2]} in A and {b[-1]} in B"]
    if a[:-2] != b[:-2]:
        return [f"{path} has {a[0]} experts in A and {b[0]} in B"]
    if a[-2] > min(a[-1], b[-2]):
        return [f"{path} has rank {a[-2]}, more than its weight ({b[-2]}, {a[-1]}) can have"]
    return []


def _value_faults(path: str, f: Factors) -> list[str]:
    tops = {"A": _largest(f.a), "B": _largest(f.b)}
    faults = [
        f"{path}.lora.{part} has values that are not finite"
        for part, top in tops.items()
        if not np.isfinite(top)
    ]
    if not (np.isfinite(np.float32(f.alpha)) and np.float32(f.alpha) > 0):
        faults.append(f"{path}.lora.alpha is {f.alpha:g}, not above zero and finite")
    # if all values were as large as the largest: most packs are far below the bound even so
    coarse = f.alpha * np.sqrt(f.a.shape[-1]) * tops["A"] * tops["B"]
    if not faults and coarse > MAX_GAIN and (found := gain(f)) > MAX_GAIN:
        faults.append(f"{path} would amplify its input {found:.3g} times, more than {MAX_GAIN:g}")
    return faults


def _largest(t: Array) -> float:
    """The largest magnitude in t, NaN if it holds one."""
    if t.dtype != np.float16:
        return float(np.abs(t).max())
    bits = (t.view(np.uint16) & np.uint16(0x7FFF)).max()  # these order as the numbers do, NaN above all
    return float(bits.view(np.float16))


def gain(f: Factors) -> float:
    """At most how many times the update amplifies: a bound on rms(update @ x) / rms(x) of a random x.

    That is |update| / sqrt(out) in the Frobenius norm; |B| |A| >= |B A| spares forming the product. Weights
    of trained bases lie near 1, updates far below. Of experts the largest.
    """
    with np.errstate(over="ignore"):
        norms = [np.sqrt(np.square(t, dtype=np.float32).sum(axis=(-1, -2))) for t in (f.a, f.b)]
    return float(f.scale * (norms[0] * norms[1]).max() / np.sqrt(f.b.shape[-2]))
