"""A toy exchange for the simulated traders: one market, no money, no time.

It matches with the simulated node's market, takes actions in the wire's form, asserts that they are legal,
and tells each account, which is named by its address, of its orders and fills as the streams do.
"""

import json
from collections.abc import Callable
from typing import Any

from scripts.simulated_market import BUY, FILLS, SELL, STATUSES, Accounts, Block, Market, Order, Spec
from scripts.simulated_quotes import Action, scaled

TIFS = {"Alo", "Ioc"}
Tell = Callable[[str, str, list[Any]], None]  # a user's channel, and what it says


def is_legal(spec: Spec, price: int) -> bool:
    """The rule of the exchange: a whole number of USD, or at most five figures."""
    digits = len(str(price))
    return price > 0 and (price % 10**spec.price_decimals == 0 or price % 10 ** max(0, digits - 5) == 0)


class Toy:
    """statuses: what became of all orders. kinds: of actions that came."""

    def __init__(self, spec: Spec, asset: int, tell: Tell):
        self.spec, self.asset = spec, asset
        self.book = Market(spec, Accounts())
        self.statuses: list[str] = []
        self.kinds: set[str] = set()
        self._tell = tell
        self._height = 0

    def position(self, user: str) -> int:
        return self.book._accounts.position(user, self.spec)

    def orders(self, user: str) -> list[Order]:
        return [order for order in self.book.orders.values() if order.user == user]

    def act(self, user: str, action: Action) -> list[Any]:
        """Take an action of this market; give the statuses of its answer."""
        self._height += 1
        self.kinds.add(action["type"])
        block = Block(self._height, self._height * 10**9)
        answers = [self._place(block, user, order) for order in action.get("orders", [])]
        for cancel in action.get("cancels", []):
            gone = not self._cancel(block, user, cancel.get("cloid", cancel.get("o")))
            answers.append({"error": "gone"} if gone else "success")
        for modify in action.get("modifies", [action] if action["type"] == "modify" else []):
            if self._cancel(block, user, modify["oid"]):
                answers.append(self._place(block, user, modify["order"]))
            else:
                answers.append({"error": "gone"})
        self._told(block)
        return answers

    def leave(self, user: str) -> None:
        """Cancel all that a user has."""
        self._height += 1
        block = Block(self._height, self._height * 10**9)
        for order in self.orders(user):
            self.book.cancel(block, order)
        self._told(block)

    def _mine(self, user: str, named: int | str) -> list[Order]:
        return [order for order in self.orders(user) if named in (order.oid, order.cloid)]

    def _cancel(self, block: Block, user: str, named: int | str) -> bool:
        mine = self._mine(user, named)
        for order in mine:
            self.book.cancel(block, order)
        return bool(mine)

    def _place(self, block: Block, user: str, order: Action) -> Any:
        spec, cloid, tif = self.spec, order.get("c"), order["t"]["limit"]["tif"]
        assert order["a"] == self.asset and tif in TIFS
        if cloid is not None and self._mine(user, cloid):
            return {"error": "cloid"}
        side = BUY if order["b"] else SELL
        price, size = scaled(order["p"], spec.price_decimals), scaled(order["s"], spec.size_decimals)
        assert is_legal(spec, price) and size > 0
        if order["r"]:
            assert self.position(user) * (1 if side == SELL else -1) >= size, "it closes what is there"
        placed = Order(block.take_oid(), user, side, price, size, tif, 0, cloid)
        self.book.place(block, placed)
        if placed.oid in self.book.orders:
            return {"resting": {"oid": placed.oid}}
        return {"filled": {"oid": placed.oid}} if placed.quantity < size else {"error": "rejected"}

    def _told(self, block: Block) -> None:
        for stream, text in block.events:
            told = json.loads(text)
            if stream == STATUSES:
                self.statuses.append(told["status"])
                self._tell(told["user"], "orderUpdates", [told])
            elif stream == FILLS:
                user, fill = told
                self._tell(user, "userFills", [fill])
