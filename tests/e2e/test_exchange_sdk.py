"""The published Python SDK, unchanged, trades on an exchange of our own: every action that we serve.

What an answer says is then looked for in the info endpoint and on the WebSocket, by whom it concerns.
"""

import time
from contextlib import ExitStack

import eth_account
import pytest
from hyperliquid.exchange import Exchange as Sdk
from hyperliquid.info import Info
from hyperliquid.utils.types import Cloid

from tests.e2e.client import Client
from tests.e2e.instance import Exchange, until

pytestmark = pytest.mark.timeout(280)

FUNDS = 100_000
GTC, ALO, IOC = ({"limit": {"tif": tif}} for tif in ("Gtc", "Alo", "Ioc"))
OK = {"status": "ok", "response": {"type": "default"}}


class Trader:
    """Somebody with money, the SDK, and an ear on the streams of the account that acts."""

    def __init__(self, market, stack, wallet=None, deposit=FUNDS, **acting):
        self.wallet = wallet or eth_account.Account.create()
        self.address = acting.get("vault_address") or acting.get("account_address") or self.wallet.address
        self.address = self.address.lower()
        if deposit:
            market.deposit(self.address, str(deposit))
        self.sdk = Sdk(self.wallet, market.url, **acting)
        self.info: Info = self.sdk.info
        streams = [{"type": kind, "user": self.address} for kind in ("orderUpdates", "userFills")]
        self.ear = stack.enter_context(Client(market.port, *streams))
        until(lambda: len(self.ear.of("subscriptionResponse")) == 2, "subscriptions")

    # --- what is known of it --------------------------------------------------------------------------------

    def state(self):
        return self.info.user_state(self.address)

    def cash(self):
        return float(self.state()["marginSummary"]["totalRawUsd"])

    def position(self, coin):
        held = [entry["position"] for entry in self.state()["assetPositions"]]
        return next((position for position in held if position["coin"] == coin), None)

    def open(self):
        return {order["oid"]: order for order in self.info.open_orders(self.address)}

    def listed(self):
        """Its open orders as a screen shows them, with what they wait for."""
        return {order["oid"]: order for order in self.info.frontend_open_orders(self.address)}

    def told(self, oid):
        """The statuses of an order that the stream has told, in order."""
        updates = [update for batch in self.ear.of("orderUpdates") for update in batch]
        return [update["status"] for update in updates if update["order"]["oid"] == oid]

    def fills_told(self):
        batches = [data for data in self.ear.of("userFills") if not data.get("isSnapshot")]
        return [fill for data in batches for fill in data["fills"]]

    def hears(self, oid, *statuses):
        until(lambda: self.told(oid) == list(statuses), f"{statuses} of order {oid}")

    def status(self, named):
        found = (
            self.info.query_order_by_cloid(self.address, named)
            if isinstance(named, Cloid)
            else self.info.query_order_by_oid(self.address, named)
        )
        return found["order"]["status"] if found["status"] == "order" else found["status"]

    # --- what it does ---------------------------------------------------------------------------------------

    def rests(self, coin, is_buy, size, price, **more):
        """Place an order that has to rest; give its number."""
        (status,) = statuses(self.sdk.order(coin, is_buy, size, price, GTC, **more))
        return status["resting"]["oid"]


def statuses(answer):
    assert answer["status"] == "ok", answer
    return answer["response"]["data"]["statuses"]


def refusal(answer):
    assert answer["status"] == "err", answer
    return answer["response"]


def errors_of(answer):
    return [status["error"] for status in statuses(answer)]


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    with Exchange(tmp_path_factory.mktemp("exchange")) as market:
        yield market


@pytest.fixture
def stack(market):
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def alice(market, stack):
    alice = Trader(market, stack)
    yield alice
    leave(alice)


@pytest.fixture
def bob(market, stack):
    bob = Trader(market, stack)
    yield bob
    leave(bob)


def leave(trader):
    """Take every order off the books, so that the next test begins with empty ones."""
    orders = trader.info.open_orders(trader.address)
    if orders:
        trader.sdk.bulk_cancel([{"coin": order["coin"], "oid": order["oid"]} for order in orders])


@pytest.fixture
def met(alice, bob):
    """Alice has bought one ETH of Bob at 3500."""
    alice.rests("ETH", True, 1, 3500)
    (status,) = statuses(bob.sdk.order("ETH", False, 1, 3500, IOC))
    assert status["filled"]["totalSz"] == "1.0" and float(status["filled"]["avgPx"]) == 3500
    return alice, bob


# --- orders -------------------------------------------------------------------------------------------------


def test_an_order_rests_is_seen_by_everybody_and_is_cancelled(alice):
    oid = alice.rests("BTC", True, 0.01, 90_000)
    assert alice.open()[oid] | {"timestamp": 0} == {
        "coin": "BTC",
        "side": "B",
        "limitPx": "90000.0",
        "sz": "0.01",
        "oid": oid,
        "timestamp": 0,
        "origSz": "0.01",
    }
    assert alice.info.l2_snapshot("BTC")["levels"][0] == [{"px": "90000.0", "sz": "0.01", "n": 1}]
    assert alice.status(oid) == "open"
    alice.hears(oid, "open")
    assert statuses(alice.sdk.cancel("BTC", oid)) == ["success"]
    assert alice.open() == {}
    assert alice.info.l2_snapshot("BTC")["levels"] == [[], []]
    assert alice.status(oid) == "canceled"
    alice.hears(oid, "open", "canceled")
    assert "never placed, already canceled, or filled" in errors_of(alice.sdk.cancel("BTC", oid))[0]


def test_orders_are_named_by_the_client_too(alice):
    cloid = Cloid.from_int(17)
    oid = alice.rests("BTC", True, 0.01, 90_000, cloid=cloid)
    assert alice.open()[oid]["cloid"] == cloid.to_raw()
    assert alice.status(cloid) == "open"
    again = alice.sdk.order("BTC", True, 0.01, 90_000, GTC, cloid=cloid)
    assert "cloid" in errors_of(again)[0]
    assert statuses(alice.sdk.cancel_by_cloid("BTC", cloid)) == ["success"]
    assert alice.status(cloid) == "canceled" and alice.open() == {}


def test_of_a_batch_each_order_has_its_own_answer(alice):
    def order(size, price, kind=GTC, reduce_only=False):
        wanted = {"coin": "BTC", "is_buy": True, "sz": size, "limit_px": price}
        return wanted | {"order_type": kind, "reduce_only": reduce_only}

    good, small, far, tick, reduce, ioc, poor = statuses(
        alice.sdk.bulk_orders(
            [
                order(0.01, 90_000, ALO),
                order(0.0001, 90_000),
                order(1, 10),
                order(0.01, 90_000.5),
                order(0.01, 90_000, reduce_only=True),
                order(0.01, 90_000, IOC),
                order(100, 90_000),
            ]
        )
    )
    alice.hears(good["resting"]["oid"], "open")
    for status, text in [
        (small, "Order must have minimum value of $10."),
        (far, "80% away from the reference price"),
        (tick, "Price must be divisible by tick size."),
        (reduce, "Reduce only order would increase position."),
        (ioc, "Order could not immediately match against any resting orders."),
        (poor, "Insufficient margin to place order."),
    ]:
        assert text in status["error"]
    assert list(alice.open()) == [good["resting"]["oid"]]
    cancels = [{"coin": "BTC", "oid": oid} for oid in (good["resting"]["oid"], 1 << 40)]
    success, gone = statuses(alice.sdk.bulk_cancel(cancels))
    assert success == "success" and "never placed" in gone["error"]


def test_a_post_only_order_that_would_match_is_told_the_best_quotes(alice, bob):
    alice.rests("SOL", False, 1, 180)
    (error,) = errors_of(bob.sdk.order("SOL", True, 1, 181, ALO))
    assert error.startswith("Post only order would have immediately matched, bbo was 0.0@180.0.")


def test_orders_are_modified_by_number_and_by_name(alice):
    cloid = Cloid.from_int(18)
    first = alice.rests("BTC", True, 0.01, 90_000, cloid=cloid)
    (status,) = statuses(alice.sdk.modify_order(first, "BTC", True, 0.02, 91_000, GTC, cloid=cloid))
    second = status["resting"]["oid"]
    assert second != first and [order["limitPx"] for order in alice.open().values()] == ["91000.0"]
    assert (alice.status(first), alice.status(second)) == ("canceled", "open")
    (status,) = statuses(alice.sdk.modify_order(cloid, "BTC", True, 0.03, 92_000, ALO, cloid=cloid))
    third = status["resting"]["oid"]
    alice.hears(first, "open", "canceled")
    alice.hears(second, "open", "canceled")
    alice.hears(third, "open")
    assert {oid: order["sz"] for oid, order in alice.open().items()} == {third: "0.03"}


def test_a_batch_of_modifies_places_none_for_an_order_that_is_gone(alice):
    one, two = (alice.rests("BTC", True, 0.01, price) for price in (90_000, 91_000))
    alice.sdk.cancel("BTC", one)
    new = {"coin": "BTC", "is_buy": True, "sz": 0.01, "limit_px": 89_000, "order_type": GTC}
    modifies = [{"oid": oid, "order": new | {"reduce_only": False}} for oid in (one, two)]
    gone, moved = statuses(alice.sdk.bulk_modify_orders_new(modifies))
    assert "Cannot modify canceled or filled order" in gone["error"]
    assert list(alice.open()) == [moved["resting"]["oid"]]


def test_a_scheduled_cancel_takes_all_orders_off(alice):
    soon = alice.sdk.schedule_cancel(int(time.time() * 1000) + 1_000)
    assert "at least 5 seconds" in refusal(soon)
    assert alice.sdk.schedule_cancel(int(time.time() * 1000) + 6_000) == OK
    assert alice.sdk.schedule_cancel(None) == OK
    oids = [alice.rests("BTC", True, 0.01, 90_000), alice.rests("ETH", True, 1, 3_000)]
    assert alice.sdk.schedule_cancel(int(time.time() * 1000) + 5_500) == OK
    until(lambda: alice.open() == {}, "the scheduled cancel")
    for oid in oids:
        alice.hears(oid, "open", "scheduledCancel")


# --- trades -------------------------------------------------------------------------------------------------


def test_both_sides_of_a_trade_see_the_same(met):
    alice, bob = met
    until(lambda: alice.fills_told() and bob.fills_told(), "fills on the streams")
    (maker,), (taker,) = alice.fills_told(), bob.fills_told()
    assert alice.info.user_fills(alice.address) == [maker] and bob.info.user_fills(bob.address) == [taker]
    same = ("coin", "px", "sz", "time", "tid")
    assert [maker[key] for key in same] == [taker[key] for key in same]
    assert (maker["side"], maker["dir"], maker["crossed"]) == ("B", "Open Long", False)
    assert (taker["side"], taker["dir"], taker["crossed"]) == ("A", "Open Short", True)
    assert (float(maker["fee"]), float(taker["fee"])) == (0.525, 1.575)  # 1.5 and 4.5 basis points
    assert alice.position("ETH")["szi"] == "1.0" and bob.position("ETH")["szi"] == "-1.0"
    assert float(alice.position("ETH")["entryPx"]) == 3500
    trade = alice.info.post("/info", {"type": "recentTrades", "coin": "ETH"})[0]
    assert trade["tid"] == maker["tid"] and trade["users"] == [alice.address, bob.address]


def test_market_orders_open_and_close(alice, bob):
    alice.rests("BTC", False, 0.02, 100_000)
    alice.rests("BTC", True, 0.02, 99_000)
    (opened,) = statuses(bob.sdk.market_open("BTC", True, 0.01))
    assert float(opened["filled"]["avgPx"]) == 100_000 and bob.position("BTC")["szi"] == "0.01"
    (closed,) = statuses(bob.sdk.market_close("BTC"))
    assert float(closed["filled"]["avgPx"]) == 99_000 and bob.position("BTC") is None
    newest, oldest = bob.info.user_fills(bob.address)
    assert (oldest["dir"], newest["dir"], newest["closedPnl"]) == ("Open Long", "Close Long", "-10.0")
    fees = float(newest["fee"]) + float(oldest["fee"])
    assert bob.cash() == pytest.approx(FUNDS - 10 - fees)
    assert bob.sdk.market_close("BTC") is None


# --- stops and take profits ---------------------------------------------------------------------------------

LTC = "LTC"  # its mark is its oracle's price: these tests leave one side of its book empty
FIRED = {"triggerCondition": "Triggered", "isTrigger": False, "triggerPx": "0.0", "tif": "Gtc"}


def trigger(tpsl, price, is_market=True):
    return {"trigger": {"triggerPx": price, "isMarket": is_market, "tpsl": tpsl}}


def asked(is_buy, size, price, kind, reduce_only=True):
    """An order of LTC, as the SDK's bulk_orders takes it."""
    wanted = {"coin": LTC, "is_buy": is_buy, "sz": size, "limit_px": price}
    return wanted | {"order_type": kind, "reduce_only": reduce_only}


def some(order, keys):
    return {key: order[key] for key in keys}


@pytest.fixture
def long(market, alice, bob):
    """Alice has bought ten LTC of Bob at 100, which is the mark."""
    market.oracle(LTC, "100")
    bob.rests(LTC, False, 10, 100)
    assert "filled" in statuses(alice.sdk.order(LTC, True, 10, 100, IOC))[0]
    return alice, bob


def test_a_stop_and_a_take_profit_wait_beside_the_book_until_they_are_cancelled(long):
    """The SDK's example basic_tpsl."""
    alice, _ = long
    (status,) = statuses(alice.sdk.order(LTC, False, 10, 80, trigger("sl", 90), reduce_only=True))
    stop = status["resting"]["oid"]
    cloid = Cloid.from_int(19)
    take = alice.sdk.order(LTC, False, 10, 110, trigger("tp", 110.5, False), reduce_only=True, cloid=cloid)
    (status,) = statuses(take)
    take, listed = status["resting"]["oid"], alice.listed()
    assert status["resting"]["cloid"] == cloid.to_raw() and [*listed] == [*alice.open()] == [stop, take]
    waits = {"isTrigger": True, "tif": None, "children": [], "isPositionTpsl": False, "reduceOnly": True}
    for oid, more in (
        (stop, {"orderType": "Stop Market", "triggerCondition": "Price below 90", "triggerPx": "90.0"}),
        (
            take,
            {"orderType": "Take Profit Limit", "triggerCondition": "Price above 110.5", "triggerPx": "110.5"},
        ),
    ):
        assert some(listed[oid], waits | more) == waits | more
        alice.hears(oid, "open")
        assert alice.status(oid) == "open"
    assert alice.status(cloid) == "open"
    assert alice.info.l2_snapshot(LTC)["levels"] == [[], []]
    assert statuses(alice.sdk.cancel(LTC, stop)) == ["success"]
    assert statuses(alice.sdk.cancel_by_cloid(LTC, cloid)) == ["success"]
    assert alice.open() == {}
    for oid in stop, take:
        alice.hears(oid, "open", "canceled")
        assert alice.status(oid) == "canceled"


def test_a_trigger_that_the_mark_has_passed_is_refused(long):
    alice, _ = long
    for kind in trigger("sl", 105), trigger("tp", 95):
        (error,) = errors_of(alice.sdk.order(LTC, False, 10, 80, kind, reduce_only=True))
        assert error.startswith("Invalid TP/SL price.")
    assert alice.open() == {}


def test_a_stop_limit_that_fires_rests_like_any_order(market, long):
    alice, bob = long
    (status,) = statuses(alice.sdk.order(LTC, False, 10, 94, trigger("sl", 95, False), reduce_only=True))
    oid = status["resting"]["oid"]
    alice.hears(oid, "open")
    market.oracle(LTC, "95")
    alice.hears(oid, "open", "triggered", "open")
    order, rests = alice.listed()[oid], FIRED | {"orderType": "Stop Limit", "reduceOnly": True}
    assert some(order, rests) == rests
    assert alice.info.l2_snapshot(LTC)["levels"] == [[], [{"px": "94.0", "sz": "10.0", "n": 1}]]
    assert "filled" in statuses(bob.sdk.order(LTC, True, 10, 94, IOC))[0]
    alice.hears(oid, "open", "triggered", "open", "filled")
    assert alice.position(LTC) is None


def test_the_children_of_an_order_close_what_it_opens_and_one_cancels_the_other(market, alice, bob):
    market.oracle(LTC, "100")
    orders = [
        asked(True, 10, 99, GTC, reduce_only=False),
        asked(False, 10, 100, trigger("tp", 110)),
        asked(False, 10, 80, trigger("sl", 90)),
    ]
    resting, *children = statuses(alice.sdk.bulk_orders(orders, grouping="normalTpsl"))
    assert children == ["waitingForFill", "waitingForFill"]
    parent, listed = resting["resting"]["oid"], alice.listed()
    oids = {order["orderType"]: oid for oid, order in listed.items()}
    take, stop = oids["Take Profit Market"], oids["Stop Market"]
    assert [*listed] == [parent, take, stop]
    assert listed[parent]["children"] == [listed[take], listed[stop]]
    bob.sdk.order(LTC, False, 10, 99, IOC)
    alice.hears(parent, "open", "filled")
    assert [*alice.listed()] == [take, stop] and alice.position(LTC)["szi"] == "10.0"
    bob.rests(LTC, True, 10, 108)
    market.oracle(LTC, "110")
    alice.hears(take, "open", "triggered", "filled")
    alice.hears(stop, "open", "siblingFilledCanceled")
    assert alice.open() == {} and alice.position(LTC) is None
    fill = alice.info.user_fills(alice.address)[0]
    assert some(fill, ("oid", "px", "sz", "dir", "crossed")) == {
        "oid": take,
        "px": "108.0",
        "sz": "10.0",
        "dir": "Close Long",
        "crossed": True,
    }
    until(lambda: fill in alice.fills_told(), "the fill on the stream")
    history = alice.info.post("/info", {"type": "historicalOrders", "user": alice.address})
    last = {entry["order"]["oid"]: entry for entry in history}
    assert {oid: entry["status"] for oid, entry in last.items()} == {
        parent: "filled",
        take: "filled",
        stop: "siblingFilledCanceled",
    }
    told = FIRED | {"orderType": "Take Profit Market", "sz": "0.0", "origSz": "10.0"}
    assert some(last[take]["order"], told) == told


def test_children_end_with_a_parent_that_is_cancelled(market, alice):
    market.oracle(LTC, "100")
    orders = [asked(True, 10, 99, GTC, reduce_only=False), asked(False, 10, 80, trigger("sl", 90))]
    resting, child = statuses(alice.sdk.bulk_orders(orders, grouping="normalTpsl"))
    assert child == "waitingForFill"
    parent, stop = alice.listed()
    assert parent == resting["resting"]["oid"]
    assert statuses(alice.sdk.cancel(LTC, parent)) == ["success"]
    alice.hears(parent, "open", "canceled")
    alice.hears(stop, "open", "canceled")
    assert alice.open() == {}


def test_a_stop_of_a_position_closes_all_of_it_however_large(market, long):
    alice, bob = long
    stop = asked(False, 0, 80, trigger("sl", 90))
    assert statuses(alice.sdk.bulk_orders([stop], grouping="positionTpsl")) == ["waitingForTrigger"]
    ((oid, order),) = alice.listed().items()
    waits = {"isPositionTpsl": True, "isTrigger": True, "orderType": "Stop Market", "sz": "0.0"}
    assert some(order, waits) == waits
    bob.rests(LTC, False, 5, 100)
    assert "filled" in statuses(alice.sdk.order(LTC, True, 5, 100, IOC))[0]
    assert alice.position(LTC)["szi"] == "15.0"
    bob.rests(LTC, True, 15, 88)
    market.oracle(LTC, "90")
    alice.hears(oid, "open", "triggered", "filled")
    assert alice.position(LTC) is None
    fill = alice.info.user_fills(alice.address)[0]
    assert some(fill, ("oid", "px", "sz")) == {"oid": oid, "px": "88.0", "sz": "15.0"}


def test_a_stop_of_a_position_ends_with_it(long):
    alice, bob = long
    stop = asked(False, 0, 80, trigger("sl", 90))
    assert statuses(alice.sdk.bulk_orders([stop], grouping="positionTpsl")) == ["waitingForTrigger"]
    (oid,) = alice.listed()
    bob.rests(LTC, True, 10, 99)
    assert "filled" in statuses(alice.sdk.order(LTC, False, 10, 99, IOC))[0]
    alice.hears(oid, "open", "reduceOnlyCanceled")
    assert alice.open() == {}


# --- money and margin ---------------------------------------------------------------------------------------


def test_leverage_and_isolated_margin(met):
    alice, bob = met
    assert alice.sdk.update_leverage(7, "ETH") == OK
    assert alice.position("ETH")["leverage"] == {"type": "cross", "value": 7}
    assert float(alice.position("ETH")["marginUsed"]) == pytest.approx(500)
    assert "Invalid leverage" in refusal(alice.sdk.update_leverage(26, "ETH"))
    assert "Cannot switch leverage type" in refusal(alice.sdk.update_leverage(7, "ETH", is_cross=False))
    assert "isolated" in refusal(alice.sdk.update_isolated_margin(10, "ETH"))
    assert alice.sdk.update_leverage(5, "SOL", is_cross=False) == OK
    bob.rests("SOL", False, 10, 180)
    assert "filled" in statuses(alice.sdk.order("SOL", True, 10, 180, IOC))[0]
    before = float(alice.state()["withdrawable"])
    assert alice.sdk.update_isolated_margin(100, "SOL") == OK
    assert float(alice.state()["withdrawable"]) == pytest.approx(before - 100)
    position = alice.position("SOL")["leverage"]
    assert (position["type"], position["value"]) == ("isolated", 5)


def test_money_is_sent(market, stack, alice):
    bob = eth_account.Account.create().address
    assert alice.sdk.usd_transfer(250.5, bob) == OK
    assert alice.cash() == FUNDS - 250.5
    assert float(alice.info.user_state(bob)["marginSummary"]["accountValue"]) == 250.5
    for user in (alice.address, bob):
        delta = alice.info.user_non_funding_ledger_updates(user, 0)[-1]["delta"]
        assert (delta["type"], abs(float(delta["usdc"]))) == ("internalTransfer", 250.5)
        assert (delta["user"], delta["destination"]) == (alice.address, bob.lower())
    assert "balance" in refusal(alice.sdk.usd_transfer(10 * FUNDS, bob))


# --- those who act for others -------------------------------------------------------------------------------


def test_an_agent_trades_and_does_nothing_else(market, stack, alice):
    answer, key = alice.sdk.approve_agent("bot")
    assert answer == OK
    wallet = eth_account.Account.from_key(key)
    (agent,) = alice.info.extra_agents(alice.address)
    assert (agent["name"], agent["address"].lower()) == ("bot", wallet.address.lower())
    bot = Trader(market, stack, wallet, deposit=0, account_address=alice.address)
    oid = bot.rests("BTC", True, 0.01, 90_000)
    assert list(alice.open()) == [oid]
    alice.hears(oid, "open")
    assert statuses(bot.sdk.cancel("BTC", oid)) == ["success"]
    assert "not an agent" in refusal(bot.sdk.usd_transfer(1, wallet.address))
    answer, _ = alice.sdk.approve_agent("bot")  # another of the same name takes its place
    assert answer == OK
    assert "does not exist" in refusal(bot.sdk.order("BTC", True, 0.01, 90_000, GTC))


def test_an_unnamed_agent_is_approved_too(alice):
    answer, _ = alice.sdk.approve_agent()
    assert answer == OK


def test_a_sub_account_is_made_given_money_and_traded_for(market, stack, alice, bob):
    made = alice.sdk.create_sub_account("second")
    assert made["status"] == "ok" and made["response"]["type"] == "createSubAccount"
    address = made["response"]["data"]
    assert alice.sdk.sub_account_transfer(address, True, 5_000 * 10**6) == OK
    (sub,) = alice.info.query_sub_accounts(alice.address)
    assert (sub["name"], sub["subAccountUser"], sub["master"]) == ("second", address, alice.address)
    assert float(sub["clearinghouseState"]["marginSummary"]["accountValue"]) == 5_000
    trader = Trader(market, stack, alice.wallet, deposit=0, vault_address=address)
    oid = trader.rests("BTC", True, 0.01, 90_000)
    trader.hears(oid, "open")
    assert list(trader.open()) == [oid] and alice.open() == {}
    assert statuses(trader.sdk.cancel("BTC", oid)) == ["success"]
    assert alice.sdk.sub_account_transfer(address, False, 1_000 * 10**6) == OK
    assert (trader.cash(), alice.cash()) == (4_000, FUNDS - 4_000)
    stranger = Trader(market, stack, bob.wallet, deposit=0, vault_address=address)
    assert refusal(stranger.sdk.cancel("BTC", oid)) == f"Vault not registered: {address}"


# --- what is not taken --------------------------------------------------------------------------------------


def test_who_has_no_account_is_named(market, stack):
    nobody = Trader(market, stack, deposit=0)
    answer = refusal(nobody.sdk.order("BTC", True, 0.01, 90_000, GTC))
    assert answer == f"User or API Wallet {nobody.address} does not exist."


def test_an_action_that_comes_too_late_is_refused(alice):
    alice.sdk.set_expires_after(int(time.time() * 1000) - 1_000)
    assert "expire" in refusal(alice.sdk.order("BTC", True, 0.01, 90_000, GTC)).lower()
    alice.sdk.set_expires_after(int(time.time() * 1000) + 60_000)
    oid = alice.rests("BTC", True, 0.01, 90_000)
    assert list(alice.open()) == [oid]


def test_what_is_not_served_says_so(alice):
    assert refusal(alice.sdk.withdraw_from_bridge(1, alice.address)) == "withdraw3 is not supported"
    assert refusal(alice.sdk.usd_class_transfer(1, True)) == "usdClassTransfer is not supported"
