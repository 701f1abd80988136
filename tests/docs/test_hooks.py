"""What the site's hooks make of their markers."""

import csv
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from mkdocs.exceptions import PluginError

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"
COLUMNS = ["experiment", "method", "setting", "metric", "mean", "ci95", "median", "tasks", "seeds", "paper", "source"]
COLUMNS += ["wall_s", "machine", "command", "commit"]


def load(name):
    spec = importlib.util.spec_from_file_location(f"docs_hook_{name}", HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


results, mathematics, notebooks, library = (load(n) for n in ("results", "mathematics", "notebooks", "library"))


def write(folder, *rows):
    folder.mkdir(exist_ok=True)
    with (folder / "sine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def row(method="maml", setting="5-shot step 1", **more):
    given = {"mean": "0.5512", "ci95": "0.0321", "median": "0.34", "tasks": "600", "seeds": "5", "metric": "mse"}
    how = {"command": "python experiments/sine.py", "commit": "abc1234", "machine": "a CPU, 2 cores"}
    return given | how | {"method": method, "setting": setting} | more


class TestResults:
    def test_table(self, tmp_path):
        write(
            tmp_path,
            row(setting="5-shot step 0", mean="3.01"),
            row(paper="0.67", source="table 2"),
            row(setting="10-shot step 1", mean="inf", ci95="", median="0.043"),
            row(method="other"),
        )
        assert results.fill(tmp_path, "sine", ["maml"]).splitlines() == [
            "| setting | before adapting | 1 step |",
            "| --- | --- | --- |",
            "| 5-shot | **3.01** ± 0.032<br>median 0.34 | **0.55** ± 0.032<br>median 0.34<br>paper 0.67 |",
            "| 10-shot |  | **∞**<br>median 0.043 |",
            "",
            "<small>The mean squared error over 600 tasks for each of 5 trained seeds: the mean over all of them ± the "
            "half-width of its 95 % interval over seeds, and the median. ∞: at least one task diverged. The paper's "
            "figures: table 2. From `results/sine.csv`: `python experiments/sine.py`, commit abc1234, on a CPU, 2 cores."
            "</small>",
        ]

    def test_methods_in_the_order_asked_for_and_settings_by_their_start(self, tmp_path):
        write(tmp_path, row(), row(setting="10-shot step 1"), row(method="zero", seeds="1"))
        lines = results.fill(tmp_path, "sine", ["zero", "maml"], "5-shot").splitlines()
        assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| `zero`", "5-shot"], ["| `maml`", "5-shot"]]
        assert "interval over tasks" in lines[-1]
        assert "diverged" not in lines[-1]

    def test_names_and_settings_as_the_presets_have_them(self, tmp_path):
        setting = "5-way 1-shot, transductive, 5 queries"
        write(tmp_path / "results", row(method="maml++", setting=setting), row(method="meta-lstm", setting=setting))
        config = SimpleNamespace(config_file_path=str(tmp_path / "mkdocs.yml"))
        marker = "<!-- results: sine meta-lstm maml++; 5-way 1-shot, transductive -->"
        text = results.on_page_markdown(marker, None, config)
        assert text.splitlines()[2:4] == [
            f"| `{method}` | {setting} | **0.55** ± 0.032<br>median 0.34 |" for method in ("meta-lstm", "maml++")
        ]

    def test_says_so_while_nothing_is_measured(self, tmp_path):
        assert results.fill(tmp_path, "sine", ["maml"]) == "*Not measured yet.*"

    @pytest.mark.parametrize(
        ("name", "methods", "message"),
        [
            ("cosine", ["maml"], "results/cosine.csv is missing; run the experiment that writes it."),
            ("sine", ["maml", "anil"], "results/sine.csv has no row of anil."),
        ],
    )
    def test_what_is_missing_beside_other_results_is_an_error(self, tmp_path, name, methods, message):
        write(tmp_path, row())
        with pytest.raises(LookupError) as caught:
            results.fill(tmp_path, name, methods)
        assert caught.value.args[0] == message

    def test_a_page_that_cannot_be_filled_is_a_warning_which_strict_builds_refuse(self, tmp_path, caplog):
        write(tmp_path / "results", row())
        config = SimpleNamespace(config_file_path=str(tmp_path / "mkdocs.yml"))
        page = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
        text = results.on_page_markdown("a\n<!-- results: sine anil; 5-shot -->\nb", page, config)
        assert text == "a\n*results/sine.csv has no row of anil 5-shot.*\nb"
        assert [(r.levelname, r.name.split(".")[0]) for r in caplog.records] == [("WARNING", "mkdocs")]


class TestMathematics:
    def test_formulas_become_mathml(self):
        html = '<p><span class="arithmatex">\\(a &lt; b\\)</span></p><div class="arithmatex">\\[x^2\\]</div>'
        made = mathematics.on_page_content(html)
        assert "arithmatex" not in made
        assert made.count("<math") == 2
        assert 'display="block"' in made

    @pytest.mark.parametrize("formula", ["\\nosuchcommand x", "\\arg\\max x"])
    def test_a_command_that_is_not_known_is_refused(self, formula):
        with pytest.raises(PluginError, match="cannot be turned into MathML"):
            mathematics.to_mathml(formula, "inline")


class TestNotebooks:
    def cell(self, kind, source, count=1, outputs=()):
        return {"cell_type": kind, "source": source, "execution_count": count, "outputs": list(outputs)}

    def test_page(self):
        cells = [
            self.cell("markdown", ["# Title\n", "text"]),
            self.cell("code", "# A picture\nplot()", 1, [{"data": {"image/png": "aGk=", "text/plain": "<Figure>"}}]),
            self.cell("code", "print(1)", 2, [{"text": ["1\n"]}]),
        ]
        text, pictures = notebooks.to_page({"cells": cells}, "book")
        assert pictures == {"book_1.png": b"hi"}
        assert text == (
            "# Title\ntext\n\n```python\n# A picture\nplot()\n```\n\n![A picture](book_1.png)\n\n"
            "```python\nprint(1)\n```\n\n```text\n1\n```\n"
        )

    def test_a_cell_that_was_not_executed_is_refused(self):
        with pytest.raises(ValueError, match="not executed"):
            notebooks.to_page({"cells": [self.cell("code", "x", None)]}, "book")


class TestLibrary:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))

    def test_preset(self):
        made = library.on_page_markdown("<!-- preset: maml-sinusoid-paper -->", self.page)
        assert made == (
            "- `maml-sinusoid-paper`: meta_batch_size 25, outer_rate 0.001, outer_schedule constant, mapping auto, "
            "inner_rate 0.01, inner_steps 1, memory reverse; tasks `Sinusoids` with shots 10, queries 10; network widths "
            "40 40, activation relu, initialiser truncated_normal; 70,000 outer steps."
        )

    def test_bibtex(self):
        made = library.on_page_markdown("<!-- bibtex: li2017metasgd -->", self.page)
        assert made.startswith("```bibtex\n@article{li2017metasgd,")
        assert made.endswith("}\n```")

    def test_section_of_the_readme(self):
        made = library.on_page_markdown("<!-- readme: In Python -->", self.page)
        assert made.startswith("```python")
        assert "\n## " not in made

    @pytest.mark.parametrize("marker", ["preset: mamle", "bibtex: nobody2000", "readme: No such heading"])
    def test_an_unknown_name_is_refused(self, marker):
        with pytest.raises(PluginError, match=" no "):
            library.on_page_markdown(f"<!-- {marker} -->", self.page)
