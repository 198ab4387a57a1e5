"""Tables on disk: rows streamed to CSV, and to parquet where duckdb is installed; both read back the same."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mlx_plastic.errors import BadData
from mlx_plastic.home import sync, sync_folder
from mlx_plastic.survey.config import Output

Kind = Literal["str", "int", "float", "bool"]
Columns = Mapping[str, Kind]

SQL: dict[Kind, str] = {"str": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN"}
COMPRESSIONS = ("zstd", "snappy", "gzip", "none", "uncompressed")


def has_parquet() -> bool:
    return importlib.util.find_spec("duckdb") is not None


def write_table(
    base: Path, columns: Columns, rows: Iterable[Mapping[str, Any]], output: Output
) -> tuple[Path, int, str]:
    """Writes `base`.csv or `base`.parquet, atomically; no row is held longer than it takes to write it.

    What is None is an empty cell. Returns the file, the number of rows, and a warning: parquet was asked for,
    but cannot be written.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    beside = base.with_name(f".{base.name}.{os.getpid()}.csv")
    try:
        count = _write_csv(beside, columns, rows)
        warning = ""
        ending = "parquet" if output.format != "csv" and has_parquet() else "csv"
        if output.format == "parquet" and ending == "csv":
            warning = "parquet needs duckdb (pip install 'mlx-plastic[survey]'): tables are written as CSV"
        final = base.with_name(f"{base.name}.{ending}")
        if ending == "parquet":
            _to_parquet(beside, final, columns, output)
        else:
            os.replace(beside, final)
        base.with_name(f"{base.name}.{'csv' if ending == 'parquet' else 'parquet'}").unlink(missing_ok=True)
        sync_folder(base.parent)
    finally:
        beside.unlink(missing_ok=True)
    return final, count, warning


def _write_csv(path: Path, columns: Columns, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_text(row.get(name)) for name in columns])
            count += 1
        file.flush()
        sync(file.fileno())
    return count


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(float(value)) if isinstance(value, float) else str(value)


def _to_parquet(source: Path, final: Path, columns: Columns, output: Output) -> None:
    import duckdb

    compression = str(output.compression or "zstd").lower()
    if compression not in COMPRESSIONS:
        raise BadData(f"parquet compression {compression!r}", hint=f"use one of {', '.join(COMPRESSIONS)}")
    compression = "uncompressed" if compression == "none" else compression
    beside = final.with_name(f".{final.name}.part")
    kinds = {name: SQL[kind] for name, kind in columns.items()}
    try:
        with duckdb.connect() as database:
            table = database.read_csv(
                str(source), header=True, dtype=kinds, quotechar='"', escapechar='"', delimiter=",",
                auto_detect=False, columns=kinds,
            )  # fmt: skip
            table.write_parquet(str(beside), compression=compression)
        os.replace(beside, final)
    finally:
        beside.unlink(missing_ok=True)


def find_table(base: Path) -> Path | None:
    """The file of that table, parquet before CSV."""
    for ending in ("parquet", "csv"):
        path = base.with_name(f"{base.name}.{ending}")
        if path.is_file():
            return path
    return None


def read_table(base: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    """Row by row, with the types of `columns`; a column that the file lacks is None in each row.

    Columns that are not asked for come as they are in parquet, and as text in CSV.
    Raises BadData if there is no such table or it cannot be read.
    """
    path = find_table(base)
    if path is None:
        raise BadData(f"no table {base.name} in {base.parent}", hint="first: plastic survey collect RUN")
    rows = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path, columns)
    for row in rows:
        yield {**dict.fromkeys(columns), **row}


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import duckdb
    except ImportError as error:
        raise BadData(f"{path} needs duckdb", hint="pip install 'mlx-plastic[survey]'") from error
    try:
        with duckdb.connect() as database:
            found = database.execute("SELECT * FROM read_parquet(?)", [str(path)])
            names = [column[0] for column in found.description]
            while batch := found.fetchmany(10_000):
                yield from (dict(zip(names, row, strict=True)) for row in batch)
    except duckdb.Error as error:
        raise BadData(f"{path} cannot be read: {error}", hint="collect again") from error


def _read_csv(path: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield {name: _value(text, columns.get(name, "str")) for name, text in row.items()}
    except (OSError, ValueError, csv.Error) as error:
        raise BadData(f"{path} cannot be read: {error}", hint="collect again") from error


def _value(text: str | None, kind: Kind) -> Any:
    if text in (None, ""):
        return None
    assert text is not None
    if kind == "bool":
        return text == "true"
    return int(text) if kind == "int" else float(text) if kind == "float" else text
