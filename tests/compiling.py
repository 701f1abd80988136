"""How the tests compile: quickly, for most of their time goes there."""

from importlib.metadata import version

QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""Environment variables under which XLA takes a fifth of its usual time to compile a small program, which then runs slower."""

if version("jax").startswith("0.10."):
    # Two thirds of the gain; later versions have no such flag, and stop at one that they do not know.
    QUICK["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
