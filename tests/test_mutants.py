"""The mutants that tests are measured with: each is another program, and the whole chain finds one out."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from mutants import mutants

SOURCE = '''
LIMIT = 3

def judge(value: int | None = 1, names: list[str] = []) -> bool:
    """At most LIMIT and not 7."""
    if value is None or value > LIMIT:
        raise ValueError(f"{value + 1} is too much")
    names.append("x")
    return value != 7
'''


def test_every_mutant_is_another_program_and_no_hint_or_message_is_touched() -> None:
    found = mutants(SOURCE)
    whats = [m.what for m in found]
    wanted = "test -> not test, Or -> And, Is -> IsNot, Gt -> GtE, without line 7, without line 8"
    assert sorted(whats) == sorted(f"{wanted}, returns nothing, NotEq -> Eq, 7 -> 8".split(", "))
    assert len({m.source for m in found}) == len(found)
    for mutant in found:
        ast.parse(mutant.source)
        assert "value + 1" in mutant.source or "line 7" in mutant.what
        assert "LIMIT = 3" in mutant.source and "=1" in mutant.source
