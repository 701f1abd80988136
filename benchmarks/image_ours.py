"""Our side of the comparison on images, through the public interface alone."""

from __future__ import annotations

from typing import Any

import image_work
import jax
import jax.numpy as jnp
import numpy as np
from image_work import ImageWorkload
from ours import Ours
from work import Parameters

import metaception as mc

KNOWN: dict[str, dict[str, Any]] = {
    "": {},
    "rematerialise": {"memory": "rematerialise"},
    "mixed": {"memory": "mixed"},
    "vectorised": {"mapping": "vectorised"},
    "chunked:4": {"mapping": "chunked:4"},
    "bfloat16": {},
    "unnormalised": {},
}
METHODS: dict[str, type[Any]] = {"first_order": mc.FOMAML, "anil": mc.ANIL, "imaml": mc.IMAML}
TINY = 1e-30
"""What a result is multiplied by before it goes into the parameters: too little to change them, enough to be computed."""


class OurImages(Ours):
    """All outer steps in one compiled loop, as the training loop has them.

    The names: `metaception`, `metaception MODE` (rematerialise, mixed), `metaception MAPPING`, `metaception METHOD`,
    `metaception bfloat16`, `metaception unnormalised`; and what is less than an outer step: `metaception drawing` (the
    episodes alone), `metaception forward` (as many passes through the network as the exact step has, and no gradient),
    `metaception [METHOD] learning` (new tasks: adapt, then predict the queries).
    """

    def step(self, key: Any, state: mc.State) -> mc.State:
        alone = {"drawing": self.drawn, "forward": self.forward, "learning": self.learned}
        doing = alone.get(self.name.split()[-1])
        if doing is None:
            return super().step(key, state)

        def one(meta: Any, key: Any) -> Any:
            key_task, key_adapt = jax.random.split(key)
            return doing(key_adapt, meta, self.algorithm.tasks.sample(key_task))

        found = self.algorithm.mapping(one, state.meta, jax.random.split(key, self.algorithm.meta_batch_size))
        meta = jax.tree.map(lambda leaf: leaf + TINY * jnp.sum(found), state.meta)
        return state._replace(meta=meta, step=state.step + 1)

    def drawn(self, key: Any, meta: Any, task: mc.Task) -> Any:
        """The pixels and labels, summed."""
        del key, meta
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(task))

    def forward(self, key: Any, meta: Any, task: mc.Task) -> Any:
        """The losses of the support set once an inner step and of the queries, summed."""
        del key
        apply = self.algorithm.learner.model.apply

        def once(_: int, meta: Any) -> Any:
            loss = jnp.mean(mc.cross_entropy(apply(meta, task.support.inputs), task.support.targets))
            return jax.tree.map(lambda leaf: leaf + TINY * loss, meta)  # so that no step can be left out

        meta = jax.lax.fori_loop(0, self.workload.inner_steps, once, meta)
        return jnp.mean(mc.cross_entropy(apply(meta, task.query.inputs), task.query.targets))

    def learned(self, key: Any, meta: Any, task: mc.Task) -> Any:
        """The query loss after adaptation."""
        learner = self.algorithm.test_learner
        key_adapt, key_loss = jax.random.split(key)
        return learner.loss(key_loss, meta, learner.adapt(key_adapt, meta, task.support), task)[0]

    def build(self, name: str, workload: ImageWorkload) -> mc.MetaAlgorithm:
        self.name = name
        how = name.removeprefix("metaception").removesuffix("learning").strip()
        settings = {
            "inner_rate": workload.inner_rate,
            "inner_steps": workload.inner_steps,
            "outer_rate": image_work.OUTER_RATE,
            "meta_batch_size": workload.tasks,
        }
        pixels = workload.pixels()
        classes = {str(index): own for index, own in enumerate(pixels)}
        tasks = mc.Episodes(
            mc.ImageSet.from_classes("random", classes),
            ways=image_work.WAYS,
            shots=workload.shots,
            queries=workload.queries,
        )
        omniglot = workload.images == "omniglot"
        model = mc.conv_net(
            workload.size,
            image_work.WAYS,
            filters=workload.filters,
            downsampling="stride" if omniglot else "max_pool",
            readout="mean" if omniglot else "flatten",
            normalisation="none" if how == "unnormalised" else "batch",
            precision="bfloat16" if how == "bfloat16" else "float32",
        )
        method = METHODS.get(how, mc.MAML)(**settings, **KNOWN.get(how, {}))
        return method.build(model, tasks, loss=mc.cross_entropy)

    def tree(self, arrays: Parameters) -> list[dict[str, jax.Array]]:
        blocks = [arrays[index : index + 3] for index in range(0, len(arrays) - 2, 3)]
        if self.name.endswith("unnormalised"):
            layers = [{"kernel": kernel, "bias": shift} for kernel, _, shift in blocks]
        else:
            layers = [{"kernel": kernel, "scale": scale, "shift": shift} for kernel, scale, shift in blocks]
        return jax.tree.map(jax.numpy.asarray, [*layers, {"weight": arrays[-2], "bias": arrays[-1]}])

    def flat(self, tree: list[dict[str, jax.Array]]) -> Parameters:
        parts = [layer[name] for layer in tree[:-1] for name in ("kernel", "scale", "shift")]
        return [np.asarray(part) for part in (*parts, tree[-1]["weight"], tree[-1]["bias"])]
