"""Our side of the comparison, through the public interface alone."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import work
from work import Batch, Implementation, Parameters, Workload

import metaception as mc

MODES = ("rematerialise", "mixed", "first_order", "anil", "imaml")


def algorithm(name: str, workload: Workload) -> mc.MetaAlgorithm:
    """The algorithm behind a name: `metaception`, `metaception MODE` or `metaception MAPPING`."""
    how = name.removeprefix("metaception").strip()
    common = {"inner_rate": work.INNER_RATE, "inner_steps": workload.inner_steps}
    outer = {"outer_rate": work.OUTER_RATE, "meta_batch_size": workload.tasks}
    method: Any
    if how in ("rematerialise", "mixed"):
        method = mc.MAML(**common, **outer, memory=how)
    elif how in MODES:
        method = {"first_order": mc.FOMAML, "anil": mc.ANIL, "imaml": mc.IMAML}[how](**common, **outer)
    else:
        method = mc.MAML(**common, **outer, mapping=how or "auto")
    tasks = mc.Sinusoids(work.SHOTS, work.QUERIES, amplitude=work.AMPLITUDE, phase=work.PHASE, inputs=work.INPUTS)
    return method.build(mc.mlp(1, 1, widths=(workload.width, workload.width)), tasks)


class Ours(Implementation):
    """All outer steps in one compiled loop, as the training loop has them."""

    def __init__(self, name: str, workload: Workload):
        self.algorithm = self.build(name, workload)
        self.workload = workload
        # Adam and the counters start from zeros; drawing parameters only to replace them would be compiled for nothing.
        shapes = jax.eval_shape(self.algorithm.init, jax.random.key(0))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        self.state = zeros._replace(meta=self.tree(workload.parameters()))
        self.key = jax.random.key(1)

        def steps(state: mc.State, key: Any, count: Any) -> mc.State:
            def body(place: Any, state: mc.State) -> mc.State:
                return self.step(jax.random.fold_in(key, place), state)

            return jax.lax.fori_loop(state.step, state.step + count, body, state)

        start = time.perf_counter()
        self.steps = jax.jit(steps).lower(self.state, self.key, np.int32(1)).compile()
        self.run(1)
        self.compile_s = time.perf_counter() - start

    def build(self, name: str, workload: Any) -> mc.MetaAlgorithm:
        """The algorithm behind a name."""
        return algorithm(name, workload)

    def step(self, key: Any, state: mc.State) -> mc.State:
        """What is measured: one outer step."""
        return self.algorithm.step(key, state)[0]

    def run(self, steps: int) -> None:
        self.state = jax.block_until_ready(self.steps(self.state, self.key, np.int32(steps)))

    def meta_gradient(self, batch: Batch) -> Parameters:
        """The mean meta-gradient on a given meta-batch, at `workload.parameters()`: what the peers are checked against."""
        support_x, support_y, query_x, query_y = map(jnp.asarray, batch)
        tasks = mc.Task(mc.Examples(support_x, support_y), mc.Examples(query_x, query_y))
        meta, key = self.tree(self.workload.parameters()), jax.random.key(0)
        estimates = jax.jit(jax.vmap(lambda task: self.algorithm.meta_gradient(key, meta, task)))(tasks)
        return self.flat(jax.tree.map(lambda g: g.mean(0), estimates.gradient))

    def estimate(self) -> tuple[Batch, Parameters]:
        keys = jax.random.split(jax.random.key(2), self.workload.tasks)
        tasks = jax.jit(jax.vmap(self.algorithm.tasks.sample))(keys)
        batch = [np.asarray(array) for array in jax.tree.leaves(tasks)]
        return batch, self.meta_gradient(batch)

    def facts(self) -> dict[str, Any]:
        return {
            "versions": {"metaception": mc.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
            "compile_s": self.compile_s,
            "program_mib": self.steps.memory_analysis().temp_size_in_bytes / 2**20,
        }

    def tree(self, arrays: Parameters) -> list[dict[str, jax.Array]]:
        """The parameters as the model has them."""
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        return [{"weight": jnp.asarray(weight), "bias": jnp.asarray(bias)} for weight, bias in pairs]

    def flat(self, tree: list[dict[str, jax.Array]]) -> Parameters:
        """The inverse of `tree`."""
        return [np.asarray(layer[part]) for layer in tree for part in ("weight", "bias")]
