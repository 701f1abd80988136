"""The benchmarks' own code, at tiny sizes; the peers only where their packages are installed."""

import csv
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Import a module of benchmarks/ by its name; afterwards it is forgotten, as other folders have modules of that name."""
    before = dict(sys.modules)
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)
    sys.modules.update(before)


def plain_maml(arrays, batch, steps, rate, second_order=True):
    """The mean meta-gradient, written out without the library."""

    def apply(p, x):
        hidden = jax.nn.relu(jax.nn.relu(x @ p[0] + p[1]) @ p[2] + p[3])
        return hidden @ p[4] + p[5]

    def loss(p, x, y):
        return jnp.mean((apply(p, x) - y) ** 2)

    def outer(p):
        total = 0.0
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            q = p
            for _ in range(steps):
                g = jax.grad(loss)(q, support_x, support_y)
                g = g if second_order else jax.lax.stop_gradient(g)
                q = [a - rate * b for a, b in zip(q, g, strict=True)]
            total = total + loss(q, query_x, query_y)
        return total / len(batch[0])

    return jax.jit(jax.grad(outer))([jnp.asarray(a) for a in arrays])


def test_ours_does_the_work_that_is_described(module):
    work, measure, ours = module("work"), module("measure"), module("ours")
    workload = work.Workload(inner_steps=2, tasks=3, width=6)
    implementation = ours.Ours("metaception", workload)
    batch, gradient = implementation.estimate()
    assert [part.shape for part in batch] == [(3, 10, 1)] * 4
    start = workload.parameters()
    measure.same(plain_maml(start, batch, 2, work.INNER_RATE), gradient, "ours", 1e-5)
    # The check has teeth: without the second-order term it fails.
    first_order = plain_maml(start, batch, 2, work.INNER_RATE, second_order=False)
    with pytest.raises(AssertionError, match=r"a peer: its meta-gradient is .* off ours"):
        measure.same(first_order, gradient, "a peer", 1e-4)
    implementation.run(3)
    assert int(implementation.state.step) == 4  # one of them in setting up
    assert implementation.facts()["program_mib"] > 0


def test_a_name_is_a_mode_or_a_mapping(module):
    work, ours = module("work"), module("ours")
    workload = work.Workload(inner_steps=3, tasks=4, width=6)
    algorithms = {how: ours.algorithm(f"metaception {how}", workload) for how in ("mixed", "anil", "chunked:2")}
    assert algorithms["mixed"].estimator.mode == "mixed"
    assert type(algorithms["anil"].learner).__name__ == "Head"
    assert algorithms["chunked:2"].mapping.size == 2
    assert all(a.meta_batch_size == 4 and a.learner.steps == 3 for a in algorithms.values())
    with pytest.raises(ValueError, match="unknown mapping 'nonsense'"):
        ours.algorithm("metaception nonsense", workload)


def test_measuring_in_processes_of_their_own(module):
    work, measure = module("work"), module("measure")
    effort = measure.Effort(rounds=3, seconds=0.01)
    figures = measure.measure(["metaception"], work.Workload(tasks=2, width=4), 1, effort)["metaception"]
    assert len(figures.times) == 3
    assert 0 < figures.seconds < 1
    assert figures.ratio(figures) == 1.0
    assert not figures.peak_mib < 0
    assert "jax" in figures.versions


def test_what_is_written(module, tmp_path):
    work, measure, report = module("work"), module("measure"), module("report")
    slow = measure.Figures([0.004, 0.006, 0.009], 2.0, 1.0, {"torch": "2"})
    fast = measure.Figures([0.001, 0.002, 0.003], 0.5, 1.0, {"jax": "0"}, 0.25)
    assert slow.seconds == 0.006
    assert slow.ratio(fast) == 3.0  # of 4, 3, 3: rounds are compared with themselves
    result = report.Result(work.Workload(), 1, {"metaception": fast, "higher": slow})
    report.write_csv(tmp_path / "x.csv", [result], "command")
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == report.COLUMNS
    assert [float(row["seconds_per_step"]) for row in rows] == [0.002, 0.006]
    assert rows[1]["workload"] == "1 inner step, 25 tasks, width 40"
    table = module("sinusoid").side_by_side(result).markdown()
    assert "| higher | 6.00 | × 3.00 | 2.00 |  | 1.00 |" in table
    page = tmp_path / "x.md"
    page.write_text(f"by hand\n{report.START}\nold\n{report.END}\nbelow")
    report.fill(page, "new")
    assert page.read_text() == f"by hand\n{report.START}\n\nnew\n\n{report.END}\nbelow"


@pytest.mark.parametrize(
    ("value", "text"), [(123.4, "123"), (0.2171, "0.217"), (1.0, "1.00"), (1234.0, "1234"), (0.0, "0")]
)
def test_three_digits(module, value, text):
    assert module("report").number(value) == text


def test_the_peers_have_our_meta_gradient(module):
    pytest.importorskip("torch", reason="the peers are an optional extra: pip install -e '.[peers]'")
    pytest.importorskip("higher", reason="the peers are an optional extra: pip install -e '.[peers]'")
    work, measure, ours, peers = module("work"), module("measure"), module("ours"), module("peers")
    workload = work.Workload(inner_steps=2, tasks=3, width=6)
    reference = ours.Ours("metaception", workload)
    for name, peer in peers.PEERS.items():
        if name.endswith("compiled"):
            continue  # a minute of compiling; the benchmark itself checks it
        batch, gradient = peer(workload).estimate()
        measure.same(reference.meta_gradient(batch), gradient, name, 1e-4)
        assert np.ptp(batch[0]) > 5


def test_the_check_on_images_tells_a_missing_second_order_term(module):
    work, measure, ours = module("image_work"), module("measure"), module("image_ours")

    class Small(work.ImageWorkload):
        filters = 4

    workload = Small(tasks=1, queries=1)
    implementation = ours.OurImages("metaception", workload)
    batch, gradient = implementation.estimate()
    assert [part.shape for part in batch] == [(1, 5, 28, 28, 1), (1, 5)] * 2
    implementation.algorithm = implementation.build("metaception first_order", workload)
    with pytest.raises(AssertionError, match="a peer: its meta-gradient is"):
        measure.same(implementation.meta_gradient(batch), gradient, "a peer", workload.tolerance)


def test_the_least_products_of_a_step_are_counted_by_hand(module):
    """One image of Omniglot, in multiplications and additions, layer by layer; 3 passes a query, 9 a support image."""
    work = module("image_work")
    layers = [2 * 14**2 * 9 * 64 * 2 / 3, *(2 * size**2 * 9 * 64**2 for size in (7, 4, 2))]
    assert work.ImageWorkload(tasks=2, shots=1, queries=4).products() == pytest.approx(2 * 5 * (9 + 12) * sum(layers))
