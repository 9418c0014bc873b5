"""What the outcomes alone must obey, told one after another: a subscriber who trusts nobody.

It knows of no command and of no engine; it keeps what it was told of open orders, positions and money, and
raises AssertionError at the first outcome that does not follow from those before.
"""

from engine.exchange.records import Kind
from shm.codes import Flag, Ledger, Side, Status, Tif, Twap
from tests.exchange.invariants import mark_of
from tests.exchange.terms import FIELDS, HEAD

FEES, INSURANCE = 0, 1  # accounts
BACKSTOP, DELEVERAGED = TAKEN = 2, 3  # how a position changes hands outside the book


class Witness:
    """Tell it all outcomes by `hear`, in order."""

    def __init__(self):
        self.open = {}  # oid -> (market, side, price, remaining, account, flags, tif)
        self.book = 0  # the sum of what `mark_of` says of them, modulo 2**64
        self.waiting = {}  # oid -> the same, of those that wait for a mark
        self.fired = set()  # oids that have been triggered in this block, and have not come to rest or ended
        self.twaps = {}  # id -> (account, market, side, wanted, executed, notional) of those that run
        self.over = set()  # ids of those that do not run any more
        self.slices = {}  # oid -> id, of what is placed just now
        self.ended = set()  # oids that have had their last word
        self.taking = {}  # oid -> (market, filled) of one that has traded, and not yet rested
        self.sizes = {}  # (account, market) -> signed
        self.rates = {}  # market -> (maker, taker)
        self.cash = {}  # account -> what the outcomes come to
        self.sent = 0  # by transfers that have one of their two entries
        self.trades = set()
        self.set_aside = {}  # (account, market) -> isolated money
        self.funds = {}  # account -> cash, as this block tells it
        self.maker = None  # the first half of a trade
        self.taken = {}  # account -> methods by which positions were taken from it, not yet told of
        self.sequence = self.time_ns = self.height = 0

    def hear(self, rows: list) -> None:
        for row in rows:
            kind, sequence, time_ns = row[:HEAD]
            assert sequence >= self.sequence and time_ns >= self.time_ns, "time does not go back"
            self.sequence, self.time_ns = sequence, time_ns
            told = dict(zip(FIELDS[kind].split(), row[HEAD:], strict=True))
            assert self.maker is None or kind == Kind.FILLED, "a trade has two sides"
            getattr(self, f"_on_{Kind(kind).name.lower()}")(told)

    def _on_opened(self, told):
        oid, market, side = told["order"], told["market"], told["side"]
        assert oid not in self.open and oid not in self.ended, "an order opens once"
        assert oid not in self.waiting, "what waits does not trade"
        self.fired.discard(oid)
        _, filled = self.taking.pop(oid, (market, 0))
        assert filled + told["quantity"] == told["original"] and told["quantity"] > 0, "filled and left"
        assert told["tif"] in (Tif.GTC, Tif.ALO), "only Gtc and Alo rest"
        assert filled == 0 or told["tif"] != Tif.ALO, "Alo does not take"
        for other in self._side(market, 1 - side):
            ahead = told["price"] - other[2] if side == Side.BUY else other[2] - told["price"]
            assert ahead < 0, "a book is not crossed"
        facts = (market, side, told["price"], told["quantity"], told["account"], told["flags"], told["tif"])
        self.open[oid] = facts
        self._mark(oid)

    def _on_waiting(self, told):
        oid, flags = told["order"], told["flags"]
        assert oid not in self.open and oid not in self.waiting and oid not in self.ended, "it is new"
        assert flags & Flag.IS_TRIGGER and told["start"] > 0 and told["done"], "it waits for something"
        assert told["quantity"] == told["original"] > 0 or flags & Flag.POSITION_TPSL
        assert not told["code"] or (told["amount"] > 0 and flags & Flag.REDUCE_ONLY), "children reduce"
        facts = (
            told["market"],
            told["side"],
            told["price"],
            told["quantity"],
            told["account"],
            flags,
            told["tif"],
        )
        self.waiting[oid] = facts
        self._mark(oid)

    def _on_triggered(self, told):
        oid = told["order"]
        self._mark(oid, -1)
        market, side, price, quantity, account, flags, _ = self.waiting.pop(oid)
        assert (told["market"], told["side"], told["price"], told["account"]) == (
            market,
            side,
            price,
            account,
        )
        assert told["quantity"] == told["original"] >= quantity and told["flags"] == flags & ~Flag.IS_TRIGGER
        self.fired.add(oid)

    def _on_twap(self, told):
        number, key = told["order"], (told["account"], told["market"], told["side"], told["quantity"])
        done = (told["original"], told["amount"])
        if number not in self.twaps:
            assert done == (0, 0) and told["done"] == Twap.ACTIVATED and told["quantity"] > 0, "it begins"
            assert number == len(self.twaps) + len(self.over) + 1, "ids rise by one"
        else:
            assert self.twaps[number] == (*key, *done), "what its slices came to"
        self.twaps[number] = (*key, *done)
        assert told["original"] <= told["quantity"], "no more than was wanted"
        if told["done"] != Twap.ACTIVATED:
            del self.twaps[number]
            self.over.add(number)

    def _on_slice(self, told):
        oid, key = told["order"], (told["account"], told["market"], told["side"])
        assert oid not in self.open and oid not in self.waiting and oid not in self.ended, "it is new"
        assert self.twaps[told["trade"]][:3] == key and told["quantity"] > 0, "of one that runs"
        self.fired.add(oid)
        self.slices[oid] = told["trade"]

    def _mark(self, oid, sign=1):
        """An open order comes into the book as it is told to stand, or (-1) goes out of it."""
        open_or_waiting = self.open if oid in self.open else self.waiting
        market, side, price, remaining, account, _, _ = open_or_waiting[oid]
        self.book = (self.book + sign * mark_of(oid, account, market, side, price, remaining)) % 2**64

    def _side(self, market, side):
        return [order for order in self.open.values() if order[:2] == (market, side)]

    def _on_filled(self, told):
        maker = self.maker
        if told["code"] in TAKEN:
            self._on_taken(told)
            return
        if not told["flags"] & Flag.CROSSED:
            assert maker is None, "a trade has one maker"
            self._fill_maker(told)
            self.maker = told
            return
        assert maker is not None, "a trade has a maker"
        self.maker = None
        oid, quantity = told["order"], told["quantity"]
        assert oid not in self.open and oid not in self.waiting and oid not in self.ended
        same = ("price", "quantity", "trade", "market")
        assert [told[name] for name in same] == [maker[name] for name in same], "both sides tell of one trade"
        assert told["side"] == 1 - maker["side"] and told["account"] != maker["account"], "two who differ"
        assert (told["other"], maker["other"]) == (maker["account"], told["account"])
        assert told["trade"] not in self.trades, "a trade is told once"
        self.trades.add(told["trade"])
        _, filled = self.taking.get(oid, (told["market"], 0))
        self.taking[oid] = (told["market"], filled + quantity)
        if oid in self.slices:
            *key, executed, notional = self.twaps[self.slices[oid]]
            self.twaps[self.slices[oid]] = (*key, executed + quantity, notional + quantity * told["price"])
        self._check_fees(maker, told)
        for side in (maker, told):
            self._move(side)
        self.cash[0] = self.cash.get(0, 0) + maker["fee"] + told["fee"]

    def _on_taken(self, told):
        """One side of a position's way to another account, outside the book; who loses it is told last."""
        assert told["fee"] == 0 and told["flags"] & Flag.LIQUIDATION, "no fee is taken for it"
        account, market, size = told["account"], told["market"], told["start"]
        if told["flags"] & Flag.CROSSED:
            other, self.maker = self.maker, None
            same = ("price", "quantity", "trade", "order", "market", "code")
            assert [told[name] for name in same] == [other[name] for name in same]
            assert told["side"] == 1 - other["side"] and told["account"] == other["other"] != other["account"]
            self.taken.setdefault(account, set()).add(told["code"])
        else:
            self.maker = told
            assert told["order"] not in self.open and told["order"] not in self.ended
            self.ended.add(told["order"])
        change = told["quantity"] if told["side"] == Side.BUY else -told["quantity"]
        if told["flags"] & Flag.CROSSED or told["code"] == DELEVERAGED:
            assert size * change < 0 and abs(change) <= abs(size), "it closes what is there, and no more"
        assert size == self.sizes.get((account, market), 0), "nobody without a position has a part in it"
        self._move(told)

    def _fill_maker(self, told):
        oid, quantity = told["order"], told["quantity"]
        market, side, price, remaining, account, flags, tif = self.open[oid]
        assert (told["market"], told["side"], told["price"]) == (market, side, price), "at the maker's price"
        assert 0 < quantity <= remaining and told["original"] == remaining - quantity, "no more than is left"
        assert told["done"] == (quantity == remaining)
        sign = 1 if side == Side.SELL else -1
        there = [(sign * order[2], each) for each, order in self.open.items() if order[:2] == (market, side)]
        first = min(there, key=lambda each: each[0])  # of those that came to rest first
        assert first == (sign * price, oid), "price, then time"
        self._mark(oid, -1)
        if told["done"]:
            del self.open[oid]
            self.ended.add(oid)
        else:
            self.open[oid] = (market, side, price, remaining - quantity, account, flags, tif)
            self._mark(oid)

    def _check_fees(self, maker, taker):
        notional = taker["price"] * taker["quantity"]
        exact = [notional * rate for rate in self.rates[taker["market"]]]
        assert 0 <= taker["fee"] * 10**6 - exact[1] < 10**6, "the taker's fee, rounded up"
        due = maker["fee"] * 10**6 - exact[0]
        assert 0 <= due < 10**6 or (maker["fee"] == -taker["fee"] and due > 0), "the maker's fee, rounded up"
        assert maker["fee"] + taker["fee"] >= 0, "a rebate is paid by a fee"

    def _move(self, told):
        key = (told["account"], told["market"])
        size = self.sizes.get(key, 0)
        assert told["start"] == size, "the position it started from"
        change = told["quantity"] if told["side"] == Side.BUY else -told["quantity"]
        self.sizes[key] = size + change
        if told["flags"] & Flag.REDUCE_ONLY:
            assert size * change < 0 and abs(change) <= abs(size), "reduce-only reduces"
        if size * change >= 0:
            assert told["amount"] == 0, "nothing is won by opening"
        account = told["account"]
        self.cash[account] = self.cash.get(account, 0) + told["amount"] - told["fee"]

    def _on_ended(self, told):
        oid = told["order"]
        assert oid not in self.ended, "an order ends once"
        self.ended.add(oid)
        if told["flags"] & Flag.CROSSED:
            _, filled = self.taking.pop(oid, (told["market"], 0))
            assert filled > 0 or oid in self.fired, "it was filled, at least in part"
            self.fired.discard(oid)
            assert filled + told["quantity"] == told["original"]
            assert (told["quantity"] == 0) == (told["status"] == Status.FILLED)
        else:
            self._mark(oid, -1)
            open_or_waiting = self.open if oid in self.open else self.waiting
            market, side, price, remaining, account, _, _ = open_or_waiting.pop(oid)
            assert (told["market"], told["side"], told["price"]) == (market, side, price)
            assert (told["quantity"], told["account"]) == (remaining, account), "it ends with what was left"

    def _on_refused(self, told):
        oid = told["order"]
        assert oid not in self.open and oid not in self.taking and oid not in self.ended, "it never was"
        self.ended.add(oid)

    def _on_money(self, told):
        self.cash[told["account"]] = self.cash.get(told["account"], 0) + told["amount"]
        if told["code"] not in (Ledger.DEPOSIT, Ledger.WITHDRAW):
            self.sent += told["amount"]
            assert told["amount"] == self.sent or self.sent == 0, "what one gives the other gets"
        else:
            assert (told["amount"] > 0) == (told["code"] == Ledger.DEPOSIT)

    def _on_funding(self, told):
        account, size = told["account"], told["quantity"]
        assert size == self.sizes[account, told["market"]] != 0, "who holds something pays for it"
        exact = size * told["price"] * told["trade"]
        assert 0 <= -told["amount"] * 10**10 - exact < 10**10, "what is due, rounded up"
        self.cash[account] = self.cash[account] + told["amount"]
        self.cash[INSURANCE] = self.cash[INSURANCE] - told["amount"]

    def _on_rate(self, told):
        assert told["order"] > 0 and abs(told["trade"]) <= 4 * 10**8, "a rate has samples, and a cap"

    def _on_liquidated(self, told):
        account = told["account"]
        assert told["price"] < told["amount"], "who has his maintenance is left alone"
        assert account != FEES, "the fee account holds nothing"
        methods = self.taken.pop(account, set())
        assert methods <= {told["code"]}, "and it was done as it is said"
        assert not self.taken, "nobody loses a position of whom nothing is told"

    def _on_market(self, told):
        self.rates[told["market"]] = (told["original"], told["placed_ms"])
        sizes = [size for (_, market), size in self.sizes.items() if market == told["market"] and size > 0]
        assert told["quantity"] == sum(sizes), "open interest is the sum of longs"

    def _on_prices(self, told):
        assert told["market"] in self.rates and told["price"] > 0, "a market has a mark"
        assert (told["quantity"] == 0) == (told["placed_ms"] == 0), "an oracle has a price and a time"

    def _on_tier(self, told):
        assert told["market"] in self.rates and told["order"] > 0 and told["price"] > 0

    def _on_account(self, told):
        assert told["account"] not in self.cash or told["account"] == 0
        self.cash.setdefault(told["account"], 0)

    def _on_agent(self, told):
        assert told["account"] in self.cash

    def _on_funds(self, told):
        self.funds[told["account"]] = told["price"]

    def _on_position(self, told):
        key = (told["account"], told["market"])
        assert told["price"] == self.sizes.get(key, 0), "the position it traded to"
        self.set_aside[key] = told["placed_ms"]

    def _on_block(self, told):
        self.height += 1
        assert not self.taken, "nobody loses a position of whom nothing is told"
        assert told["order"] == self.height and told["price"] == self.sequence
        assert not self.taking and not self.fired, "what was under way has come to something"
        for account, cash in self.funds.items():
            aside = sum(money for (owner, _), money in self.set_aside.items() if owner == account)
            assert cash == self.cash[account] - aside, (
                "money moves by trades and by entries of the ledger alone"
            )
        self.funds.clear()
