"""Parameters in parameters: nested tuples of arrays, each array by its path, "layers.0.U"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What is no tuple, by its path; None is skipped."""
    if not isinstance(tree, tuple):
        if tree is not None:
            yield path, tree
        return
    for name, branch in zip(_names(tree), tree, strict=True):
        yield from leaves(branch, _joined(path, name))


def at(tree: Any, path: str) -> Any:
    """What stands at the path in a tree of whatever has such fields; None for nothing."""
    for name in path.split("."):
        if isinstance(tree, tuple | list) and name.isdecimal():
            tree = tree[int(name)] if int(name) < len(tree) else None
        else:
            tree = getattr(tree, name, None)
    return tree


def filled(tree: T, values: Mapping[str, Any], path: str = "") -> T:
    """The same tree with other leaves, each by its path. Raises `KeyError` for one without."""
    if not isinstance(tree, tuple):
        return tree if tree is None else values[path]
    names = _names(tree)
    branches = [filled(b, values, _joined(path, n)) for n, b in zip(names, tree, strict=True)]
    return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)


def _names(tree: tuple[Any, ...]) -> list[str]:
    return list(getattr(tree, "_fields", map(str, range(len(tree)))))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
