"""What depends on what in a traced program."""

from __future__ import annotations

from typing import Any

from jax.extend.core import Literal


def depends(jaxpr: Any, source: Any) -> bool:
    """Whether any output of `jaxpr` depends on the input `source`; an inner program's outputs on all of its inputs."""
    reached = {source}
    for equation in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return any(not isinstance(v, Literal) and v in reached for v in jaxpr.outvars)
