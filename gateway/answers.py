"""From acks to what POST /exchange answers: the exact JSON of each kind of action.

A refusal of the whole action is `{"status":"err","response":text}`; one of an order in it is a status among
the others, and the answer as a whole is "ok". Either way what was refused is never executed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway import actions, codec, errors
from gateway.commands import Refused
from gateway.door import Ack
from shm import units
from shm.codes import Ack as Outcome
from shm.codes import Refusal as Code
from shm.constants import PERP_DECIMALS, PLACES, USD_PLACES

DEFAULT = b'{"status":"ok","response":{"type":"default"}}'
_STATUSES = b'{"status":"ok","response":{"type":"%b","data":{"statuses":[%b]}}}'
_CREATED = b'{"status":"ok","response":{"type":"createSubAccount","data":"%b"}}'
_LOGGED_IN = b'{"status":"ok","user":"%b","validUntil":%d}'
_TWAP = b'{"status":"ok","response":{"type":"%b","data":{"status":%b}}}'
_SUCCESS = b'"success"'
_WAITS: dict[int, bytes] = {  # of a trigger order that belongs to another order or to a position
    Outcome.WAITS_FOR_FILL: b'"waitingForFill"',
    Outcome.WAITS_FOR_TRIGGER: b'"waitingForTrigger"',
}

TWAP_DOLLARS = 10  # that each minute of a TWAP must be worth


class Asked(NamedTuple):
    """An action that was sent to the engine, as far as its answer speaks of it."""

    action: actions.Action
    signer: bytes
    vault: bytes | None
    refused: Refused  # in its place, before it was sent
    size_decimals: Sequence[int]  # by market
    created: bytes  # the address of a new sub-account; empty for all other actions


def write(asked: Asked, acks: Sequence[Ack]) -> bytes:
    """The answer, given the acks of all that was sent."""
    action, first = asked.action, acks[0]
    if errors.is_of_action(first.code):
        return codec.refused_action(_words(asked, first.code, first))
    match action:
        case actions.PlaceOrders():
            return _STATUSES % (b"order", _orders(asked, action.orders, acks))
        case actions.BatchModify():
            return _STATUSES % (b"order", _orders(asked, [it.order for it in action.modifies], acks))
        case actions.Cancel() | actions.CancelByCloid():
            return _STATUSES % (b"cancel", b",".join(_cancel(asked, ack) for ack in acks))
        case actions.Modify():
            return _modify(asked, action, first)
        case actions.TwapOrder():
            return _TWAP % (b"twapOrder", _twap(asked, action.twap, first))
        case actions.TwapCancel():
            return _TWAP % (b"twapCancel", _cancel(asked, first))
        case actions.CreateSubAccount():
            return _CREATED % hexadecimal(asked.created).encode()
        case actions.Login():
            return _LOGGED_IN % (hexadecimal(asked.signer).encode(), action.valid_until_ms)
        case _:
            return DEFAULT


def hexadecimal(address: bytes) -> str:
    return "0x" + address.hex()


def average_price(notional: int, quantity: int, size_decimals: int) -> str:
    """The price of a unit, as the wire writes prices: rounded half up where it does not end.

    notional  10**-USD_PLACES USD
    """
    scale = 10 ** (PLACES - USD_PLACES + size_decimals)
    return units.format_decimal((2 * notional * scale + quantity) // (2 * quantity), PLACES)


def _orders(asked: Asked, orders: Sequence[actions.Order], acks: Sequence[Ack]) -> bytes:
    left = iter(acks)
    return b",".join(_order(asked, place, order, left) for place, order in enumerate(orders))


def _order(asked: Asked, place: int, order: actions.Order, acks: Iterator[Ack]) -> bytes:
    """The status of one order; it takes its ack, if it was sent."""
    code = asked.refused.get(place)
    if code is not None:
        return _error(errors.refused(code, asset=order.market))
    ack = next(acks)
    if ack.outcome == Outcome.REFUSED:
        return _error(_words(asked, ack.code, ack))
    waits = _WAITS.get(ack.outcome)
    if waits is not None:
        return waits
    cloid = b"" if order.cloid is None else b',"cloid":"%b"' % order.cloid.encode()
    if ack.outcome == Outcome.RESTING:
        return b'{"resting":{"oid":%d%b}}' % (ack.order, cloid)
    decimals = asked.size_decimals[order.market]
    return b'{"filled":{"totalSz":"%b","avgPx":"%b","oid":%d%b}}' % (
        units.format_decimal(ack.quantity, decimals).encode(),
        average_price(ack.notional, ack.quantity, decimals).encode(),
        ack.order,
        cloid,
    )


def _modify(asked: Asked, action: actions.Modify, ack: Ack) -> bytes:
    """One order alone has no list of statuses: its refusal is the action's."""
    code = asked.refused.get(0)
    if code is not None:
        return codec.refused_action(errors.refused(code, asset=action.order.market))
    if ack.outcome == Outcome.REFUSED:
        return codec.refused_action(_words(asked, ack.code, ack))
    return DEFAULT


def _twap(asked: Asked, twap: actions.Twap, ack: Ack) -> bytes:
    code = asked.refused.get(0)
    if code is not None:
        return _error(errors.refused(code, asset=twap.market))
    if ack.outcome == Outcome.REFUSED:
        return _error(_words(asked, ack.code, ack))
    return b'{"running":{"twapId":%d}}' % ack.order


def _cancel(asked: Asked, ack: Ack) -> bytes:
    return _error(_words(asked, ack.code, ack)) if ack.outcome == Outcome.REFUSED else _SUCCESS


def _error(text: str) -> bytes:
    return b'{"error":%b}' % codec.encode(text)


def _words(asked: Asked, code: int, ack: Ack) -> str:
    minutes = asked.action.twap.minutes if isinstance(asked.action, actions.TwapOrder) else 0
    return errors.refused(
        code,
        signer=hexadecimal(asked.signer),
        vault=hexadecimal(asked.vault or b""),
        other=asked.action.sub if isinstance(asked.action, actions.SubAccountTransfer) else "",
        asset=ack.market,
        bbo=_bbo(asked, ack) if code == Code.POST_ONLY else "",
        minutes=minutes,
        dollars=TWAP_DOLLARS * minutes,
    )


def _bbo(asked: Asked, ack: Ack) -> str:
    """The best bid and ask that a post-only order met; 0.0 where there was none."""
    places = PERP_DECIMALS - asked.size_decimals[ack.market]
    return f"{units.format_decimal(ack.quantity, places)}@{units.format_decimal(ack.notional, places)}"
