"""Every way in which a client is told no, and the words for it.

Three kinds of failure, never mixed:
  Refusal  the gateway said no: the request was wrong, or comes at the wrong time. Answered at the edge.
  NotNow   nobody did wrong: the engine was met at work at every try, or there is no world yet. Ask again.
  Fault    any other exception: ours to mend.

Clients compare these texts, or search them for their first words: they are the wire's, not ours to improve.
"""

from typing import NamedTuple

from shm.codes import ACTION_MAX, Stale
from shm.codes import Refusal as Code


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

NO_ENGINE = "the engine does not answer: the action was not accepted and is never executed"
OVERLOADED = "busy: the action was not accepted and is never executed; try again"
JOURNAL_FULL = "halted: the journal's disk is full; the action was not accepted and is never executed"
UNKNOWN = Answer(504, "outcome unknown: the action may have been executed; ask by cloid or orderStatus")
TOO_MANY_ACTIONS = Answer(429, "too many actions in one minute")
TOO_MANY_POSTS = "too many pending post requests id={}"

NOT_SUPPORTED = "{} is not supported"
INVALID_ACTION = "Invalid action: {}"
KEY_TWICE = "Invalid request: a key is named twice"
INVALID_SIGNATURE = "Invalid signature"
OTHER_NONCE = "Invalid nonce: the action and its envelope differ"
OTHER_NETWORK = "Invalid hyperliquidChain: expected {}"
LOGIN_OVER = "No signature, and the login of this connection is over"
MUST_BE_SIGNED = "{} always needs its signature"
LOGIN_ELSEWHERE = "login is a method of its own, on a WebSocket"
LOGIN_TIME = "Invalid login: validUntil must be in the next 24 hours, in milliseconds"
NOT_A_LOGIN = "Invalid login: the action's type must be login"

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


REFUSALS = {  # what a client is told of each refusal of the engine; the gateway's own use the same words
    Code.UNKNOWN_SIGNER: "User or API Wallet {signer} does not exist.",
    Code.UNKNOWN_VAULT: "Vault not registered: {vault}",
    Code.NONCE_DUPLICATE: "Invalid nonce: duplicate nonce",
    Code.NONCE_TOO_LOW: "Invalid nonce: lower than all that are kept of this signer",
    Code.NONCE_WINDOW: "Invalid nonce: more than two days old, or a day ahead, in milliseconds",
    Code.EXPIRED: "Action expired: expiresAfter has passed",
    Code.NOT_ALLOWED: "Only the account itself may do this, not an agent, and not for a sub-account",
    Code.UNKNOWN_MARKET: "Unknown asset {asset}",
    Code.LEVERAGE_VALUE: "Invalid leverage value",
    Code.LEVERAGE_SWITCH: "Cannot switch leverage type with open position.",
    Code.LEVERAGE_MARGIN: "Insufficient margin for this leverage.",
    Code.NOT_ISOLATED: "There is no isolated position. asset={asset}",
    Code.BALANCE: "Insufficient balance for token transfer",
    Code.SCHEDULE_SOON: "Scheduled cancel time must be at least 5 seconds ahead",
    Code.SCHEDULE_OFTEN: "Too many scheduled cancels today",
    Code.AGENT_USED: "Extra agent already used.",
    Code.AGENTS_MANY: "Too many extra agents.",
    Code.SUBS_MANY: "Too many sub-accounts.",
    Code.SUB_UNKNOWN: "Sub-account {other} is not registered to {signer}",
    Code.AMOUNT: "Invalid amount, address or time",
    Code.TABLE_FULL: "The exchange is full: nothing was changed",
    Code.NOT_A_COMMAND: "Unknown action",
    Code.PRICE: "Price must be divisible by tick size. asset={asset}",
    Code.SIZE: "Order has invalid size. asset={asset}",
    Code.VALUE_MIN: "Order must have minimum value of $10. asset={asset}",
    Code.VALUE_MAX: "Order value is too large. asset={asset}",
    Code.MARGIN: "Insufficient margin to place order. asset={asset}",
    Code.REDUCE_ONLY: "Reduce only order would increase position. asset={asset}",
    Code.POST_ONLY: "Post only order would have immediately matched, bbo was {bbo}. asset={asset}",
    Code.IOC: "Order could not immediately match against any resting orders. asset={asset}",
    Code.LIQUIDITY: "No liquidity available for market order. asset={asset}",
    Code.PRICE_FAR: "Order price cannot be more than 80% away from the reference price asset={asset}",
    Code.OPEN_ORDERS: "Too many open orders. asset={asset}",
    Code.CLOID: "An open order has this cloid. asset={asset}",
    Code.GONE: "Order was never placed, already canceled, or filled. asset={asset}",
    Code.MODIFY_GONE: "Cannot modify canceled or filled order",
    Code.TRIGGER: "Invalid TP/SL price. asset={asset}",
    Code.ORDERS_FULL: "No room for another order. asset={asset}",
    Code.ORDER_MARKET: "Unknown asset {asset}",
    Code.KILLED: "Trading is switched off for this account. asset={asset}",
    Code.CLOSED: "Trading is halted: only cancels are taken. asset={asset}",
    Code.INTEREST_FAST: "Order would increase open interest too quickly. asset={asset}",
    Code.INTEREST_FLIP: "Order would increase open interest while open interest is capped. asset={asset}",
    Code.TIER: "Order would cause position to exceed margin tier limit at current leverage. asset={asset}",
    Code.GROUPING: "TP/SL order must be a reduce only trigger order against its main order. asset={asset}",
    Code.PARENT: "Main order was not placed, or has ended before it was filled. asset={asset}",
    Code.TWAP_MINUTES: "Invalid TWAP duration: {minutes} min(s)",
    Code.TWAP_VALUE: "TWAP order value too small. Min is ${dollars}, which is $10 per minute.",
    Code.TWAP_GONE: "TWAP was never placed, already canceled, or filled.",
    Code.INTEREST_CAP: "Order would increase open interest while open interest is capped. asset={asset}",
}
assert REFUSALS.keys() == set(Code) - {Code.NONE}, "every refusal has its words"


def refused(code: int, **facts: object) -> str:
    """The words for a code.

    facts  signer, vault, other (0x...), asset, bbo, minutes, dollars, as far as the code has them
    """
    return REFUSALS[Code(code)].format_map(facts)


def is_of_action(code: int) -> bool:
    """Whether a refusal is of the whole action, and not of one order in it."""
    return Code.NONE < code <= ACTION_MAX


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
