"""``gossamer doctor`` says what works and what is lacking, on one screen."""

from importlib.metadata import PackageNotFoundError, metadata, version

import jax
import pytest

from gossamer.cli import doctor, main


def installed_without(monkeypatch, *names, **versions):
    def version_of(name):
        if name in names:
            raise PackageNotFoundError(name)
        return versions.get(name) or version(name)

    monkeypatch.setattr(doctor, "version", version_of)


def test_an_installation_without_extras_fits_one_screen_and_names_them(monkeypatch, capsys):
    extras = metadata("gossamer").get_all("Provides-Extra")
    names = {
        "ale-py",
        "gymnasium",
        "mujoco",
        "eclipse-zenoh",
        "ray",
        "nvidia-ml-py",
        "jax-cuda12-plugin",
        "orbax-checkpoint",
        "beartype",
    }
    installed_without(monkeypatch, *names, "mkdocs-material")
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert [line.split(maxsplit=2)[2] for line in lines if line.startswith("  missing")] == [
        f"pip install 'gossamer[{extra}]'" for extra in extras
    ]
    assert f"jax {version('jax')}" in " ".join(" ".join(lines).split())


def test_a_missing_requirement_is_broken(monkeypatch, capsys):
    installed_without(monkeypatch, "numpy")
    with pytest.raises(SystemExit, match="1"):
        main(["doctor"])
    assert "broken      numpy is not installed" in capsys.readouterr().out


def test_a_jax_that_does_not_start_is_broken(monkeypatch, capsys):
    def devices():
        raise RuntimeError("no driver")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(SystemExit, match="1"):
        main(["doctor"])
    assert "broken      jax does not start: RuntimeError: no driver" in capsys.readouterr().out


def test_requirements_have_versions_and_extras_of_their_own(monkeypatch):
    wanted = {
        "mine": [
            "numpy>=2",
            "old>=0.2; extra == 'x'",
            "theirs[y]; extra == 'z'",
            "absent; python_version < '3'",
        ],
        "theirs": ["numpy>=2", "absent; extra == 'y'"],
    }
    monkeypatch.setattr(doctor, "requires", wanted.get)
    installed_without(monkeypatch, "absent", old="0.1", theirs="1")
    assert list(doctor.missing("mine")) == []
    assert list(doctor.missing("mine", "x")) == ["old is 0.1; >=0.2 is required"]
    assert list(doctor.missing("mine", "z")) == ["absent is not installed"]
