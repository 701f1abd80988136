"""The common table of methods: every method joins as a row. And what ties them to each other, as identities."""

import dataclasses
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaception as mc
from metaception.domains.regression.losses import mean_squared_error
from metaception.methods.method import Method

METHODS = {
    "maml": mc.MAML(inner_rate=0.05),
    "fomaml": mc.FOMAML(inner_rate=0.05),
    "reptile": mc.Reptile(inner_rate=0.05, inner_steps=4, inner_batch_size=5),
    "meta_sgd": mc.MetaSGD(inner_rate=0.05),
    "maml_plus_plus": mc.MAMLPlusPlus(inner_rate=0.02, inner_steps=2, multi_step=200),
    "meta_lstm": mc.MetaLSTM(inner_rate=0.05, inner_steps=3, hidden=2, meta_batch_size=8),
    "anil": mc.ANIL(inner_rate=0.05),
    "imaml": mc.IMAML(inner_rate=0.01, inner_steps=8),
    "pretrain": mc.Pretrain(),
    "oracle": mc.Oracle(),
    "random": mc.RandomInitialisation(),
    "boil": mc.BOIL(inner_rate=0.05),
    "nil": mc.NIL(inner_rate=0.4),
    "protonet": mc.ProtoNet(),
    "matching": mc.MatchingNet(),
    "mann": mc.MANN(hidden=32, slots=8, width=8, reads=2, outer_rate=1e-2),
    "nearest": mc.NearestNeighbour(),
    "multiclass_pretrain": mc.MulticlassPretrain(),
}
CLASSIFIERS = {"nil", "protonet", "matching", "mann", "nearest", "multiclass_pretrain"}
UNTRAINED = {"random", "nearest"}
WAYS = 3


def halves() -> mc.ImageSet:
    """Twelve classes of 4×4 images, told by their upper half; the lower half is noise."""
    draw = np.random.default_rng(0)
    upper = draw.integers(0, 255, (12, 1, 2, 4)) + draw.normal(0, 20, (12, 8, 2, 4))
    images = np.concatenate([upper, draw.integers(0, 255, (12, 8, 2, 4))], axis=2).clip(0, 255).astype(np.uint8)
    named = {str(label): own for label, own in enumerate(images)}
    return mc.ImageSet.from_classes("halves", named)


def episodes() -> mc.Episodes:
    return mc.Episodes(halves(), ways=WAYS, shots=1, queries=3)


def wrong(method: Method, **values) -> Method:
    """The method with settings of wrong types, which the checked signatures of a test run would not let through."""
    for name, value in values.items():
        object.__setattr__(method, name, value)
    method.__post_init__()
    return method


def build(method: Method, **changes) -> mc.MetaAlgorithm:
    if method.name in CLASSIFIERS:
        tasks = mc.Batches(halves()) if method.name == "multiclass_pretrain" else episodes()
        network = mc.dense_net((4, 4, 1), tasks.ways, widths=(16,), normalisation="none")
        return method.build(network, tasks, loss=mc.cross_entropy, steps=400, **changes)
    tasks = mc.Sinusoids(shots=10, amplitude=(1.0, 2.0), phase=(0.0, 0.5), told=method.name == "oracle")
    model = mc.mlp(3 if method.name == "oracle" else 1, 1, widths=(16,), initialiser="he")
    return method.build(model, tasks, steps=400, **changes)


def test_every_method_is_in_the_table():
    ours = {c.name for c in all_methods(Method) if c.__module__.startswith("metaception.")}
    assert ours == set(METHODS)


def all_methods(kind):
    for child in kind.__subclasses__():
        yield child
        yield from all_methods(child)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_a_small_problem_and_compiles_once(name):
    algorithm = build(METHODS[name])
    traces = []

    @jax.jit
    def stretch(state, keys):
        traces.append(1)
        return jax.lax.scan(lambda state, key: algorithm.step(key, state), state, keys)

    state = eqx.filter_jit(algorithm.init)(jax.random.key(0))
    state, first = stretch(state, jax.random.split(jax.random.key(1), 200))
    state, second = stretch(state, jax.random.split(jax.random.key(2), 200))
    assert len(traces) == 1
    assert int(state.step) == 400
    assert int(state.skipped) == 0
    if name in UNTRAINED:
        start = eqx.filter_jit(algorithm.init)(jax.random.key(0)).meta
        assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, state.meta, start)))
    else:
        # From a random start to the end of 400 steps: the last 50 losses against the first 20, averaged.
        assert float(second.loss[-50:].mean()) < 0.9 * float(first.loss[:20].mean())
    # The protocol: adapt to new data, predict on new inputs.
    task = algorithm.tasks.sample(jax.random.key(3))
    adapted = algorithm.adapt(jax.random.key(4), state.meta, task.support)
    of_each = (algorithm.tasks.ways,) if name in CLASSIFIERS else ()
    assert algorithm.predict(adapted, task.query.inputs).shape == task.query.targets.shape + of_each


def gradient_and_task(method, seed=0):
    """The method's meta-gradient on one task, and what went in."""
    algorithm = build(method)
    meta = algorithm.learner.init_meta(jax.random.key(seed))
    task = algorithm.tasks.sample(jax.random.key(seed + 1))
    return eqx.filter_jit(algorithm.meta_gradient)(jax.random.key(2), meta, task).gradient, algorithm, meta, task


def joint_gradient(algorithm, parameters, examples):
    def loss(parameters):
        return mean_squared_error(algorithm.learner.model.apply(parameters, examples.inputs), examples.targets)

    return jax.grad(loss)(parameters)


def assert_close(left, right, rtol):
    """Relative to the largest entry of each leaf."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rtol * float(jnp.abs(b).max())), left, right
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [mc.MAML(inner_steps=0), mc.FOMAML(inner_steps=0), mc.Pretrain()])
def test_without_inner_steps_it_is_joint_training(method):
    gradient, algorithm, meta, task = gradient_and_task(method)
    assert_close(gradient, joint_gradient(algorithm, meta, task.query), 1e-12)


@pytest.mark.usefixtures("float64")
def test_reptile_with_one_step_is_joint_training_on_the_support():
    # φ = θ − α∇L(θ, support), so the displacement is α times that gradient.
    gradient, algorithm, meta, task = gradient_and_task(mc.Reptile(inner_rate=0.01, inner_steps=1, inner_batch_size=0))
    expected = jax.tree.map(lambda g: 0.01 * g, joint_gradient(algorithm, meta, task.support))
    assert_close(gradient, expected, 1e-10)


@pytest.mark.parametrize(("steps", "moved"), [(1, 2), (2, 4), (3, 4)])
def test_reptile_learns_new_tasks_in_minibatches_of_their_own_size(steps, moved):
    # A weight an example: a step moves those of its minibatch alone, and no example comes twice before all have come once.
    model = mc.Model(lambda key: jnp.zeros(4), lambda w, x: x @ w)
    support = mc.Examples(jnp.eye(4), jnp.ones(4))
    method = mc.Reptile(inner_rate=0.1, inner_steps=steps, inner_batch_size=3, test_batch_size=2)
    learner = method.test_learner(method.learner(model, mean_squared_error))
    adapted = learner.adapt(jax.random.key(0), jnp.zeros(4), support)
    assert int((adapted != 0).sum()) == moved


@pytest.mark.usefixtures("float64")
def test_meta_sgd_with_all_rates_at_alpha_moves_the_initialisation_as_maml_does():
    exact, *_ = gradient_and_task(mc.MAML(inner_rate=0.03))
    ours, *_ = gradient_and_task(mc.MetaSGD(inner_rate=0.03))
    assert_close(ours.initialisation, exact, 1e-12)


@pytest.mark.usefixtures("float64")
def test_maml_plus_plus_without_its_options_is_maml():
    exact, *_ = gradient_and_task(mc.MAML(inner_rate=0.03, inner_steps=2))
    ours, *_ = gradient_and_task(mc.MAMLPlusPlus(inner_rate=0.03, inner_steps=2, multi_step=0, rates="fixed"))
    assert_close(ours, exact, 1e-12)
    with_rates, *_ = gradient_and_task(mc.MAMLPlusPlus(inner_rate=0.03, inner_steps=2, multi_step=0))
    assert_close(with_rates.initialisation, exact, 1e-12)


@pytest.mark.usefixtures("float64")
def test_first_order_maml_is_the_query_gradient_at_the_adapted_parameters():
    gradient, algorithm, meta, task = gradient_and_task(mc.FOMAML(inner_rate=0.03))
    adapted = jax.tree.map(lambda p, g: p - 0.03 * g, meta, joint_gradient(algorithm, meta, task.support))
    assert_close(gradient, joint_gradient(algorithm, adapted, task.query), 1e-12)


@pytest.mark.usefixtures("float64")
def test_anil_adapts_the_last_layer_alone():
    algorithm = build(mc.ANIL(inner_rate=0.1, inner_steps=3))
    meta = algorithm.learner.init_meta(jax.random.key(0))
    task = algorithm.tasks.sample(jax.random.key(1))
    adapted = algorithm.adapt(jax.random.key(2), meta, task.support)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, adapted[:-1], meta[:-1]))
    # The head's first step is that of MAML, and it does move.
    one = build(mc.ANIL(inner_rate=0.1)).adapt(jax.random.key(2), meta, task.support)[-1]
    step = jax.tree.map(lambda p, g: p - 0.1 * g, meta, joint_gradient(algorithm, meta, task.support))[-1]
    assert_close(one, step, 1e-12)
    assert float(jnp.abs(one["weight"] - meta[-1]["weight"]).max()) > 1e-3


@pytest.mark.usefixtures("float64")
def test_boil_adapts_all_but_the_last_layer():
    algorithm = build(mc.BOIL(inner_rate=0.1))
    meta = algorithm.learner.init_meta(jax.random.key(0))
    task = algorithm.tasks.sample(jax.random.key(1))
    adapted = algorithm.adapt(jax.random.key(2), meta, task.support)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, adapted[-1], meta[-1]))  # bit for bit
    # The body's step is that of MAML, and it does move.
    step = jax.tree.map(lambda p, g: p - 0.1 * g, meta, joint_gradient(algorithm, meta, task.support))
    assert_close(adapted[:-1], step[:-1], 1e-12)
    assert float(jnp.abs(adapted[0]["weight"] - meta[0]["weight"]).max()) > 1e-3


def test_nil_trains_as_anil_and_predicts_without_the_head():
    nil, key = build(METHODS["nil"]), jax.random.key(0)
    anil = mc.ANIL(inner_rate=0.4).build(nil.learner.model, nil.tasks, loss=mc.cross_entropy)
    meta, task = nil.learner.init_meta(jax.random.key(1)), nil.tasks.sample(jax.random.key(2))
    gradients = (eqx.filter_jit(a.meta_gradient)(key, meta, task).gradient for a in (nil, anil))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, *gradients)))
    other_head = [*meta[:-1], jax.tree.map(lambda p: p + 1.0, meta[-1])]
    said, same = (nil.predict(nil.adapt(key, m, task.support), task.query.inputs) for m in (meta, other_head))
    np.testing.assert_array_equal(said, same)
    # Held-out tasks are learned without a step, and by the policy of batch statistics that the learner has.
    one_seed = jax.tree.map(lambda leaf: leaf[None], meta)
    assert mc.evaluate(nil, one_seed, steps=3, count=2).losses.shape == (1, 2, 1)
    alone = dataclasses.replace(nil, learner=dataclasses.replace(nil.learner, statistics="support"))
    assert (nil.test_learner.statistics, alone.test_learner.statistics) == ("batch", "support")


@pytest.mark.parametrize("adapts", ["head", "all"])
def test_a_pretrained_classifier_is_fine_tuned_under_a_fresh_last_layer(adapts):
    """As plain gradient descent on a last layer of three outputs that starts at zero, whatever the one of twelve is."""
    algorithm = build(mc.MulticlassPretrain(inner_rate=0.5, inner_steps=4, adapts=adapts))
    meta, task = algorithm.learner.init_meta(jax.random.key(0)), episodes().sample(jax.random.key(1))
    adapted = algorithm.adapt(jax.random.key(2), meta, task.support)
    said = algorithm.predict(adapted, task.query.inputs)
    three = mc.dense_net((4, 4, 1), WAYS, widths=(16,), normalisation="none")
    expected = [meta[0], {"bias": jnp.zeros(WAYS), "weight": jnp.zeros((16, WAYS))}]
    for _ in range(4):
        slopes = jax.grad(lambda p: mc.cross_entropy(three.apply(p, task.support.inputs), task.support.targets))(
            expected
        )
        moved = jax.tree.map(lambda p, g: p - 0.5 * g, expected, slopes)
        expected = moved if adapts == "all" else [meta[0], moved[1]]
    np.testing.assert_allclose(said[:, :WAYS], three.apply(expected, task.query.inputs), rtol=1e-4, atol=1e-5)
    assert float(said[:, WAYS:].max()) < -1e8
    unchanged = jax.tree.leaves(jax.tree.map(jnp.array_equal, adapted[0], meta[0]))
    assert all(unchanged) == (adapts == "head")


def test_the_step_size_of_a_fresh_last_layer_is_tuned():
    algorithm = build(mc.MulticlassPretrain(inner_rate=0.5))
    one_seed = jax.tree.map(lambda leaf: leaf[None], algorithm.learner.init_meta(jax.random.key(0)))
    tuned, rate = mc.tune_rate(algorithm, one_seed, episodes(), rates=(0.0, 0.1), steps=3, count=20)
    assert (rate, float(tuned.test_learner.rate)) == (0.1, pytest.approx(0.1))


def test_a_classifier_with_fewer_outputs_than_classes_is_refused():
    network = mc.dense_net((4, 4, 1), 2, widths=(4,))
    with pytest.raises(
        ValueError, match="protonet: the model has 2 outputs and the tasks have 3 classes; make it with 3"
    ):
        mc.ProtoNet().build(network, episodes(), loss=mc.cross_entropy)


def test_a_comparing_method_needs_to_know_the_layers():
    flat = mc.Model(lambda key: jnp.zeros((16, WAYS)), lambda p, x: x.reshape(-1, 16) @ p)
    with pytest.raises(ValueError, match=r"does not tell its layers.*metaception\.sequential"):
        mc.ProtoNet().build(flat, episodes(), loss=mc.cross_entropy)


def test_the_outer_rate_of_prototypical_networks_is_halved():
    outer = mc.ProtoNet(outer_rate=0.5, halve_every=2).outer(6)
    moved, state = [], outer.init(jnp.zeros(()))
    for _ in range(5):
        update, state = outer.update(jnp.ones(()), state)
        moved.append(-float(update))
    np.testing.assert_allclose(moved, [0.5, 0.5, 0.25, 0.25, 0.125], rtol=1e-4)  # Adam of a constant gradient: ±1


@pytest.mark.usefixtures("float64")
def test_implicit_maml_approaches_the_long_unroll_of_its_proximal_problem():
    # Rajeswaran et al. 2019: at the inner solution the implicit gradient is the unrolled one, whatever the way there. The
    # error must fall as the inner problem is solved more exactly.
    errors = []
    for steps in (20, 2000):
        method = mc.IMAML(inner_rate=0.005, inner_steps=steps, strength=2.0, cg_steps=60)
        implicit, algorithm, meta, task = gradient_and_task(method)
        key = jax.random.key(2)
        long = jax.jit(lambda m, t, k, a=algorithm: mc.Unroll().estimate(k, a.learner, m, (), t)[0].gradient)
        unrolled = long(meta, task, key)
        norm = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(unrolled)) ** 0.5
        gap = sum(
            float(jnp.sum((a - b) ** 2)) for a, b in zip(*map(jax.tree.leaves, (implicit, unrolled)), strict=True)
        )
        errors.append(gap**0.5 / norm)
    assert errors[1] < 1e-5
    assert errors[0] > 100 * errors[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mc.MAML(inner_rate=-0.1), "maml: inner_rate=-0.1; expected a finite step size, not negative."),
        (lambda: mc.MAML(outer_rate=float("nan")), "maml: outer_rate=nan; expected a finite step size, not negative."),
        (lambda: mc.FOMAML(inner_steps=-1), "fomaml: inner_steps=-1; expected 0 or more."),
        (lambda: wrong(mc.MAML(), meta_batch_size="4"), "maml: meta_batch_size='4'; expected a whole number."),
        (lambda: wrong(mc.MAML(), inner_steps=1.5), "maml: inner_steps=1.5; expected a whole number."),
        (lambda: wrong(mc.MAML(), inner_rate="big"), "maml: inner_rate='big'; expected a number."),
        (
            lambda: wrong(mc.MAML(), outer_schedule="cosin"),
            "outer_schedule='cosin'; expected one of constant, linear, cosine.",
        ),
        (
            lambda: wrong(mc.Reptile(), inner_optimizer="sdg"),
            "reptile: inner_optimizer='sdg'; expected one of sgd, adam.",
        ),
    ],
)
def test_bad_settings_are_refused_where_they_are_given(make, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the text is compared below)
        make()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mc.MAML(meta_batch_size=0), "meta_batch_size=0; an outer step needs at least one task."),
        (
            lambda: mc.Reptile(test_batch_size=-1),
            "reptile: test_batch_size=-1; expected 1 or more, or 0 as in training.",
        ),
        (lambda: mc.Reptile(inner_batch_size=-1), "reptile: inner_batch_size=-1; expected 1 or more, or 0"),
        (
            lambda: mc.MANN(slots=3),
            "reads=4, slots=3; expected 1 or more of each, and as many slots as heads read, or more.",
        ),
        (lambda: mc.MANN(decay=1.5), "mann: decay=1.5; expected a number from 0 to 1."),
        (lambda: mc.IMAML(strength=0.0), "imaml: strength=0.0; the proximal term needs a positive weight."),
        (lambda: mc.IMAML(cg_steps=0), "Implicit: cg_steps=0; the solve needs at least one step."),
        (
            lambda: mc.Reptile(inner_steps=0),
            "without an inner step nothing is displaced. Set inner_steps to at least 1.",
        ),
        (lambda: mc.MAML(mapping="quick"), "unknown mapping 'quick'; expected one of: auto, sequential, vectorised, "),
        (lambda: mc.MAML(mapping="chunked:0"), "unknown mapping 'chunked:0'; expected one of: auto"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_any_work(make, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the text is compared whole below)
        build(make())
    assert message in str(refused.value)


def test_targets_of_another_shape_than_the_outputs_are_refused():
    # Broadcasting [n] against [n, 1] would silently compare every pair.
    flat = mc.ArrayTasks(*(np.zeros(shape) for shape in ((3, 5, 1), (3, 5), (3, 5, 1), (3, 5))))
    with pytest.raises(ValueError, match=r"predictions \(5, 1\) and targets \(5,\) differ in shape") as refused:
        mc.MAML().build(mc.mlp(1, 1, widths=(4,)), flat)
    assert "y[:, None]" in str(refused.value)


def test_tasks_that_ignore_their_key_are_refused():
    def same(key):
        del key
        x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 1)), jnp.float32)
        return mc.Task(mc.Examples(x, x), mc.Examples(x, x))

    with pytest.raises(ValueError, match="does not depend on the key, so every task would be the same one"):
        mc.MAML().build(mc.mlp(1, 1, widths=(4,)), mc.FunctionTasks(same))


@pytest.mark.parametrize(
    ("inputs", "shape", "message"),
    [
        (2, (3, 5, 1), r"have shape \(5, 1\), one example a row."),
        (1, (3, 5), r"have shape \(5,\), one example a row. Give every"),
    ],
)
def test_a_model_that_cannot_take_the_inputs_is_refused(inputs, shape, message):
    tasks = mc.ArrayTasks(*(np.zeros(shape) for _ in range(4)))
    with pytest.raises(ValueError, match=message):
        mc.MAML().build(mc.mlp(inputs, 1, widths=(4,)), tasks)


def test_arrays_that_are_not_finite_are_refused():
    bad = np.zeros((3, 5, 1))
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match="query_targets has entries that are not finite"):
        mc.ArrayTasks(*(np.zeros((3, 5, 1)) for _ in range(3)), bad)


def test_query_inputs_that_do_not_fit_are_named():
    tasks = mc.ArrayTasks(*(np.zeros(shape) for shape in ((3, 5, 1), (3, 5, 1), (3, 5, 2), (3, 5, 1))))
    with pytest.raises(ValueError, match=r"does not fit the tasks, whose query inputs have shape \(5, 2\)"):
        mc.MAML().build(mc.mlp(1, 1, widths=(4,)), tasks)


def test_what_is_not_a_distribution_is_refused():
    with pytest.raises(TypeError, match=r"cannot draw from Sinusoids; expected a metaception\.TaskDistribution"):
        mc.MAML().build(mc.mlp(1, 1, widths=(4,)), mc.Sinusoids)


def test_inner_and_outer_optimisers_of_ones_own(float64):
    """MAML with Adam inside and sign descent outside: a function's tasks, an inner step and an outer step by hand."""

    def line(key):
        x = jax.random.normal(key, (6, 1))
        return mc.Task(mc.Examples(x[:3], 2 * x[:3]), mc.Examples(x[3:], 2 * x[3:]))

    model, key = mc.mlp(1, 1, widths=(4,), activation="tanh", initialiser="he"), jax.random.key(4)
    inner = optax.adam(1.0, eps_root=1e-8)
    method = mc.MAML(inner_rate=0.05, meta_batch_size=2)
    algorithm = method.build(model, line, inner=inner, outer=optax.sign_sgd(0.5))
    state, task = algorithm.init(key), line(key)

    def loss(parameters):
        return ((model.apply(parameters, task.support.inputs) - task.support.targets) ** 2).mean()

    updates, _ = inner.update(jax.grad(loss)(state.meta), inner.init(state.meta), state.meta)
    expected = jax.tree.map(lambda p, u: p + 0.05 * u, state.meta, updates)
    for a, b in zip(*map(jax.tree.leaves, (algorithm.adapt(key, state.meta, task.support), expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    after = eqx.filter_jit(algorithm.step)(key, state)[0]
    for a, b in zip(*map(jax.tree.leaves, (after.meta, state.meta)), strict=True):
        np.testing.assert_allclose(np.abs(a - b), 0.5, rtol=1e-9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"outer": 0.1}, "maml: outer=0.1; expected an optax optimiser, for example optax.adam(1e-3)."),
        ({"inner": "sgd"}, "maml: inner='sgd'; expected an optax optimiser"),
        ({"loss": "mse"}, "maml: loss='mse'; expected a function (predictions, targets) -> scalar, for example"),
        (
            {"loss": lambda predictions, targets: (predictions - targets) ** 2},
            "maml: the loss of the support examples is an array of shape (10, 1); expected one number, for example their mean.",
        ),
    ],
)
def test_optimisers_and_losses_that_are_none_are_refused(given, message):
    # Past the checked signature of a test run, which would not let the wrong types through.
    unchecked = inspect.unwrap(Method.build)
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the text is compared below)
        unchecked(mc.MAML(), mc.mlp(1, 1, widths=(4,)), mc.Sinusoids(), **given)
    assert str(refused.value).startswith(message)


def test_a_function_that_takes_no_key_is_refused():
    def line():
        raise AssertionError

    message = r"tasks: line\(\) cannot be called with a key alone; expected a function key -> Task\."
    with pytest.raises(TypeError, match=message):
        mc.MAML().build(mc.mlp(1, 1, widths=(4,)), line)
