"""The claims of the source documents about MAML on sinusoids: results/claims.csv, .md and pictures.

python experiments/claims.py          # 3 seeds of 70,000 outer steps; 5 of 30,000 for each activation
python experiments/claims.py --quick  # a smoke test in a temporary folder
"""

from __future__ import annotations

import activations
import periodicity
import sensitivity
from report import Report, is_quick
from training import train

import metaception as mc


def main() -> None:
    """Train what the three claims need, and measure."""
    quick = is_quick(__doc__)
    seeds, steps, count = (2, 20, 4) if quick else (3, 70_000, 600)
    report = Report("claims", quick)
    # One model for all three, so that what is compiled for one of them serves the next.
    model, trained = mc.mlp(1, 1), {}
    for method in (mc.MAML(), mc.Pretrain(), mc.RandomInitialisation()):
        algorithm = method.build(model, mc.Sinusoids(), steps=steps)
        done = 0 if isinstance(method, mc.RandomInitialisation) else steps
        trained[method.name] = (algorithm, train(algorithm, [done], seeds)[-1])
    periodicity.run(report, trained, count)
    sensitivity.run(report, trained, count)
    if quick:
        activations.run(report, ["relu"], checkpoints=[0, 20], seeds=seeds, batches=2, count=count)
    else:
        names, checkpoints = list(activations.ACTIVATIONS), [0, 1_000, 5_000, 10_000, 30_000]
        activations.run(report, names, checkpoints=checkpoints, seeds=5, batches=8, count=count)
    report.write()


if __name__ == "__main__":
    main()
