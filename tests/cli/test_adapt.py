"""`metaception adapt`: images in folders become a table and a picture; what cannot be is told before any work."""

import csv
import re

import numpy as np
import pytest
from cli.own_images import stroke, write
from PIL import Image

import metaception as mc
from metaception.cli.main import main

CLASSES = {"flat": 0, "upright $": 1, "10": 2}


@pytest.fixture
def folders(tmp_path):
    return write(tmp_path / "support", CLASSES, 3), write(tmp_path / "query", CLASSES, 2, seed=1)


def adapt(run, support, query, out, *flags):
    return main(["adapt", str(run), "--support", str(support), "--query", str(query), "--out", str(out), *flags])


def rows(out):
    with open(out, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_the_estimators_probabilities(glyph_run, folders, tmp_path, capsys):
    support, query = folders
    out = tmp_path / "deep" / "result.csv"
    assert adapt(glyph_run, support, query, out, "--steps", "100") == 0
    # In natural order: folders, then files; columns as the support folder has its classes.
    files = [f"{name}/{index}.png" for name in ("10", "flat", "upright $") for index in (0, 1)]
    table = rows(out)
    assert [row["file"] for row in table] == files
    assert list(table[0]) == [
        "file", "class", "predicted", "probability", "p_10", "p_flat", "p_upright $", "error",
    ]  # fmt: skip
    images = {
        name: np.stack([np.asarray(Image.open(support / name / f"{i}.png")) for i in range(3)])
        for name in sorted(CLASSES)
    }
    classifier = mc.FewShotClassifier(glyph_run, steps=100)
    classifier.fit(np.concatenate(list(images.values())), np.repeat(list(images), 3))
    expected = classifier.predict_proba(np.stack([np.asarray(Image.open(query / file)) for file in files]))
    found = [[float(row[f"p_{name}"]) for name in classifier.classes_] for row in table]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for row, chances in zip(table, expected, strict=True):
        assert row["predicted"] == classifier.classes_[chances.argmax()]
        assert float(row["probability"]) == pytest.approx(chances.max(), abs=1e-5)
        assert (row["class"], row["error"]) == (row["file"].split("/")[0], "")
    right = sum(row["class"] == row["predicted"] for row in table)
    said = capsys.readouterr().out
    policy = "batch statistics of the support set; trained with those of all queries together (transductive)"
    assert f"tiny-glyphs adapted to 9 images of 3 classes, 100 inner steps; {policy}." in said
    assert f"Right: {right} of 6 ({right / 6:.1%})." in said
    assert right >= 4  # bars that lie as those of the support set do; two would be chance
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_bad_query_costs_its_row_alone(glyph_run, folders, tmp_path, capsys):
    support, _ = folders
    query = write(tmp_path / "loose", CLASSES, 1, seed=1, sort=False)
    (query / "flat0.png").write_bytes(b"no image")
    out = tmp_path / "result.csv"
    assert adapt(glyph_run, support, query, out) == 0
    table = {row["file"]: row for row in rows(out)}
    assert "class" not in table["100.png"]  # nothing is known of their classes
    assert re.search(
        r"flat0\.png: not an image that can be read .* replace it or delete it\.", table["flat0.png"]["error"]
    )
    assert table["flat0.png"]["predicted"] == table["flat0.png"]["p_10"] == ""
    assert all(row["predicted"] for file, row in table.items() if file != "flat0.png")
    said = capsys.readouterr()
    assert f"Classified 2 of 3 images: {out}" in said.out
    assert "Right" not in said.out
    assert "warning: " in said.err
    for path in query.iterdir():
        path.write_bytes(b"no image")
    assert adapt(glyph_run, support, query, out) == 1  # its own table is overwritten
    assert [row["predicted"] for row in rows(out)] == ["", "", ""]


def test_other_sizes_and_colours_are_converted_with_a_note(glyph_run, folders, tmp_path, capsys):
    support, query = folders
    out = tmp_path / "result.csv"
    assert adapt(glyph_run, support, query, out) == 0
    before = rows(out)
    assert capsys.readouterr().err == ""
    for path in query.rglob("*.png"):
        image = Image.open(path)
        image.resize((56, 56), Image.Resampling.NEAREST).convert("RGB").save(path)
    assert adapt(glyph_run, support, query, out) == 0
    said = capsys.readouterr().err
    assert "note: 6 of 15 images are not 28×28, grey (0.png: 56×56); they are resized." in said
    assert "note: 6 of 15 images are not 28×28, grey (0.png: RGB); they are converted." in said
    for old, new in zip(before, rows(out), strict=True):
        assert float(new["p_flat"]) == pytest.approx(float(old["p_flat"]), abs=0.05)


def test_files_that_are_no_images_by_their_names_are_noted(glyph_run, folders, tmp_path, capsys):
    support, query = folders
    next(query.rglob("*.png")).with_name("photo.HEIC").write_bytes(b"")
    (support / next(iter(CLASSES)) / ".hidden").write_bytes(b"")
    assert adapt(glyph_run, support, query, tmp_path / "result.csv") == 0
    said = capsys.readouterr().err
    assert "note: 1 file is passed over, being no image by name (photo.HEIC); read are png, jpg" in said


def test_ink_on_paper_is_inverted_if_asked_for_and_else_warned_of(glyph_run, folders, tmp_path, capsys):
    out = tmp_path / "result.csv"
    assert adapt(glyph_run, *folders, out) == 0
    before = rows(out)
    papers = write(tmp_path / "s", CLASSES, 3, ink=False), write(tmp_path / "q", CLASSES, 2, seed=1, ink=False)
    assert adapt(glyph_run, *papers, out, "--invert") == 0
    assert rows(out) == before
    assert capsys.readouterr().err == ""
    assert adapt(glyph_run, *papers, out) == 0
    said = capsys.readouterr().err
    assert re.search(
        r"warning: the support images are bright \(on average 0\.\d+, .*, add --invert\. Photographs want", said
    )
    assert adapt(glyph_run, *folders, out, "--invert") == 0
    assert "leave --invert out." in capsys.readouterr().err


def _empty(support, query):
    (support / "none").mkdir()


def _fourth(support, query):
    write(support, {"slant": 3}, 1)


def _damaged(support, query):
    (support / "flat" / "1.png").write_bytes(b"no image")


def _stranger(support, query):
    write(query, {"slant": 3}, 1)


def _alone(support, query):
    for name in ("10", "upright $"):
        for path in (support / name).iterdir():
            path.unlink()
        (support / name).rmdir()


def _nothing(support, query):
    for path in query.rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty, "--support: {support}/none: no image in it (.png, "),
        (
            _fourth,
            "--support: {support} has 4 classes and the run was trained with 3 ways; leave classes out, or train with --ways 4",
        ),
        (_alone, "--support: {support} has only one class, 'flat'; give two or more."),
        (_damaged, "--support: {support}/flat/1.png: not an image that can be read (of no format that is known)"),
        (
            _stranger,
            "--query: {query}/slant is no class of the support set (10, flat, upright $). Put its images directly",
        ),
        (
            _nothing,
            "--query: no image in {query}; expected FOLDER/IMAGE, or FOLDER/CLASS/IMAGE to count the right ones.",
        ),
    ],
)
def test_folders_that_will_not_do_are_told(glyph_run, folders, tmp_path, capsys, *, spoil, message):
    spoil(*folders)
    refused = adapt(glyph_run, *folders, tmp_path / "result.csv")
    assert refused == 2
    assert "error: " + message.format(support=folders[0], query=folders[1]) in capsys.readouterr().err
    assert not (tmp_path / "result.csv").exists()


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--steps", "-1", "FewShotClassifier: steps=-1; expected a whole number, 0 or more, or None."),
        ("--support", "/nowhere", "--support: /nowhere: not a folder that can be read (No such file or directory)"),
        ("--query", "/nowhere", "--query: /nowhere is not a folder that can be read (No such file or directory)."),
        ("--out", "table.txt", "--out table.txt: expected the name of a CSV file, for example predictions.csv."),
    ],
)
def test_flags_that_will_not_do_are_told(glyph_run, folders, capsys, *, flag, value, message):
    assert adapt(glyph_run, *folders, folders[0].with_name("result.csv"), flag, value) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_runs_that_take_no_images_are_refused(sine_run, folders, tmp_path, capsys):
    assert adapt(sine_run, *folders, tmp_path / "result.csv") == 2
    assert f"error: {sine_run} was not trained on images but on Sinusoids" in capsys.readouterr().err
    assert adapt("/nowhere", *folders, tmp_path / "result.csv") == 2
    assert "error: /nowhere is not a run: it does not exist." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["result.csv", "result.png"])
def test_what_it_did_not_make_is_never_overwritten(glyph_run, folders, tmp_path, capsys, name):
    Image.fromarray(stroke(0, 0)).save(tmp_path / "result.png")
    mine = tmp_path / name
    if name == "result.csv":
        mine.write_text("file,price\na,3\n")
    content = mine.read_bytes()
    assert adapt(glyph_run, *folders, tmp_path / "result.csv") == 2
    assert f"--out: {mine} exists and was not made by `metaception adapt`" in capsys.readouterr().err
    assert mine.read_bytes() == content
