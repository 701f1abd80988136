"""Meta-gradients known without the estimators: by finite differences, closed forms and plain Python loops.

Each takes a `Problem` and one of its tasks. None of them uses an estimator, `advance`, or the bandit's own draws.
"""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from problems import Problem

KEY = jax.random.key(0)  # read by no learner that these oracles run


def central_differences(function, at, step=1e-5):
    """The gradient of a scalar function at the pytree `at`, of its structure, coordinate by coordinate."""
    return differences_of_compiled(jax.jit(function), at, step)


def differences_of_compiled(function, at, step=1e-5):
    """The same of a function that is called as it is."""
    flat, rebuild = ravel_pytree(at)
    flat = np.asarray(flat)

    def slope(index):
        shift = step * np.eye(flat.size)[index]
        return (float(function(rebuild(flat + shift))) - float(function(rebuild(flat - shift)))) / (2 * step)

    return rebuild(np.array([slope(index) for index in range(flat.size)]))


# --- losses, by plain loops -----------------------------------------------------------------------------------------


def life(problem: Problem, meta, task, *, start=None, length=None, step=None):
    """The inner states after each of `length` steps from `start` (the learner's own beginning unless given)."""
    learner = problem.learner
    state = learner.init(KEY, meta, task.support) if start is None else start
    states = []
    for index in range(learner.steps if length is None else length):
        state = learner.step(KEY, meta, state, task.support) if step is None else step(index, state)
        states.append(state)
    return states


def judged(problem: Problem, meta, task, states, loss_at=None):
    """The outer loss after the last of `states`, or its mean over them."""
    learner = problem.learner
    losses = [learner.loss(KEY, meta, learner.output(meta, state), task)[0] for state in states]
    return losses[-1] if (loss_at or problem.loss_at) == "last" else sum(losses) / len(losses)


def loss(problem: Problem, meta, task):
    """The outer loss of a whole life."""
    return judged(problem, meta, task, life(problem, meta, task))


def loss_with_inner_gradients_held(problem: Problem, meta, task):
    """A function of `meta` whose inner gradients are those recorded at the given `meta`."""
    learner = problem.learner
    before = [learner.init(KEY, meta, task.support), *life(problem, meta, task)[:-1]]
    recorded = [learner.inner_gradient(KEY, meta, state, task.support) for state in before]

    def held(meta):
        states = life(problem, meta, task, step=lambda i, state: learner.inner_update(meta, state, recorded[i]))
        return judged(problem, meta, task, states)

    return held


def mean_loss(problem: Problem, meta, task):
    """The mean of the outer losses after every inner step, whatever the problem's own loss is."""
    return judged(problem, meta, task, life(problem, meta, task), "every")


# --- gradients of deterministic problems ----------------------------------------------------------------------------


def of_the_loss(problem: Problem, task):
    """Differences of the loss through the whole inner loop."""
    return central_differences(lambda meta: loss(problem, meta, task), problem.meta)


def of_the_mean_loss(problem: Problem, task):
    """The same of the mean loss over the inner steps."""
    return central_differences(lambda meta: mean_loss(problem, meta, task), problem.meta)


def of_the_loss_with_inner_gradients_held(problem: Problem, task):
    """Differences of the loss along the inner gradients recorded at the problem's meta-parameters."""
    return central_differences(loss_with_inner_gradients_held(problem, problem.meta, task), problem.meta)


def of_a_window(problem: Problem, task, *, index: int, length: int):
    """Differences of window `index`'s mean loss, what earlier windows left behind held fixed."""
    meta = problem.meta
    start = life(problem, meta, task, length=index * length)[-1] if index else None

    def truncated(meta):
        return judged(problem, meta, task, life(problem, meta, task, start=start, length=length), "every")

    return central_differences(truncated, meta)


def displacement(problem: Problem, task):
    """Where the inner learner began, minus where a plain loop of its steps took it."""
    end = problem.learner.output(problem.meta, life(problem, problem.meta, task)[-1])
    return jax.tree.map(lambda start, end: start - end, problem.meta, end)


def through_the_proximal_solution(problem: Problem, task):
    """Differences of the outer loss at argmin ½‖φ − θ‖²·strength + support loss, found by Newton's method."""
    learner = problem.learner
    start, rebuild = ravel_pytree(problem.meta)

    def fit(parameters, examples):
        return jnp.mean((learner.model.apply(rebuild(parameters), examples.inputs) - examples.targets) ** 2)

    def outer(meta):
        centre = ravel_pytree(meta)[0]

        def inner(parameters):
            return fit(parameters, task.support) + 0.5 * learner.strength * jnp.sum((parameters - centre) ** 2)

        def newton(_, at):
            return at - jnp.linalg.solve(jax.hessian(inner)(at), jax.grad(inner)(at))

        return fit(jax.lax.fori_loop(0, 8, newton, start), task.query)

    return central_differences(outer, problem.meta)


def through_the_fixed_point(problem: Problem, task):
    """Closed form: v = (I − γP)⁻¹ r, dv/dγ = (I − γP)⁻¹ P v, and λ moves nothing."""
    (transitions, rewards), wanted = task
    gamma = jax.nn.sigmoid(problem.meta["gamma"])
    system = jnp.eye(3) - gamma * transitions
    values = jnp.linalg.solve(system, rewards)
    slope = jnp.linalg.solve(system, transitions @ values)
    gradient = 2 * (values - wanted) @ slope * gamma * (1 - gamma)
    return {"gamma": gradient, "lambda_": jnp.zeros(())}


# --- the bandit, enumerated -----------------------------------------------------------------------------------------

PULLS = 3


def expected_loss(problem: Problem, meta, task, *, every=False):
    """The bandit's objective exactly: the sum over all (2 actions × 2 rewards)³ histories of chance × loss, after the last
    pull or as the mean over what was heard of `every` pull."""
    del problem
    histories = jnp.array(list(product((0, 1), repeat=2 * PULLS)))
    chances = task.query

    def of_history(history):
        hidden, chance, total, ends = jnp.zeros(2), 1.0, 0.0, []
        for action, reward in zip(history[:PULLS], history[PULLS:], strict=True):
            one = jax.nn.sigmoid(meta["v"] @ hidden + meta["c"])
            chance *= jnp.where(action == 1, one, 1 - one)
            chance *= jnp.where(reward == 1, chances[action], 1 - chances[action])
            heard = jnp.array([1.0 - action, action, reward])
            hidden = jnp.tanh(meta["a"] @ hidden + meta["b"] @ heard)
            total += reward
            one = jax.nn.sigmoid(meta["v"] @ hidden + meta["c"])
            ends.append(-(1 - one) * chances[0] - one * chances[1])
        return chance * (-total / PULLS + (sum(ends) / PULLS if every else ends[-1]))

    return jnp.sum(jax.vmap(of_history)(histories))


def enumerated(problem: Problem, task):
    """Differences of the bandit's exact objective."""
    return central_differences(lambda meta: expected_loss(problem, meta, task), problem.meta)


def enumerated_mean(problem: Problem, task):
    """The same of the mean over pulls."""
    return central_differences(lambda meta: expected_loss(problem, meta, task, every=True), problem.meta)


# --- smoothed objectives --------------------------------------------------------------------------------------------


def smoothed(objective, meta, sigma, draws, windows=1):
    """Independent draws [draws, P] of a gradient whose mean is that of E[objective(meta + σε₁, …, meta + σε_windows)].

    `objective` takes one perturbed copy of the meta-parameters a window, each with an ε of its own; the derivative is in
    the `meta` that they share.
    """
    flat, rebuild = ravel_pytree(meta)

    def at(shift, noise):
        return objective(*[rebuild(flat + shift + sigma * row) for row in noise])

    noise = jax.random.normal(jax.random.key(99), (draws, windows, flat.size))
    return jax.jit(jax.vmap(jax.grad(at), in_axes=(None, 0)))(jnp.zeros_like(flat), noise)


def life_in_windows(problem: Problem, task, *, length: int):
    """The sum of the window losses of one life, each window under its own copy of the meta-parameters."""

    def objective(*metas):
        state, total = None, 0.0
        for meta in metas:
            states = life(problem, meta, task, start=state, length=length)
            total += judged(problem, meta, task, states, "every")
            state = states[-1]
        return total

    return objective
