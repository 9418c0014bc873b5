"""An exchange and the world that shows it, side by side, and what must be the same in both."""

import numpy as np

from engine.exchange import project, world
from engine.exchange import state as cores
from engine.exchange.apply import apply_commands
from engine.exchange.records import OUTCOME
from shm.codes import NAMES, TIF_GTC, Condition, Flag, Side, Tif
from shm.layout import NO_ACCOUNT, NO_SLOT
from tests.exchange.terms import encode

KEPT = 64  # candles
ROOM = {  # rings that keep all of a test's history
    "events": 1 << 16, "fills": 1 << 13, "trades": 1 << 12, "closed": 1 << 13, "rejected": 1 << 13,
    "ledger": 1 << 12, "buckets": 1 << 8, "names": 128,
}  # fmt: skip
FUNDS = (
    "cash",
    "volume",
    "fees",
    "realised",
    "deposited",
    "actions",
    "schedule_ms",
    "created_ms",
    "master",
)
CONTRACT = (
    "max_leverage", "maker_rate", "taker_rate", "reference_price", "open_interest", "mark", "oracle",
    "external", "oracle_ms", "oracle_state", "mode", "impact_bid", "impact_ask", "premium", "samples",
    "interest_cap", "price_band", "mark_step", "impact_notional", "tier_count", "tier_from", "tier_leverage",
    "tier_deduction",
)  # fmt: skip
TWAP = ("order", "quantity", "executed", "notional", "began_ms", "minutes", "market", "side", "flags")
POSITION = ("size", "entry", "isolated", "realised", "buys", "sells")


class Running:
    """A core, its world, and all the outcomes that led from the one to the other."""

    def __init__(self, capacity: cores.Capacity, **more: int):
        self.core = cores.allocate(capacity)
        self.world = world.allocate(world.capacity_for(capacity, KEPT, **{**ROOM, **more}))
        self.outcomes = np.zeros(0, OUTCOME)

    def take(self, commands: list) -> None:
        """Apply terms.Commands, and show what they did."""
        rows = encode(commands)
        while len(rows) > 0:
            done = apply_commands(self.core, rows, len(rows))
            given = self.core.outcomes[: int(self.core.heap[0]["outcomes"])].copy()
            project.project(self.world, given, len(given))
            self.outcomes = np.concatenate([self.outcomes, given])
            rows = rows[done:]


def same(core: cores.State, shown: world.World) -> None:
    """Raise AssertionError unless the world shows the core as it is, between two blocks."""
    state = shown.state
    for count in ("market_count", "account_count", "order_count"):
        assert state.status[0][count] == core.status[0][count], count
    assert state.status[0]["height"] == core.heap[0]["height"]
    assert state.status[0]["command_sequence"] == core.heap[0]["sequence"]
    for market in range(int(core.status[0]["market_count"])):
        _same_market(core, shown, market)
    for account in range(int(core.status[0]["account_count"])):
        _same_account(core, shown, account)
    assert state.status[0]["agent_count"] == np.count_nonzero(core.signers["is_agent"])
    assert state.heap[0]["full"] == state.heap[0]["unknown"] == state.heap[0]["wrong"] == 0


def _same_market(core, shown, market):
    mine, row, contract = core.markets[market], shown.state.markets[market], shown.contracts[market]
    assert bytes(row["name"]).rstrip(b"\0") == bytes(mine["name"]).rstrip(b"\0")
    assert row["size_decimals"] == row["quantity_places"] == mine["size_decimals"]
    assert 10 ** int(row["price_places"]) == mine["price_unit"]
    for name in CONTRACT:
        assert np.array_equal(contract[name], mine[name]), name
    for side in Side:
        theirs, ours = (queues(part, market, side) for part in (core, shown.state.rows))
        assert ours == theirs, "the same orders in the same queues"


def queues(rows, market: int, side: int) -> list:
    """A side of the core or of a world: (price, quantity, slots' oids in line) of each level, worst first."""
    extent, out = rows.sides[2 * market + side], []
    for level in rows.levels[extent["offset"] : extent["offset"] + extent["count"]]:
        slots = list(chain(rows.orders, level["head"], "next"))
        out.append((int(level["price"]), int(level["quantity"]), [order_of(rows, slot) for slot in slots]))
    return out


def order_of(rows, slot: int) -> tuple:
    """What both know of an order: of the core's and of the world's form, the same."""
    order = rows.orders[slot]
    names = ("order", "price", "quantity", "original", "market", "account", "side", "flags")
    known = _as_shown(order) if "cloid" in order.dtype.names else _as_kept(order, rows.facts[slot])
    return (*(int(order[name]) for name in names), *known)


def _as_shown(order) -> tuple:
    """Of a world's order: its cloid, its group, and what it waits for."""
    placed_ms, tif = int(order["timestamp_ms"]), int(order["tif"]) - TIF_GTC
    if order["flags"] & Flag.IS_TRIGGER:
        is_limit = NAMES[order["order_type"]].endswith("Limit")
        waits = ("trigger", int(order["condition"]), int(order["trigger_price"]), is_limit, placed_ms)
    elif order["condition"] == Condition.TRIGGERED:
        waits = ("triggered", tif)  # its time is now that of its trigger
    else:
        waits = ("placed", tif, placed_ms)
    return bytes(order["cloid"]), int(order["group"]), waits


def _as_kept(order, facts) -> tuple:
    """Of a core's order, the same."""
    placed_ms, tif = int(facts["placed_ms"]), int(order["tif"])
    if order["flags"] & Flag.IS_TRIGGER:
        waits = ("trigger", int(order["condition"]), int(facts["trigger_price"]), tif < Tif.MARKET, placed_ms)
    elif order["condition"] != Condition.NONE:
        waits = ("triggered", tif)
    else:
        waits = ("placed", tif, placed_ms)
    text = bytes(facts["cloid"]) if order["flags"] & Flag.HAS_CLOID else bytes(16)
    return text, int(facts["group"]), waits


def chain(rows, first: int, link: str):
    """The rows from `first` on, each leading to the next."""
    at = int(first)
    while at != NO_SLOT:
        yield at
        at = int(rows[at][link])


def _same_account(core, shown, account):
    mine, funds, rows = core.accounts[account], shown.funds[account], shown.state.rows
    assert bytes(rows.accounts[account]["address"]) == bytes(mine["address"])
    for name in FUNDS:
        assert funds[name] == mine[name], name
    assert bytes(funds["name"]) == bytes(mine["name"])
    listed, theirs = (
        [order_of(part, slot) for slot in chain(part.orders, row["first_order"], "account_next")]
        for part, row in ((rows, rows.accounts[account]), (core, mine))
    )
    assert listed == theirs, "the same orders, oldest first"
    subs = np.flatnonzero(core.accounts["master"][: int(core.status[0]["account_count"])] == account)
    if mine["master"] == NO_ACCOUNT:
        assert sorted(subs.tolist(), reverse=True) == list(chain(shown.funds, funds["first_sub"], "next_sub"))
    agents = [
        (
            bytes(core.signers[row]["address"]),
            bytes(core.signers[row]["name"]),
            int(core.signers[row]["valid_until_ms"]),
        )
        for row in chain(core.signers, mine["first_agent"], "next")
        if core.signers[row]["is_live"]
    ]
    assert agents == [
        (bytes(agent["address"]), bytes(agent["name"]), int(agent["valid_until_ms"]))
        for agent in (shown.agents[row] for row in chain(shown.agents, funds["first_agent"], "next"))
    ]
    _same_twaps(core, shown, account)
    _same_positions(core, shown, account)


def _same_twaps(core, shown, account):
    running = core.twaps[: int(core.heap[0]["twap_count"])]
    mine = running[running["account"] == account]
    listed = list(chain(shown.running_twaps, shown.funds[account]["first_twap"], "next"))
    theirs = shown.running_twaps[listed[::-1]]
    for name in TWAP:
        assert theirs[name].tolist() == mine[name].tolist(), name
    assert theirs["is_randomized"].tolist() == mine["is_random"].tolist()


def _same_positions(core, shown, account):
    first = shown.funds[account]["first_position"]
    rows = [shown.positions[row] for row in chain(shown.positions, first, "next")]
    held = {int(row["market"]): row for row in rows}
    assert len(held) == len(rows), "a position is listed once"
    for market in range(len(core.markets)):
        mine = core.positions[account * len(core.markets) + market]
        if market not in held:
            assert not any(mine[name] for name in (*POSITION, "leverage")), "a position is listed"
            continue
        row = held[market]
        assert row["account"] == account
        assert [int(row[name]) for name in POSITION] == [int(mine[name]) for name in POSITION]
        default = min(20, int(core.markets[market]["max_leverage"]))
        assert row["leverage"] == (mine["leverage"] or default)
        assert row["is_cross"] == 1 - mine["is_isolated"]
