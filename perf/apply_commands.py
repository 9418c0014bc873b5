"""Streams of commands to measure an exchange with: one market, 2,000 accounts, stamped and ready to apply.

`mix` is the mix of exchange-core's own tests: a book that is kept at its size, in which orders mostly move.
`shape` is a survey's: orders come, live and are cancelled while the price follows one of five paths.

A maker sends each command to an engine of its own and sees what became of it before it makes the next one:
it moves and cancels what is there. So a stream is a function of its seed and of the rules.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, types

from engine.exchange import apply, state
from engine.exchange.records import Kind
from shm.codes import Ask, Command, Flag, Side, Tif
from shm.kernel import inner
from shm.layout import COMMAND, record

ACCOUNTS = 2_000
SIZE_DECIMALS = 5
TICK = 10  # a whole dollar: legal at any height
LOT = 100  # 0.001 of the base: 50 dollars, so that the least order is worth enough
MIDDLE = 50_000  # ticks
LEVERAGE_MAX = 50
MAKER_RATE, TAKER_RATE = 150, 450
DEPOSIT = 4 * 10**13  # more than any of them will need; all of it together may be 10**17
BEGIN_NS = 1_800_000_000_000_000_000
STEP_NS = 1_000
BLOCK = 4_096  # commands between two ends of a block
NS_A_MS = 1_000_000

# the mix
DEVIATION = 2_500  # ticks: a twentieth of the price
LOWEST, HIGHEST = MIDDLE - 5 * DEVIATION, MIDDLE + 5 * DEVIATION
OLDEST = 512  # orders that may be moved or cancelled
REFRESH = 512  # commands for which the maker believes a side to have the size it had
GROWING, FULL = 10, 40  # what is drawn from while a side lacks orders, and while it does not
PLACED = 2  # of the draws below, that many place an order
CANCELLED, REDUCED = 2, 3  # the draws that cancel and reduce; all above move

# the shapes
SHAPES = ("static", "trending", "volatile", "gap", "flash crash")
LIFE = 15_000  # mean life of an order, counted in new orders
DEPTH, DEPTH_MAX = 12, 40  # mean and greatest distance of a new order from the middle, in ticks
REACH = 4  # ticks that an order which does not wait reaches beyond the middle
CANCEL, MODIFY, AGAIN = 0, 1, 2  # what may become due for an order
DUES = 3

PLACED_ORDER = record(
    ("order", "i8"),  # its oid now: a MODIFY gives another
    ("price", "i8"),
    ("quantity", "i8"),
    ("account", "i4"),
    ("side", "u1"),
    ("is_live", "u1"),
    ("reserved", "u2"),  # zero
)


class Stream(NamedTuple):
    """Commands, and where among them the measured part begins: before it, accounts, money and a full book."""

    commands: np.ndarray
    told: np.ndarray  # u4[]: outcomes of each command; of the first ones, which make the accounts, 0
    start: int
    capacity: state.Capacity


class Called(types.WrapperAddressProtocol):
    """A compiled entry point that a kernel is handed and calls, in place of being compiled with it."""

    def __init__(self, entry):
        (self._made,) = entry.overloads.values()

    def __wrapper_address__(self):
        return self._made.library.get_pointer_to_function(self._made.fndesc.llvm_cfunc_wrapper_name)

    def signature(self):
        return self._made.signature


class Maker(NamedTuple):
    """What a maker knows: its engine, the stream so far, and the orders it has placed."""

    engine: state.State
    commands: np.ndarray
    told: np.ndarray  # u4[]: outcomes of each
    made: np.ndarray  # i8[1]: commands
    one: np.ndarray  # COMMAND[1]
    apply: Called  # apply_commands
    orders: np.ndarray  # PLACED_ORDER, by number, in the order of placing
    numbers: np.ndarray  # i8[], oid -> number
    placed: np.ndarray  # i8[1]: orders
    nonces: bool  # sign each command, instead of trusting a session


# --- what both kinds do -----------------------------------------------------------------------------------


def genesis(commands: np.ndarray) -> int:
    """Fill in a market and the accounts with their money; return how many commands that took."""
    market = commands[0]
    market["kind"], market["side"], market["amount"] = Command.ADD_MARKET, SIZE_DECIMALS, LEVERAGE_MAX
    market["price"], market["quantity"], market["order"] = MIDDLE * TICK, MAKER_RATE, TAKER_RATE
    market["text"][:3] = np.frombuffer(b"BTC", np.uint8)
    deposits = commands[1 : 1 + ACCOUNTS]
    deposits["kind"], deposits["amount"] = Command.DEPOSIT, DEPOSIT
    deposits["other"] = np.random.default_rng(1).integers(1, 255, (ACCOUNTS, 20), np.uint8)
    commands[1 + ACCOUNTS]["kind"] = Command.END_BLOCK
    count = ACCOUNTS + 2
    commands["sequence"][:count] = commands["request"][:count] = np.arange(1, count + 1)
    commands["time_ns"][:count] = BEGIN_NS
    return count


def maker(room: int, orders: int, nonces: bool) -> Maker:
    """A maker of at most `room` commands, before a book of at most `orders`, with its genesis done."""
    engine = state.allocate(capacity_for(orders))
    commands = np.zeros(room, COMMAND)
    count = genesis(commands)
    apply.apply_commands(engine, commands[:count], count)
    return Maker(
        engine, commands, np.zeros(room, np.uint32), np.array([count]), np.zeros(1, COMMAND),
        Called(apply.apply_commands),
        np.zeros(room, PLACED_ORDER), np.zeros(room, np.int64), np.zeros(1, np.int64), nonces,
    )  # fmt: skip


def stream(making: Maker, start: int, orders: int) -> Stream:
    made = making.made[0]
    return Stream(making.commands[:made], making.told[:made], start, capacity_for(orders))


def capacity_for(orders: int) -> state.Capacity:
    """Room for one market, the accounts, and `orders` open at a time."""
    return state.Capacity(1, ACCOUNTS + 2, orders, 1 << 16, 1, 1 << 16, BLOCK)


@inner
def below(bound):
    return np.random.randint(0, bound)


@inner
def ask(maker, kind, account):
    """Begin the next command, of the account in row `account`, and return it."""
    maker.one.view(np.uint8)[:] = 0
    command = maker.one[0]
    command.kind, command.count = kind, 1
    if account != state.FEE_ACCOUNT:
        of = maker.engine.accounts[account]
        command.signer_row = of.signer
        for i in range(len(of.address)):
            command.signer[i] = of.address[i]
        if maker.nonces:
            command.nonce = BEGIN_NS // NS_A_MS + maker.made[0]
        else:
            command.flags = Ask.SESSION
    return command


@inner
def send(maker):
    """Stamp the command and apply it."""
    command, made = maker.one[0], maker.made[0]
    command.sequence = command.request = made + 1
    command.time_ns = BEGIN_NS + made * STEP_NS
    maker.commands[made] = command
    maker.made[0] += 1
    maker.apply(maker.engine, maker.one, 1)
    maker.told[made] = maker.engine.heap[0].outcomes


@inner
def tell(maker, number):
    """Send the command, and note what became of the orders; `number` is the one that it places."""
    send(maker)
    for i in range(maker.engine.heap[0].outcomes):
        outcome = maker.engine.outcomes[i]
        crossed = outcome.flags & Flag.CROSSED
        if outcome.kind == Kind.OPENED:
            maker.numbers[outcome.order] = number
            order = maker.orders[number]
            order.order, order.price, order.quantity = outcome.order, outcome.price, outcome.quantity
            order.account, order.side, order.is_live = outcome.account, outcome.side, 1
        elif outcome.kind == Kind.FILLED and not crossed:
            order = maker.orders[maker.numbers[outcome.order]]
            order.quantity, order.is_live = outcome.original, 1 - outcome.done
        elif outcome.kind == Kind.ENDED and not crossed:
            maker.orders[maker.numbers[outcome.order]].is_live = 0
    if maker.made[0] % BLOCK == 0:
        ask(maker, Command.END_BLOCK, state.FEE_ACCOUNT)
        send(maker)


@inner
def place(maker, side, price, quantity, tif):
    """Place an order of somebody's at `price` ticks; return its number."""
    number = maker.placed[0]
    maker.placed[0] += 1
    command = ask(maker, Command.ORDER, state.INSURANCE + 1 + below(ACCOUNTS))
    command.side, command.tif, command.price, command.quantity = side, tif, price * TICK, quantity
    tell(maker, number)
    return number


@inner
def modify(maker, number, price, quantity):
    """Give order `number` another price (in ticks) and quantity."""
    order = maker.orders[number]
    command = ask(maker, Command.MODIFY, order.account)
    command.order, command.side, command.tif = order.order, order.side, Tif.GTC
    command.price, command.quantity = price * TICK, quantity
    tell(maker, number)


@inner
def cancel(maker, number):
    command = ask(maker, Command.CANCEL, maker.orders[number].account)
    command.order = maker.orders[number].order
    tell(maker, number)


# --- exchange-core's mix ----------------------------------------------------------------------------------


@inner
def last_price(maker):
    """The last trade's, in ticks."""
    return min(max(maker.engine.markets[0].reference_price // TICK, LOWEST), HIGHEST)


@inner
def lots():
    return (1 + below(6) * below(6) * below(6)) * LOT


@inner
def place_waiting(maker):
    """An order that waits, on either side, the rarer the farther it is from the last price."""
    side = below(2)
    spread = 1 + int(np.random.random() ** 2 * DEVIATION)
    away = abs((below(spread) + below(spread) + below(spread) + below(spread)) // 4 * 2 - spread)
    place(maker, side, last_price(maker) + (away if side == Side.SELL else -away), lots(), Tif.GTC)


@inner
def choose(maker, oldest, counts):
    """One of the oldest live orders, or -1. counts: how many stand in `oldest`, how many ever came there."""
    while True:
        while counts[0] < OLDEST and counts[1] < maker.placed[0]:
            if maker.orders[counts[1]].is_live:
                oldest[counts[0]] = counts[1]
                counts[0] += 1
            counts[1] += 1
        if counts[0] == 0:
            return -1
        at = below(counts[0])
        number = oldest[at]
        if maker.orders[number].is_live:
            return number
        for i in range(at, counts[0] - 1):
            oldest[i] = oldest[i + 1]
        counts[0] -= 1


@inner
def move(maker, number):
    """Move the order a hundredth of the way to the last price, and at least by a tick."""
    order = maker.orders[number]
    price, last = order.price // TICK, last_price(maker)
    way = last - price
    step = (abs(way) + 99) // 100 if way != 0 else 1
    modify(maker, number, min(price + (step if way >= 0 else -step), HIGHEST), order.quantity)


@njit(cache=True, nogil=True)
def make_mix(maker, resting, until, seed):
    """Place `resting` orders, then make commands until there are `until`; return where the latter began."""
    np.random.seed(seed)
    oldest, counts, sizes = np.zeros(OLDEST, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    for _ in range(resting):
        place_waiting(maker)
    start, filled, seen = maker.made[0], False, -REFRESH
    while maker.made[0] < until:
        if maker.made[0] - seen >= REFRESH:
            seen = maker.made[0]
            for side in range(2):
                sizes[side] = maker.engine.sides[side].order_count
        side = below(2)
        lack = resting // 2 - sizes[side]
        filled = filled or lack <= 0
        fast = not filled or lack > min(OLDEST, resting * 3 // 8)
        drawn = below((PLACED if fast else GROWING) if lack > 0 else FULL)
        number = choose(maker, oldest, counts) if drawn >= PLACED else -1
        if number < 0:
            if lack > 0:
                place_waiting(maker)
            else:
                whole = below(32) == 0
                price = HIGHEST if side == Side.BUY else LOWEST
                place(maker, side, price, lots(), Tif.MARKET if whole else Tif.IOC)
            continue
        order = maker.orders[number]
        left = order.quantity - (1 + below(max(order.quantity // LOT, 1))) * LOT
        if drawn == CANCELLED or (drawn == REDUCED and left <= 0):
            cancel(maker, number)
        elif drawn == REDUCED:
            modify(maker, number, order.price // TICK, left)
        else:
            move(maker, number)
    return start


def mix(resting: int, count: int, nonces: bool = False, seed: int = 1) -> Stream:
    """`count` commands on a book that is kept at about `resting` orders."""
    until = ACCOUNTS + 2 + (resting + count) * BLOCK // (BLOCK - 1)
    orders = 2 * resting + BLOCK
    making = maker(until + 2, orders, nonces)
    start = make_mix(making, resting, until, seed)
    return stream(making, start, orders)


# --- five shapes of the price's path ----------------------------------------------------------------------


def path(name: str, count: int, seed: int = 1) -> np.ndarray:
    """The middle of the book, in ticks, at each of `count` new orders."""
    done = np.arange(count) / count
    if name == "trending":
        away = 600 * done
    elif name == "volatile":
        away = np.random.default_rng(seed).normal(0, 0.5, count).cumsum()
    elif name == "gap":
        away = np.where(done * 10 % 2 < 1, 0, 150)
    elif name == "flash crash":
        away = np.interp(done, [0, 0.5, 0.52, 0.6, 1], [0, 0, -800, 0, 0])
    else:
        away = np.zeros(count)
    return MIDDLE + away.astype(np.int64)


@inner
def due(heads, links, now, after, number, what):
    """Let `what` happen to order `number` when `after` more orders have come."""
    at = now + 1 + after
    if at < len(heads):
        links[DUES * number + what] = heads[at]
        heads[at] = DUES * number + what + 1


@inner
def meet(maker, heads, links, now):
    """Do what is due now."""
    at = heads[now]
    while at > 0:
        number, what = (at - 1) // DUES, (at - 1) % DUES
        at = links[at - 1]
        order = maker.orders[number]
        if what == AGAIN:
            cancel(maker, number)
        elif order.is_live and what == CANCEL:
            cancel(maker, number)
            if below(100) < 2:
                due(heads, links, now, below(100), number, AGAIN)
        elif order.is_live and what == MODIFY:
            price, quantity = order.price // TICK, order.quantity
            if below(100) < 80:
                modify(maker, number, price + (1 if below(2) else -1), quantity)
            else:
                modify(maker, number, price, lots())


@njit(cache=True, nogil=True)
def make_shape(maker, middles, seed):
    """Place an order at each of `middles`, and let the earlier ones be modified and cancelled meanwhile."""
    np.random.seed(seed)
    heads = np.zeros(len(middles), np.int64)
    links = np.zeros(DUES * len(middles), np.int64)
    for now in range(len(middles)):
        meet(maker, heads, links, now)
        side = below(2)
        sign = 1 if side == Side.SELL else -1
        if below(100) < 15:
            place(maker, side, middles[now] - sign * below(REACH), lots(), Tif.IOC)
            continue
        away = 1 + min(int(np.random.exponential(DEPTH)), DEPTH_MAX - 1)
        number = place(maker, side, middles[now] + sign * away, lots(), Tif.GTC)
        life = int(np.random.exponential(LIFE))
        if below(100) < 95:
            due(heads, links, now, life, number, CANCEL)
        if below(100) < 20:
            due(heads, links, now, below(life + 1), number, MODIFY)


def shape(name: str, count: int = 1_000_000, seed: int = 1) -> Stream:
    """The commands around `count` new orders while the price goes the way that `name` says."""
    orders = count // 16 + LIFE  # those never cancelled, and those that live
    making = maker(3 * count + ACCOUNTS + 2, orders, False)
    start = int(making.made[0])
    make_shape(making, path(name, count), seed)
    return stream(making, start, orders)
