"""Our side of the comparison on images, through the public interface alone."""

from __future__ import annotations

from typing import Any

import image_work
import jax
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
}
METHODS: dict[str, type[Any]] = {"first_order": mc.FOMAML, "anil": mc.ANIL, "imaml": mc.IMAML}


class OurImages(Ours):
    """All outer steps in one compiled loop, as the training loop has them.

    The names: `metaception`, `metaception MODE` (rematerialise, mixed), `metaception MAPPING`, `metaception METHOD`,
    `metaception bfloat16`.
    """

    def build(self, name: str, workload: ImageWorkload) -> mc.MetaAlgorithm:
        how = name.removeprefix("metaception").strip()
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
            precision="bfloat16" if how == "bfloat16" else "float32",
        )
        method = METHODS.get(how, mc.MAML)(**settings, **KNOWN.get(how, {}))
        return method.build(model, tasks, loss=mc.cross_entropy)

    def tree(self, arrays: Parameters) -> list[dict[str, jax.Array]]:
        blocks = [arrays[index : index + 3] for index in range(0, len(arrays) - 2, 3)]
        layers = [{"kernel": kernel, "scale": scale, "shift": shift} for kernel, scale, shift in blocks]
        return jax.tree.map(jax.numpy.asarray, [*layers, {"weight": arrays[-2], "bias": arrays[-1]}])

    def flat(self, tree: list[dict[str, jax.Array]]) -> Parameters:
        parts = [layer[name] for layer in tree[:-1] for name in ("kernel", "scale", "shift")]
        return [np.asarray(part) for part in (*parts, tree[-1]["weight"], tree[-1]["bias"])]
