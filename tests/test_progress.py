import io
import re
import threading

import pytest
from rich.console import Console

from gossamer.runs.progress import Bar, Lines, Status, describe

STATUS = Status(5, 300, 123456.0, -1234.5, 12.3456, 75.0)


def test_the_bar_fits_eighty_columns():
    output = io.StringIO()
    bar = Bar("cartpole-balance-centralised", Console(file=output, width=80, force_terminal=True))
    with bar:
        bar.show(STATUS)
    text = output.getvalue()
    assert "…" not in text
    for part in ("5/300", "123.5k env-steps/s", "return -1234.5", "distance 12.346"):
        assert part in text


def test_lines_are_few_and_the_last_is_never_left_out(capsys):
    lines = Lines("label", seconds=3600)
    with lines:
        for number in range(1, 301):
            lines.show(STATUS._replace(round=number))
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in shown] == ["1/300", "300/300"]
    assert shown[0].endswith("1:15 left")


def test_the_bar_says_what_is_compiled_and_for_how_long():
    output = io.StringIO()
    bar = Bar("label", Console(file=output, width=80, force_terminal=True))
    with bar:
        bar.begin("making 25 agents")
        bar.begin("compiling the round")
        bar._progress.refresh()
        bar.show(STATUS)
    during, after = re.sub(r"\x1b\[.*?m", "", output.getvalue()).split("5/300", 1)
    assert "compiling the round 0:00:00" in during
    assert "compiling" not in after


def test_lines_say_what_is_compiled_while_the_main_thread_does_it(capsys):
    lines, printed = Lines("label", phase_seconds=0.001), threading.Event()
    say = lines.say
    lines.say = lambda sentence: (say(sentence), printed.set())
    with lines:
        lines.begin("compiling the round")
        assert printed.wait(60)
        lines.show(STATUS)
        shown = capsys.readouterr().out.splitlines()
        printed.clear()
        lines.begin("testing")
        assert printed.wait(60)
    assert shown[0] == "label  compiling the round, 0 s"
    assert shown[-1].startswith("label  round 5/300")
    assert capsys.readouterr().out.startswith("label  testing, 0 s")


@pytest.mark.parametrize("end", [lambda lines: lines.show(STATUS), lambda lines: lines.__exit__()])
def test_lines_are_silent_about_a_phase_that_has_ended(end):
    lines = Lines("label")
    lines.begin("compiling the round")
    watch = threading.enumerate()[-1]
    end(lines)
    watch.join(60)
    assert not watch.is_alive()


def test_while_compiling_no_time_is_promised(capsys):
    Lines("label").show(STATUS._replace(seconds_left=None))
    assert capsys.readouterr().out.endswith("compiled\n")


def test_describe_names_everything():
    assert describe(STATUS) == "123.5k env-steps/s  return -1234.50  consensus distance 12.346"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch, terminal):
    from gossamer.runs import progress

    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: terminal)
    assert isinstance(progress.reporter("label"), Bar if terminal else Lines)
