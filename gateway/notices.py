"""What the readers of a coin are told about the feed itself: `feedStatus`, a channel that clients may ignore.

    {"channel":"feedStatus","data":{"coin","status":"stale"|"live"|"lapped","reason","height","time"}}

stale: what was sent last cannot be trusted, or will not be renewed. live: it can again, and a fresh message
or Snapshot follows. lapped: something was left out; what follows begins anew. Nobody is told what he knows
already.
"""

from gateway import errors
from gateway.codec import encode
from gateway.fanout import Client
from gateway.readers import Readers
from gateway.world import World
from shm.codes import Stale

LIVE, STALE, LAPPED = "live", "stale", "lapped"


class Notices:
    """Remembers which coins were said to be stale, and why."""

    def __init__(self, readers: Readers):
        self.world: World | None = None
        self.engine_gone = False
        self._readers = readers
        self._said: dict[str, str] = {}  # coin -> the reason why it is stale

    def check(self, coin: str, why_live: str) -> None:
        """Tell the readers of a coin when it has become stale, or so for another reason, or live again."""
        if coin not in self._readers.of_coin:
            self._said.pop(coin, None)
            return
        reason = self._reason(coin)
        if self._said.get(coin) == reason:
            return
        if reason is None:
            del self._said[coin]
            self.tell(coin, LIVE, why_live)
        else:
            self._said[coin] = reason
            self.tell(coin, STALE, reason)

    def doubt(self, coin: str, stale: Stale) -> None:
        """Tell the readers of a coin that it was stale, even if it no longer is: `check` tells the rest."""
        reason = errors.STALE_REASONS[stale]
        if stale and coin in self._readers.of_coin and self._said.get(coin) != reason:
            self._said[coin] = reason
            self.tell(coin, STALE, reason)

    def check_all(self, why_live: str) -> None:
        for coin in {*self._readers.of_coin, *self._said}:
            self.check(coin, why_live)

    def greet(self, client: Client, coin: str) -> None:
        """Tell a new reader of a coin, if it is stale."""
        reason = self._reason(coin)
        if reason is not None:
            self._said[coin] = reason
            client.say(self.message(coin, STALE, reason))

    def tell(self, coin: str, status: str, reason: str) -> None:
        message = self.message(coin, status, reason)
        for client in self._readers.clients_of(coin):
            client.say(message)

    def message(self, coin: str, status: str, reason: str) -> bytes:
        height, time_ms = 0, 0
        if self.world is not None:
            look = self.world.look()
            height, time_ms = look.height, look.time_ms
        told = {"coin": coin, "status": status, "reason": reason, "height": height, "time": time_ms}
        return b'{"channel":"feedStatus","data":%b}' % encode(told)

    def _reason(self, coin: str) -> str | None:
        """Why a coin is stale; None when it is live."""
        if self.engine_gone or self.world is None:
            return errors.ENGINE_GONE
        market = self.world.market(coin)
        stale = Stale.NO_SNAPSHOT if market is None else Stale(self.world.words(market).stale)
        return errors.STALE_REASONS[stale] if stale else None
