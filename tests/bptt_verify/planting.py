"""Wrong copies of the real modules, for the verifier to catch."""

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample

from bptt_verify import draw, mutants
from bptt_verify.judge import Judge, first_failed
from bptt_verify.mutants import copied
from bptt_verify.pair import Pair


def planted(module: ModuleType, right: str, wrong: str) -> ModuleType:
    """A copy of the module with one piece of its text replaced."""
    return mutants.planted(module, {right: wrong})


def caught_in(pair: Pair, dtype: str, cases: int) -> str | None:
    """The row in which one of so many random cases first disagrees, if one does."""
    judge = Judge(pair, np.dtype(dtype))
    row = None

    def disagrees(case: draw.Case) -> bool:
        nonlocal row
        failed = first_failed(case, judge.one(case) or {})
        row = failed.row if failed else None
        return failed is not None

    return row if drawn_until(pair, cases, disagrees) else None


def drawn_until(pair: Pair, cases: int, found: Callable[[draw.Case], bool]) -> bool:
    """Whether one of so many random cases is such."""
    quick = settings(
        max_examples=cases,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    try:
        find(draw.cases(pair), found, settings=quick)
    except NoSuchExample:
        return False
    return True


def slips(module: ModuleType, functions: set[str]) -> Iterator[tuple[str, ModuleType]]:
    """The module with every single sign, transpose, index and constant of the functions changed."""
    tree = ast.parse(inspect.getsource(module))
    places = [
        (i, j)
        for i, node in enumerate(tree.body)
        if isinstance(node, ast.FunctionDef) and node.name in functions
        for j in range(sum(1 for _ in ast.walk(node)))
    ]
    for i, j in places:
        node = _walk(tree.body[i])[j]
        for k, changed in enumerate(_changes(node)):
            fresh = copy.deepcopy(tree)
            wrong = _Replace(_walk(fresh.body[i])[j], changed).visit(fresh)
            code = compile(ast.fix_missing_locations(wrong), f"<{module.__name__}>", "exec")
            line = f"{node.lineno} ({k}): {ast.unparse(node)}  ->  {ast.unparse(changed)}"
            yield line, copied(module, code)


def _changes(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.BinOp(op=ast.Add()):
            return [ast.BinOp(node.left, ast.Sub(), node.right)]
        case ast.BinOp(op=ast.Sub()):
            return [ast.BinOp(node.left, ast.Add(), node.right)]
        case ast.BinOp(op=ast.MatMult()):
            transposed = [ast.Attribute(side, "T", ast.Load()) for side in (node.left, node.right)]
            return [
                ast.UnaryOp(ast.USub(), node),
                ast.BinOp(transposed[0], ast.MatMult(), node.right),
                ast.BinOp(node.left, ast.MatMult(), transposed[1]),
            ]
        case ast.BinOp(op=ast.Mult()):
            return [ast.UnaryOp(ast.USub(), node)]
        case ast.Attribute(attr="T"):
            return [node.value]
        case ast.UnaryOp(op=ast.USub()):
            return [node.operand]
        case ast.Call(func=ast.Name("reversed")):
            return [node.args[0]]
        case ast.Constant(value=int(n)) if not isinstance(n, bool):
            return [ast.Constant(n + 1), ast.Constant(n - 1)]
        case ast.Subscript(slice=ast.Name() as name, ctx=ctx):
            shifted = [ast.BinOp(name, op, ast.Constant(1)) for op in (ast.Add(), ast.Sub())]
            return [ast.Subscript(node.value, s, ctx) for s in shifted]
        case ast.Subscript(slice=ast.Slice(), ctx=ast.Load()):
            return [node.value]
    return []


def _walk(node: ast.AST) -> list[ast.AST]:
    return list(ast.walk(node))


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.expr) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else super().generic_visit(node)
