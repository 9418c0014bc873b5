"""A connection that trades: logs in once with a signature, then posts actions without one, and asks for info.

    async with trading_client.connect(url, hear) as client:
        await client.login(wallet, now_ms)
        await client.act({"type": "order", ...})

It speaks the public WebSocket and nothing else. Answers are matched by number; streams go to `hear`. When the
connection ends, or an answer does not come or says so, what waits raises Lost: what then became of an action
is not known.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from scripts.wallet import Wallet

ANSWER_SECONDS = 20.0
SESSION_MS = 12 * 3_600_000
UNKNOWN = "504"  # what the answer to an action begins with of which nobody knows
FRAME_BYTES_MAX = 1 << 24

Hear = Callable[[str, Any], None]  # gets the channel and the data of each message that is no answer


class Lost(ConnectionError):
    """The connection has ended, or the exchange did not answer in time."""


class Refused(Exception):
    """The text that a whole action, a login or a question was refused with."""


class TradingClient(WSListener):
    """One connection; made by `connect`."""

    def __init__(self, hear: Hear):
        self._hear = hear
        self._waiting: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self._number = 0
        self._transport: WSTransport | None = None
        self._parts: list[bytes] = []  # of a message whose end has not come
        self.ended = asyncio.Event()

    # --- what it is asked -----------------------------------------------------------------------------------

    async def login(self, wallet: Wallet, now_ms: int, session_ms: int = SESSION_MS) -> None:
        """Prove who trades here. Its orders are canceled when the connection ends. Raises Refused, Lost."""
        action = {"type": "login", "validUntil": now_ms + session_ms, "cancelOnDisconnect": True}
        request = {"action": action, "nonce": now_ms, "signature": wallet.sign(action, now_ms)}
        answer = await self._ask("login", "login", request)
        if answer["status"] != "ok":
            raise Refused(str(answer.get("response", answer)))

    async def act(self, action: dict[str, Any]) -> Any:
        """Give the `response` of an action that was taken as a whole. Raises Refused if it was not, Lost."""
        answer = await self._post({"type": "action", "payload": {"action": action}})
        if answer["status"] != "ok":
            raise Refused(str(answer["response"]))
        return answer["response"]

    async def info(self, request: dict[str, Any]) -> Any:
        """What POST /info would answer. Raises Refused, Lost."""
        return (await self._post({"type": "info", "payload": request}))["data"]

    def subscribe(self, **subscription: Any) -> None:
        self._send({"method": "subscribe", "subscription": subscription})

    async def _post(self, request: dict[str, Any]) -> Any:
        response = (await self._ask("post", "post", request))["response"]
        payload = response["payload"]
        if response["type"] == "error":
            raise Lost(payload) if payload.startswith(UNKNOWN) else Refused(payload)
        return payload

    async def _ask(self, method: str, channel: str, request: dict[str, Any]) -> Any:
        """Send a numbered request; give the data of the answer with its number."""
        self._number += 1
        key = channel, self._number
        answer = self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            self._send({"method": method, "id": self._number, "request": request})
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise Lost(f"no answer to a {method} within {ANSWER_SECONDS:.0f} s") from None
        finally:
            del self._waiting[key]

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is None or self.ended.is_set():
            raise Lost("the connection has ended")
        self._transport.send(WSMsgType.TEXT, msgspec.json.encode(message))

    # --- what it hears --------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._parts.append(frame.get_payload_as_bytes())
            if frame.fin:
                message = msgspec.json.decode(b"".join(self._parts))
                self._parts.clear()
                self._take(message["channel"], message.get("data"))
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.ended.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Lost("the connection has ended"))

    def _take(self, channel: str, data: Any) -> None:
        number = data.get("id") if isinstance(data, dict) else None
        answer = self._waiting.get((channel, number)) if isinstance(number, int) else None
        if answer is None:
            self._hear(channel, data)
        elif not answer.done():
            answer.set_result(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.disconnect()


@asynccontextmanager
async def connect(url: str, hear: Hear = lambda channel, data: None) -> AsyncIterator[TradingClient]:
    """Open a connection to the WebSocket of `url`, as http://host:port. Raises OSError if nobody is there."""
    socket = url.replace("http", "ws", 1).rstrip("/") + "/ws"
    try:
        _, client = await ws_connect(
            lambda: TradingClient(hear), socket, max_frame_size=FRAME_BYTES_MAX, enable_auto_ping=True
        )
    except WSError as failure:
        raise Lost(f"no WebSocket at {socket}: {failure}") from failure
    if client is None:
        raise Lost(f"the WebSocket at {socket} was closed as it opened")
    assert isinstance(client, TradingClient)
    try:
        yield client
    finally:
        client.close()
