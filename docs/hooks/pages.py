"""Generated parts of the site: the reference, the list of decisions, pictures of results, and links that leave docs/.

The reference is one page per subject of ``SUBJECTS``; modules that no subject names are on the last page. Links to a
source file lead to its page of the reference. Other links that leave ``docs`` become the path in code font, since the
site contains no sources and no results apart from pictures.
"""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "gossamer"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
SUBJECTS = {
    "Training and evaluation": "train evaluation analysis",
    "Experiments and recipes": "experiment recipes specs",
    "Algorithms": "algorithms returns running_statistics networks distributions",
    "Environments": "environments experience",
    "Topologies and mixing": "topologies mixing",
    "Schedules": "schedules",
    "Runtimes": "runtimes",
    "Run folders": "runs",
    "Network": "network",
    "Diagnostics": "diagnostics",
    "Papers": "gossamer_papers",
    "Types and errors": "types errors",
    "Command line": "cli",
}
REST = "Internals"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation: a page for each subject of the reference, and every decision, its README first."""
    decisions = sorted(
        Path(config.docs_dir, "decisions").glob("*.md"), key=lambda page: (page.stem != "README", page)
    )
    folders = {
        "reference/": ["reference/index.md", *({title: page_of(title)} for title in subjects())],
        "decisions/": [f"decisions/{page.name}" for page in decisions],
    }
    config.nav = [_filled(entry, folders) for entry in config.nav or []]
    return config


def _filled(entry: dict, folders: dict[str, list]) -> dict:
    """An entry of the navigation with the pages of each folder in place of its name."""
    return {
        title: [_filled(each, folders) if isinstance(each, dict) else each for each in target]
        if isinstance(target, list)
        else folders.get(target, target)
        for title, target in entry.items()
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference and the pictures of results."""
    files.append(File.generated(config, "reference/index.md", content=contents()))
    for title, layers in subjects().items():
        files.append(File.generated(config, page_of(title), content=reference(title, layers)))
    for picture in sorted((ROOT / "results").rglob("*.png")):
        uri = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Redirect links that leave ``docs``."""
    folder = posixpath.dirname(page.file.src_uri)

    def redirected(link: re.Match[str]) -> str:
        picture, text, target, _ = link.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if ":" in target or path.startswith("docs/"):
            return link[0]
        if picture and files.get_file_from_path(path):
            return f"![{text}]({posixpath.relpath(path, folder or '.')})"
        if (described := _described(path)) is not None:
            return f"[{text}]({posixpath.relpath(described, folder or '.')})"
        label = "" if picture or text.strip("`") in (path, posixpath.basename(path)) else f"{text} "
        return f"{label}(`{path}`)" if label else f"`{path}`"

    return LINK.sub(redirected, markdown)


def _described(path: str) -> str | None:
    """The page of the reference that describes a source file or folder; none for other paths."""
    inside = re.fullmatch(r"src/(?:gossamer/)?(\w+)(?:\.py|/.*)?", path)
    if inside is None:
        return None
    pages = {layer: page_of(title) for title, layers in subjects().items() for layer in layers}
    return pages.get(inside[1], "reference/index.md")


def subjects() -> dict[str, list[str]]:
    """Top-level modules and packages of gossamer by the title of their page."""
    found = sorted(
        path.stem
        for path in PACKAGE.iterdir()
        if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
    )
    found.append("gossamer_papers")
    named = {title: [name for name in text.split() if name in found] for title, text in SUBJECTS.items()}
    known = {name for names in named.values() for name in names}
    return named | {REST: [name for name in found if name not in known]}


def page_of(title: str) -> str:
    """The path of a subject's page."""
    return f"reference/{title.lower().replace(' ', '-')}.md"


def contents() -> str:
    """The first page: names that ``import gossamer`` offers, then all subjects."""
    names = [f"| {link} | {summary} |" for link, summary in exports("gossamer")]
    pages = [
        f"- [{title}]({posixpath.basename(page_of(title))}): " + ", ".join(f"`{name}`" for name in layers)
        for title, layers in subjects().items()
    ]
    opening = [
        "# Reference",
        "",
        "`import gossamer` offers these names; everything else is imported from its module.",
    ]
    return "\n".join([*opening, "", "| name | |", "|---|---|", *names, "", "## All modules", "", *pages, ""])


def reference(title: str, layers: list[str]) -> str:
    """A page with every public name of some modules and packages."""
    parts = [f"# {title}"]
    for layer in layers:
        for module in modules(layer):
            source, rows = parsed(module), []
            names = defined(source)
            if _is_package(module):
                rows = [f"| {link} | {summary} |" for link, summary in exports(module)]
                if not names:
                    parts += [f"## {module}", ast.get_docstring(source) or ""]
            if names:
                members = "".join(f"        - {name}\n" for name in names)
                parts.append(f"::: {module}\n    options:\n      members:\n{members}")
            if rows:
                parts.append("\n".join(["| name | |", "|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def exports(package: str) -> list[tuple[str, str]]:
    """A link and the first sentence of each name in a package's ``__all__`` that another module defines."""
    source = parsed(package)
    listed = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    found = []
    for name in listed[0] if listed else ():
        module = defining(package, name)
        if module is not None:
            found.append((f"[`{name}`][{module}.{name}]", _summary(module, name)))
    return found


def defining(module: str, name: str) -> str | None:
    """The module that defines a name which another one imports; none if it is defined where it is listed."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return defining(node.module or "", name) or node.module
    return None


def modules(layer: str) -> list[str]:
    """Every module of a layer by its dotted name, packages before what is in them."""
    folder = PACKAGE.parent / layer if layer == "gossamer_papers" else PACKAGE / layer
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    dotted = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in dotted]


def defined(source: ast.Module) -> list[str]:
    """Public functions, classes and constants that a module defines, in the order of the source."""
    names: list[str] = []
    for node in source.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def parsed(module: str) -> ast.Module:
    """The syntax tree of a module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def _is_package(module: str) -> bool:
    return PACKAGE.parent.joinpath(*module.split(".")).is_dir()


def _summary(module: str, name: str) -> str:
    """The first paragraph of a docstring, in one line."""
    for node in parsed(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            text = (ast.get_docstring(node) or "").split("\n\n")[0]
            return " ".join(text.split()).replace("|", "\\|")
    return ""
