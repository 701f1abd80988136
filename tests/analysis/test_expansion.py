import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import metaception as mc
from metaception.analysis.expansion import Terms, expected_gradient, on_minibatches, orders, predicted, regress, terms
from metaception.analysis.hessian import gradient
from metaception.metagrad.reptile import Reptile

ESTIMATORS = {"maml": mc.Unroll(), "fomaml": mc.FirstOrder(), "reptile": Reptile()}
MODEL = on_minibatches(mc.mlp(1, 1, widths=(4,), activation="tanh", initialiser="he"))


def learner(steps, rate=1e-4):
    return mc.Initialisation(
        model=MODEL, loss_function=mc.mean_squared_error, rate=jnp.asarray(rate), steps=steps, batch_size=1
    )


def minibatches(k, key=1):
    support = mc.Sinusoids(shots=2 * k).sample(jax.random.key(key)).support
    return jax.tree.map(lambda leaf: leaf.reshape(k, 2, 1), support)


def test_terms_are_what_they_are_defined_as(float64):
    meta, batches, loss = MODEL.init(jax.random.key(0)), minibatches(3), learner(1).fit_loss
    pairs = list(itertools.permutations(range(3), 2))
    flat, shape = ravel_pytree(meta)

    def gradients(flat):
        each = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], batches) for i in range(3)]
        return jnp.stack([gradient(loss, shape(flat), batch) for batch in each])

    @jax.jit
    def explicit(flat):
        at, hessians = gradients(flat), jax.jacobian(gradients)(flat)
        inner = sum(hessians[i] @ at[j] for i, j in pairs) / 6
        # AvgGradInner = ½ E[∂(ḡ₁ · ḡ₂)]: the direction that turns the minibatches' gradients towards each other.
        products = jax.grad(lambda flat: sum(gradients(flat)[i] @ gradients(flat)[j] for i, j in pairs) / 6)
        return at.mean(axis=0), inner, 0.5 * products(flat)

    found = jax.jit(lambda meta: terms(loss, meta, batches))(meta)
    average, inner, turning = explicit(flat)
    np.testing.assert_allclose(found.average, average, rtol=1e-12)
    np.testing.assert_allclose(found.inner, inner, rtol=1e-10)
    np.testing.assert_allclose(found.inner, turning, rtol=1e-10)


@pytest.mark.parametrize("held_out", [True, False])
def test_the_learner_meets_every_order_once(float64, held_out):
    batches = minibatches(3)
    tasks = orders(batches, held_out=held_out)
    one, meta = learner(3 - held_out), MODEL.init(jax.random.key(0))

    def met(task):
        """The targets of the minibatches in the order that the learner's own shuffle brings them."""
        state = one.init(jax.random.key(0), meta, task.support)
        seen = [one.batch(state._replace(taken=jnp.asarray(step)), task.support) for step in range(one.steps)]
        return jnp.concatenate([batch.targets[:, 0, 0] for batch in [*seen, *[task.query] * held_out]])

    found = jax.jit(jax.vmap(met))(tasks).tolist()
    assert sorted(map(tuple, found)) == sorted(itertools.permutations(batches.targets[:, 0, 0].tolist()))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_coefficients_of_the_real_estimators(float64, name):
    # k = 3. Coefficients of Nichol et al. 2018, section 5.1; Reptile's displacement has one more factor α.
    held_out, rate, meta, batches = name != "reptile", 1e-4, MODEL.init(jax.random.key(0)), minibatches(3)
    on, wanted = jax.jit(lambda: terms(learner(1).fit_loss, meta, batches))(), predicted(name, 3, rate)

    @jax.jit
    def measure(rate):
        one = learner(3 - held_out, rate)
        found = expected_gradient(ESTIMATORS[name], one, meta, batches, held_out=held_out)
        return found if held_out else found / rate

    found = regress(measure(rate), on)
    assert float(found.average) == pytest.approx(wanted.average, rel=1e-3)
    assert float(found.inner) == pytest.approx(wanted.inner, rel=0.02)
    # What the two terms leave falls as α².
    left = [
        float(jnp.linalg.norm(measure(r) - wanted.average * on.average - wanted.inner * r / rate * on.inner))
        for r in (rate, rate / 4)
    ]
    assert left[0] / left[1] == pytest.approx(16, rel=0.02)


def test_predicted_in_full():
    # By hand from the formulas, k = 4, α = 0.1.
    assert predicted("maml", 4, 0.1)[:2] == (1, pytest.approx(-0.6))
    assert predicted("fomaml", 4, 0.1)[:2] == (1, pytest.approx(-0.3))
    assert predicted("reptile", 4, 0.1)[:2] == (4, pytest.approx(-0.6))


def test_regress_finds_coefficients_of_very_different_terms(float64):
    on = Terms(jnp.array([1.0, 2.0, 3.0]), 1e8 * jnp.array([1.0, -1.0, 2.0]))
    found = regress(2.0 * on.average - 1e-9 * on.inner + 0.1 * jnp.array([7.0, 1.0, -3.0]), on)
    # (7, 1, −3) is orthogonal to both terms: it is all residual.
    assert float(found.average) == pytest.approx(2.0)
    assert float(found.inner) == pytest.approx(-1e-9)
    assert float(found.residual) > 0.05
