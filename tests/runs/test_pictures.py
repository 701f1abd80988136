"""What a run's pictures show."""

import dataclasses

import numpy as np

import metaception as mc
from metaception.runs.pictures import episode, inner_steps, training
from metaception.runs.presets import PRESETS
from metaception.runs.testing import Results


def _results(tasks):
    curve = {"shots": 5, "mean": [3.0] + [1.0] * 10, "interval": [0.1] * 11}
    given = {"family": "Sinusoids", **dataclasses.asdict(tasks)}
    return Results("maml-sinusoid", "maml", "mse", "", 1761, 1, 1, [0], "best", {}, given, [curve])


def test_the_papers_figures_stand_beside_ours_where_the_tasks_are_the_papers():
    ours, paper = inner_steps(_results(mc.Sinusoids())).axes[0].lines
    assert ours.get_label() == "5 shots"
    assert paper.get_label() == "5 shots, the paper"
    # Finn et al. 2017, supplementary table 2.
    np.testing.assert_array_equal(paper.get_xydata(), [[1, 0.67], [5, 0.38], [10, 0.35]])
    assert len(inner_steps(_results(mc.Sinusoids.reptile())).axes[0].lines) == 1


def test_without_inner_steps_there_is_a_point_for_each_number_of_shots():
    curves = [{"shots": shots, "mean": [mean], "interval": [0.05]} for shots, mean in ((1, 0.6), (5, 0.9))]
    results = Results(
        "protonet-glyphs", "protonet", "accuracy", "batch", 9, 1, 1, [0], "best", {}, {"images": "mine"}, curves
    )
    axis = inner_steps(results).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["1 shot", "5 shots"]
    low, high = axis.get_xlim()
    points = [line.get_xydata()[0].tolist() for line in axis.lines if line.get_label() in ("1 shot", "5 shots")]
    assert points == [[0, 0.6], [1, 0.9]]
    assert (low, high) == (-1, 2)
    (bars,), _ = (container[2] for container in axis.containers)  # the lines of an error bar
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [0.55, 0.65])


def test_training_without_an_inner_loop_has_one_validation_curve():
    def labels(method):
        run = mc.train(method.build(mc.mlp(1, 1, widths=(4,)), mc.Sinusoids(shots=3)), steps=2, validation_tasks=2)
        return [line.get_label() for line in training(run).axes[0].lines]

    assert labels(mc.MAML()) == ["training loss", "validation, before adaptation", "validation, after adaptation"]
    assert labels(mc.Pretrain()) == ["training loss", "validation, no adaptation in training"]


def test_an_episode_of_fewer_classes_than_the_model_has_outputs():
    """Prototypical networks train on more ways than they are tested on; every class of the test is a row of the picture."""
    preset = PRESETS["protonet-glyphs"]
    network = dataclasses.replace(preset.network, filters=2, blocks=1)
    preset = dataclasses.replace(preset, network=network, test=dataclasses.replace(preset.test, test_shots=(1,)))
    run = mc.train(preset.build(), steps=0, validation=preset.tasks.validation_tasks(), validation_tasks=1)
    axes = episode(run, preset).axes
    assert len(axes) == 5 * (1 + 5)
    assert [axes[6 * row].get_title() for row in range(5)] == [f"class {row}" for row in range(5)]
