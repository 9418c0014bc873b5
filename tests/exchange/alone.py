"""The engine alone, command by command, for scenes whose numbers were worked by hand from the rules."""

from engine.exchange.records import Kind
from engine.exchange.state import FEE_ADDRESS, INSURANCE_ADDRESS, Capacity, allocate
from shm.codes import Ack, Ask, Refusal, Side, Tif
from shm.codes import Command as Kinds
from tests.exchange.commands import ROOMY, START_NS, address
from tests.exchange.compare import run
from tests.exchange.invariants import check_all
from tests.exchange.terms import ACK_FIELDS, FIELDS, HEAD, Command, encode

USD = 10**6
ANN, BOB, CAT, DAN = address(1), address(2), address(3), address(4)
FEES, FUND = FEE_ADDRESS, INSURANCE_ADDRESS


class Engine:
    """Accounts of 1000 USD, and market 0 at 100: sizes in hundredths, prices in 0.0001 USD, no fees.

    A block ends only when told. Everything that must hold is checked after every command.
    """

    def __init__(self, capacity: Capacity = ROOMY, leverage: int = 50, **rates: int):
        self.state = allocate(capacity)
        self.now_ms, self.sequence = START_NS // 10**6 // 3_600_000 * 3_600_000 + 1_000_000, 0
        self.add_market(leverage=leverage, **rates)
        for who in (ANN, BOB, CAT, DAN):
            self.deposit(who, 1000)

    # --- what is done ---------------------------------------------------------------------------------------

    def do(self, **fields):
        """One command; its outcomes as dictionaries, and its ack."""
        self.sequence += 1
        fields["kind"] = int(fields["kind"])
        command = Command(sequence=self.sequence, time_ns=self.now_ms * 10**6, **fields)
        result = run(self.state, encode([command]))
        check_all(self.state)
        rows = [
            {"kind": Kind(row[0]), **dict(zip(FIELDS[row[0]].split(), row[HEAD:], strict=True))}
            for row in result.outcomes
        ]
        return rows, dict(zip(ACK_FIELDS.split(), result.acks[0], strict=True))

    def add_market(self, name=b"A", leverage=50, maker=0, taker=0, price=100_0000, decimals=2):
        fields = {"text": name + bytes(15), "side": decimals, "price": price, "amount": leverage}
        return self.done(kind=Kinds.ADD_MARKET, quantity=maker, order=taker, **fields)

    def done(self, **fields):
        """One command that is taken; its outcomes."""
        rows, ack = self.do(**fields)
        assert ack["outcome"] != Ack.REFUSED, Refusal(ack["code"])
        return rows

    def refused(self, **fields):
        """One command that is not; why."""
        ack = self.do(**fields)[1]
        assert ack["outcome"] == Ack.REFUSED
        return Refusal(ack["code"])

    def deposit(self, who, dollars):
        return self.done(kind=Kinds.DEPOSIT, other=who, amount=dollars * USD)

    def oracle(self, price, external=0, market=0):
        return self.done(kind=Kinds.ORACLE, market=market, price=price, trigger_price=external)

    def block(self, after_ms=0):
        """Let time pass, and end the block; what was told."""
        self.now_ms += after_ms
        return self.done(kind=Kinds.END_BLOCK)

    def order(self, who, side, quantity, price, tif=Tif.GTC, market=0, reduce=False, **fields):
        """Fields of an order, for `done` and `refused`."""
        flags = Ask.SESSION | (Ask.REDUCE_ONLY if reduce else 0)
        ask = {"side": int(side), "quantity": quantity, "price": price, "tif": int(tif), "market": market}
        return {"kind": Kinds.ORDER, "signer": who, "flags": flags, **ask, **fields}

    def trade(self, buyer, seller, quantity, price, market=0):
        """The two meet at a price."""
        self.done(**self.order(seller, Side.SELL, quantity, price, market=market))
        return self.done(**self.order(buyer, Side.BUY, quantity, price, market=market))

    # --- what there is --------------------------------------------------------------------------------------

    def market(self, market=0):
        return self.state.markets[market]

    def row(self, who):
        addresses = self.state.accounts["address"][: self.state.status[0]["account_count"]]
        return [bytes(one) for one in addresses].index(who)

    def account(self, who):
        return self.state.accounts[self.row(who)]

    def position(self, who, market=0):
        return self.state.positions[self.row(who) * len(self.state.markets) + market]

    def cash(self, who):
        return int(self.account(who)["cash"])

    def held(self, who, market=0):
        position = self.position(who, market)
        return int(position["size"]), int(position["entry"])


def of(rows, *kinds):
    """Those of the outcomes that are of one of the kinds."""
    return [row for row in rows if row["kind"] in kinds]
