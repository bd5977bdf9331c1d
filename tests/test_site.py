"""README and site: their commands and programs run and print what is written, and every public name is described.

A fence whose title begins with *needs* or *takes* is not run, and says why; one titled ``exit status 2`` must be
refused; one titled with a file's name is saved under it. Text after an example is what it prints. The examples of
``SHORTENED`` pages run as they are written, but for fewer rounds.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

from gossamer.cli import main
from gossamer.cli.entry import COMMANDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.M | re.S)
# What this page shows needs processes for minutes, or another machine; test_fleet.py and test_cluster.py run the like.
NOT_RUN = {"running-on-a-fleet.md"}
PAGES = ["README.md", *sorted(page.name for page in DOCS.glob("*.md") if page.name not in NOT_RUN)]
SHORTENED = {"README.md": 4, "tutorial.md": 8}  # rounds of each training


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
    text = (ROOT if page == "README.md" else DOCS).joinpath(page).read_text()
    found = [Block(*match) for match in FENCE.findall(text)]
    assert len(found) == text.count("```") // 2, "a fence is not closed, or malformed"
    return found


def run_console(block, capsys, rounds=None):
    """Standard output, or the sentence of a refusal, of all commands of a block."""
    for line in block.text.splitlines():
        program, command, *arguments = shlex.split(line, comments=True)
        if program == "make":
            subprocess.run([program, "--dry-run", command], cwd=ROOT, check=True, capture_output=True)
        elif program == "pip":
            require_installable(command, *arguments)
        elif block.title == "exit status 2":
            with pytest.raises(SystemExit, match="2"):
                main([command, *arguments])
            return capsys.readouterr().err
        else:
            assert program == "gossamer"
            if command == "train" and rounds is not None:
                if "--rounds" in arguments:
                    del arguments[(at := arguments.index("--rounds")) : at + 2]
                arguments += ["--rounds", str(rounds * (2 if "--resume" in arguments else 1))]
            main([command, *arguments])
    return capsys.readouterr().out


def require_installable(command, target):
    """`pip install` of the clone, and of extras that it has; .ci/run installs the wheel."""
    assert command == "install"
    folder, extras = re.fullmatch(r"([^\[]*)(?:\[([\w,-]+)\])?", target).groups()
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",") if extras else ()) <= set(project["optional-dependencies"])


def run_python(block, folder, rounds=None):
    """Standard output of a program in an interpreter of its own, as a reader runs it."""
    text = block.text if rounds is None else re.sub(r"rounds=\d+", f"rounds={rounds}", block.text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, ROOT / "src")))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_and_print_what_the_page_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = None
    for block in blocks(page):
        if block.is_run and "--8<--" in block.text:
            assert (ROOT / block.title).is_file()
        elif block.is_file:
            (tmp_path / block.title).write_text(block.text)
        elif block.is_run and block.language == "console":
            printed = run_console(block, capsys, SHORTENED.get(page))
        elif block.is_run:
            printed = run_python(block, tmp_path, SHORTENED.get(page))
        elif block.language == "text":
            assert printed is not None
            assert printed.splitlines() == block.text.splitlines()


def test_the_readme_shows_commands_and_a_program_that_are_run():
    run = [block for block in blocks("README.md") if block.is_run]
    assert [block.language for block in run] == ["console", "console", "python", "console"]


def test_every_command_is_described():
    text = (DOCS / "command-line.md").read_text()
    assert [name for name in COMMANDS if f"gossamer {name}" not in text] == []


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


def test_every_page_is_built_and_fetches_nothing_from_elsewhere(site):
    expected = {f"{page.relative_to(DOCS).with_suffix('')}.html" for page in DOCS.rglob("*.md")}
    assert {path.replace("README", "index") for path in expected} <= set(site)
    for path, page in site.items():
        assert not [each for each in page.fetched if "//" in each], path


def test_every_public_name_is_in_the_reference(site):
    anchors = {anchor for path in site if path.startswith("reference/") for anchor in site[path].anchors}
    for path in sorted((ROOT / "src" / "gossamer").rglob("*.py")):
        if path.name.startswith("__"):
            continue
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert f"{module}.{node.name}" in anchors


def test_no_docstring_renders_broken(site):
    """No prompt as a quotation, no reStructuredText, no fence that was left open."""
    for path, page in site.items():
        text = "".join(page.text)
        assert "blockquote" not in page.tags, path
        for broken in (">>>", "```", ":meth:", ":class:", ":func:", "**"):
            assert broken not in text, f"{path}: {broken}"
        unparsed = re.findall(r"<p>(?:Args|Raises|Returns|Examples?):", page.source)
        assert not unparsed, path
