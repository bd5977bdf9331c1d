"""Every number of the documents is in a file of results; and what finds those that are not."""

import json

import pytest
from benchmarks import numbers

from gossamer.errors import InputError

UNBACKED = 14  # numbers in docs/decisions that no file of results holds; lower it whenever there are fewer


@pytest.fixture(scope="module")
def ledger() -> numbers.Ledger:
    return numbers.read_ledger(numbers.LEDGER.read_text())


@pytest.mark.parametrize("document", numbers.documents())
def test_every_number_is_what_the_results_say(document, ledger):
    text = (numbers.ROOT / document).read_text()
    assert numbers.examine(document, text, ledger, numbers.Files(numbers.ROOT)).problems() == []


def test_no_pattern_and_no_quote_is_left_over(ledger):
    assert numbers.unused(ledger, numbers.examine_all(numbers.ROOT, ledger)) == []


def test_unbacked_numbers_become_fewer(ledger):
    places = [place for each in numbers.examine_all(numbers.ROOT, ledger) for place in each.unbacked]
    print(f"{len(places)} unbacked:", *places, sep="\n")
    assert len(places) == UNBACKED


RESULTS = {
    "speed.json": {
        "rows": [
            {"agents": 5, "milliseconds": [3.0, 1.0, 2.0], "share": 0.25},
            {"agents": 25, "milliseconds": [9.0, 8.0, 40.0], "share": 0.0625},
        ],
        "steps": 528105.5,
        "error": 1.1e-9,
        "verdict": "127 of 1,200 families (64%), by up to 11.3%",
        "holds": True,
    }
}
LEDGER = """
[[quotes]]
document = "page.md"
file = "speed.json"
text = "A round takes {} ms, as measured"
numbers = [{ at = ["rows", { agents = 25 }, "milliseconds"], take = "median", as = ".1f" }]

[[settings]]
reason = "chosen"
patterns = ['\\d+ agents']
"""
PAGE = "With 25 agents, `--seeds 5`:\n\n1. A round [takes\n   9.0](results/2.json) ms,\n   as measured."


def examine(page: str, ledger: str = LEDGER, results=RESULTS) -> list[str]:
    read = numbers.read_ledger(ledger)
    examination = numbers.examine("page.md", page, read, results)
    return examination.problems() + numbers.unused(read, [examination])


def test_a_page_passes_however_its_lines_break_and_links_stand():
    assert examine(PAGE) == []


def test_a_changed_number_is_stale_and_can_be_written():
    page = PAGE.replace("9.0", "7.0")
    (problem,) = examine(page)
    assert problem.startswith(
        "stale, line 4: 7.0, now 9.0 (speed.json at rows / {'agents': 25} / milliseconds"
    )
    stale = numbers.examine("page.md", page, numbers.read_ledger(LEDGER), RESULTS).stale
    assert numbers.corrected(page, stale) == PAGE


def test_several_numbers_are_written_at_once_whatever_their_lengths():
    ledger = LEDGER.replace("takes {} ms, as measured", "takes {} ms, as measured, or {} of it").replace(
        "numbers = [", 'numbers = [["steps"], '
    )
    stale = numbers.examine(
        "page.md", "A round takes 1 ms, as measured, or 2 of it", numbers.read_ledger(ledger), RESULTS
    ).stale
    assert numbers.corrected("A round takes 1 ms, as measured, or 2 of it", stale) == (
        "A round takes 528,105.5 ms, as measured, or 9.0 of it"
    )


@pytest.mark.parametrize(
    ("more", "number"),
    [
        ("It was 3 times faster.", "3"),
        ("Half, or 50 %.", "50"),
        ("| 1,250 |", "1,250"),
        ("From -3.5 on.", "-3.5"),
        ("By SHA-256.", "256"),
        ("At 1e-9.", "1e-9"),
    ],
)
def test_a_number_that_nothing_accounts_for_is_found(more, number):
    (problem,) = examine(f"{PAGE}\n\n{more}")
    assert problem.startswith(f"not covered, line 7: {number} in ")


@pytest.mark.parametrize(
    "more", ["`3 times`", "```console\n$ run 3\n```", "[three](3.json)", "1. One\n2. Two"]
)
def test_code_link_targets_and_numbered_lists_are_left_out(more):
    assert examine(f"{PAGE}\n\n{more}\n") == []


def test_a_number_in_a_list_is_not():
    assert len(examine(f"{PAGE}\n\n1. One\n2. It takes 2 ms\n")) == 1


def test_the_words_of_a_quote_cover_no_number():
    (problem,) = examine(
        PAGE.replace("as measured", "as 7 measured"), LEDGER.replace("as measured", "as 7 measured")
    )
    assert problem.startswith("not covered, line 5: 7 in ")


def test_a_missing_file_is_named(tmp_path):
    (problem,) = examine(PAGE, results=numbers.Files(tmp_path))
    assert problem == "speed.json is no file; a number needs a JSON file of results"
    (tmp_path / "speed.json").write_text("{")
    (problem,) = examine(PAGE, results=numbers.Files(tmp_path))
    assert problem.startswith("speed.json is no JSON: ")
    (tmp_path / "speed.json").write_text(json.dumps(RESULTS["speed.json"]))
    assert examine(PAGE, results=numbers.Files(tmp_path)) == []


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ('["rounds"]', "there is no 'rounds'; there is rows, steps, error"),
        ('["rows", 2, "milliseconds"]', "there is no 2; there is a list"),
        ('["rows", { agents = 7 }, "milliseconds"]', "0 rows hold {'agents': 7}; exactly one must"),
        ('["rows", {}, "milliseconds"]', "2 rows hold {}; exactly one must"),
        ('["steps"]', "is 528105.5; take needs a list"),
    ],
)
def test_a_missing_key_is_named(path, problem):
    (found,) = examine(PAGE, LEDGER.replace('["rows", { agents = 25 }, "milliseconds"]', path))
    assert problem in found


def test_a_quote_that_stands_nowhere_or_twice_is_a_fault():
    missing = examine(PAGE.replace("A round", "Each round"))
    assert missing[0] == "the quote 'A round takes {} ms, as measured' stands nowhere; it must stand once"
    assert missing[1].startswith("not covered, line 4: 9.0 in ")
    twice = examine(f"{PAGE} A round takes 9.0 ms, as measured.")
    assert twice[0] == "the quote 'A round takes {} ms, as measured' stands 2 times; it must stand once"


def test_a_setting_that_finds_nothing_is_found():
    assert examine(PAGE.replace("25 agents", "some agents")) == [r"the pattern '\\d+ agents' finds nothing"]
    # What a quote covers is no setting any more.
    covered = LEDGER.replace("takes {} ms", "takes {} agents")
    assert examine("A round takes 9.0 agents, as measured", covered) == [
        r"the pattern '\\d+ agents' finds nothing"
    ]


def test_a_setting_needs_a_unit_or_a_noun():
    for pattern in (r"\d+", r"\d+ %", r"\| \d+ \|", r"\d+e-\d+"):
        ledger = LEDGER.replace(r"'\d+ agents'", rf"'\d+ agents', '{pattern}'")
        problems = examine(f"{PAGE}\n| 3 | 3 % | 1e-9", ledger)
        assert any("without a unit or a noun" in problem for problem in problems)


def test_a_setting_holds_in_its_documents_only():
    ledger = LEDGER.replace('reason = "chosen"', 'reason = "chosen"\ndocuments = ["other.md"]')
    assert len(examine(PAGE, ledger)) == 2


def test_a_quote_of_a_page_that_is_gone_is_found():
    assert examine("With 25 agents.", LEDGER.replace("page.md", "gone.md")) == [
        "'A round takes {} ms, as measured' of gone.md"
    ]


def test_unbacked_numbers_are_counted_one_by_one():
    ledger = LEDGER + (
        '[[unbacked]]\nreason = "once"\ndocuments = ["docs/decisions/a.md"]\ntexts = ["3 (4.5) ms"]\n'
    )
    read = numbers.read_ledger(ledger)
    found = numbers.examine("docs/decisions/a.md", "It took 3 (4.5) ms.", read, RESULTS)
    assert found.unbacked == ["line 1: 3 (4.5) ms"] * 2
    assert found.problems() == []


@pytest.mark.parametrize(
    ("choices", "written"),
    [
        ({"at": ("steps",), "digits": 3, "form": ",.0f"}, "528,000"),
        ({"at": ("steps",), "over": 1e6, "form": ".1f"}, "0.5"),
        ({"at": ("steps",), "over": ("rows", 0, "share"), "form": ",.0f"}, "2,112,422"),
        ({"at": ("rows", 1, "share"), "less": 1, "times": -100, "form": ".0f"}, "94"),
        ({"at": ("rows", [{}], "agents"), "take": "most"}, "25"),
        ({"at": ("rows", [{"agents": 5}], "agents"), "take": "count"}, "1"),
        ({"at": ("rows", 0, "milliseconds"), "take": "mean"}, "2"),
        ({"at": ("rows", 0, "milliseconds"), "take": "least", "less": ("rows", 0, "share")}, "0.75"),
        ({"at": ("error",), "form": ".0e"}, "1e-9"),
        ({"at": ("verdict",), "nth": 1}, "1,200"),
        ({"at": ("verdict",), "nth": 3, "form": ".0f"}, "11"),
    ],
)
def test_a_number_is_written_as_the_document_wants_it(choices, written):
    assert numbers.Source("speed.json", **choices).render(RESULTS) == written


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"at": ("verdict",), "nth": 4}, "has 4 numbers; nth is 4, and counts from 0"),
        ({"at": ("verdict",)}, "it must be a number"),
        ({"at": ("holds",)}, "it must be a number"),
        ({"at": ("steps",), "times": float("nan")}, "must be a finite number"),
        ({"at": ("rows", [{"agents": 7}], "agents"), "take": "most"}, "needs a list that holds something"),
        ({"at": ("rows", [], "agents"), "take": "most"}, "must hold one table"),
        ({"at": ("steps",), "over": 0}, "is divided by 0; over must be another number"),
        ({"at": ("steps",), "form": ".1x"}, "is no format of a number"),
        ({"at": ("steps",), "form": ".0%"}, "must be a number without a unit"),
        ({"at": ("steps",), "take": "middle"}, "take is 'middle'; it must be one of median"),
    ],
)
def test_what_is_no_number_is_refused(choices, message):
    with pytest.raises(InputError, match=message):
        numbers.Source("speed.json", **choices).render(RESULTS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[quotes]]", "[[quotes]", "the ledger is no TOML"),
        ("[[settings]]", "[[setting]]", "a table of the ledger is 'setting'; it must be one of quotes"),
        ("takes {} ms", "takes 9 ms", "has 0 places for 1 numbers"),
        ("take =", "taken =", "what is said of a number is 'taken'"),
        ("{ at =", "{ to =", "what is said of a number is 'to'"),
        ("at = [", "less = [", "does not say at; a number needs a file"),
        ('file = "speed.json"', "", "does not say file; a number needs a file"),
        ("reason =", "cause =", "what is said of exempt numbers is 'cause'"),
        ('"chosen"', '" "', "has no reason; it must have one"),
        (r"\d+ agents'", r"(\d+ agents'", "is no regular expression"),
        (r"agents'", r"agents', '\\d+ agents'", "is given 2 times; it must be given once"),
        ("[[settings]]", "[[unbacked]]\nreason = 'once'\ntexts = ['3 ms']\n[[settings]]", "must be named"),
    ],
)
def test_a_ledger_that_does_not_fit_is_refused(old, new, message):
    assert old in LEDGER
    with pytest.raises(InputError, match=message):
        numbers.read_ledger(LEDGER.replace(old, new.replace(r"\\", "\\")))


def test_the_documents_are_the_readme_and_all_pages(tmp_path):
    for name in ("README.md", "CHANGELOG.md", "docs/a.md", "docs/decisions/b.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert numbers.documents(tmp_path) == ["README.md", "docs/a.md", "docs/decisions/b.md"]
