"""Every way in which a client is told no, and the words for it.

Three kinds of failure, never mixed:
  Refusal  the gateway said no: the request was wrong, or comes at the wrong time. Answered at the edge.
  NotNow   nobody did wrong: the engine was met at work at every try, or there is no world yet. Ask again.
  Fault    any other exception: ours to mend.

Clients compare these texts, or search them for their first words: they are the wire's, not ours to improve.
"""

from typing import NamedTuple

from shm.codes import Stale


class Answer(NamedTuple):
    status: int  # HTTP
    message: str


class Refusal(Exception):
    """The request stops here; the text says why."""


class NotNow(Exception):
    """The same request may succeed in a moment."""


BAD_BODY = Answer(422, "Failed to deserialize the JSON body into the target type")
NOT_READY = Answer(503, "not ready: no market data yet")
BUSY = Answer(503, "busy: try again")
NO_EXCHANGE = "this server follows a node: it takes no orders"

TOO_MANY_USERS = "Cannot track more than {} total users."
TOO_MANY_SUBSCRIPTIONS = "Cannot have more than {} subscriptions."
TOO_MANY_MESSAGES = "Too many messages: {} per minute at most."

ECHO_BYTES_MAX = 1000  # of a client's own words, given back to it


def already_subscribed(subscription: bytes) -> str:
    return f"Already subscribed: {quoted(subscription, whole=True)}"


def already_unsubscribed(subscription: bytes) -> str:
    return f"Already unsubscribed: {quoted(subscription, whole=True)}"


def invalid_subscription(subscription: bytes) -> str:
    return f"Invalid subscription: {quoted(subscription, whole=True)}"


def not_a_request(message: bytes, whole: bool) -> str:
    return f"Error parsing JSON into valid websocket request: {quoted(message, whole)}"


def quoted(message: bytes, whole: bool) -> str:
    """A client's words, cut, and without braces unless they are one `whole` JSON object.

    Clients look for a `{...}` in an error and read it as JSON: half of one would make them throw.
    """
    if whole and len(message) <= ECHO_BYTES_MAX:
        return message.decode()
    text = message[:ECHO_BYTES_MAX].decode(errors="replace")
    return text.replace("{", "(").replace("}", ")")


STALE_REASONS = {  # what feedStatus gives as its reason
    Stale.FRESH: "live",
    Stale.NO_SNAPSHOT: "no snapshot yet",
    Stale.GAP: "a block is missing",
    Stale.UNKNOWN_ORDER: "a diff named an unknown order",
    Stale.WRONG_SIZE: "a diff disagreed about a size",
    Stale.MISMATCH: "a snapshot disagreed",
    Stale.CORRUPT: "a line could not be read",
    Stale.CAPACITY: "a table is full",
}
assert STALE_REASONS.keys() == set(Stale), "every reason has its words"

ENGINE_GONE = "the engine does not answer"
ENGINE_BACK = "the engine answers again"
RESTARTED = "the engine was restarted"
REBUILT = "the book was rebuilt"
LAPPED = "the gateway fell behind"
CLIENT_LAPPED = "the client fell behind"

CLOSE_POLICY = 1008
CLOSE_TOO_SLOW = "too slow: {} bytes behind on {}"
CLOSE_EVENTS_LOST = "events were lost: connect and subscribe again"
