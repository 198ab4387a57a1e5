"""Small faults put into a module's source: what a careless change would be, one at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """line, what: where the fault is, and which. source: the whole module with it."""

    line: int
    what: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines; type hints, docstrings and messages stay."""
    plain = ast.unparse(ast.parse(source))
    found = []
    for i in range(len(list(_places(ast.parse(source))))):
        tree = ast.parse(source)
        node, field, what, other = list(_places(tree))[i]
        setattr(node, field, copy.deepcopy(other))
        mutated = ast.unparse(ast.fix_missing_locations(tree))
        if mutated != plain:
            found.append(Mutant(getattr(node, "lineno", 0), what, mutated))
    return sorted(found, key=lambda m: m.line)


Place = tuple[ast.AST, str, str, object]  # a node, a field of it, the fault in words, what is put there


def _places(tree: ast.Module) -> Iterator[Place]:
    """Inside functions only: what stands at the top of a module are names, tables and bounds."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            yield from _among(function, "body", function.body)


def _in(node: ast.AST) -> Iterator[Place]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.JoinedStr):
        return  # a function inside is met by itself; a message may say anything
    yield from _of(node)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        yield from _among(node, name, value if isinstance(value, list) else [value])


def _among(node: ast.AST, name: str, children: list[object]) -> Iterator[Place]:
    for i, child in enumerate(children):
        if isinstance(child, ast.Raise | ast.Expr) and _does(child):
            gone = [*children[:i], ast.copy_location(ast.Pass(), child), *children[i + 1 :]]
            yield node, name, f"without line {child.lineno}", gone
        if isinstance(child, ast.AST):
            yield from _in(child)


def _does(statement: ast.Raise | ast.Expr) -> bool:
    """Whether it is more than a docstring."""
    return isinstance(statement, ast.Raise) or isinstance(statement.value, ast.Call)


def _of(node: ast.AST) -> Iterator[Place]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if other := COMPARISONS.get(type(op)):
                ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                yield node, "ops", f"{type(op).__name__} -> {other.__name__}", ops
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield node, "op", f"{type(node.op).__name__} -> {other_op.__name__}", other_op()
    elif isinstance(node, ast.BinOp) and (found := OPERATORS.get(type(node.op))):
        if not any(_is_text(side) for side in (node.left, node.right)):
            yield node, "op", f"{type(node.op).__name__} -> {found.__name__}", found()
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield node, "test", "test -> not test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield node, "value", f"{node.value} -> {not node.value}", not node.value
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield node, "value", f"{node.value} -> {node.value + 1}", node.value + 1
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        yield node, "value", "returns nothing", ast.Constant(None)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
