"""Imports only go down: the floors of the house, read from every import, lazy ones too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlx_plastic

SOURCE = Path(mlx_plastic.__file__).parent
FLOORS = {
    "cli": 6,
    "demo": 5,
    "compress": 4,
    "serve": 4,
    "sleep": 4,
    "packs": 3,
    "survey": 3,
    "base": 2,
    "memory": 2,
    "evals": 2,
    "home": 1,
    "samples": 1,
    "lowrank": 1,
    "draw": 1,
    "backend": 0.5,  # the only door to MLX, which lowrank computes with
    "machine": 0,  # what lies below MLX: cores, a C compiler
    "errors": 0,
}


def room_of(module: str) -> str:
    """The room of `mlx_plastic.<room>...`; empty for the package itself."""
    return module.split(".")[1].removesuffix("__init__") if "." in module else ""


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module that is imported, in full; names imported from the package itself count as modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (
                a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


def faults(source: str, module: str) -> list[str]:
    """What is wrong with a module's imports, and where it prints though it must not."""
    tree = ast.parse(source)
    package, room = module.rpartition(".")[0], room_of(module)
    found = []
    for name in imports(tree, package):
        if name.split(".")[0] == "mlx" and room != "backend":
            found.append(f"{module} imports {name}: use mlx_plastic.backend, it loads a fast BLAS first")
        other = room_of(name)
        if name.split(".")[0] != "mlx_plastic" or other in ("", room, "__version__"):
            continue
        if other not in FLOORS:
            found.append(f"{module} imports {name}, which has no floor")
        elif room and FLOORS[other] >= FLOORS[room]:
            found.append(f"{module} (floor {FLOORS[room]}) imports {name} (floor {FLOORS[other]})")
    if any(name.split(".")[0] == "mlx_lm" for name in imports(OnImport().visit(ast.parse(source)), package)):
        found.append(f"{module} imports mlx_lm at its top: that takes seconds, do it where it is used")
    if room != "cli" and any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for node in ast.walk(tree)
    ):
        found.append(f"{module} prints: libraries log, commands print")
    return found


class OnImport(ast.NodeTransformer):
    """Leaves what runs when a module is imported: no function's body, nothing for type checkers only."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)


def modules() -> list[tuple[str, Path]]:
    named = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        named.append((".".join(parts), path))
    return named


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_only_go_down(module: str, path: Path) -> None:
    assert room_of(module) in {*FLOORS, ""}, f"{module} has no floor: give its room one"
    assert faults(path.read_text("utf-8"), module) == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("mlx_plastic.evals.loss", "from mlx_plastic.packs import Store", "floor 3"),
        ("mlx_plastic.evals.loss", "def f():\n    from mlx_plastic.base.model import Base", "floor 2"),
        ("mlx_plastic.evals.loss", "from mlx_plastic import packs", "floor 3"),
        ("mlx_plastic.evals.loss", "from ..packs import Store", "floor 3"),
        ("mlx_plastic.evals.loss", "import importlib\nimportlib.import_module('mlx_plastic.cli')", "floor 6"),
        (
            "mlx_plastic.home",
            "if TYPE_CHECKING:\n    import mlx_plastic.cli",
            "floor 6",
        ),
        ("mlx_plastic.packs.train.train", "import mlx.core as mx", "fast BLAS"),
        ("mlx_plastic.packs.train.train", "def f():\n    from mlx import nn", "fast BLAS"),
        ("mlx_plastic.packs.train.train", "import mlx_plastic.attic", "no floor"),
        ("mlx_plastic.base.model", "import mlx_lm", "seconds"),
        (
            "mlx_plastic.base.model",
            "try:\n    from mlx_lm import load\nfinally: pass",
            "seconds",
        ),
        ("mlx_plastic.base.model", "class Base:\n    import mlx_lm", "seconds"),
        ("mlx_plastic.base.model", "def f():\n    print('hello')", "commands print"),
    ],
)
def test_each_rule_can_fail(module: str, source: str, fault: str) -> None:
    assert fault in "".join(faults(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "mlx_plastic.packs.train.train",
            "import mlx_plastic.base\nfrom mlx_plastic.packs import format",
        ),
        ("mlx_plastic.packs.train.train", "from .format import Pack\nfrom mlx_plastic import __version__"),
        ("mlx_plastic.base.model", "def f():\n    from mlx_lm import load"),
        ("mlx_plastic.base.model", "class Base:\n    def f(self):\n        from mlx_lm import load"),
        ("mlx_plastic.base.model", "if TYPE_CHECKING:\n    import mlx_lm"),
        ("mlx_plastic.lowrank.layers", "from mlx_plastic.backend import mx"),
        ("mlx_plastic.backend.hardware", "import mlx.core as mx"),
        ("mlx_plastic.cli.memory", "print(1)"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert faults(source, module) == []


def shadows(package: Path) -> list[str]:
    """Names that a package hands out late and that one of its own modules is called as well.

    Importing that module puts it where the name was: what is handed out then hangs on who imported first.
    """
    body = ast.parse((package / "__init__.py").read_text("utf-8")).body
    if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body):
        return []  # names imported at once come after their modules and stay
    lists = [
        node.value
        for node in body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    names = [name for found in lists for name in ast.literal_eval(found)]
    return [name for name in names if (package / f"{name}.py").exists() or (package / name).is_dir()]


@pytest.mark.parametrize("package", sorted({path.parent for _, path in modules()}), ids=lambda p: p.name)
def test_no_module_takes_the_place_of_a_name_its_package_hands_out(package: Path) -> None:
    assert shadows(package) == []


def test_a_name_in_its_packages_place_is_seen(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('__all__ = ["shards"]\ndef __getattr__(name): ...')
    assert shadows(tmp_path) == []
    (tmp_path / "shards.py").touch()
    assert shadows(tmp_path) == ["shards"]
