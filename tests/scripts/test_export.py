"""`ringside export` writes all that the archive holds, exactly, in words that need no engine to be read."""

import csv
import shutil
import sqlite3
import sys
from decimal import Decimal

import numpy as np
import pytest

from scripts import cli, export
from shm import archived
from shm.codes import INTERVALS_MS, Command
from shm.constants import FUNDING_PLACES, PERP_DECIMALS, PLACES, USD_PLACES
from tests.engine.replica.stream import Pieces, rows, stream
from tests.engine.replica.test_runner import ended, follow, runner

SEED = 0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data directory of an exchange with an archive."""
    data = tmp_path_factory.mktemp("data")
    running = runner(data, Pieces(stream(SEED)))
    follow(running)
    ended(running)
    return data


@pytest.fixture(scope="module")
def tables(data, tmp_path_factory):
    """What was exported: the rows of each table, as text."""
    out = tmp_path_factory.mktemp("out")
    assert cli.run(["export", str(data), "--csv", str(out)]) == 0
    return {path.stem: [*csv.DictReader(path.open())] for path in out.iterdir()}


@pytest.fixture(scope="module")
def archive(data):
    """The same, as the archive has it: dictionaries by column."""
    found = rows(data / archived.FILE)
    return {
        table.name: [dict(zip(archived.columns(table), row, strict=True)) for row in found[table.name]]
        for table in archived.TABLES
    }


def test_every_row_of_every_table_is_written(tables, archive):
    assert {name: len(of) for name, of in tables.items()} == {name: len(of) for name, of in archive.items()}
    assert all(archive.values()), "no table is empty, or it was not tried"


def market_of(archive, row):
    (market,) = [each for each in archive["markets"] if each["market"] == row["market"]]
    return market["name"].rstrip(b"\0").decode(), market["size_decimals"]


def test_amounts_are_exact_and_numbers_are_words(tables, archive):
    for told, row in zip(tables["fills"], archive["fills"], strict=True):
        coin, decimals = market_of(archive, row)
        assert told["coin"] == coin and told["user"] == "0x" + row["address"].hex()
        assert Decimal(told["size"]) * 10**decimals == row["quantity"]
        assert Decimal(told["price"]) * 10 ** (PERP_DECIMALS - decimals) == row["price"]
        assert Decimal(told["closed_pnl"]) * 10**PLACES == row["closed_pnl"]
        assert told["side"] in ("buy", "sell") and told["role"] in ("maker", "taker")
        assert told["direction"].split()[0] in ("Open", "Close", "Long", "Short")
        assert (told["cloid"] == "") == (not any(row["cloid"]))
        assert told["twap"] == ("" if row["twap"] < 0 else str(row["twap"]))
    for told, row in zip(tables["ledger"], archive["ledger"], strict=True):
        assert Decimal(told["amount"]) * 10**USD_PLACES == row["amount"]
    for told, row in zip(tables["twaps"], archive["twaps"], strict=True):
        coin, decimals = market_of(archive, row)
        assert (told["coin"], told["user"]) == (coin, "0x" + row["address"].hex())
        assert Decimal(told["size"]) * 10**decimals == row["quantity"]
        assert (told["twap"], told["minutes"]) == (str(row["order"]), "5")
    assert {told["state"] for told in tables["twaps"]} == {"activated", "terminated"}
    for told, row in zip(tables["candles"], archive["candles"], strict=True):
        market, interval = divmod(row["series"], len(INTERVALS_MS))
        assert told["interval"] == [*INTERVALS_MS][interval] and told["trades"] == str(row["count"])
        assert told["coin"] == market_of(archive, {"market": market})[0]
    assert {told["status"] for told in tables["closed"]} >= {"filled", "canceled"}


def test_the_tables_of_an_archive_are_all_exported():
    assert [*export.TABLES] == [*archived.TABLES]
    for table, words in export.TABLES.items():
        sources = {word.split()[1] for word in words.split(", ")}
        assert sources <= set(archived.columns(table))


def test_parquet_holds_the_same(data, tables, tmp_path):
    from pyarrow import parquet  # large, and for this alone

    assert cli.run(["export", str(data), "--parquet", str(tmp_path)]) == 0
    for name, told in tables.items():
        found = parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
        assert len(found) == len(told)
        for row, text in zip(found, told, strict=True):
            for column, value in row.items():
                same = (
                    Decimal(text[column]) == value
                    if isinstance(value, Decimal)
                    else text[column] == str(value or "")
                )
                assert same or text[column] == str(value), (name, column)


def test_parquet_has_room_for_the_finest_of_rates(tmp_path):
    from pyarrow import parquet

    finest = Decimal(1).scaleb(-FUNDING_PLACES)
    sink = export.Parquet(tmp_path, "rates", [export.Column("rate", "rate", "rate")])
    sink.write([[finest], [-finest]])
    sink.close()
    assert parquet.read_table(tmp_path / "rates.parquet").to_pylist() == [{"rate": finest}, {"rate": -finest}]


def test_who_has_no_pyarrow_is_told_what_to_do(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert cli.run(["export", str(data), "--parquet", str(tmp_path)]) == cli.EXIT_REFUSED
    said = capsys.readouterr().err
    assert "requirements-parquet.lock" in said and "--csv DIR" in said


def test_what_is_no_archive_is_refused(data, tmp_path, capsys):
    assert cli.run(["export", str(tmp_path), "--csv", str(tmp_path)]) == cli.EXIT_REFUSED
    assert "there is no archive" in capsys.readouterr().err
    (tmp_path / archived.FILE).write_bytes(b"x" * 5000)
    assert cli.run(["export", str(tmp_path), "--csv", str(tmp_path)]) == cli.EXIT_REFUSED
    assert "not a database" in capsys.readouterr().err


def test_an_archive_that_knew_no_markets_learns_them(data, tmp_path):
    """It was written before there was a table of them."""
    shutil.copytree(data, tmp_path / "data")
    connection = sqlite3.connect(tmp_path / "data" / archived.FILE)
    connection.execute(f"DROP TABLE {archived.MARKETS.name}")
    connection.close()
    commands = stream(SEED)
    more = commands[-50:].copy()
    more["sequence"] += len(more)
    more["kind"][:-1], more["amount"][-1] = Command.NOOP, 0
    running = runner(tmp_path / "data", Pieces(np.concatenate([commands, more])))
    follow(running)
    ended(running)
    assert rows(tmp_path / "data" / archived.FILE)["markets"] == rows(data / archived.FILE)["markets"]
