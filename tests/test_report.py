"""The report: what is committed is what the results say now, nothing is left out, and bad input is one sentence."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gossamer.cli import main
from gossamer.errors import InputError
from gossamer.system.signals import Interrupted, Unfinished
from gossamer_papers.protocol import Claim
from gossamer_papers.published import entries, published_values
from gossamer_papers.registry import REPRODUCTIONS
from gossamer_papers.report import write_report
from gossamer_papers.report.contents import contents
from gossamer_papers.report.markdown import markdown
from gossamer_papers.report.page import page
from gossamer_papers.report.results import read_results
from gossamer_papers.series import reproduce_all

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
WITHOUT_END = {"meta", "img"}


def copied(tmp_path, *names):
    for name in names:
        shutil.copytree(RESULTS / name, tmp_path / "results" / name)
    return tmp_path / "results"


def changed(folder, change):
    """Apply a change to a summary."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))


def pages(results, tmp_path):
    out, html = write_report(results, tmp_path / "docs" / "report.md", tmp_path / "report.html")
    return out.read_text(), html.read_text()


class Reader(HTMLParser):
    """Every tag must be closed in its order; text and links are kept."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.links, self.anchors, self.tags = [], [], [], set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]
        self.anchors |= {value for name, value in attrs if name == "id"}
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def html():
    """The HTML page of all committed results."""
    return page(contents(read_results(RESULTS)), RESULTS)


def test_the_committed_page_is_what_the_results_say_now():
    """If not: gossamer report results."""
    found = contents(read_results(RESULTS))
    assert (ROOT / "docs" / "reproduction.md").read_text() == markdown(found, ROOT / "docs")


def test_every_reproduction_is_in_the_papers_order_and_in_both_pages(html):
    named = [entry.reproduction for entry in entries()]
    assert set(named) == set(REPRODUCTIONS)
    text = (ROOT / "docs" / "reproduction.md").read_text()
    for entry in entries():
        assert f"### {entry.name}\n" in text
        assert f">{entry.name}</h3>" in html
        assert f"gossamer reproduce {entry.reproduction}" in text
        assert f"gossamer reproduce {entry.reproduction}" in html


def test_the_pictures_inside_are_those_of_the_files(html):
    import hashlib

    digests = {
        hashlib.sha256((RESULTS / name / "picture.png").read_bytes()).hexdigest()
        for name in REPRODUCTIONS
        if (RESULTS / name / "picture.png").exists()
    }
    assert set(re.findall('data-sha256="([0-9a-f]+)"', html)) == digests


def test_a_changed_verdict_changes_both_pages_and_the_count(tmp_path):
    results = copied(tmp_path, "diffdac-fig6")
    before = pages(results, tmp_path)
    assert contents(read_results(results)).tally("diffdac").published["holds"] == 1

    def turn(summary):
        assert summary["claims"][1]["verdict"] == "holds"
        summary["claims"][1]["verdict"] = "does not hold"

    changed(results / "diffdac-fig6", turn)
    after = pages(results, tmp_path)
    assert contents(read_results(results)).tally("diffdac").published["holds"] == 0
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert "| does not hold | sparse and dense end alike |" in after[0]
    assert (
        '<td class="verdict does-not-hold">does not hold</td><td>sparse and dense end alike</td>' in after[1]
    )


def test_what_has_no_folder_is_listed_as_not_run(tmp_path):
    results = copied(tmp_path, "diffdac-fig6")
    text, html = pages(results, tmp_path)
    found = contents(read_results(results))
    assert len(found.missing) == len(entries()) - 1
    assert text.count("**Not run.**") == html.count(">Not run.</span>") == len(found.missing)
    gala = found.tally("gala").published
    assert gala == {
        "holds": 0,
        "does not hold": 0,
        "not decided": 0,
        "not run": sum(len(entry.claims) for entry in entries() if entry.paper == "gala"),
    }
    assert "| GALA, figure 3 | No folder gala-fig3 is among the results" in text


def test_claims_of_ours_are_counted_apart():
    found = contents(read_results(RESULTS))
    every = [claim for section in found.sections for claim in section.claims]
    counts = [found.tally(paper) for paper in found.papers]
    ours = sum(sum(count.ours.values()) for count in counts)
    published = sum(sum(count.published.values()) for count in counts)
    missing = sum(len(section.entry.claims) for section in found.missing)
    assert ours == sum(claim.unpublished for claim in every) > 10
    assert all(claim.unpublished == ("(ours)" in claim.text) for claim in every)  # what a reader sees
    assert ours + published == len(every) + missing


def test_theorems_of_each_paper_are_in_its_part():
    found = contents(read_results(RESULTS))
    parts = {section.entry.paper: section for section in found.sections if section.entry.about}
    assert {claim.text.startswith("GALA") for claim in parts["gala"].claims} == {True}
    assert {claim.text.startswith("GALA") for claim in parts["diffdac"].claims} == {False}
    whole = read_results(RESULTS).reproductions["diffdac-theory"].claims
    assert len(whole) == sum(len(section.claims) for section in parts.values())


def test_published_numbers_have_ours_beside_them(tmp_path):
    """By the data of the summary, at the place that the entry names."""
    results = copied(tmp_path, "diffdac-table1", "diffdac-table2", "diffdac-table3")
    sections = {section.entry.reproduction: section for section in contents(read_results(results)).sections}
    for name in ("diffdac-table1", "diffdac-table2", "diffdac-table3"):
        assert all(cell.ours is not None for cell in sections[name].cells)
    data = json.loads((results / "diffdac-table1" / "summary.json").read_text())["data"]
    first = sections["diffdac-table1"].cells[0]
    assert (first.row, first.column, first.published) == ("acrobot", "diffusion", (3.56,))
    assert first.ours is not None
    assert first.ours[0] == data["acrobot"]["acrobot-diffusion"]["mean_percent"]["mean"]
    text, _ = pages(results, tmp_path)
    assert "| specialised | easy | -80 (-79.1 to -62.8) |" in text


def test_published_numbers_are_the_papers():
    assert published_values("diffdac-table3")["centralised"] == {"train": -40.8, "easy": 24.7, "hard": 13.4}
    assert published_values("gala-table1")["IMPALA, 200M steps"]["pong"] == 20.40
    for entry in entries():
        for columns in entry.values.values():
            for value in columns.values():
                assert len(value) in (1, 3)
    # The only interval that does not hold its own mean is a misprint, and the note says so.
    strange = [
        (entry.name, row, column)
        for entry in entries()
        for row, columns in entry.values.items()
        for column, value in columns.items()
        if len(value) == 3 and not value[1] <= value[0] <= value[2]
    ]
    assert strange == [("Table II", "specialised", "easy")]


def test_the_html_is_well_formed_and_needs_nothing_else(html):
    assert len(html) < 3_000_000
    reader = read(html)
    assert {"script", "link", "iframe", "object", "base"}.isdisjoint(reader.tags)
    assert "@import" not in html
    assert "url(" not in html
    for link in reader.links:
        assert "://" not in link
        assert not link.startswith("//")
        if link.startswith("#"):
            assert link[1:] in reader.anchors
        elif not link.startswith("data:image/png;base64,"):
            assert (RESULTS / link).exists()


def test_text_is_escaped(tmp_path):
    results = copied(tmp_path, "diffdac-fig6")
    nasty = '<script>alert("x")</script> | a & b * c_d'
    changed(results / "diffdac-fig6", lambda summary: summary["claims"][0].update(text=nasty, evidence=nasty))
    text, html = pages(results, tmp_path)
    reader = read(html)
    assert "script" not in reader.tags
    assert nasty in "".join(reader.texts)
    (line,) = (line for line in text.splitlines() if "alert" in line)
    assert len(re.findall(r"(?<!\\)\|", line)) == 4
    assert "<script>" not in line.replace(r"\<", "")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda summary: summary.pop("provenance"), "KeyError: 'provenance'"),
        (lambda summary: summary.update(seeds="many"), "invalid literal"),
        (lambda summary: summary.update(claims=3), "TypeError"),
        (lambda summary: summary["claims"][0].update(verdict="perhaps"), "'perhaps' is no verdict"),
        (lambda summary: summary.update(name="diffdac-fig9"), "its name is 'diffdac-fig9'"),
    ],
)
def test_a_damaged_summary_is_one_sentence(tmp_path, damage, message):
    results = copied(tmp_path, "diffdac-fig6")
    changed(results / "diffdac-fig6", damage)
    with pytest.raises(InputError, match=r"summary\.json is damaged \(.*make it again") as raised:
        write_report(results, tmp_path / "report.md", tmp_path / "report.html")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report.md").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "diffdac-fig6"}'])
def test_a_summary_that_is_none_is_one_sentence(tmp_path, text):
    results = copied(tmp_path, "diffdac-fig6")
    (results / "diffdac-fig6" / "summary.json").write_text(text)
    with pytest.raises(InputError, match=r"^[^\n]*diffdac-fig6/summary\.json is damaged [^\n]*$"):
        read_results(results)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no results; gossamer reproduce NAME"):
        read_results(tmp_path)


def test_a_picture_that_is_none_is_named_and_a_missing_one_is_left_out(tmp_path):
    results = copied(tmp_path, "diffdac-fig6")
    picture = results / "diffdac-fig6" / "picture.png"
    picture.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"picture\.png is no readable picture"):
        pages(results, tmp_path)
    picture.unlink()
    text, html = pages(results, tmp_path)
    assert "![" not in text
    assert "<img" not in html


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    results = copied(tmp_path, "diffdac-fig6")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(results, tmp_path / "file" / "report.md", tmp_path / "report.html")


def test_the_command_writes_both_pages(tmp_path, capsys):
    results = copied(tmp_path, "diffdac-fig6", "pong")
    main(["report", str(results), "--out", str(tmp_path / "page.md")])
    assert capsys.readouterr().out.split() == [str(tmp_path / "page.md"), str(results / "report.html")]
    assert "![Figure 6, ours](results/diffdac-fig6/picture.png)" in (tmp_path / "page.md").read_text()
    assert '<a href="pong/summary.json">pong</a>' in (results / "report.html").read_text()
    with pytest.raises(SystemExit) as exit_:
        main(["report", str(tmp_path / "nowhere")])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("gossamer: ")


def test_all_are_made_whatever_becomes_of_one(monkeypatch):
    """In their order, each with the same choices; a failure is told and keeps no other back."""
    made, told = [], []

    def fake(reproduction, *choices):
        made.append((reproduction.name, choices))
        if reproduction.name == "diffdac-fig2":
            raise InputError("no such package")
        if reproduction.name == "diffdac-fig3":
            raise Unfinished("it diverged")
        return Path("results"), (Claim("a", "holds", "b"),)

    monkeypatch.setattr("gossamer_papers.series.reproduce", fake)
    choices = ("quick", 2, Path("out"), Path("runs"), 1)
    failed = reproduce_all(REPRODUCTIONS, lambda name, _: told.append(name), *choices)
    assert made == [(name, choices) for name in REPRODUCTIONS]
    assert failed == {"diffdac-fig2": "no such package", "diffdac-fig3": "it diverged"}
    assert told == [name for name in REPRODUCTIONS if name not in failed]


def test_who_is_stopped_begins_no_other(monkeypatch):
    made = []

    def fake(reproduction, *_):
        made.append(reproduction.name)
        raise Interrupted("stopped")

    monkeypatch.setattr("gossamer_papers.series.reproduce", fake)
    with pytest.raises(Interrupted):
        reproduce_all(REPRODUCTIONS, lambda *_: None)
    assert len(made) == 1


def test_the_command_for_all_writes_the_report_and_tells_what_failed(tmp_path, monkeypatch, capsys):
    results = copied(tmp_path, "diffdac-fig6")

    def fake(reproduction, scale, seeds, out, runs, processes):
        assert (scale, seeds, out, processes) == ("quick", 2, results, None)
        if reproduction.name.startswith("gala"):
            raise InputError("its extra is missing")
        return results / reproduction.name, (Claim("a", "holds", "b"),)

    monkeypatch.setattr("gossamer_papers.series.reproduce", fake)
    page_ = tmp_path / "page.md"
    command = ["reproduce", "--seeds", "2", "--all", "--out", str(results), "--report", str(page_)]
    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code == 1
    said = capsys.readouterr()
    assert "gala-fig1 was not made: its extra is missing" in said.err
    assert "5 of 16 were not made; repeat the command" in said.err
    assert "### Figure 6" in page_.read_text()
    assert (results / "report.html").exists()
