"""A few outer steps of MAML with the tasks sharded over all devices: what test_sharded.py runs in other processes.

python sharded_training.py OUT [DEVICES] [COORDINATOR PROCESSES INDEX]
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import metaception as mc
from metaception.core.mapping import task_mesh

STEPS = 4


def train(mapping: mc.Mapping) -> np.ndarray:
    """The meta-parameters, and the loss, after four steps on four tasks each."""
    algorithm = mc.MetaAlgorithm(
        learner=mc.Initialisation(
            model=mc.mlp(1, 1, widths=(8,), activation="tanh", initialiser="he"),
            loss_function=mc.mean_squared_error,
            rate=jnp.asarray(0.05),
            steps=2,
        ),
        estimator=mc.Unroll(),
        tasks=mc.Sinusoids(shots=5, queries=5),
        outer=optax.sgd(0.01, momentum=0.9),
        meta_batch_size=4,
        mapping=mapping,
    )
    algorithm.check()
    arrays, static = eqx.partition(algorithm, eqx.is_array)

    def run(arrays, seed):
        algorithm = eqx.combine(arrays, static)
        keys = jax.random.split(jax.random.key(seed), STEPS)
        state = algorithm.init(jax.random.key(seed + 1))
        state, info = jax.lax.scan(lambda state, key: algorithm.step(key, state), state, keys)
        return jnp.append(ravel_pytree(state.meta)[0], info.loss[-1])

    everywhere = NamedSharding(task_mesh(), P())
    arguments = jax.device_put((arrays, np.uint32(7)), everywhere)
    return np.asarray(jax.jit(run, out_shardings=everywhere)(*arguments))


def both() -> dict[str, np.ndarray]:
    """In single and in double precision."""
    results = {"float32": train(mc.Sharded(mc.Vectorised()))}
    with jax.enable_x64(True):
        results["float64"] = train(mc.Sharded(mc.Vectorised()))
    return results


if __name__ == "__main__":
    out, devices, *cluster = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(devices))
    if cluster:
        address, processes, index = cluster
        jax.distributed.initialize(address, int(processes), int(index))
    assert len(jax.devices()) == 2
    np.savez(out, **both())
