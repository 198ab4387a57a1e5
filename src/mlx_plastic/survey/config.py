"""analysis_config.json: what is surveyed, how, and in which form it is written.

Configs of the older pipeline are read as they are; what they say about sampling has no effect, for here
percentiles are exact. A key that nobody knows is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from mlx_plastic.errors import BadConfig
from mlx_plastic.home import from_mapping
from mlx_plastic.survey.schemes import DEFAULT_SCHEMES, Scheme, read_schemes

T = TypeVar("T")

CONFIG_FILE = "analysis_config.json"
ALIASES = {
    "gate_proj": ["gate_proj", "w1"],
    "up_proj": ["up_proj", "w3"],
    "down_proj": ["down_proj", "w2"],
}


@dataclass(frozen=True)
class Scan:
    """Which files and tensors."""

    extensions: Sequence[str] = (".safetensors", ".npz")
    experts_only: bool = False  # leave out what is neither a routed nor a shared expert
    include_shared_expert: bool = True
    inventory_all_tensors: bool = True  # False: only those that a rule took
    use_safetensors_index_json: bool = True
    strict_index: bool = False  # an index that lies stops the run; else it is a warning
    max_files: int | None = None


@dataclass(frozen=True)
class Parsing:
    """How names are read."""

    layer_regex: str = r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)(?:\.|$)"
    expert_regex: str = r"(?:^|\.)experts\.(\d+)(?:\.|$)"
    proj_aliases: Mapping[str, Sequence[str]] = field(default_factory=lambda: dict(ALIASES))
    shared_expert_keywords: Sequence[str] = ("shared", "expert")
    strict_packed_split: bool = True
    proj_group_strict: bool = False  # True: what a rule calls by no known alias is left out
    builtin_rules: bool = True  # after the rules below, those for the families that mlx-lm loads


@dataclass(frozen=True)
class Stats:
    """What is measured of each matrix."""

    percentiles_abs: Sequence[float] = (50.0, 99.0, 99.9)
    group_outlier_percentile: float = 95.0
    group_sizes_lastdim: Sequence[int] = (32, 64)
    spectra: bool = True  # singular values and what follows from them; the slowest part
    spectra_max_side: int = 4096  # the shorter side of a matrix; beyond it no spectrum is computed
    quant_gram_sample_k: int = 32  # rows compared for w_gram_cos_drift
    scale_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"  # auto: as the weights
    # of older configs, without effect: nothing is sampled, no denominator is padded, errors are in float32
    eps: float = 0.0
    sample_per_matrix: int = 0
    sample_seed: int = 0
    quant_spectral_power_iters: int = 0
    quant_compute_dtype: str = ""
    metrics: Sequence[str] | None = None


@dataclass(frozen=True)
class Mlx:
    """enabled False: no quantization is simulated. device: of older configs; the kernel runs on the CPU."""

    enabled: bool = True
    device: str = "cpu"
    schemes: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Output:
    """format: "auto" is parquet where duckdb is installed, else CSV."""

    format: Literal["auto", "parquet", "csv"] = "auto"
    compression: str | None = None  # of parquet: zstd, snappy, gzip or none


@dataclass(frozen=True)
class Debug:
    dump_unmatched_tensors: bool = True
    print_progress_every_files: int = 1


@dataclass(frozen=True)
class Metadata:
    """Of older configs, without effect: the model's config.json is always read where there is one."""

    enabled: bool = False
    config_path: str | None = None
    mode: str = ""


@dataclass(frozen=True)
class SurveyConfig:
    """All of analysis_config.json, checked."""

    model_path: str
    scan: Scan = field(default_factory=Scan)
    parsing: Parsing = field(default_factory=Parsing)
    extract_rules: tuple[Mapping[str, Any], ...] = ()
    stats: Stats = field(default_factory=Stats)
    mlx: Mlx = field(default_factory=Mlx)
    quant_schemes: tuple[Scheme, ...] = DEFAULT_SCHEMES
    delta_pairs: tuple[Mapping[str, str], ...] = ()
    output: Output = field(default_factory=Output)
    debug: Debug = field(default_factory=Debug)
    metadata: Metadata = field(default_factory=Metadata)
    plots: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As it is written: JSON that reads back to the same config."""
        found = dataclasses.asdict(self)
        found["quant_schemes"] = [{**s, "enabled": True} for s in found["quant_schemes"]]
        return found


SECTIONS: dict[str, type] = {
    "scan": Scan,
    "parsing": Parsing,
    "stats": Stats,
    "mlx": Mlx,
    "output": Output,
    "debug": Debug,
    "metadata": Metadata,
}


def read_config(path: Path) -> SurveyConfig:
    """Raises BadConfig if the file is missing, no JSON, or says what cannot be done."""
    try:
        given = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadConfig(
            f"no {CONFIG_FILE} in {path.parent}",
            hint="plastic survey init makes a run folder with one",
        ) from None
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}", hint="check who owns it") from error
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{path} is not JSON: {error}", hint="mend that line") from error
    return parse_config(given, where=str(path))


def parse_config(given: Any, *, where: str) -> SurveyConfig:
    if not isinstance(given, dict):
        raise BadConfig(f"{where} is not a JSON object", hint='it starts with {"model_path": …')
    sections: dict[str, Any] = {
        key: _section(kind, given.get(key), f"{where} {key}") for key, kind in SECTIONS.items()
    }
    listed = sections["mlx"].schemes
    schemes = given.get("quant_schemes", None if listed is None else list(listed))
    found = {
        **given,
        **sections,
        "model_path": given.get("model_path") or "",
        "extract_rules": tuple(_list(given.get("extract_rules", []), where, "extract_rules")),
        "quant_schemes": DEFAULT_SCHEMES if schemes is None else read_schemes(schemes),
        "delta_pairs": tuple(_list(given.get("delta_pairs", []), where, "delta_pairs")),
        "plots": given.get("plots") or {},
    }
    config = from_mapping(SurveyConfig, found, where=where)
    _check(config, where)
    return config


def _section(kind: type[T], given: Any, where: str) -> T:
    if given is None:
        return kind()
    if not isinstance(given, dict):
        raise BadConfig(f"{where} is {given!r}, not an object", hint="write { … }")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    section = from_mapping(kind, plain, where=where)
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        value = getattr(section, one.name)
        if isinstance(one.default, tuple) and not isinstance(value, tuple):
            raise BadConfig(f"{where}: {one.name} is {value!r}, not a list", hint="write [ … ]")
    return section


def _list(given: Any, where: str, key: str) -> list[Mapping[str, Any]]:
    if not isinstance(given, list | tuple) or not all(isinstance(one, dict) for one in given):
        raise BadConfig(f"{where}: {key} is not a list of objects", hint="write [{ … }, { … }]")
    return list(given)


def _check(config: SurveyConfig, where: str) -> None:
    if not isinstance(config.model_path, str):
        raise BadConfig(
            f"{where}: model_path is {config.model_path!r}", hint="write a folder, a file or a URL"
        )
    for name in ("layer_regex", "expert_regex"):
        compiled(getattr(config.parsing, name), f"{where} parsing: {name}")
    if config.scan.strict_index and not config.scan.use_safetensors_index_json:
        raise BadConfig(
            f"{where} scan: strict_index needs use_safetensors_index_json", hint="set both, or neither"
        )
    if not (
        config.scan.max_files is None or (type(config.scan.max_files) is int and config.scan.max_files > 0)
    ):
        raise BadConfig(
            f"{where} scan: max_files is {config.scan.max_files!r}", hint="a number above 0, or null"
        )
    _check_stats(config.stats, where)
    _check_pairs(config, where)


def _check_stats(stats: Stats, where: str) -> None:
    good = all(
        _is_number(p) and 0 <= p <= 100 for p in (*stats.percentiles_abs, stats.group_outlier_percentile)
    )
    if not good:
        raise BadConfig(f"{where} stats: a percentile is not within 0 and 100", hint="write 99.9 for 99.9 %")
    if not all(type(size) is int and size > 0 for size in stats.group_sizes_lastdim):
        raise BadConfig(
            f"{where} stats: group_sizes_lastdim are not whole numbers above 0", hint="write [32, 64]"
        )
    if stats.quant_gram_sample_k < 2:
        raise BadConfig(f"{where} stats: quant_gram_sample_k is below 2", hint="a pair of rows is the least")


def _check_pairs(config: SurveyConfig, where: str) -> None:
    known = {scheme.name for scheme in config.quant_schemes}
    for pair in config.delta_pairs:
        if set(pair) != {"name", "a", "b"}:
            raise BadConfig(f"{where}: a delta pair has the keys {sorted(pair)}", hint="write name, a and b")
    names = [pair["name"] for pair in config.delta_pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadConfig(f"{where}: two delta pairs are named {', '.join(twice)}", hint="rename one")
    lost = sorted({pair[side] for pair in config.delta_pairs for side in "ab"} - known)
    if lost and config.quant_schemes:
        raise BadConfig(
            f"{where}: delta pairs name schemes that are not there: {', '.join(lost)}",
            hint=f"there are: {', '.join(sorted(known))}",
        )


def compiled(pattern: Any, where: str) -> re.Pattern[str]:
    """Raises BadConfig for what is no regular expression."""
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise BadConfig(
            f"{where} is no regular expression: {error}", hint="mind the backslashes: \\\\."
        ) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
