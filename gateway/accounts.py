"""What an account's rows say, as the wire's JSON: its margin, its positions, its agents.

All is computed in whole units of 10**-USD_PLACES USD from rows of one moment, and the mark of each market; so
what the wire's figures promise of one another holds to the last digit:

    accountValue        = totalRawUsd + the sum of szi x mark
    unrealizedPnl       = szi x mark - what the position was opened for
    marginUsed          = rawUsd + szi x mark, of an isolated position
    marginSummary       = crossMarginSummary + the isolated positions

An account that is not known (None) has nothing. Readers raise NotNow when the engine was met at work at every
try.
"""

from typing import Any, NamedTuple

import numpy as np

from gateway import contracts
from gateway.contracts import TRIES, Contract, Places, usd
from gateway.errors import NotNow
from gateway.world import Array, World
from shm import account_rows, layout, rows
from shm.constants import LEVERAGE_DEFAULT, PLACES, TRANSFER_PART, USD_PLACES
from shm.layout import NO_ACCOUNT
from shm.units import format_decimal

LISTED_MAX = 64  # agents or sub-accounts of one account: the engine allows some less
RATE_UNIT = 10**USD_PLACES
REQUESTS_FREE = 10_000  # actions that an account may take before it has traded; one more for each USD traded
NOTHING = usd(0)


class Position(NamedTuple):
    """A POSITION row."""

    account: int
    market: int
    next: int
    leverage: int
    is_cross: int
    size: int
    entry: int
    isolated: int
    used: int
    realised: int
    buys: int
    sells: int
    funding: int
    funding_open: int
    funding_change: int


assert Position._fields == layout.POSITION.names


class Held(NamedTuple):
    """A position at the mark. Amounts of money."""

    position: Position
    contract: Contract
    places: Places
    coin: str
    leverage: int
    signed_value: int
    unrealised: int
    used: int  # the margin that it takes: its share of its value, or all that its own money is worth

    @property
    def value(self) -> int:
        """Of either direction."""
        return abs(self.signed_value)

    @property
    def maintenance(self) -> int:
        """The margin below which it would be liquidated."""
        contract, tier = self.contract, 0
        while tier + 1 < contract.tier_count and contract.tier_from[tier + 1] <= self.value:
            tier += 1
        return ceil_div(self.value, 2 * contract.tier_leverage[tier]) - contract.tier_deduction[tier]

    @property
    def exposure(self) -> int:
        """What the position and the open orders of its worse side could come to."""
        long, short = self.signed_value + self.position.buys, self.position.sells - self.signed_value
        return max(long, short)

    @property
    def reserved(self) -> int:
        """The margin that it takes of the account's own money: all, or if isolated that of its orders."""
        margin = ceil_div(self.exposure, self.leverage)
        return margin if self.position.is_cross else margin - ceil_div(self.value, self.leverage)


class Account(NamedTuple):
    """An account's rows of one moment."""

    funds: Any  # FUNDS
    rows: list[Held]  # in the order of the markets, those with orders or nothing, too
    now_ms: int  # of the last block

    @property
    def held(self) -> list[Held]:
        """Where it has a position."""
        return [row for row in self.rows if row.position.size]

    @property
    def value(self) -> int:
        """What it would have if all its positions were closed at the mark."""
        return int(self.funds["cash"]) + sum(row.position.isolated + row.unrealised for row in self.rows)

    @property
    def cross_value(self) -> int:
        """The same without isolated positions and what was put aside for them."""
        return int(self.funds["cash"]) + sum(row.unrealised for row in self.rows if row.position.is_cross)

    @property
    def maintenance(self) -> int:
        """What its cross positions need to be kept."""
        return sum(row.maintenance for row in self.rows if row.position.is_cross)

    def spare(self, held: Held) -> int:
        """What stands behind one position: its bucket, or the account less what its other ones need."""
        if not held.position.is_cross:
            return held.position.isolated + held.unrealised
        return self.cross_value - (self.maintenance - held.maintenance)

    @property
    def reserved(self) -> int:
        """The margin of its positions and open orders, at the mark."""
        return sum(row.reserved for row in self.rows)

    @property
    def withdrawable(self) -> int:
        """What may leave it: a tenth of what it holds must stay."""
        notional = sum(row.value for row in self.rows if row.position.is_cross)
        return max(0, self.cross_value - max(self.reserved, ceil_div(notional, TRANSFER_PART)))


def ceil_div(amount: int, divisor: int) -> int:
    """A quotient rounded up, as the engine rounds margins and fees."""
    return -(-amount // divisor)


# --- reading -----------------------------------------------------------------------------------------------


def read(world: World, row: int) -> Account:
    """An account and its open positions."""
    arrays, funds, now_ms = world.arrays, np.zeros(1, layout.FUNDS), world.look().time_ms
    out = np.zeros(len(arrays["contracts"]), layout.POSITION)  # it has one row in a market, or none
    tables = arrays["accounts"], arrays["funds"], arrays["positions"]
    count = account_rows.read_account(*tables, row, funds, out, TRIES)
    if count < 0:
        raise NotNow
    positions = [Position(*item) for item in np.sort(out[:count], order="market").tolist()]
    world.learn()
    return Account(funds[0], [hold(world, position) for position in positions], now_ms)


def hold(world: World, position: Position) -> Held:
    """A position at the mark of its market."""
    market, contract = position.market, contracts.contract(world, position.market)
    leverage = position.leverage or min(LEVERAGE_DEFAULT, contract.max_leverage)
    signed_value = position.size * contract.mark
    unrealised = signed_value - position.entry
    used = ceil_div(abs(signed_value), leverage) if position.is_cross else position.isolated + unrealised
    places, coin = contracts.places(world, market), world.coins[market]
    return Held(position, contract, places, coin, leverage, signed_value, unrealised, used)


def agents(world: World, row: int) -> Array:
    """An account's agents that may trade now (AGENT[]), newest first."""
    arrays, out = world.arrays, np.zeros(LISTED_MAX, layout.AGENT)
    count = account_rows.read_agents(arrays["accounts"], arrays["funds"], arrays["agents"], row, out, TRIES)
    if count < 0:
        raise NotNow
    return out[:count][_may_trade(out[:count], world.look().time_ms)]


def _may_trade(agents: Array, now_ms: int) -> Array:
    until_ms = agents["valid_until_ms"]
    may: Array = (agents["is_live"] != 0) & ((until_ms == 0) | (until_ms > now_ms))
    return may


def subs(world: World, row: int) -> list[int]:
    """The rows of an account's sub-accounts, oldest first."""
    arrays, out = world.arrays, np.zeros(LISTED_MAX, layout.WORD)
    count = account_rows.read_subs(arrays["accounts"], arrays["funds"], row, out, TRIES)
    if count < 0:
        raise NotNow
    found: list[int] = out[:count][::-1].tolist()
    return found


def address(world: World, row: int) -> str:
    """The address of an account, as the wire's text."""
    return hexed(world.arrays["accounts"]["address"][row])


def hexed(raw: Any) -> str:
    """Bytes as the wire's text."""
    return "0x" + bytes(raw).hex()


def named(raw: Any) -> str:
    """A name, zero filled."""
    return bytes(raw).rstrip(b"\0").decode("ascii", "replace")


# --- margin ------------------------------------------------------------------------------------------------


def state(account: Account | None, now_ms: int) -> dict[str, Any]:
    """clearinghouseState."""
    return state_core(account) | {"time": now_ms}


def state_core(account: Account | None) -> dict[str, Any]:
    """clearinghouseState without the time."""
    if account is None:
        nothing = _summary(0, [])
        return _state(nothing, nothing, 0, 0, [])
    held = account.held
    cross = [one for one in held if one.position.is_cross]
    return _state(
        _summary(account.value, held),
        _summary(account.cross_value, cross),
        account.maintenance,
        account.withdrawable,
        [{"type": "oneWay", "position": _position(account, one)} for one in held],
    )


def _state(
    summary: dict[str, str],
    cross: dict[str, str],
    maintenance: int,
    withdrawable: int,
    positions: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "marginSummary": summary,
        "crossMarginSummary": cross,
        "crossMaintenanceMarginUsed": usd(maintenance),
        "withdrawable": usd(withdrawable),
        "assetPositions": positions,
    }


def _summary(value: int, held: list[Held]) -> dict[str, str]:
    return {
        "accountValue": usd(value),
        "totalNtlPos": usd(sum(one.value for one in held)),
        "totalRawUsd": usd(value - sum(one.signed_value for one in held)),
        "totalMarginUsed": usd(sum(one.used for one in held)),
    }


def _position(account: Account, held: Held) -> dict[str, Any]:
    position = held.position
    return {
        "coin": held.coin,
        "szi": format_decimal(position.size, held.places.quantity),
        "leverage": leverage(held),
        "entryPx": _entry_price(held),
        "positionValue": usd(held.value),
        "unrealizedPnl": usd(held.unrealised),
        "returnOnEquity": _return(held),
        "liquidationPx": liquidation_price(held, account.spare(held)),
        "marginUsed": usd(held.used),
        "maxLeverage": held.contract.max_leverage,
        "cumFunding": {
            "allTime": usd(position.funding),
            "sinceOpen": usd(position.funding_open),
            "sinceChange": usd(position.funding_change),
        },
    }


def leverage(held: Held) -> dict[str, Any]:
    """What was chosen for a position; an isolated one also tells what it owes."""
    if held.position.is_cross:
        return {"type": "cross", "value": held.leverage}
    raw = held.position.isolated - held.position.entry
    return {"type": "isolated", "value": held.leverage, "rawUsd": usd(raw)}


def _entry_price(held: Held) -> str:
    """What it was opened for, a coin: rounded to PLACES, since it is a quotient."""
    more = 10 ** (PLACES - held.places.price)
    size = abs(held.position.size)
    return format_decimal((2 * abs(held.position.entry) * more + size) // (2 * size), PLACES)


def liquidation_price(held: Held, spare: int) -> str | None:
    """The mark at which `spare`, which moves with it, is just its maintenance margin, if nothing else moves.

    Of the tier that its notional at that price is in; None: at no price.
    """
    size, contract = abs(held.position.size), held.contract
    most = [*contract.tier_from[1 : contract.tier_count], None]
    for tier in range(contract.tier_count):
        parts = 2 * contract.tier_leverage[tier]
        available = spare - (held.value // parts - contract.tier_deduction[tier])  # rounded as the wire does
        sign = 1 if held.position.size > 0 else -1
        top, bottom = held.value * (parts - sign) - sign * parts * available, size * (parts - sign)
        until = most[tier]
        if (
            top > 0
            and contract.tier_from[tier] * bottom <= top * size
            and (until is None or top * size < until * bottom)
        ):
            more = 10 ** (PLACES - held.places.price)
            return format_decimal((2 * top * more + bottom) // (2 * bottom), PLACES)
    return None


def _return(held: Held) -> str:
    """What it has gained, by the margin that it was opened with: a quotient, cut at PLACES."""
    entry = abs(held.position.entry)
    if entry == 0:
        return NOTHING
    gained = abs(held.unrealised) * held.leverage * 10**PLACES // entry
    return format_decimal(gained if held.unrealised > 0 else -gained, PLACES)


# --- what may be opened ------------------------------------------------------------------------------------


def tradable(world: World, row: int | None, market: int) -> dict[str, Any]:
    """activeAssetData without its user: how much the account may buy and sell at the mark, and its margin."""
    account = None if row is None else read(world, row)
    rows = account.rows if account else []
    blank = Position(0, market, 0, 0, 1, *[0] * (len(Position._fields) - 5))
    held = next((one for one in rows if one.position.market == market), None) or hold(world, blank)
    mark, position = held.contract.mark, held.position
    free = account.cross_value - account.reserved if account else 0
    long, short = held.signed_value + position.buys, position.sells - held.signed_value
    values = [openable(held, free, side, held.exposure) for side in (long, short)]
    sizes = [value // mark for value in values]
    return {
        "coin": held.coin,
        "leverage": leverage(held),
        "maxTradeSzs": [format_decimal(size, held.places.quantity) for size in sizes],
        "availableToTrade": [usd(size * mark // held.leverage) for size in sizes],
        "markPx": format_decimal(mark, held.places.price),
    }


def openable(held: Held, free: int, side: int, most: int) -> int:
    """What an order that adds to one side may be worth, as the engine judges it: or 2 micro-dollars less.

    side  what it adds to: the position, signed, and the open orders
    most  of both sides: up to it an order takes no more margin
    """
    rate = max(held.contract.taker_rate, 0)
    money = free + ceil_div(held.exposure, held.leverage) - 2  # the margin and the fee are both rounded up
    margined: int = (money * held.leverage - side) * RATE_UNIT // (RATE_UNIT + rate * held.leverage)
    return max(most - side, margined, 0)


# --- the ledger --------------------------------------------------------------------------------------------


# --- who it is ---------------------------------------------------------------------------------------------


def role(world: World, row: int | None, raw: bytes) -> dict[str, Any]:
    """userRole of an address: an account's, an agent's, or nobody's."""
    if row is not None:
        master = int(read(world, row).funds["master"])
        if master == NO_ACCOUNT:
            return {"role": "user"}
        return {"role": "subAccount", "data": {"master": address(world, master)}}
    arrays, out = world.arrays, np.zeros(1, layout.AGENT)
    found = account_rows.read_agent(
        arrays["status"], arrays["accounts"], arrays["agents"], np.frombuffer(raw, np.uint8), out, TRIES
    )
    if found == rows.TORN:
        raise NotNow
    if found == rows.MISSING or not _may_trade(out, world.look().time_ms)[0]:
        return {"role": "missing"}
    return {"role": "agent", "data": {"user": address(world, int(out["account"][0]))}}


def extra_agents(world: World, row: int) -> list[dict[str, Any]]:
    """The agents that have a name, oldest first, as extraAgents tells them."""
    return [agent for agent in map(_agent, agents(world, row)[::-1]) if agent["name"]]


def unnamed_agent(world: World, row: int) -> dict[str, Any] | None:
    """The agent that has none, in the same form."""
    return next((agent for agent in map(_agent, agents(world, row)) if not agent["name"]), None)


def _agent(agent: np.void) -> dict[str, Any]:
    until_ms = int(agent["valid_until_ms"])
    return {"name": named(agent["name"]), "address": hexed(agent["address"]), "validUntil": until_ms or None}


def sub_account(world: World, row: int) -> dict[str, Any]:
    """A sub-account as subAccounts tells it."""
    account = read(world, row)
    return {
        "name": named(account.funds["name"]),
        "subAccountUser": address(world, row),
        "master": address(world, int(account.funds["master"])),
        "clearinghouseState": state(account, account.now_ms),
        "spotState": {"balances": []},
    }
