"""Numbers and verdicts of the report in words, the same on every page."""

from gossamer_papers.published import Value
from gossamer_papers.report.contents import Contents, Count, Section

TITLE = "What the papers claim, and what our runs show"
INTRODUCTION = (
    "Every figure, table and theorem of both papers, with a verdict on each claim. Does not hold means that our runs "
    "show the opposite; not decided, that they show neither. Claims marked (ours) are in neither paper. The claims of "
    "an entry without results count as not run. docs/decisions/reproductions.md has the rules."
)
LEARNING = "Further evidence: learning results that reproduce nothing"
COMMAND = "gossamer report results"


def number(value: Value | None) -> str:
    """A value with its interval.

    Example:
        >>> number((-82.1, -98.3, -66.0)), number((3.56,)), number(None)
        ('-82.1 (-98.3 to -66)', '3.56', '–')
    """
    if value is None:
        return "–"
    middle, *ends = (
        f"{each:.6g}" if abs(each) < 1 else f"{each:.2f}".rstrip("0").rstrip(".") for each in value
    )
    return f"{middle} ({' to '.join(ends)})" if ends else middle


def counted(count: Count) -> list[tuple[str, list[int]]]:
    """Rows of the summary: the paper's own claims, and ours."""
    return [("its claims", list(count.published.values())), ("ours beside them", list(count.ours.values()))]


def facts(section: Section) -> list[tuple[str, str]]:
    """What is recorded of a result: scale, seeds, date, whether it was judged anew, machine, versions."""
    result = section.result
    if result is None:
        return []
    return [
        ("scale", result.scale),
        ("seeds", f"{result.seeds}, or as the trainings say" if result.trainings else str(result.seeds)),
        ("date", result.date or "not recorded"),
        *([("judged anew", result.judged)] if result.judged else []),
        ("machine", result.machine),
        ("versions", result.versions),
    ]


def reasons(contents: Contents) -> list[tuple[str, str]]:
    """What was not run, and why."""
    rows = [(_named(section), section.why_not_run.replace("`", "")) for section in contents.missing]
    return rows + [
        (f"{_named(section)}: {claim.text}", claim.evidence) for section, claim in contents.unjudged
    ]


def _named(section: Section) -> str:
    paper = {"diffdac": "Diff-DAC", "gala": "GALA"}[section.entry.paper]
    return f"{paper}, {section.entry.name[0].lower()}{section.entry.name[1:]}"
