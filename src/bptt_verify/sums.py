"""Which sums of a jaxpr hang together, so that the subject may add them up in another order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, Literal, Var

from bptt_verify.interpreter import inner, is_float
from bptt_verify.primitives import ADDING

SAME = {"transpose", "reshape", "convert_element_type", "copy"}
"""Primitives whose result is their operand in another form."""

ADDITIONS = {"add", "add_any", "sub"}
"""Sums of two."""

BETWEEN = {*SAME, "broadcast_in_dim", "neg"}
"""What may stand between a sum and the sum it is a term of."""

CHOOSING = {
    *BETWEEN,
    *("select_n", "slice", "dynamic_slice", "gather", "squeeze", "split"),
    *("pad", "concatenate", "stack", "rev"),
}
"""The same, where the sum of some entries, and no sum of other entries, goes on."""

TOTALS = {*ADDING, "cumlogsumexp"}
"""Sums of many."""


class Part(NamedTuple):
    """A term of a sum of two, and what stands between it and where it is added up."""

    sum: Any
    operand: int
    way: list[Any]


class Increment(NamedTuple):
    """What a step of a scan adds to its carry: which operand, and how often."""

    operand: int
    steps: int


class Sums:
    """What is known of sums before they are evaluated, by the identity of their equations."""

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.chained = set[int]()
        """Sums of two of which one is such a sum, as in a + b + c."""
        self.parts: dict[int, list[Part]] = {}
        """The terms of p + q in Σ (p + q)."""
        self.taken_apart = set[int]()
        """The sums p + q."""
        self.increments: dict[int, Increment] = {}
        """What is added up over the steps of a scan as it is."""
        self.steps: dict[int, int] = {}
        """Sums of many that are added up over so many steps."""
        self._seen: dict[int, Jaxpr] = {}  # the identities stay those of its equations
        self._behind: dict[Var, list[Any]] = defaultdict(list)
        self._additions: list[Any] = []
        self._accumulating = set[int]()
        self._look_into(jaxpr)
        for eqn in self._additions:
            for before in self._sums_behind(eqn.invars):
                # what is added up over the steps has the noise of all of them already
                if before is not eqn or id(eqn) not in self._accumulating:
                    self.chained |= {id(before), id(eqn)}

    def _look_into(self, outer: Jaxpr) -> None:
        """Note the sums of this jaxpr, and of all that it calls; and where each value is from."""
        if id(outer) in self._seen:
            return
        self._seen[id(outer)] = outer
        self._look_at(outer)
        for eqn in outer.eqns:
            if eqn.primitive.name in ADDITIONS:
                self._additions.append(eqn)
            called = inner(eqn)
            for jaxpr, links in called:
                for source, name in links:
                    self._behind[name].append(source)
                self._look_into(jaxpr)
            if eqn.primitive.name == "scan":
                p = eqn.params
                self._look_at_scan(p["jaxpr"].jaxpr, p["num_consts"], p["num_carry"], p["length"])
            if not called:
                for var in eqn.outvars:
                    self._behind[var].append(eqn)

    def _sums_behind(self, atoms: list[Any]) -> list[Any]:
        """The sums that these terms are, in whichever jaxpr they are made."""
        waiting, seen, found = list(atoms), set[Var](), []
        while waiting:
            atom = waiting.pop()
            if isinstance(atom, Literal) or atom in seen:
                continue
            seen.add(atom)
            for source in self._behind.get(atom, ()):
                if isinstance(source, Var | Literal):
                    waiting.append(source)
                elif source.primitive.name in ADDITIONS:
                    found.append(source)
                elif source.primitive.name in CHOOSING:
                    waiting += source.invars
        return found

    def _look_at(self, jaxpr: Jaxpr) -> None:
        """Note the sums of many of which each term is a sum."""
        makers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}

        def behind(atom: Any, way: list[Any]) -> tuple[Any, list[Any]]:
            """The sum that a term is, if it is one, and the way from there."""
            eqn = None if isinstance(atom, Literal) else makers.get(atom)
            if eqn is not None and eqn.primitive.name in BETWEEN:
                return behind(eqn.invars[0], [eqn, *way])
            return eqn if eqn is not None and eqn.primitive.name in ADDITIONS else None, way

        def parts(atom: Any, way: list[Any]) -> Iterator[Part]:
            sum_, way = behind(atom, way)
            for i, term in enumerate(sum_.invars if sum_ else ()):
                yield from list(parts(term, way)) or [Part(sum_, i, way)]

        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "reduce_sum":
                self.parts[id(eqn)] = list(parts(eqn.invars[0], []))
                self.taken_apart.update(id(part.sum) for part in self.parts[id(eqn)])

    def _look_at_scan(self, body: Jaxpr, consts: int, carry: int, length: int) -> None:
        """Note what is added up over the steps of a scan: a carry plus something.

        Each such term gets the noise of a sum of them all: those of a product or a sum in the step
        itself, or else what is added as it is.
        """
        makers = {var: eqn for eqn in body.eqns for var in eqn.outvars}

        def maker(atom: Var | Literal) -> Any:
            return None if isinstance(atom, Literal) else makers.get(atom)

        def source(atom: Any) -> Any:
            made = maker(atom)
            moved = made is not None and made.primitive.name in SAME
            return source(made.invars[0]) if moved else atom

        read = Counter(a for eqn in body.eqns for a in eqn.invars if not isinstance(a, Literal))
        read.update(a for a in body.outvars if not isinstance(a, Literal))
        carries = body.invars[consts : consts + carry], body.outvars[:carry]
        for before, after in zip(*carries, strict=True):
            sum_ = maker(after)
            if sum_ is None or sum_.primitive.name not in ("add", "add_any"):
                continue
            # in any order only if nobody looks at it on the way
            if read[before] > 1 or read[sum_.outvars[0]] > 1 or not is_float(before):
                continue
            for i in (0, 1):
                if source(sum_.invars[i]) is before:
                    self._accumulating.add(id(sum_))
                    added = maker(source(sum_.invars[1 - i]))
                    if added is not None and added.primitive.name in TOTALS:
                        self.steps[id(added)] = length
                    else:
                        self.increments[id(sum_)] = Increment(1 - i, length)
