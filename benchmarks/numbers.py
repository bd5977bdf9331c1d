"""Whether every number in the documents is what the results say; nothing is measured here.

    python -m benchmarks.numbers [--write]

``docs/numbers.toml`` holds quotes: a piece of a document with ``{}`` in place of each number, and where each is found
in a file of results. It also lists the numbers that were chosen and not measured (settings), and those of development
that no file holds (unbacked). A number of ``README.md`` or ``docs/**/*.md`` that is none of these fails
``tests/test_numbers.py``; code and link targets are left out. ``--write`` puts what the files say today into the
documents.
"""

import argparse
import json
import math
import re
import statistics
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from gossamer.errors import InputError, require_choice

ROOT = Path(__file__).parent.parent
LEDGER = ROOT / "docs" / "numbers.toml"
DEVELOPMENT = "docs/decisions/"  # what was measured once, while something was decided, may stand here
NUMBER = r"(?:(?<!\w)-)?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?"
TAKEN: dict[str, Callable[[Sequence[float]], float]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "least": min,
    "most": max,
    "count": len,
}
HIDDEN = "\0"  # in place of a digit that is none of our business

Step: TypeAlias = str | int | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""One step into JSON: a key, an index, what exactly one row of a list must hold, or, in a list, what several do: the
steps behind it are then taken from each of those rows."""


@dataclass(frozen=True)
class Source:
    """Where a number is found, what is done to it, and how it is written.

    In this order: ``nth`` picks a number of a sentence (from 0), ``take`` reduces a list, ``less`` is subtracted,
    ``over`` divides (each a number, or a path in the same file), ``times`` multiplies, and ``digits`` leaves
    significant ones. Without a ``form`` a whole number has no decimals.

    Example:
        >>> source = Source("speed.json", ("rows", {"agents": 25}, "seconds"), times=1000, form=".1f")
        >>> source.render({"speed.json": {"rows": [{"agents": 5}, {"agents": 25, "seconds": 0.0421}]}})
        '42.1'
    """

    file: str
    at: tuple[Step, ...]
    nth: int | None = None
    take: str | None = None
    less: float | tuple[Step, ...] = 0
    over: float | tuple[Step, ...] = 1
    times: float = 1
    digits: int | None = None
    form: str | None = None

    def __post_init__(self):
        if self.take is not None:
            require_choice("take", self.take, list(TAKEN))
        for step in self.at:
            if isinstance(step, list) and not (len(step) == 1 and isinstance(step[0], dict)):
                raise InputError(
                    f"{self}: {step} must hold one table, what the rows that are wanted have in common"
                )

    def render(self, files: Mapping[str, Any]) -> str:
        """The number as a document should have it; an `InputError` if the files do not hold one."""
        less, over = (self._amount(files, part) for part in (self.less, self.over))
        if over == 0:
            raise InputError(f"{self} is divided by 0; over must be another number")
        value = (self._value(files) - less) / over * self.times
        if not math.isfinite(value):
            raise InputError(f"{self} is {value}; it must be a finite number")
        if self.digits is not None and value:
            value = round(value, self.digits - 1 - math.floor(math.log10(abs(value))))
        form = self.form or (",.0f" if float(value).is_integer() else ",")
        try:
            written = re.sub(r"e([-+])0*", lambda sign: f"e{sign[1].strip('+')}", format(value, form))
        except ValueError as error:
            raise InputError(f"{self}: {form!r} is no format of a number ({error})") from None
        if not re.fullmatch(NUMBER, written):
            raise InputError(f"{self} is written {written!r} by {form!r}; it must be a number without a unit")
        return written

    def _value(self, files: Mapping[str, Any]) -> float:
        found = self._follow(files[self.file], self.at)
        if self.nth is not None:
            numbers = re.findall(NUMBER, found) if isinstance(found, str) else []
            if len(numbers) <= self.nth:
                raise InputError(f"{self} has {len(numbers)} numbers; nth is {self.nth}, and counts from 0")
            found = float(numbers[self.nth].replace(",", ""))
        if self.take is not None:
            if not isinstance(found, list) or not found:
                raise InputError(f"{self} is {found!r}; take needs a list that holds something")
            found = TAKEN[self.take](found)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise InputError(f"{self} is {str(found)[:60]!r}; it must be a number")
        return found

    def _amount(self, files: Mapping[str, Any], part: float | tuple[Step, ...]) -> float:
        return Source(self.file, part)._value(files) if isinstance(part, tuple) else part

    def _follow(self, found: Any, path: Sequence[Step]) -> Any:
        for place, step in enumerate(path):
            if isinstance(step, list):
                rest = path[place + 1 :]
                return [self._follow(row, rest) for row in _rows(found, step[0])]
            found = self._descend(found, step)
        return found

    def _descend(self, found: Any, step: Any) -> Any:
        if isinstance(step, Mapping):
            rows = _rows(found, step)
            if len(rows) != 1:
                raise InputError(f"{self}: {len(rows)} rows hold {dict(step)}; exactly one must")
            return rows[0]
        try:
            return found[step]
        except (KeyError, IndexError, TypeError):
            known = ", ".join(map(str, found)) if isinstance(found, dict) else f"a {type(found).__name__}"
            raise InputError(f"{self}: there is no {step!r}; there is {known[:200]}") from None

    def __str__(self) -> str:
        return f"{self.file} at {' / '.join(map(str, self.at))}"


def _rows(found: Any, wanted: Mapping[str, Any]) -> list[Any]:
    """Rows of a list that hold what is wanted."""
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, dict) and wanted.items() <= row.items()]


@dataclass(frozen=True)
class Quote:
    """A piece of a document with ``{}`` for each number, and the numbers' sources in the same order."""

    document: str
    text: str
    sources: tuple[Source, ...]

    def __post_init__(self):
        places = self.text.count("{}")
        if places != len(self.sources) or not places:
            raise InputError(
                f"{self.document}: {self.text[:60]!r} has {places} places for {len(self.sources)} numbers; "
                "it must have one for each, and at least one"
            )

    def pattern(self) -> re.Pattern[str]:
        """Finds the quote whatever its numbers are and wherever its lines break."""
        words = (_spaced(re.escape(piece)) for piece in Page.of(self.text).text.strip().split("{}"))
        # No number may begin or end within another.
        return re.compile(rf"(?<![\d.,])({NUMBER})(?!\d|[.,]\d)".join(words))


@dataclass(frozen=True)
class Exemption:
    """Numbers that no file of results holds: a pattern that finds them with their unit or noun, and the reason."""

    pattern: str
    reason: str
    documents: tuple[str, ...] = ()
    """Where it holds; everywhere if none is named."""

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise InputError(f"{self.pattern!r} is no regular expression: {error}") from None
        if not self.reason.strip():
            raise InputError(f"{self.pattern!r} has no reason; it must have one")

    def holds_in(self, document: str) -> bool:
        """Whether the document is one of those it is meant for."""
        return not self.documents or document in self.documents

    def matches(self, text: str) -> list[re.Match[str]]:
        """Where it finds digits that nothing else has accounted for."""
        found = re.finditer(_spaced(self.pattern), text)
        return [match for match in found if re.search(r"\d", match[0])]


@dataclass(frozen=True)
class Ledger:
    """What ``docs/numbers.toml`` says."""

    quotes: tuple[Quote, ...]
    settings: tuple[Exemption, ...]
    unbacked: tuple[Exemption, ...]


@dataclass(frozen=True)
class Page:
    r"""A document without link targets and digits of code, and where each of its characters stands in the document.

    Example:
        >>> Page.of("[25 agents](results/5.json) with `--seeds 5`").text
        '25 agents with `--seeds \x00`'
    """

    text: str
    places: tuple[int, ...]

    @classmethod
    def of(cls, document: str) -> "Page":
        """Code, links and numbered lists are recognised as far as our documents use them."""
        code = re.compile(r"^```.*?^```|`[^`]+`", re.MULTILINE | re.DOTALL)
        lists = re.compile(r"(?:\A|(?<=\n\n))(?:\d+\. .*\n?)+")
        hidden = code.sub(_hide_digits, document)
        hidden = lists.sub(lambda items: re.sub(r"(?m)^\d+(?=\. )", _hide_digits, items[0]), hidden)
        # Brackets within code are no links.
        outline = code.sub(lambda match: HIDDEN * len(match[0]), document)
        kept = [True] * len(document)
        for link in re.finditer(r"!?\[([^\]]*)\]\([^)]*\)", outline):
            before, after = range(link.start(), link.start(1)), range(link.end(1), link.end())
            for place in (*before, *after):
                kept[place] = False
        places = tuple(place for place, keep in enumerate(kept) if keep)
        return cls("".join(hidden[place] for place in places), places)


def _hide_digits(match: re.Match[str]) -> str:
    return re.sub(r"\d", HIDDEN, match[0])


def _spaced(pattern: str) -> str:
    """Let a line break stand wherever a pattern has spaces."""
    return re.sub(r"(?:\\?\s)+", r"\\s+", pattern)


@dataclass(frozen=True)
class Written:
    """A number in a document, and what the files say that it should be."""

    line: int
    start: int
    end: int
    found: str
    wanted: str
    source: Source

    def __str__(self) -> str:
        now = "" if self.found == self.wanted else f", now {self.wanted}"
        return f"line {self.line}: {self.found}{now} ({self.source})"


@dataclass
class Examination:
    """What was found in one document."""

    document: str
    covered: list[Written] = field(default_factory=list)
    stale: list[Written] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)
    unbacked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Patterns of settings that found something."""

    def problems(self) -> list[str]:
        """Sentences; none where all is well."""
        stale = [f"stale, {number}" for number in self.stale]
        return [*self.faults, *stale, *(f"not covered, {place}" for place in self.uncovered)]


def examine(document: str, text: str, ledger: Ledger, files: Mapping[str, Any]) -> Examination:
    """Compare the numbers of one document with the files, and list those that nothing accounts for."""
    page, found = Page.of(text), Examination(document)
    rest = list(page.text)
    for quote in ledger.quotes:
        if quote.document == document:
            for match in _once(quote, page.text, found):
                _compare(quote, match, page, text, files, found)
                for place in range(1, len(quote.sources) + 1):
                    _hide(rest, match.start(place), match.end(place))
    remaining = "".join(rest)
    for exemption in ledger.settings + ledger.unbacked:
        for match in exemption.matches(remaining) if exemption.holds_in(document) else ():
            found.used.add(exemption.pattern)
            if not _names_something(match[0]):
                found.faults.append(f"{exemption.pattern!r} finds {match[0]!r} without a unit or a noun")
            if exemption in ledger.unbacked:
                numbers = len(re.findall(NUMBER, match[0]))
                found.unbacked += [f"line {_line(text, page, match.start())}: {_flat(match[0])}"] * numbers
            _hide(rest, match.start(), match.end())
    found.uncovered += _left(rest, page, text)
    return found


def _once(quote: Quote, text: str, found: Examination) -> list[re.Match[str]]:
    """The one place where a quote stands; anything else is a fault."""
    matches = list(quote.pattern().finditer(text))
    if len(matches) != 1:
        how = "stands nowhere" if not matches else f"stands {len(matches)} times"
        found.faults.append(f"the quote {_flat(quote.text)!r} {how}; it must stand once")
        return []
    return matches


def _compare(
    quote: Quote,
    match: re.Match[str],
    page: Page,
    text: str,
    files: Mapping[str, Any],
    found: Examination,
) -> None:
    for place, source in enumerate(quote.sources, start=1):
        try:
            wanted = source.render(files)
        except InputError as error:
            found.faults.append(str(error))
            continue
        start, end = page.places[match.start(place)], page.places[match.end(place) - 1] + 1
        line = _line(text, page, match.start(place))
        number = Written(line, start, end, match[place], wanted, source)
        (found.covered if number.found == wanted else found.stale).append(number)


def _left(rest: list[str], page: Page, text: str) -> Iterator[str]:
    """Numbers that nothing has hidden, with some of what stands around them."""
    for match in re.finditer(NUMBER, "".join(rest)):
        around = page.text[max(0, match.start() - 30) : match.end() + 30]
        yield f"line {_line(text, page, match.start())}: {match[0]} in {_flat(around)!r}"


def _hide(characters: list[str], start: int, end: int) -> None:
    characters[start:end] = [HIDDEN if each.isdigit() else each for each in characters[start:end]]


def _names_something(piece: str) -> bool:
    """Whether letters are left beside the numbers of a piece."""
    return re.search(r"[^\W\d_]", re.sub(NUMBER, "", piece)) is not None


def _line(text: str, page: Page, place: int) -> int:
    return text.count("\n", 0, page.places[place]) + 1


def _flat(piece: str) -> str:
    return " ".join(piece.replace(HIDDEN, "#").split())


def unused(ledger: Ledger, examinations: Sequence[Examination]) -> list[str]:
    """Patterns that found nothing anywhere, and quotes of documents that there are not."""
    used = {pattern for each in examinations for pattern in each.used}
    settings = [each.pattern for each in ledger.settings + ledger.unbacked if each.pattern not in used]
    known = {each.document for each in examinations}
    quotes = [
        f"{_flat(each.text)!r} of {each.document}" for each in ledger.quotes if each.document not in known
    ]
    return [*(f"the pattern {each!r} finds nothing" for each in settings), *quotes]


def corrected(text: str, stale: Sequence[Written]) -> str:
    """The document with what the files say today.

    Example:
        >>> old = Written(1, 6, 8, "17", "16", Source("speed.json", ("ms",)))
        >>> corrected("It is 17 ms.", [old])
        'It is 16 ms.'
    """
    for number in sorted(stale, key=lambda number: number.start, reverse=True):
        text = text[: number.start] + number.wanted + text[number.end :]
    return text


def read_ledger(text: str) -> Ledger:
    """Read what ``docs/numbers.toml`` holds; an `InputError` says what does not fit."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the ledger is no TOML: {error}") from None
    for table in raw:
        require_choice("a table of the ledger", table, ("quotes", "settings", "unbacked"))
    ledger = Ledger(
        quotes=tuple(map(_quote, raw.get("quotes", ()))),
        settings=tuple(_exemptions(raw.get("settings", ()), "patterns", str)),
        unbacked=tuple(_exemptions(raw.get("unbacked", ()), "texts", re.escape)),
    )
    for each in ledger.unbacked:
        if not each.documents or any(not name.startswith(DEVELOPMENT) for name in each.documents):
            raise InputError(
                f"{each.pattern!r} is unbacked; its documents must be named, and lie in {DEVELOPMENT}"
            )
    repeated = Counter(each.pattern for each in ledger.settings + ledger.unbacked)
    for pattern, times in repeated.items():
        if times > 1:
            raise InputError(f"the pattern {pattern!r} is given {times} times; it must be given once")
    return ledger


def _quote(raw: Mapping[str, Any]) -> Quote:
    """What stands beside ``numbers`` holds for each of them that does not say otherwise."""
    common = {name: value for name, value in raw.items() if name not in ("document", "text", "numbers")}
    numbers = [each if isinstance(each, dict) else {"at": each} for each in raw.get("numbers", ())]
    return Quote(
        raw.get("document", ""), raw.get("text", ""), tuple(_source(common | each) for each in numbers)
    )


def _source(raw: Mapping[str, Any]) -> Source:
    known = {each.name for each in fields(Source)} - {"form"} | {"as", "within"}
    for name in raw:
        require_choice("what is said of a number", name, sorted(known))
    for name in ("file", "at"):
        if name not in raw:
            raise InputError(f"{dict(raw)} does not say {name}; a number needs a file, and a path within it")
    within = tuple(raw.get("within", ()))
    paths: dict[str, Any] = {
        name: (*within, *value)
        for name, value in raw.items()
        if name in ("at", "less", "over") and isinstance(value, list)
    }
    plain: dict[str, Any] = {
        name: value for name, value in raw.items() if name not in ("within", "as", *paths)
    }
    return Source(**plain | paths, form=raw.get("as"))


def _exemptions(
    raw: Sequence[Mapping[str, Any]], key: str, pattern_of: Callable[[str], str]
) -> Iterator[Exemption]:
    for group in raw:
        for name in group:
            require_choice("what is said of exempt numbers", name, ("reason", "documents", key))
        documents = tuple(group.get("documents", ()))
        for each in group.get(key, ()):
            yield Exemption(pattern_of(each), group.get("reason", ""), documents)


class Files(dict[str, Any]):
    """Results by their path from the root, read when they are first asked for."""

    def __init__(self, root: Path):
        super().__init__()
        self._root = root

    def __missing__(self, name: str) -> Any:
        path = self._root / name
        if not path.is_file():
            raise InputError(f"{name} is no file; a number needs a JSON file of results")
        try:
            self[name] = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise InputError(f"{name} is no JSON: {error}") from None
        return self[name]


GENERATED = ("docs/reproduction.md",)
"""Pages that `gossamer report` writes from the files of results; a test of its own compares them."""


def documents(root: Path = ROOT) -> list[str]:
    """README.md and all pages below ``docs``, by their paths from the root."""
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    names = [page.relative_to(root).as_posix() for page in pages if page.is_file()]
    return [name for name in names if name not in GENERATED]


def examine_all(root: Path, ledger: Ledger) -> list[Examination]:
    """Every document."""
    files = Files(root)
    return [examine(name, (root / name).read_text(), ledger, files) for name in documents(root)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put what the files say today into the documents"
    )
    write = parser.parse_args().write
    ledger = read_ledger(LEDGER.read_text())
    examinations = examine_all(ROOT, ledger)
    for each in examinations:
        show(each)
        if write and each.stale:
            path = ROOT / each.document
            path.write_text(corrected(path.read_text(), each.stale))
            print(f"  written: {len(each.stale)}")
    leftover = unused(ledger, examinations)
    for each in leftover:
        print(each)
    wrong = any(each.faults or each.uncovered or (each.stale and not write) for each in examinations)
    raise SystemExit(1 if leftover or wrong else 0)


def show(examination: Examination) -> None:
    """Print what was found in one document."""
    print(f"{examination.document}: {len(examination.covered)} covered, {len(examination.unbacked)} unbacked")
    for title in ("covered", "stale", "uncovered", "unbacked", "faults"):
        for each in getattr(examination, title):
            print(f"  {title:<10} {each}")


if __name__ == "__main__":
    main()
