"""Presets: every one builds, goes to JSON and back, and cites what it uses."""

import dataclasses
import json

import jax
import pytest

import metaception as mc
from metaception.methods.references import BIBTEX, LIBRARY, bibtex
from metaception.runs.preset import METHODS, from_dict, to_dict
from metaception.runs.presets import PRESETS

# Presets of one method on one set of images differ in numbers alone.
KINDS = {(preset.method.name, getattr(preset.tasks, "images", preset.name)): preset for preset in PRESETS.values()}


@pytest.mark.parametrize("preset", KINDS.values(), ids=lambda preset: preset.name)
def test_every_kind_of_preset_builds(preset):
    # Blocks are alike, and each takes seconds to trace under the checks of a test run.
    small = {"network": dataclasses.replace(preset.network, blocks=1)} if hasattr(preset.network, "blocks") else {}
    algorithm = dataclasses.replace(preset, **small).build(data=False)
    task = jax.eval_shape(algorithm.tasks.sample, jax.random.key(0))
    ways = getattr(preset.tasks, "train_ways", None) or getattr(preset.tasks, "ways", 1)
    assert task.support.inputs.shape[0] == (getattr(preset.tasks, "batches", 0) or preset.tasks.shots * ways)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_comes_back_from_json(preset):
    again = from_dict(json.loads(json.dumps(to_dict(preset))))
    assert again == preset
    assert again.tasks == preset.tasks


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_citation_has_its_entry(preset):
    keys = preset.citations()
    assert keys[0] == LIBRARY
    assert set(preset.method.citations) <= set(keys)
    text = bibtex(keys)
    assert all(f"{{{key}," in text for key in keys)


@pytest.mark.parametrize(
    ("method", "tasks", "keys"),
    [
        (mc.MAML(), mc.Sinusoids(), {"finn2017maml"}),
        (mc.MAML(memory="mixed"), mc.Sinusoids(), {"finn2017maml", "kemaev2025mixflow"}),
        (mc.Reptile(), mc.Sinusoids.reptile(), {"nichol2018reptile", "finn2017maml"}),
        (mc.IMAML(), mc.Lines(), {"rajeswaran2019imaml", "finn2018platipus"}),
        (
            mc.MetaSGD(),
            mc.Sinusoids.bayesian_maml(),
            {"li2017metasgd", "finn2017maml", "nichol2018reptile", "yoon2018bmaml"},
        ),
        (mc.ANIL(), mc.SinusoidsAndLines(), {"raghu2020anil", "finn2018platipus"}),
    ],
)
def test_citations_are_exactly_what_is_used(method, tasks, keys):
    preset = dataclasses.replace(PRESETS["maml-sinusoid"], method=method, tasks=tasks)
    assert set(preset.citations()) == {LIBRARY} | keys


def test_entries_are_whole():
    for key, entry in BIBTEX.items():
        assert entry.count("{") == entry.count("}"), key
        assert all(f"  {field}" in entry for field in ("author", "title"))
    assert bibtex(["finn2017maml", "finn2017maml"]).count("@") == 1


def test_every_method_can_be_saved():
    assert {preset.method.name for preset in PRESETS.values()} <= set(METHODS)


def test_a_method_of_another_version_is_refused():
    values = to_dict(PRESETS["maml-sinusoid"])
    values["method"]["kind"] = "warp"
    with pytest.raises(
        mc.UsageError, match=r"unknown method 'warp' in the configuration; this version knows maml, maml_plus_plus"
    ):
        from_dict(values)
    values["method"] = {"kind": "maml", "colour": "red"}
    with pytest.raises(mc.UsageError, match=r"not one of this version's: .*colour"):
        from_dict(values)
