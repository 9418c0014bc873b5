"""The public door of an exchange, as simulated traders need it, around toy markets: who trades there is real.

    async with FakeExchange(folder) as exchange: ...

A login's signature is checked by gateway.signing, its account must have been given money by the operator's
socket, and only then posts are taken, without a signature.
"""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway import actions, signing
from scripts import operator
from scripts.simulated_market import BUY, SELL, SPECS
from tests.scripts.toy_exchange import Toy

COINS = ("BTC", "ETH")
Message = dict[str, Any]


class FakeExchange:
    """port: 0 for a free one. deposits: how many, by address. fills: how many of all accounts."""

    def __init__(self, folder: Path, port: int = 0):
        self.port, self.operator = port, folder / operator.NAME
        self.markets = [Toy(SPECS[coin], asset, self._tell) for asset, coin in enumerate(COINS)]
        self.deposits: Counter[str] = Counter()
        self.logins: Counter[str] = Counter()
        self.oracles: Counter[str] = Counter()  # prices told, by coin
        self.fills = 0
        self._funds: Counter[str] = Counter()  # 10^-6 USD
        self._users: dict[ServerConnection, str] = {}  # that have logged in
        self._heard: dict[ServerConnection, set[tuple[str, str]]] = {}  # subscriptions

    async def __aenter__(self) -> Self:
        self._desk = operator.Desk(self.operator, self._operate)
        self._server = await serve(self._serve, "127.0.0.1", self.port, ping_interval=None)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        self._desk.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._heard)

    @property
    def kinds(self) -> set[str]:
        return set().union(*(market.kinds for market in self.markets))

    def forget_all(self) -> None:
        """Begin anew, as an engine without its past would, and close every connection."""
        self._funds.clear()
        self.markets[:] = [Toy(market.spec, market.asset, self._tell) for market in self.markets]
        for connection in self._heard:
            connection.transport.abort()

    # --- what it does ---------------------------------------------------------------------------------------

    def _operate(self, command: Message, answer: Any) -> None:
        if command["kind"] == "oracle":
            self.oracles[command["coin"]] += 1
            answer({"ok": True, "sequence": 1})
            return
        self.deposits[command["address"]] += 1
        self._funds[command["address"]] += command["amount"]
        answer({"ok": True, "sequence": 1})

    async def _serve(self, connection: ServerConnection) -> None:
        self._heard[connection] = set()
        try:
            with suppress(ConnectionClosed):
                async for text in connection:
                    self._take(connection, json.loads(text))
        finally:
            del self._heard[connection]
            if user := self._users.pop(connection, None):
                for market in self.markets:
                    market.leave(user)

    def _take(self, connection: ServerConnection, message: Message) -> None:
        if message["method"] == "subscribe":
            wanted = message["subscription"]
            self._heard[connection].add((wanted["type"], wanted.get("user", wanted.get("coin"))))
        elif message["method"] == "login":
            answer = self._login(connection, message["request"])
            self._say(connection, "login", {"id": message["id"], **answer})
        else:
            payload = message["request"]["payload"]
            kind = message["request"]["type"]
            said = self._act(connection, payload) if kind == "action" else self._info(payload)
            data = {"id": message["id"], "response": {"type": kind, "payload": said}}
            self._say(connection, "post", data)

    def _login(self, connection: ServerConnection, request: Message) -> Message:
        user = f"0x{signing.recover(actions.decode(msgspec.json.encode(request))).hex()}"
        if not self._funds[user]:
            return {"status": "err", "response": f"User or API Wallet {user} does not exist."}
        assert request["action"]["cancelOnDisconnect"]
        self._users[connection] = user
        self.logins[user] += 1
        return {"status": "ok"}

    def _act(self, connection: ServerConnection, payload: Message) -> Message:
        actions.decode(msgspec.json.encode(payload), signed=False)
        assert payload.keys() == {"action"}, "a session signs nothing"
        user, action = self._users.get(connection), payload["action"]
        if user is None:
            return {"status": "err", "response": "No signature"}
        items = action.get("orders") or action.get("cancels") or action.get("modifies") or [action]
        asset = (items[0].get("order") or items[0]).get("a", items[0].get("asset"))
        statuses = self.markets[asset].act(user, action)
        self._tell_quotes(self.markets[asset])
        return {"status": "ok", "response": {"type": action["type"], "data": {"statuses": statuses}}}

    def _info(self, payload: Message) -> Message:
        return {"type": payload["type"], "data": getattr(self, f"_{payload['type']}")(payload)}

    def _meta(self, _: Message) -> Any:
        specs = [market.spec for market in self.markets]
        universe = [
            {"name": spec.coin, "szDecimals": spec.size_decimals, "maxLeverage": spec.leverage_max}
            for spec in specs
        ]
        return {"universe": universe}

    def _metaAndAssetCtxs(self, payload: Message) -> Any:  # noqa: N802 (the wire's name)
        specs = [market.spec for market in self.markets]
        return [self._meta(payload), [{"markPx": spec.price_text(spec.reference)} for spec in specs]]

    def _allMids(self, _: Message) -> Any:  # noqa: N802 (the wire's name)
        specs = [market.spec for market in self.markets]
        return {spec.coin: spec.price_text(spec.reference) for spec in specs}

    def _clearinghouseState(self, payload: Message) -> Any:  # noqa: N802 (the wire's name)
        user = payload["user"]
        positions = [
            {"position": {"coin": market.spec.coin, "szi": market.spec.quantity_text(market.position(user))}}
            for market in self.markets
            if market.position(user)
        ]
        value = f"{self._funds[user] / 1e6}"
        return {"marginSummary": {"accountValue": value}, "assetPositions": positions}

    def _frontendOpenOrders(self, payload: Message) -> Any:  # noqa: N802 (the wire's name)
        return [
            json.loads(order.text(market.spec))
            for market in self.markets
            for order in market.orders(payload["user"])
        ]

    # --- what it tells --------------------------------------------------------------------------------------

    def _tell(self, user: str, channel: str, data: list[Any]) -> None:
        self.fills += channel == "userFills"
        said = {"user": user, "fills": data} if channel == "userFills" else data
        self._broadcast(channel, user, said)

    def _tell_quotes(self, market: Toy) -> None:
        best = [market.book.best(side) for side in (BUY, SELL)]
        levels = [price and {"px": market.spec.price_text(price), "sz": "1.0", "n": 1} for price in best]
        self._broadcast("bbo", market.spec.coin, {"coin": market.spec.coin, "time": 1, "bbo": levels})

    def _broadcast(self, channel: str, of: str, data: Any) -> None:
        for connection, heard in self._heard.items():
            if (channel, of) in heard:
                self._say(connection, channel, data)

    def _say(self, connection: ServerConnection, channel: str, data: Any) -> None:
        with suppress(ConnectionClosed):
            text = json.dumps({"channel": channel, "data": data}).encode()
            connection.protocol.send_text(text[:10], fin=False)  # long messages come in parts
            connection.protocol.send_continuation(text[10:], fin=True)
            connection.send_data()


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait for a condition; TimeoutError says that it did not come."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
