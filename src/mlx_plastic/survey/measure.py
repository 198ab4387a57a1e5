"""All rows of one matrix: its figures, its spectrum, and what each scheme makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.survey import quantsim, spectra, stats
from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.quantsim import Prepared

Array = NDArray[Any]

IDENTITY = (
    *("file", "source_tensor", "derived_tensor", "layer", "block4", "proj", "expert_id"),
    *("is_routed_expert", "is_shared_expert", "kind", "rows", "cols", "dtype"),
)


class Rows(NamedTuple):
    """Of one matrix: a row of matrix_stats, one of quant_sim for each scheme, and one of spectra or none."""

    matrix: dict[str, Any]
    quant: list[dict[str, Any]]
    spectrum: dict[str, Any] | None


def measure(
    w: Array, dtype: str, identity: Mapping[str, Any], *,
    scale_type: str, prepared: Sequence[Prepared], settings: Stats, kernel: Any,
) -> Rows:  # fmt: skip
    """w: (rows, cols) as the kernel takes it; scale_type: what scales of affine schemes are kept in."""
    w = np.ascontiguousarray(w)
    kept = scale_type if settings.scale_dtype == "auto" else settings.scale_dtype
    records = quantsim.records_for(prepared, w.shape[1], kept)
    found = stats.look(w, dtype, settings, kernel, records)
    values = None
    found.figures.update(dict.fromkeys(spectra.COLUMNS))
    if settings.spectra and not found.nonfinite and min(w.shape) <= settings.spectra_max_side:
        values = spectra.singular_values(w, dtype)
        rms = float(found.figures["rms"])
        found.figures.update(spectra.spectral_columns(values, w.shape[0], w.shape[1], rms))
    quant = quantsim.quant_rows(
        *(w, dtype, found),
        prepared=prepared,
        records=records,
        scale_type=kept,
        stats=settings,
        kernel=kernel,
    )
    spectrum = (
        {**identity, "values": spectra.sketch(values)} if values is not None and values[0] > 0 else None
    )
    return Rows({**identity, **found.figures}, [{**identity, **row} for row in quant], spectrum)
