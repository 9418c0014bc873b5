"""The command says what it takes, what is wrong, and where it can be reached."""

import tomllib

import pytest

from scripts import cli, config, follow, instance


@pytest.fixture
def started(monkeypatch):
    """Configurations that would have been run."""
    seen = []
    monkeypatch.setattr(follow, "run", lambda config, version: seen.append(config) or 0)
    return seen


def test_options_become_settings(started, tmp_path):
    options = "follow --node-data n --node-info http://h:1 --replay-speed 3 --host :: --port 0 --gateways 2"
    assert cli.run([*options.split(), "--cores", "none", "--data", str(tmp_path)]) == 0
    (settings,) = started
    assert settings.follow.node_info == "http://h:1"
    assert config.replay_speed(settings.follow.replay_speed) == 3
    assert (settings.gateway.host, settings.gateway.port, settings.gateway.count) == ("::", 0, 2)
    assert settings.data == str(tmp_path) and not settings.cores.auto


def test_an_option_that_was_not_given_leaves_the_file_alone(started, tmp_path):
    file = tmp_path / "ringside.toml"
    file.write_text("data = '/d'\n[follow]\nsimulated = true\n[gateway]\nport = 4000\n[cores]\nauto = false")
    assert cli.run(["follow", "--config", str(file)]) == 0
    assert cli.run(["follow", "--config", str(file), "--port", "0"]) == 0
    first, second = started
    assert first.follow.simulated and first.data == "/d" and not first.cores.auto
    assert (first.gateway.port, second.gateway.port) == (4000, 0)


@pytest.mark.parametrize(
    "options, words",
    [
        ("", "nothing to follow"),
        ("--node-data n --snapshot /does/not/exist", "no such file"),
        ("--node-data n --simulated", "one of --node-data and --simulated"),
        ("--simulated --cores 1,x", "--cores"),
        ("--simulated --gateways 0", "[gateway] count"),
        ("--simulated --config /does/not/exist", "/does/not/exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(started, capsys, options, words):
    assert cli.run(["follow", *options.split()]) == cli.EXIT_REFUSED
    told = capsys.readouterr().err
    assert words in told and len(told.splitlines()) == 1 and started == []


@pytest.mark.parametrize("error", [instance.Busy("in use"), PermissionError(13, "denied", "/d")])
def test_a_directory_or_port_that_cannot_be_had_is_told_likewise(monkeypatch, capsys, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(follow, "run", refuse)
    assert cli.run(["follow", "--simulated"]) == cli.EXIT_BUSY
    assert capsys.readouterr().err.startswith("ringside: ")


def test_the_settings_in_effect_are_printed_as_a_file(capsys):
    assert cli.run(["config", "--simulated", "--port", "0"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["follow"]["simulated"] is True and printed["gateway"]["port"] == 0
    assert cli.run(["config", "--port", "-1"]) == cli.EXIT_REFUSED


def test_the_version_is_that_of_the_project(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(["--version"])
    assert ended.value.code == 0
    project = tomllib.loads((follow.warm.ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"ringside {project['version']}\n"


@pytest.mark.parametrize("options", [["--help"], ["follow", "--help"], ["config", "--help"]])
def test_help_is_given(capsys, options):
    with pytest.raises(SystemExit) as ended:
        cli.run(options)
    assert ended.value.code == 0 and "ringside" in capsys.readouterr().out
