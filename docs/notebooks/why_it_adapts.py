# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why does it adapt?
#
# MAML learns where gradient descent should *start*. From there, five points and one gradient step are enough to fit a new sine wave. But
# nothing about gradient descent has changed, and the network is an ordinary one. So what is special about the starting point?
#
# This notebook trains three starting points and looks at the loss around them:
#
# - **meta-trained**: MAML, which trains for the loss *after* an inner step;
# - **pretrained**: ordinary training on all the same tasks, for the loss as it is;
# - **random**: no training.
#
# It takes about a minute on one core, most of it for compiling and training.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

import metaception as mc

STEPS = int(os.environ.get("METACEPTION_NOTEBOOK_STEPS", 15_000))  # outer steps; the paper takes 70,000
RATE = 0.003  # the inner step size

# %% [markdown]
# ## Three starting points
#
# Each task is a wave $y = A \sin(x - \varphi)$ with its own amplitude $A$ in [0.1, 5] and phase $\varphi$ in [0, π], seen through five points with $x$ in [−5, 5].

# %%
network = mc.mlp(1, 1, initialiser="he")
tasks = mc.Sinusoids(shots=5)
settings = {"inner_rate": RATE, "outer_rate": 5e-3, "outer_schedule": "cosine"}
maml = mc.MAML(**settings).build(network, tasks, steps=STEPS)
pretraining = mc.Pretrain(**settings).build(network, tasks, steps=STEPS)
starts = {
    "meta-trained": mc.train(maml, steps=STEPS).meta(),
    "pretrained": mc.train(pretraining, steps=STEPS).meta(),
    "random": network.init(jax.random.key(6)),
}
colours = {"meta-trained": "tab:blue", "pretrained": "tab:orange", "random": "tab:gray"}

# %% [markdown]
# ## The fits
#
# The inner learner is the same for all three: gradient descent on the five points.


# %%
def loss(parameters, examples):
    return mc.mean_squared_error(network.apply(parameters, examples.inputs), examples.targets)


def move(theta, direction, size):
    return jax.tree.map(lambda t, d: t - size * d, theta, direction)


@jax.jit
def descend(theta, examples, steps):
    return jax.lax.fori_loop(0, steps, lambda _, phi: move(phi, jax.grad(loss)(phi, examples), RATE), theta)


# %% [markdown]
# Three new waves. Dots are the support points, the grey line is the truth, which the learner never sees. In the third column all points lie on the right.

# %%
# Three new tasks, fitted from the meta-trained and from the pretrained start, after 0, 1 and 10 gradient steps
x = jnp.linspace(-5, 5, 200)[:, None]
points = [jnp.array(p)[:, None] for p in ([-4.2, -2.9, -0.6, 1.7, 4.1], [-3.5, -1.2, 0.4, 2.6, 3.3], [0.3, 1.4, 2.2, 3.6, 4.7])]
waves = [lambda x: 3 * jnp.sin(x - 0.5), lambda x: 1.5 * jnp.sin(x - 2.5), lambda x: 4 * jnp.sin(x - 1.5)]

figure, axes = plt.subplots(2, 3, figsize=(10, 5), sharex=True, sharey=True)
for row, name in zip(axes, ("meta-trained", "pretrained"), strict=True):
    for axis, x_support, wave in zip(row, points, waves, strict=True):
        axis.plot(x, wave(x), color="lightgray", linewidth=4)
        for steps, style in ((0, ":"), (1, "--"), (10, "-")):
            adapted = descend(starts[name], mc.Examples(x_support, wave(x_support)), steps)
            axis.plot(x, network.apply(adapted, x), style, color=colours[name], label=f"{steps} steps")
        axis.plot(x_support, wave(x_support), "k.", markersize=9)
    row[0].set_ylabel(name)
    row[0].legend(loc="lower left", fontsize=8)
figure.tight_layout()

# %% [markdown]
# Before adapting (dotted) both starts predict something like the average wave. After one step the meta-trained one has roughly found amplitude and phase; the pretrained one has hardly moved, and
# ten steps do not take it far. In the third column the meta-trained network rises on the left too, where it has seen *no* point: it has learned something of the shape that all of these tasks share.
#
# ## The loss along the gradient
#
# Take a new task and its inner gradient $g$, walk from the start $\theta$ along $-g$, and note the loss on *query* points, which the gradient never saw. One inner step of size $s$ ends at
# $\theta - s g$. For comparison, walk equally far in a random direction.


# %%
def draw(key, count=200):
    """New tasks, with query points on a grid."""
    return jax.vmap(mc.Sinusoids(shots=5, queries=100, grid=True).sample)(jax.random.split(key, count))


def along(theta, task, key):
    """The inner gradient of a task, and a random direction of the same length."""
    gradient, unflatten = ravel_pytree(jax.grad(loss)(theta, task.support))
    noise = jax.random.normal(key, gradient.shape)
    return unflatten(gradient), unflatten(noise * jnp.linalg.norm(gradient) / jnp.linalg.norm(noise))


@jax.jit
def walk(theta, new_tasks, sizes):
    """The mean query loss at theta − size × direction, along the gradient and along the random direction: two arrays [sizes]."""

    def one(task, key):
        return [
            jax.vmap(lambda size: loss(move(theta, way, size), task.query))(sizes) for way in along(theta, task, key)
        ]

    keys = jax.random.split(jax.random.key(1), new_tasks.support.inputs.shape[0])
    return [jnp.mean(curve, axis=0) for curve in jax.vmap(one)(new_tasks, keys)]


# %%
# The query loss on 200 new tasks, walking from each start along the inner gradient (solid) or a random direction (dotted)
sizes = jnp.linspace(0, 2 * RATE, 41)
new_tasks = draw(jax.random.key(7))
figure, axis = plt.subplots(figsize=(7, 4))
for name, start in starts.items():
    gradient_way, random_way = walk(start, new_tasks, sizes)
    axis.plot(sizes, gradient_way, color=colours[name], label=name)
    axis.plot(sizes, random_way, ":", color=colours[name])
    print(f"{name:13} {gradient_way[0]:.2f} at the start, {gradient_way[20]:.2f} after one inner step")
axis.set_ylim(0, 8)
axis.axvline(RATE, color="black", linewidth=0.8)
axis.annotate("one inner step", (RATE, 8), xytext=(4, -12), textcoords="offset points")
axis.set_xlabel("step size s")
axis.set_ylabel("query loss")
axis.legend()
figure.tight_layout()

# %% [markdown]
# This is the answer. The meta-trained start is *not* better where it stands: before any step its loss is that of the pretrained one, since no single function fits all waves. But it lies where the
# ground is steep **in just the directions that tasks pull in**, so that one small step changes the predictions a lot, and in the right way, also on points that the step never saw. Its lowest point is about one inner
# step away, which is what it was trained for. From the pretrained start the ground hardly falls in the same direction. (The random start falls too, but from high up and not for long: a whole inner step already goes too far.) Walking equally far in a random
# direction changes next to nothing, from anywhere.
#
# ## The ground from above
#
# One task, and both directions at once. The dot is the start, the arrow is one inner step.


# %%
@jax.jit
def ground(theta, task, across, down):
    """The query loss on a grid of steps down the gradient and across, in a random direction."""
    gradient, noise = along(theta, task, jax.random.key(3))

    def at(a, d):
        return loss(move(move(theta, gradient, d), noise, a), task.query)

    return jax.vmap(lambda d: jax.vmap(lambda a: at(a, d))(across))(down)


# %%
# The query loss of one task around the pretrained and the meta-trained start; downhill along the inner gradient is upwards
task = jax.tree.map(lambda leaf: leaf[3], new_tasks)
names = ("pretrained", "meta-trained")
across, down = jnp.linspace(-1.5 * RATE, 1.5 * RATE, 41), jnp.linspace(-0.5 * RATE, 2.5 * RATE, 41)
heights = [ground(starts[name], task, across, down) for name in names]
top = int(np.ceil(max(height.max() for height in heights)))
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for axis, name, height in zip(axes, names, heights, strict=True):
    drawn = axis.contourf(across / RATE, down / RATE, height, levels=np.linspace(0, top, 31), cmap="viridis")
    axis.annotate("", (0, 1), (0, 0), arrowprops={"arrowstyle": "->", "color": "white"})
    axis.plot(0, 0, "o", color="white")
    axis.set_title(name)
    axis.set_xlabel("random direction, inner steps")
axes[0].set_ylabel("along the inner gradient, inner steps")
bar = figure.colorbar(drawn, ax=axes, label="query loss", ticks=range(top + 1))

# %% [markdown]
# Sideways, along the random direction, the ground is nearly flat in both pictures. Along the gradient, ordinary training leaves a plain; meta-training has made a slope that leads down to a low place about one step away.
#
# ## More steps
#
# Trained for one step, tested for twenty, on 200 waves that no training saw.

# %%
# The query loss over inner steps: the mean over 200 new tasks
figure, axis = plt.subplots(figsize=(7, 4))
together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts.values())  # evaluate takes several starts at once
losses = mc.evaluate(maml, together, mc.Sinusoids(shots=5, queries=100, grid=True), steps=20, count=200).losses
for name, curve in zip(starts, losses.mean(axis=1), strict=True):
    axis.plot(curve, "o-", markersize=3, color=colours[name], label=name)
    print(f"{name:13} after 0, 1, 5, 20 steps: " + ", ".join(f"{curve[step]:.2f}" for step in (0, 1, 5, 20)))
axis.set_xlabel("inner steps")
axis.set_xticks(range(0, 21, 5))
axis.set_ylabel("query loss")
axis.set_ylim(bottom=0)
axis.legend()
figure.tight_layout()

# %% [markdown]
# Most of the gain comes with the first step, which is what MAML was trained for, and further steps add to it instead of spoiling it. The random start shows how it can go otherwise: its
# steps fit the five points better and better, and before long the wave between them worse.
#
# ## Try it yourself
#
# - Train with `mc.FOMAML` instead: it never looks at the second derivative. How much of the slope does it find?
# - Give the pretrained network another inner step size. Is there one with which it keeps up?
# - Train with `inner_steps=5`. Where is the low place now?
# - Use `mc.mlp(..., activation="tanh")`. Does the picture change?
