"""Generated tables: pages show what the committed results say, and a stale page is found and corrected."""

import json

import pytest
from benchmarks import tables

from gossamer import InputError

PAGE = """\
<!-- begin generated: rates rows | contender; rate: env-steps/s; cores=2 -->
<!-- end generated -->

<!-- begin generated: rates | settings/seconds: duration, s -->
<!-- end generated -->
"""
RESULT = {
    "command": "python -m benchmarks.rates",
    "machine": {"date": "today", "processor": "P", "cores": 2, "jax": "1.0"},
    "settings": {"seconds": 600.0},
    "rows": [
        {"contender": "ours", "rate": 123456.7, "cores": "2"},
        {"contender": "ours", "rate": 9.0, "cores": "1"},
        {"contender": "a|b", "rate": None, "cores": "2"},
        {"contender": "c", "rate": {"median": 2.5, "each": [2.0, 2.5, 3.0]}, "cores": "2"},
    ],
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "rates.json").write_text(json.dumps(RESULT))
    (tmp_path / "README.md").write_text(PAGE)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", results)
    return tmp_path


def test_tables_in_readme_and_docs_are_current():
    stale = [path.name for path in tables.stale()]
    assert not stale, "run: make tables"


def test_rows_are_selected_and_formatted(root):
    text = tables.current(PAGE)
    assert "| contender | env-steps/s |\n| --- | ---: |\n" in text
    assert "| ours | 123,457 |\n| a\\|b |  |\n| c | 2.5 (2 to 3) |\n" in text
    assert "`python -m benchmarks.rates`; today, P, 2 cores; jax 1.0" in text
    assert "| duration, s | 600 |" in text
    assert tables.current(text) == text


def test_a_changed_result_makes_a_page_stale_until_it_is_written_again(root, monkeypatch, capsys):
    tables.write(tables.stale())
    assert tables.stale() == {}
    path = root / "benchmarks" / "results" / "rates.json"
    path.write_text(path.read_text().replace("123456.7", "3.25"))
    monkeypatch.setattr("sys.argv", ["tables", "--check"])
    with pytest.raises(SystemExit, match="1"):
        tables.main()
    assert "README.md is stale; run: make tables" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["tables"])
    tables.main()
    assert "| ours | 3.25 |" in (root / "README.md").read_text()


def test_an_unknown_table_is_named(root):
    with pytest.raises(InputError, match=r"'raids' is neither a file in .* nor one of speed, verdicts"):
        tables.current(PAGE.replace("rates |", "raids |"))
