"""How the tests compile: quickly, for most of their time goes there."""

QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
"""Environment variables under which XLA takes a fifth of its usual time to compile a small program, which then runs slower."""
