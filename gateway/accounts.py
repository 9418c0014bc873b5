"""What an account's rows say, as the wire's JSON: its margin, its positions, its agents, its ledger.

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
from shm.codes import Ledger
from shm.constants import LEVERAGE_DEFAULT, PLACES, USD_PLACES
from shm.layout import NO_ACCOUNT
from shm.units import format_decimal

LEDGER_MAX = 500  # entries in one answer, as on the wire
LEDGER_KEPT = 10_000  # of an account's entries that are searched
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
        return ceil_div(self.value, 2 * self.contract.max_leverage)


class Account(NamedTuple):
    """An account's rows of one moment."""

    funds: Any  # FUNDS
    held: list[Held]  # in the order of the markets
    now_ms: int  # of the last block

    @property
    def value(self) -> int:
        """What it would have if all its positions were closed at the mark."""
        return int(self.funds["cash"]) + sum(held.position.isolated + held.unrealised for held in self.held)


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
    return Account(funds[0], [hold(world, position) for position in positions if position.size], now_ms)


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


def ledger(world: World, row: int, most: int) -> Array:
    """An account's newest ledger entries (LEDGER[]), newest first, as far as they are kept."""
    arrays, out = world.arrays, np.zeros(most, layout.LEDGER)
    count = account_rows.read_ledger(arrays["funds"], arrays["ledger_ring"], arrays["ledger"], row, out)
    return out[:count]


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
    cash, held = int(account.funds["cash"]), account.held
    cross = [one for one in held if one.position.is_cross]
    cross_value = cash + sum(one.position.isolated + one.unrealised for one in cross)
    return _state(
        _summary(account.value, held),
        _summary(cross_value, cross),
        sum(one.maintenance for one in cross),
        max(0, cash - int(account.funds["used"])),
        [{"type": "oneWay", "position": _position(one)} for one in held],
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


def _position(held: Held) -> dict[str, Any]:
    position = held.position
    return {
        "coin": held.coin,
        "szi": format_decimal(position.size, held.places.quantity),
        "leverage": leverage(held),
        "entryPx": _entry_price(held),
        "positionValue": usd(held.value),
        "unrealizedPnl": usd(held.unrealised),
        "returnOnEquity": _return(held),
        "liquidationPx": None,
        "marginUsed": usd(held.used),
        "maxLeverage": held.contract.max_leverage,
        "cumFunding": dict.fromkeys(("allTime", "sinceOpen", "sinceChange"), NOTHING),
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
    funds, open_value = np.zeros(1, layout.FUNDS), np.zeros(2, layout.WORD)
    position = np.zeros(1, layout.POSITION)
    position["market"], position["is_cross"] = market, 1
    if row is not None:
        arrays = world.arrays
        tables = arrays["accounts"], arrays["funds"], arrays["positions"], arrays["orders"]
        if account_rows.read_exposure(*tables, row, market, funds, position, open_value, TRIES) < 0:
            raise NotNow
    held = hold(world, Position(*position[0].tolist()))
    mark, entry = held.contract.mark, held.position.entry
    free = int(funds["cash"][0]) - int(funds["used"][0])
    buys, sells = open_value.tolist()
    long, short = entry + buys, sells - entry
    values = [openable(held, free, side, max(long, short, 0)) for side in (long, short)]
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
    money = free + held.position.used - 2  # the margin and the fee are both rounded up
    margined: int = (money * held.leverage - side) * RATE_UNIT // (RATE_UNIT + rate * held.leverage)
    return max(most - side, margined, 0)


# --- the ledger --------------------------------------------------------------------------------------------


def ledger_entry(entry: np.void) -> dict[str, Any]:
    """An entry as userNonFundingLedgerUpdates tells it."""
    return {
        "time": int(entry["time_ms"]),
        "hash": hexed(entry["hash"]),
        "delta": _delta(
            Ledger(int(entry["kind"])), int(entry["amount"]), hexed(entry["address"]), hexed(entry["other"]),
            int(entry["nonce"]),
        ),
    }  # fmt: skip


def _delta(kind: Ledger, amount: int, mine: str, other: str, nonce: int) -> dict[str, Any]:
    money = usd(abs(amount))
    giver, taker = (mine, other) if amount < 0 else (other, mine)
    if kind == Ledger.DEPOSIT:
        return {"type": "deposit", "usdc": money}
    if kind == Ledger.WITHDRAW:
        return {"type": "withdraw", "usdc": money, "nonce": nonce, "fee": NOTHING}
    if kind == Ledger.SUB_TRANSFER:
        return {"type": "subAccountTransfer", "usdc": money, "user": giver, "destination": taker}
    return {"type": "internalTransfer", "usdc": money, "user": giver, "destination": taker, "fee": NOTHING}


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
