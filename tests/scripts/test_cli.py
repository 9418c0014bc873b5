"""The command says what it takes, what is wrong, and where it can be reached."""

import tomllib

import pytest

from scripts import caches, cli, config, exchange, follow, instance, operator


@pytest.fixture
def started(monkeypatch):
    """Configurations that would have been run."""
    seen = []
    for purpose in (follow, exchange):
        monkeypatch.setattr(purpose, "run", lambda config, version: seen.append(config) or 0)
    return seen


def test_options_become_settings(started, tmp_path):
    options = "follow --node-data n --node-info http://h:1 --replay-speed 3 --host :: --port 0 --gateways 2"
    assert cli.run([*options.split(), "--cores", "none", "--data", str(tmp_path)]) == 0
    (settings,) = started
    assert settings.follow.node_info == "http://h:1"
    assert config.replay_speed(settings.follow.replay_speed) == 3
    assert (settings.gateway.host, settings.gateway.port, settings.gateway.count) == ("::", 0, 2)
    assert settings.data == str(tmp_path) and not settings.cores.auto


def test_an_exchange_has_traders_unless_told_otherwise(started):
    assert cli.run(["up", "--port", "0"]) == cli.run(["up", "--no-simulation", "--gateways", "2"]) == 0
    first, second = started
    assert first.exchange.simulation and not second.exchange.simulation
    assert (first.gateway.port, second.gateway.count) == (0, 2)


ADDRESS = "0x" + "Ab" * 20


@pytest.mark.parametrize(
    "answer, code, words",
    [
        ({"ok": True, "sequence": 9}, 0, f"deposit of 1.5 USDC, {ADDRESS}: done, sequence 9"),
        ({"ok": False, "error": "no room"}, cli.EXIT_NOT_DONE, "ringside: no room"),
        (None, cli.EXIT_BUSY, "ringside: nobody"),
    ],
)
def test_the_operator_is_told_what_became_of_it(monkeypatch, capsys, tmp_path, answer, code, words):
    def ask(path, message):
        assert path == tmp_path / "operator.sock"
        assert message == {"kind": "deposit", "address": ADDRESS, "amount": "1.5"}
        if answer is None:
            raise operator.Unheard("nobody")
        return answer

    monkeypatch.setattr(operator, "ask", ask)
    assert cli.run(["deposit", ADDRESS, "1.5", "--data", str(tmp_path)]) == code
    told = capsys.readouterr()
    assert (told.out + told.err).strip() == words


@pytest.mark.parametrize("wrong", [["0x12", "5"], [ADDRESS, "0"], [ADDRESS, "1.0000001"], [ADDRESS, "1e3"]])
def test_an_operator_who_cannot_mean_it_is_told_before_anyone_is_asked(monkeypatch, capsys, wrong):
    monkeypatch.setattr(operator, "ask", None)
    assert cli.run(["withdraw", *wrong]) == cli.EXIT_REFUSED
    assert len(capsys.readouterr().err.splitlines()) == 1


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
    project = tomllib.loads((caches.ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"ringside {project['version']}\n"


@pytest.mark.parametrize(
    "options", [["--help"], ["up", "--help"], ["deposit", "--help"], ["follow", "--help"]]
)
def test_help_is_given(capsys, options):
    with pytest.raises(SystemExit) as ended:
        cli.run(options)
    assert ended.value.code == 0 and "ringside" in capsys.readouterr().out


def test_a_recording_of_prices_that_cannot_be_read_is_said_before_anyone_is_asked(tmp_path, capsys):
    (tmp_path / "prices").write_text("0 BTC nothing\n")
    assert cli.run(["feed", "--file", str(tmp_path / "prices"), "--data", str(tmp_path)]) == cli.EXIT_REFUSED
    assert "line 1" in capsys.readouterr().err
