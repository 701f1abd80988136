import jax
import jax.numpy as jnp
import pytest

import metaception as mc
from metaception.analysis.alignment import gradient_alignment


def test_linear_model_by_hand(float64):
    # The loss w · x has the gradient x, whatever w is.
    def loss(w, examples):
        return jnp.mean(examples.inputs @ w)

    first, second = (mc.Examples(jnp.array([x]), None) for x in ([3.0, 4.0], [0.0, 2.0]))
    found = gradient_alignment(loss, jnp.ones(2), first, second)
    assert float(found.inner) == pytest.approx(8.0)
    assert float(found.squared_norm) == pytest.approx((25 + 4) / 2)
    assert float(found.cosine) == pytest.approx(0.8)


def test_over_every_layer_of_a_pytree(float64):
    model = mc.mlp(1, 1, widths=(3,), initialiser="he")
    parameters, task = model.init(jax.random.key(0)), mc.Sinusoids().sample(jax.random.key(1))

    def loss(parameters, examples):
        return mc.mean_squared_error(model.apply(parameters, examples.inputs), examples.targets)

    def measure(scale, first, second):
        return gradient_alignment(lambda p, e: scale * loss(p, e), parameters, first, second)

    @jax.jit
    def all_three():
        return measure(1, task.support, task.support), measure(1, *task), measure(2, *task)

    same, found, doubled = all_three()
    assert float(same.cosine) == pytest.approx(1.0)
    assert float(same.inner) == pytest.approx(float(same.squared_norm))
    # Doubling the loss doubles both gradients: the cosine stays, the inner product is four times as large.
    assert float(doubled.cosine) == pytest.approx(float(found.cosine))
    assert float(doubled.inner) == pytest.approx(4 * float(found.inner))
