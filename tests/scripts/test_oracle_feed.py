"""What a source knows is submitted, once for each moment, in the places of its market; nothing else is."""

import asyncio
from contextlib import aclosing
from decimal import Decimal

import pytest

from scripts import operator, oracle_feed
from scripts.oracle_feed import Price, Unusable
from tests.scripts.fake_exchange import FakeExchange


class Oracles:
    """A desk that keeps the prices it is told, and refuses a coin."""

    def __init__(self, path, refuses=""):
        self.told, self._refuses = [], refuses
        self.desk = operator.Desk(path, self._hear)

    def _hear(self, command, answer):
        if command["coin"] == self._refuses:
            answer({"ok": False, "error": "refused: amount"})
            return
        self.told.append((command["coin"], command["price"], command.get("external")))
        answer({"ok": True, "sequence": len(self.told)})


async def source(*moments):
    for prices in moments:
        yield prices


def fed(path, *moments, places, refuses=""):
    """What a desk was told of these moments, and the desk's client."""

    async def play():
        oracles = Oracles(path, refuses)
        desk = oracle_feed.Desk(path, places)
        try:
            await oracle_feed.feed(source(*moments), desk)
        finally:
            oracles.desk.close()
        return oracles.told, desk

    return asyncio.run(play())


def test_prices_are_cut_to_their_markets_places_and_strangers_left_out(tmp_path):
    moments = {"BTC": Price("60000.27", "60001"), "ETH": Price("3000.123456"), "@107": Price("1.5")}
    told, desk = fed(tmp_path / "o.sock", moments, {"BTC": Price("60000")}, places={"BTC": 1, "ETH": 2})
    assert told == [("BTC", "60000.2", "60001.0"), ("ETH", "3000.12", None), ("BTC", "60000.0", None)]
    assert desk.submitted == 3 and desk.refused == ""


def test_a_refusal_is_said_once_and_the_others_go_on(tmp_path, capsys):
    moment = {"ETH": Price("3000")}
    told, desk = fed(
        tmp_path / "o.sock", moment, moment, {"BTC": Price("1")}, places={"BTC": 1, "ETH": 2}, refuses="ETH"
    )
    assert told == [("BTC", "1.0", None)] and desk.submitted == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in said] == ["ETH: refused: amount", "prices are taken"]


def test_a_desk_that_nobody_keeps_is_said_and_asked_again(tmp_path, capsys):
    moment = {"BTC": Price("1")}
    asyncio.run(oracle_feed.feed(source(moment, moment), oracle_feed.Desk(tmp_path / "none", {"BTC": 1})))
    assert capsys.readouterr().out.count("no exchange runs") == 1


def test_a_recording_is_read_in_its_order(tmp_path):
    path = tmp_path / "prices"
    path.write_text("0 BTC 60000\n\n1.5 ETH 3000.5 3001\n1.5 BTC 59000.5\n")

    async def play():
        moments = oracle_feed.recording(path)
        return [prices async for prices in oracle_feed.of_recording(moments, speed=1_000)]

    wanted = [("BTC", Price("60000")), ("ETH", Price("3000.5", "3001")), ("BTC", Price("59000.5"))]
    assert asyncio.run(play()) == [{coin: price} for coin, price in wanted]


@pytest.mark.parametrize(
    "line",
    ["1 BTC", "1 BTC 1 2 3", "1 BTC 0", "1 BTC -1", "1 BTC NaN", "1 BTC inf", "x BTC 1", "nan BTC 1",
     "inf BTC 1", "-1 BTC 1", "1 BTC 1 x", "1 BTC \u0661"],
)  # fmt: skip
def test_a_line_that_cannot_be_meant_is_named(tmp_path, line):
    path = tmp_path / "prices"
    path.write_text(f"0 BTC 1\n{line}\n")
    with pytest.raises(Unusable, match=r"line 2|ascii"):
        oracle_feed.recording(path)


def test_a_recording_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unusable, match="nothing here"):
        oracle_feed.recording(tmp_path / "nothing here")


def test_the_middles_of_another_exchange_are_a_source_and_tell_the_places(tmp_path):
    async def play():
        async with FakeExchange(tmp_path) as exchange:
            places = await oracle_feed.places_of(exchange.url)
            async with aclosing(oracle_feed.of_url(exchange.url, every=0.01)) as mids:
                first, second = await anext(mids), await anext(mids)
        return places, first, second

    places, first, second = asyncio.run(play())
    assert places == {"BTC": 1, "ETH": 2} and first.keys() == second.keys() == {"BTC", "ETH"}
    assert all(Decimal(price.oracle) > 0 for price in first.values())
