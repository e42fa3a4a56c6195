"""The page and the command: what is measured anew takes its place, and nothing else is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_records import a_run, record

from chainrule.bench import SECTIONS, page
from chainrule.bench.sections import Table
from chainrule.cli.entry import run as main
from chainrule.errors import ChainruleError, DataError


def test_page_shows_losing_rows_and_failures():
    losing = record("lenet", 4e-3, jax_jit=1e-3)
    losing["failed"]["torch eager"] = "ImportError: no torch"
    text = page.page([a_run("rows", losing)])
    assert "| lenet | 4 ms | 1 ms (jax jit) | 0.25 | 2.5 |" in text
    assert "| lenet | torch eager | ImportError: no torch |" in text
    for name in set(SECTIONS) - {"rows"}:
        assert f"Not measured yet: `chainrule bench --study {name} --page" in text


def test_a_newer_record_takes_the_place_of_an_older_one_and_of_no_other():
    runs = [
        a_run("rows", record("lenet", 1.0), record("gru", 2.0), command="old"),
        a_run("batch", record("lenet", 3.0) | {"label": "lenet, batch 1"}, command="batch"),
    ]
    runs = page.merged(runs, a_run("rows", record("gru", 4.0), command="new"))
    assert [r["command"] for r in runs] == ["old", "batch", "new"]
    assert [page.key(r) for run in runs for r in run["records"]] == [
        "lenet",
        "lenet, batch 1",
        "gru",
    ]
    text = page.page(runs)
    assert "| gru | 4 s |" in text
    assert "| gru | 2 s |" not in text
    assert text.index("| lenet | 1 s |") < text.index("| gru | 4 s |")
    assert "`old`" in text and "`new`" in text
    runs = page.merged(runs, a_run("rows", record("lenet", 5.0), command="newest"))
    assert [r["command"] for r in runs] == ["batch", "new", "newest"]


def test_runs_are_kept_as_they_are(tmp_path):
    file = tmp_path / "runs.json"
    assert page.load(file) == []
    runs = [a_run("rows", record("lenet", 0.123456789)), a_run("mnist")]
    file.write_text(page.dump(runs))
    read = page.load(file)
    assert read[0]["records"][0]["contestants"]["chainrule compiled"]["median"] == 0.12346
    assert page.dump(read) == page.dump(runs)


@pytest.mark.parametrize(
    "text", ["", "{}", "3", '[{"records": []}]', '[{"section": "x", "records": []}]']
)
def test_a_file_of_something_else_is_refused_before_anything_is_measured(tmp_path, text, capsys):
    (tmp_path / "page.json").write_text(text or "no JSON")
    assert main(["bench", "lenet", "--page", str(tmp_path / "page.md")]) == 2
    assert "does not hold runs" in capsys.readouterr().err
    with pytest.raises(DataError):
        page.load(tmp_path / "page.json")


def test_a_command_names_what_was_typed_and_no_paths():
    assert page.command("rows", ["lenet", "gru"], rounds=3, burn=True, peers=None) == (
        "chainrule bench lenet gru --rounds 3 --burn"
    )
    assert page.command("batch", seconds=0.5) == "chainrule bench --study batch --seconds 0.5"


def test_tables_of_markdown():
    assert page.markdown(Table(("a", "b"), [("1", "x|y")], "T")) == (
        "### T\n\n| a | b |\n| --- | --- |\n| 1 | x/y |"
    )


def test_the_page_in_the_documentation_is_what_its_runs_say():
    """After a change of the page: python -m chainrule.bench.page docs/benchmarks.md."""
    file = Path(__file__).parents[2] / "docs" / "benchmarks.md"
    assert file.read_text(encoding="utf-8") == page.page(page.load(file.with_suffix(".json")))


def test_the_command_measures_and_adds_to_the_page(tmp_path, capsys):
    made, file = tmp_path / "run.json", tmp_path / "page.md"
    arguments = ["--peers", "numpy", "--rounds", "1", "--seconds", "0.01", "--page", str(file)]
    assert main(["bench", "gemm-32x784x16-NN", *arguments]) == 0
    code = main(["bench", "mlp-digits", *arguments, "--json", str(made)])
    assert code == 0
    (found,) = json.loads(made.read_text())
    steps = found["records"][0]["contestants"]["chainrule compiled"]
    assert steps["falls"]
    assert steps["distance"] < 1e-4
    assert steps["peak"] > 2**20
    assert "about 0 minutes" in capsys.readouterr().err
    text = file.read_text()
    assert "gemm-32x784x16-NN | numpy matmul" in text
    assert "mlp-digits | chainrule compiled" in text
    assert [r["command"] for r in page.load(file.with_suffix(".json"))] == [
        f"chainrule bench {name} --rounds 1 --seconds 0.01 --peers numpy"
        for name in ("gemm-32x784x16-NN", "mlp-digits")
    ]


def test_a_study_that_cannot_be_made_does_not_end_the_others(monkeypatch, capsys, tmp_path):
    import chainrule.cli.bench as command

    def fails(settings, say):
        say("a point: worker")
        raise ChainruleError("there is no network.")

    made = [{"label": "gemm-256-NN", "layout": "NN", "flops": 1e9, "peak": 2e9}]
    sections = {
        name: section.__class__(**vars(section) | {"run": run})
        for (name, section), run in zip(
            SECTIONS.items(), [fails, lambda s, say: made, *[fails] * 9], strict=False
        )
    }
    monkeypatch.setattr(command, "SECTIONS", sections)
    assert main(["bench", "--all", "--json", str(tmp_path / "runs.json")]) == 1
    shown = capsys.readouterr()
    assert "rows was not measured: there is no network." in shown.err
    assert "mnist was not measured" in shown.err
    assert "50%" in shown.out
    assert [run["section"] for run in page.load(tmp_path / "runs.json")] == ["products"]


def test_wrong_numbers_and_names_end_in_a_sentence(capsys):
    for arguments, words in (
        (["lenet", "--rounds", "0"], "rounds"), (["lenet", "--study", "batch"], "leave"),
        (["--study", "bach"], "batch"), (["--peers", "mxnet"], "mxnet"),
    ):  # fmt: skip
        assert main(["bench", *arguments]) == 2
        assert words in capsys.readouterr().err.lower()
