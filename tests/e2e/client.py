"""A client of the WebSocket in a thread of its own: subscribes, keeps what it hears, and comes back.

It is made of a library that the project does not serve with, and keeps an L4 book by tests/e2e/replica.py.
Whatever it finds wrong stands in `fault`; `check` raises it.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from tests.e2e.replica import Replica

AGAIN_SECONDS = 0.03  # between two tries to connect
CONNECTED = "(connected)"  # the channel of a client's own note among the messages
Message = dict[str, Any]


class Client(threading.Thread):
    """port, subscriptions: what to subscribe to, in this order, on one connection.

    hear       called in the thread with each message, after the client's own book has taken it
    returns    connect again when the connection ends; else the thread ends with it
    """

    def __init__(
        self,
        port: int,
        *subscriptions: Message,
        hear: Callable[[Message], None] = lambda message: None,
        returns: bool = False,
    ) -> None:
        super().__init__(daemon=True)
        self.url, self.subscriptions, self.returns = f"ws://127.0.0.1:{port}/ws", subscriptions, returns
        self.hear = hear
        self.books = {
            wanted["coin"]: Replica(wanted["coin"]) for wanted in subscriptions if wanted["type"] == "l4Book"
        }
        self.messages: list[Message] = []  # all but those of l4Book, which are large
        self.connections = 0
        self.snapshots = 0
        self.local_port = 0  # of the present connection
        self.closed_with: int | None = None  # the code of the last close
        self.closed_because = ""
        self.fault: BaseException | None = None
        self._socket: ClientConnection | None = None
        self._ending = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self.join(10)
        self.check()

    def check(self) -> None:
        """Raise what the thread has found wrong."""
        if self.fault is not None:
            raise AssertionError(f"a client has found: {self.fault!r}") from self.fault

    def of(self, channel: str) -> list[Any]:
        """The data of all messages of a channel, in the order they came."""
        return [message["data"] for message in list(self.messages) if message["channel"] == channel]

    def statuses(self) -> list[str]:
        """What was said of the feed on the present connection, in order."""
        told: list[str] = []
        for message in list(self.messages):
            if message["channel"] == CONNECTED:
                told = []
            elif message["channel"] == "feedStatus":
                told.append(message["data"]["status"])
        return told

    def send(self, message: Message) -> None:
        assert self._socket is not None
        self._socket.send(json.dumps(message))

    def run(self) -> None:
        try:
            while not self._ending:
                with suppress(OSError, InvalidHandshake, EOFError):
                    self._live()
                if not self.returns:
                    return
                time.sleep(AGAIN_SECONDS)
        except BaseException as fault:  # noqa: BLE001 (it is for the test to raise)
            self.fault = fault

    def _live(self) -> None:
        """One connection, from its start to its end."""
        with connect(self.url, max_size=None, compression=None, ping_interval=None) as self._socket:
            self.local_port = self._socket.local_address[1]
            self.messages.append({"channel": CONNECTED, "data": self.local_port})
            self.connections += 1
            try:
                for wanted in self.subscriptions:
                    self.send({"method": "subscribe", "subscription": wanted})
                while True:
                    self._take(json.loads(self._socket.recv()))
            except ConnectionClosed as closed:
                self.closed_with = closed.rcvd.code if closed.rcvd else None
                self.closed_because = closed.rcvd.reason if closed.rcvd else ""

    def _take(self, message: Message) -> None:
        if message["channel"] == "l4Book":
            data = message["data"]
            coin = data["Snapshot"]["coin"] if "Snapshot" in data else _coin(data["Updates"])
            self.books[coin].take(data)
            self.snapshots += "Snapshot" in data
        else:
            self.messages.append(message)
        self.hear(message)


def _coin(updates: Message) -> str:
    """The coin that Updates are about, which they say inside only."""
    for diff in updates["book_diffs"]:
        return diff["coin"]
    return updates["order_statuses"][0]["order"]["coin"]
