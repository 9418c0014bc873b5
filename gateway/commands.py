"""From a signed action to what the engine is asked: one COMMAND for each order, cancel or modify in it.

Prices and sizes become whole units of their market here, exactly. A text that is finer than its market's unit
is no command: that order alone is refused, in its place, and the others go on. When nothing of an action is
left, a NOOP takes its place, so that the engine still sees who signed it, and its nonce.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gateway import actions, codec, errors
from gateway.actions import Envelope
from gateway.errors import Refusal
from shm import layout, units
from shm.codes import Ask, Command, Condition, Grouping, Side, Tif
from shm.codes import Refusal as Code
from shm.constants import PERP_DECIMALS, USD_PLACES
from shm.layout import NO_MARKET

Array = np.ndarray[Any, Any]
Refused = Mapping[int, Code]  # what of an action was refused in its place, by place

SIGNER_UNKNOWN_ROW = -1  # no hint: the engine looks the signer up
_TIFS = {"Gtc": Tif.GTC, "Ioc": Tif.IOC, "Alo": Tif.ALO, "FrontendMarket": Tif.MARKET}
_GROUPINGS = {"na": Grouping.NONE, "normalTpsl": Grouping.NORMAL, "positionTpsl": Grouping.POSITION}


def _form(dtype: np.dtype[Any]) -> str:
    """What `struct` calls a field."""
    form = {"i8": "q", "i4": "i", "u2": "H", "u1": "B"}[dtype.base.str[1:]]
    return f"{dtype.shape[0]}s" if dtype.shape else form


_NAMES = layout.COMMAND.names or ()
_RECORD = struct.Struct("=" + "".join(_form(layout.COMMAND[name]) for name in _NAMES))
assert _RECORD.size == layout.COMMAND.itemsize, "no holes"
assert _NAMES == (
    "sequence", "time_ns", "request", "nonce", "expires_ms", "price", "quantity", "trigger_price", "order",
    "amount", "signer", "vault", "other", "text", "of", "market", "signer_row", "gateway", "kind", "side",
    "tif", "flags", "place", "count", "builder", "condition", "grouping", "reserved",
), "as _Records.add packs them"  # fmt: skip


class _Records:
    """The commands of one action, as they are made."""

    def __init__(self, nonce: int, expires_ms: int, signer: bytes, vault: bytes | None, in_session: bool):
        self._nonce, self._expires_ms = (0 if in_session else nonce), expires_ms
        self._signer, self._vault = signer, vault or b""
        self._flags = (Ask.HAS_VAULT if vault else 0) | (Ask.SESSION if in_session else 0)
        self._made: list[bytes] = []

    def add(
        self,
        kind: Command,
        market: int = NO_MARKET,
        *,
        price: int = 0,
        quantity: int = 0,
        trigger_price: int = 0,
        order: int = 0,
        amount: int = 0,
        other: bytes = b"",
        text: bytes = b"",
        of: bytes = b"",
        side: int = 0,
        tif: int = 0,
        flags: int = 0,
        builder: bytes = b"",
        condition: int = 0,
        grouping: int = 0,
    ) -> None:
        """Add one. What the engine and the door number is left at zero."""
        self._made.append(_RECORD.pack(
            0, 0, 0, self._nonce, self._expires_ms, price, quantity, trigger_price, order, amount,
            self._signer, self._vault, other, text, of, market, SIGNER_UNKNOWN_ROW, 0, kind, side, tif,
            flags | self._flags, len(self._made), 0, builder, condition, grouping, 0,
        ))  # fmt: skip

    def array(self) -> Array:
        """All of them, or a NOOP if there are none."""
        if not self._made:
            self.add(Command.NOOP)
        commands = np.frombuffer(bytearray().join(self._made), layout.COMMAND)
        commands["count"] = len(commands)
        return commands


def make(
    envelope: Envelope,
    signer: bytes,
    in_session: bool,
    size_decimals: Sequence[int],
    created: bytes,
) -> tuple[Array, Refused]:
    """The commands of a whole action (COMMAND[]), and what was refused in its place.

    in_session     the connection's login stands for a signature, and the nonce is not looked at
    size_decimals  by market, as far as they are known
    created        the address that a new sub-account is to have
    Raises errors.Refusal for what is not served.
    """
    action = envelope.action
    records = _Records(envelope.nonce, envelope.expires_ms or 0, signer, envelope.vault, in_session)
    refused: dict[int, Code] = {}
    match action:
        case actions.PlaceOrders():
            _add_orders(records, refused, size_decimals, action)
        case actions.Modify():
            _add_modifies(records, refused, size_decimals, [action], action.always_place)
        case actions.BatchModify():
            _add_modifies(records, refused, size_decimals, action.modifies, action.always_place)
        case actions.Cancel():
            for cancel in action.cancels:
                records.add(Command.CANCEL, cancel.market, order=cancel.oid)
        case actions.CancelByCloid():
            for by_cloid in action.cancels:
                records.add(Command.CANCEL_CLOID, by_cloid.market, of=raw(by_cloid.cloid))
        case actions.TwapOrder():
            _add_twap(records, refused, size_decimals, action)
        case actions.TwapCancel():
            records.add(Command.TWAP_CANCEL, action.market, order=action.id)
        case _:
            _add_of_account(records, action, created)
    return records.array(), refused


def cancel_all(signer: bytes, vault: bytes | None) -> Array:
    """What a login leaves behind it, if it asked for that: COMMAND[1]."""
    records = _Records(0, 0, signer, vault, in_session=True)
    records.add(Command.CANCEL_ALL)
    return records.array()


def is_cancel(action: actions.Action) -> bool:
    """Whether an action only takes orders away: such a one finds room when others do not."""
    cancels = (actions.Cancel, actions.CancelByCloid, actions.ScheduleCancel, actions.TwapCancel)
    return isinstance(action, cancels)


def size(action: actions.Action) -> int:
    """How many commands an action is, before any is refused in its place."""
    match action:
        case actions.PlaceOrders():
            return len(action.orders)
        case actions.BatchModify():
            return len(action.modifies)
        case actions.Cancel() | actions.CancelByCloid():
            return len(action.cancels)
        case _:
            return 1


def raw(text: str) -> bytes:
    """The bytes of `0x...`."""
    return bytes.fromhex(text[2:])


def _add_orders(
    records: _Records, refused: dict[int, Code], size_decimals: Sequence[int], action: actions.PlaceOrders
) -> None:
    """Add orders. Those that would close what their parent opens are no orders without it."""
    if isinstance(action.grouping, actions.Priority):
        raise Refusal(errors.NOT_SUPPORTED.format("grouping priority"))
    grouping, builder = _GROUPINGS[action.grouping], action.builder
    for place, order in enumerate(action.orders):
        if grouping == Grouping.NORMAL and 0 in refused:
            refused[place] = Code.PARENT
        else:
            _add_order(
                records,
                refused,
                place,
                size_decimals,
                Command.ORDER,
                order,
                builder=builder,
                grouping=grouping,
            )


def _add_modifies(
    records: _Records,
    refused: dict[int, Code],
    size_decimals: Sequence[int],
    modifies: Iterable[actions.Modify | actions.ModifyOne],
    always_place: bool | None,
) -> None:
    flags = Ask.ALWAYS_PLACE if always_place else 0
    for place, modify in enumerate(modifies):
        _add_order(
            records, refused, place, size_decimals, Command.MODIFY, modify.order, flags=flags, of=modify.oid
        )


def _add_order(
    records: _Records,
    refused: dict[int, Code],
    place: int,
    size_decimals: Sequence[int],
    kind: Command,
    order: actions.Order,
    *,
    flags: int = 0,
    of: int | str = 0,
    builder: actions.Builder | None = None,
    grouping: Grouping = Grouping.NONE,
) -> None:
    """Add an ORDER, or a MODIFY of the order `of`; or note why it cannot be said in its market's units."""
    if order.market >= len(size_decimals):
        refused[place] = Code.ORDER_MARKET
        return
    decimals = size_decimals[order.market]
    trigger = order.kind.trigger
    code = Code.SIZE
    try:
        quantity = units.parse_decimal(order.quantity.encode(), decimals)
        code = Code.PRICE
        price = units.parse_decimal(order.price.encode(), PERP_DECIMALS - decimals)
        trigger_price, condition = 0, Condition.NONE
        if trigger is not None:
            trigger_price = units.parse_decimal(trigger.price.encode(), PERP_DECIMALS - decimals)
            condition = _condition(order.is_buy, trigger)
    except units.NotADecimal:
        refused[place] = code
        return
    if order.reduce_only:
        flags |= Ask.REDUCE_ONLY
    if order.cloid is not None:
        flags |= Ask.HAS_CLOID
    if isinstance(of, str):
        flags |= Ask.BY_CLOID
    if builder is not None:
        flags |= Ask.HAS_BUILDER
    if order.kind.limit is not None:
        tif = _TIFS[order.kind.limit.tif]
    else:
        flags |= Ask.IS_TRIGGER
        tif = Tif.MARKET if trigger is not None and trigger.is_market else Tif.GTC
    records.add(
        kind,
        order.market,
        price=price,
        quantity=quantity,
        trigger_price=trigger_price,
        order=0 if isinstance(of, str) else of,
        amount=0 if builder is None else builder.fee,
        text=b"" if order.cloid is None else raw(order.cloid),
        of=raw(of) if isinstance(of, str) else b"",
        side=Side.BUY if order.is_buy else Side.SELL,
        tif=tif,
        flags=flags,
        builder=b"" if builder is None else raw(builder.address),
        condition=condition,
        grouping=grouping,
    )


def _condition(is_buy: bool, trigger: actions.Trigger) -> Condition:
    """Where the mark fires it: a stop follows the price, a take profit waits for a better one."""
    return Condition.ABOVE if is_buy == (trigger.tpsl == "sl") else Condition.BELOW


def _add_twap(
    records: _Records, refused: dict[int, Code], size_decimals: Sequence[int], action: actions.TwapOrder
) -> None:
    twap = action.twap
    if action.details is not None:
        raise Refusal(errors.NOT_SUPPORTED.format("twapOrder with details"))
    if twap.market >= len(size_decimals):
        refused[0] = Code.ORDER_MARKET
        return
    try:
        quantity = units.parse_decimal(twap.quantity.encode(), size_decimals[twap.market])
    except units.NotADecimal:
        refused[0] = Code.SIZE
        return
    flags = Ask.REDUCE_ONLY if twap.reduce_only else 0
    if twap.randomize:
        flags |= Ask.RANDOMIZE
    side = Side.BUY if twap.is_buy else Side.SELL
    records.add(Command.TWAP, twap.market, quantity=quantity, amount=twap.minutes, side=side, flags=flags)


def _add_of_account(records: _Records, action: actions.Action, created: bytes) -> None:
    match action:
        case actions.Noop() | actions.Login():
            records.add(Command.NOOP)
        case actions.ScheduleCancel():
            records.add(Command.SCHEDULE_CANCEL, amount=action.time_ms or 0)
        case actions.UpdateLeverage():
            flags = Ask.IS_CROSS if action.is_cross else 0
            records.add(Command.UPDATE_LEVERAGE, action.market, amount=action.leverage, flags=flags)
        case actions.UpdateIsolatedMargin():
            records.add(Command.ISOLATED_MARGIN, action.market, amount=action.amount)
        case actions.UsdSend():
            amount = units.parse_decimal(action.amount.encode(), USD_PLACES)
            records.add(Command.USD_SEND, amount=amount, other=raw(action.destination))
        case actions.SubAccountTransfer():
            flags = Ask.IS_DEPOSIT if action.is_deposit else 0
            records.add(Command.SUB_TRANSFER, amount=action.amount, other=raw(action.sub), flags=flags)
        case actions.CreateSubAccount():
            records.add(Command.CREATE_SUB, other=created, text=action.name.encode())
        case actions.ApproveAgent():
            records.add(
                Command.APPROVE_AGENT,
                amount=action.valid_until_ms,
                other=raw(action.agent),
                text=action.name.encode(),
            )
        case _:
            raise Refusal(errors.NOT_SUPPORTED.format(codec.tag(action)))
