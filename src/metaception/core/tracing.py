"""What depends on what in a traced program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def depends(jaxpr: Any, source: Any) -> bool:
    """Whether any output of `jaxpr` depends on the input `source`; an inner program's outputs on all of its inputs."""
    reached = {source}
    for equation in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return any(not isinstance(v, Literal) and v in reached for v in jaxpr.outvars)


def primitives(jaxpr: Jaxpr) -> Iterator[str]:
    """The names of all primitives in a program, those of its inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                if isinstance(inner, (ClosedJaxpr, Jaxpr)):
                    yield from primitives(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
