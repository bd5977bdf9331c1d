"""The site: its examples run and print what it says, it builds strictly, and every public name is in it.

A fence whose title begins with *needs* or *takes* is not run, and says why; one titled ``exit status 2`` must be
refused; one titled with a file's name is saved under it. Text after an example is what it prints.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from gossamer.cli import main
from test_imports import LAYERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.M | re.S)
# What these show needs processes for minutes, or another machine; tests/test_fleet.py and test_cluster.py run the like.
NOT_RUN = {"running-on-a-fleet", "reproduction"}
PAGES = sorted(page.stem for page in DOCS.glob("*.md") if page.stem not in NOT_RUN)


class Block(NamedTuple):
    language: str
    title: str
    text: str

    @property
    def is_run(self):
        return self.language in ("console", "python") and not re.match("needs |takes ", self.title)

    @property
    def is_file(self):
        return self.title.endswith((".py", ".txt"))


def blocks(page):
    found = [Block(*match) for match in FENCE.findall((DOCS / f"{page}.md").read_text())]
    assert len(found) == (DOCS / f"{page}.md").read_text().count("```") // 2, (
        "a fence is not closed, or malformed"
    )
    return found


def run_console(block, capsys):
    """Standard output, or the sentence of a refusal, of all commands of a block."""
    refused = block.title == "exit status 2"
    for line in block.text.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "gossamer"
        if refused:
            with pytest.raises(SystemExit, match="2"):
                main(arguments)
        else:
            main(arguments)
    output = capsys.readouterr()
    return output.err if refused else output.out


def run_python(block, folder):
    """Standard output of a program in an interpreter of its own, as a reader runs it."""
    paths = os.pathsep.join(map(str, (folder, ROOT)))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_examples_run_and_print_what_the_page_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = None
    for block in blocks(page):
        if block.is_run and "--8<--" in block.text:
            assert (ROOT / block.title).is_file()
        elif block.is_file:
            (tmp_path / block.title).write_text(block.text)
        elif block.is_run:
            printed = (
                run_console(block, capsys) if block.language == "console" else run_python(block, tmp_path)
            )
        elif block.language == "text":
            assert printed is not None
            assert printed.splitlines() == block.text.splitlines()


def test_pages_with_examples_are_found():
    assert {"index", "concepts", "topologies", "imperfect-networks"} <= set(PAGES)
    assert sum(block.is_run for page in PAGES for block in blocks(page)) > 10


class Html(HTMLParser):
    """What a page fetches, the anchors that it has, its tags, and its text outside of code."""

    def __init__(self, path):
        super().__init__()
        self.fetched, self.anchors, self.tags, self.text = [], set(), set(), []
        self.code, self.source = 0, path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self.anchors.add(given.get("id"))
        self.code += tag in ("code", "script", "pre")
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.fetched.append(given["src"])
        if tag == "link" and given.get("rel") != "canonical":
            self.fetched.append(given["href"])

    def handle_endtag(self, tag):
        self.code -= tag in ("code", "script", "pre")

    def handle_data(self, data):
        if not self.code:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does but into another folder, without a network."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {str(path.relative_to(folder)): Html(path) for path in folder.rglob("*.html")}


@pytest.mark.slow
def test_every_page_is_built_and_fetches_nothing_from_elsewhere(site):
    expected = {f"{page.relative_to(DOCS).with_suffix('')}.html" for page in DOCS.rglob("*.md")}
    assert {path.replace("README", "index") for path in expected} <= set(site)
    for path, page in site.items():
        assert not [each for each in page.fetched if "//" in each], path


@pytest.mark.slow
def test_the_api_has_a_page_for_each_layer(site):
    assert {f"api/{layer}.html" for layer in LAYERS} <= set(site)


@pytest.mark.slow
def test_every_public_name_is_in_the_api(site):
    for path in sorted((ROOT / "src" / "gossamer").rglob("*.py")):
        module = path.relative_to(ROOT / "src").with_suffix("")
        if module.name in ("__init__", "__main__"):
            continue
        anchors = site[f"api/{module.parts[1]}.html"].anchors
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert f"{'.'.join(module.parts)}.{node.name}" in anchors


@pytest.mark.slow
def test_no_docstring_renders_broken(site):
    """No prompt as a quotation, no reStructuredText, no fence that was left open."""
    for path, page in site.items():
        text = "".join(page.text)
        assert "blockquote" not in page.tags, path
        for broken in (">>>", "```", ":meth:", ":class:", ":func:", "**"):
            assert broken not in text, f"{path}: {broken}"
        unparsed = re.findall(r"<p>(?:Args|Raises|Returns|Examples?):", page.source)
        assert not unparsed, path
