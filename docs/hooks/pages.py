"""Pages of the site that nobody writes: the API's, one for each layer, and the list of decisions.

Links to sources lead to the API's page of their layer. Others that lead out of ``docs`` become the paths that they
name: the site holds no sources and no results.
"""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation's two folders: a page for each layer, and every decision, its README first."""
    decisions = sorted(
        Path(config.docs_dir, "decisions").glob("*.md"), key=lambda page: (page.stem != "README", page)
    )
    folders = {
        "api/": ["api/index.md", *(f"api/{layer}.md" for layer in layers())],
        "decisions/": [f"decisions/{page.name}" for page in decisions],
    }
    config.nav = [
        {title: folders.get(path, path) for title, path in entry.items()} for entry in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API's pages."""
    files.append(File.generated(config, "api/index.md", content=contents()))
    for layer in layers():
        files.append(File.generated(config, f"api/{layer}.md", content=api_page(layer)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead from sources to the API, and name what else lies outside of ``docs`` by its path from the root."""
    folder = posixpath.dirname(page.file.src_uri)

    def told(link: re.Match[str]) -> str:
        picture, text, target, _ = link.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if ":" in target or path.startswith("docs/"):
            return link[0]
        if (page_of := api_of(path)) is not None:
            return f"[{text}]({posixpath.relpath(page_of, folder or '.')})"
        label = "" if picture or text.strip("`") in (path, posixpath.basename(path)) else f"{text} "
        return f"{label}`{path}`" if not label else f"{label}(`{path}`)"

    return LINK.sub(told, markdown)


def api_of(path: str) -> str | None:
    """The API's page of a source file or folder of the package; none for other paths."""
    if path == "src/gossamer":
        return "api/index.md"
    inside = re.fullmatch(r"src/gossamer/(\w+)(\.py|/.*)?", path)
    return f"api/{inside[1]}.md" if inside and inside[1] in layers() else None


def layers() -> list[str]:
    """Names of the layers, from the list that a test holds their imports to."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text())
    return next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    )


def contents() -> str:
    """A line for each layer: the first sentence of what it says of itself."""
    lines = [f"- [{layer}]({layer}.md): {_summary(layer)}" for layer in layers()]
    return "\n".join(
        [
            "# API",
            "",
            "Layers of the package `gossamer`; each imports only from those above it.",
            "",
            *lines,
            "",
        ]
    )


def api_page(layer: str) -> str:
    """The modules of a layer, with what each of them defines and does not hide."""
    parts = [f"# {layer}"]
    for module in modules(layer):
        source = ast.parse(_path(module).read_text())
        names = public_names(source)
        if _path(module).name == "__init__.py" and not names:
            parts += [_introduction(module, source)]
            continue
        members = "".join(f"        - {name}\n" for name in names)
        parts += [f"::: {module}\n    options:\n      members:\n{members}" if names else f"::: {module}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def modules(layer: str) -> list[str]:
    """Every module of a layer by its dotted name, packages before what is in them."""
    folder = SOURCES / "gossamer" / layer
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return [
        ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__") for path in paths
    ]


def public_names(source: ast.Module) -> list[str]:
    """Functions, classes and constants that a module defines, in the order of the source; imports are none."""
    names: list[str] = []
    for node in source.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def _introduction(package: str, source: ast.Module) -> str:
    """What a package says of itself, and the names that it offers from its modules."""
    exports = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    offered = ", ".join(f"`{name}`" for name in exports[0]) if exports else ""
    text = ast.get_docstring(source) or ""
    return f"{text}\n\n`{package}` offers {offered}." if offered else text


def _summary(layer: str) -> str:
    text = ast.get_docstring(ast.parse(_path(modules(layer)[0]).read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def _path(module: str) -> Path:
    path = SOURCES.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
