"""Bytes to requests, and answers to bytes. The only module that knows that the wire is JSON.

Every decoder raises Refusal for whatever is not what it decodes, and nothing else: msgspec's own errors, bad
UTF-8, and nesting so deep that it would recurse without end.
"""

from typing import Any

import msgspec

from gateway import errors, schema
from gateway.errors import Answer, Refusal

encode = msgspec.json.Encoder().encode

_NOT_JSON = (msgspec.MsgspecError, ValueError, RecursionError)
_request: msgspec.json.Decoder[schema.Request] = msgspec.json.Decoder(schema.Request)
_subscription: msgspec.json.Decoder[schema.Subscription] = msgspec.json.Decoder(schema.Subscription)
_info: msgspec.json.Decoder[schema.InfoRequest] = msgspec.json.Decoder(schema.InfoRequest)
_action = msgspec.json.Decoder(schema.Action)
_typed = msgspec.json.Decoder(schema.Typed)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_whole = msgspec.json.Decoder()

_REASONS = {  # of the statuses that an errors.Answer can have
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

PONG = b'{"channel":"pong"}'


def decode(message: bytes) -> schema.Request:
    """One message of a WebSocket client."""
    try:
        message.decode()  # what is echoed later must be text
        return _request.decode(message)
    except _NOT_JSON:
        raise Refusal(errors.not_a_request(message, _is_object(message))) from None


def decode_subscription(message: bytes, raw: bytes) -> schema.Subscription:
    """The subscription `raw`, which came in `message`. Its shape is right; its values may not be."""
    try:
        return _subscription.decode(raw)
    except _NOT_JSON:
        if _type_of(raw) in schema.NOT_SERVED:
            raise Refusal(errors.invalid_subscription(raw)) from None
        raise Refusal(errors.not_a_request(message, _is_object(message))) from None


def decode_info(body: bytes) -> schema.InfoRequest:
    try:
        body.decode()  # msgspec does not look at the keys that it ignores
        return _info.decode(body)
    except _NOT_JSON:
        raise Refusal(errors.BAD_BODY.message) from None


def check_action(body: bytes) -> None:
    """See that `body` is a POST /exchange."""
    try:
        _action.decode(body)
    except _NOT_JSON:
        raise Refusal(errors.BAD_BODY.message) from None


def echo(subscription: schema.Subscription, raw: bytes) -> bytes:
    """The normal form of a subscription: every key that the client sent, as it was sent, and those it left
    out.

    Clients find the answer to their request by comparing it with what they sent, key by key.
    """
    missing = schema.NORMAL_KEYS.get(type(subscription), {})
    if missing:
        sent = _members.decode(raw)
        more = b"".join(
            b',"%b":%b' % (key.encode(), text) for key, text in missing.items() if key not in sent
        )
        raw = raw.strip()[:-1] + more + b"}"
    return raw


def acknowledgement(method: str, echoed: bytes) -> bytes:
    return b'{"channel":"subscriptionResponse","data":{"method":"%b","subscription":%b}}' % (
        method.encode(),
        echoed,
    )


def error(text: str) -> bytes:
    return b'{"channel":"error","data":%b}' % encode(text)


def post_answer(id: int, kind: str, payload: bytes) -> bytes:
    """The answer to post `id`. kind: info, action or error; payload: JSON."""
    return b'{"channel":"post","data":{"id":%d,"response":{"type":"%b","payload":%b}}}' % (
        id,
        kind.encode(),
        payload,
    )


def login_answer(id: int, payload: bytes) -> bytes:
    """The answer to login `id`. payload: a JSON object that is not empty."""
    return b'{"channel":"login","data":{"id":%d,%b}' % (id, payload[1:])


def info_payload(type_name: str, body: bytes) -> bytes:
    return b'{"type":%b,"data":%b}' % (encode(type_name), body)


def refused_action(text: str) -> bytes:
    """What POST /exchange answers, with status 200, to an action that is not executed."""
    return b'{"status":"err","response":%b}' % encode(text)


def http_text(answer: Answer) -> str:
    """An HTTP refusal as a post answers it: status, reason, text."""
    return f"{answer.status} {_REASONS[answer.status]}: {answer.message}"


def tag(request: Any) -> str:
    """The wire's name of a request's type."""
    return str(request.__struct_config__.tag)


def _type_of(raw: bytes) -> str:
    try:
        return _typed.decode(raw).type
    except _NOT_JSON:
        return ""


def _is_object(message: bytes) -> bool:
    try:
        message.decode()
        return isinstance(_whole.decode(message), dict)
    except _NOT_JSON:
        return False
