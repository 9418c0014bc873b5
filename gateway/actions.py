"""How the wire spells POST /exchange: the envelope, its actions, and what of them is taken at all.

Decoding is the whole check of a shape. Inside an action it is strict, because the action's own encoding is
what its signer signed: keys stand here in the order in which they are hashed; a key that is unknown or named
twice is refused; prices, sizes, addresses and cloids have one spelling. What is executed is thus what was
hashed, however the client ordered or spaced its JSON. A key that is null counts as absent. Around an action,
unknown keys are ignored.
"""

import json
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field

from gateway import errors
from gateway.errors import Refusal
from gateway.schema import Typed
from gateway.terms import USER_PATTERN, Oid, User
from shm.constants import BATCH_MAX, TEXT_BYTES

BODY_BYTES_MAX = 64 * 1024  # the longest batch fits
ERROR_CHARACTERS_MAX = 200  # of the text that says what is wrong with an action

DECIMAL_PATTERN = r"\A(0|[1-9][0-9]{0,14})(\.[0-9]{0,7}[1-9])?\Z"
AMOUNT_PATTERN = r"\A(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?\Z"  # hashed as text: trailing zeros are the signer's
ADDRESS_PATTERN = r"\A0x[0-9a-f]{40}\Z"
CLOID_PATTERN = r"\A0x[0-9a-f]{32}\Z"
NUMBER_PATTERN = r"\A0x[0-9a-fA-F]{1,64}\Z"
CHAIN_PATTERN = r"\A0x[0-9a-fA-F]{1,16}\Z"
NAME_PATTERN = rf"\A[ -~]{{1,{TEXT_BYTES}}}\Z"
AGENT_PATTERN = rf"\A([ -~]{{0,{TEXT_BYTES}}}?)(?: valid_until ([1-9][0-9]{{0,14}}))?\Z"

SPELLINGS = {  # what to tell of a text that does not match
    DECIMAL_PATTERN: "a decimal without sign, exponent, leading or trailing zeros",
    AMOUNT_PATTERN: "an amount without sign or exponent, of 6 decimals at most",
    ADDRESS_PATTERN: "an address in lower case",
    USER_PATTERN: "an address",
    CLOID_PATTERN: "a cloid of 32 hex digits in lower case",
    CHAIN_PATTERN: "a chain id in hex",
    NAME_PATTERN: f"a name of 1 to {TEXT_BYTES} ASCII characters",
    AGENT_PATTERN: f"a name of up to {TEXT_BYTES} ASCII characters",
}

Decimal = Annotated[str, Meta(pattern=DECIMAL_PATTERN)]
Amount = Annotated[str, Meta(pattern=AMOUNT_PATTERN)]
Address = Annotated[str, Meta(pattern=ADDRESS_PATTERN)]
Cloid = Annotated[str, Meta(pattern=CLOID_PATTERN)]
Number = Annotated[str, Meta(pattern=NUMBER_PATTERN)]
ChainId = Annotated[str, Meta(pattern=CHAIN_PATTERN)]
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
AgentName = Annotated[str, Meta(pattern=AGENT_PATTERN)]
Market = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Signed = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
Expiry = Annotated[int, Meta(ge=1, le=2**63 - 1)]  # ms


class Part(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Base of actions and of what they are made of."""


# --- orders ------------------------------------------------------------------------------------------------


class Limit(Part):
    tif: Literal["Gtc", "Ioc", "Alo", "FrontendMarket"]


class Trigger(Part):
    is_market: bool = field(name="isMarket")
    price: Decimal = field(name="triggerPx")
    tpsl: Literal["tp", "sl"]


class OrderKind(Part):
    """One of the two."""

    limit: Limit | None = None
    trigger: Trigger | None = None

    def __post_init__(self) -> None:
        if (self.limit is None) == (self.trigger is None):
            raise ValueError("Expected `limit` or `trigger`")


class Order(Part):
    market: Market = field(name="a")
    is_buy: bool = field(name="b")
    price: Decimal = field(name="p")
    quantity: Decimal = field(name="s")
    reduce_only: bool = field(name="r")
    kind: OrderKind = field(name="t")
    cloid: Cloid | None = field(name="c", default=None)


class Builder(Part):
    address: Address = field(name="b")
    fee: Count = field(name="f")  # tenths of a basis point


class Priority(Part):
    """A grouping that pays to be first."""

    fee: Count = field(name="p")


class CancelOne(Part):
    market: Market = field(name="a")
    oid: Oid = field(name="o")


class CancelOneByCloid(Part):
    market: Market = field(name="asset")
    cloid: Cloid


class ModifyOne(Part):
    oid: Oid | Cloid
    order: Order


class Twap(Part):
    market: Market = field(name="a")
    is_buy: bool = field(name="b")
    quantity: Decimal = field(name="s")
    reduce_only: bool = field(name="r")
    minutes: Count = field(name="m")
    randomize: bool = field(name="t")


class TwapStart(Part):
    """Where the mark starts a TWAP."""

    price: Decimal = field(name="p")
    is_above: bool = field(name="a")


class TwapDetails(Part):
    """Both are hashed, also where they are null."""

    start: TwapStart | None = field(name="t")
    stop_price: Decimal | None = field(name="s")


# --- actions signed by their hash --------------------------------------------------------------------------


class PlaceOrders(Part, tag_field="type", tag="order"):
    orders: Annotated[list[Order], Meta(min_length=1, max_length=BATCH_MAX)]
    grouping: Literal["na", "normalTpsl", "positionTpsl"] | Priority
    builder: Builder | None = None


class Cancel(Part, tag_field="type", tag="cancel"):
    cancels: Annotated[list[CancelOne], Meta(min_length=1, max_length=BATCH_MAX)]
    fast: bool | None = field(name="f", default=None)


class CancelByCloid(Part, tag_field="type", tag="cancelByCloid"):
    cancels: Annotated[list[CancelOneByCloid], Meta(min_length=1, max_length=BATCH_MAX)]
    fast: bool | None = field(name="f", default=None)


class Modify(Part, tag_field="type", tag="modify"):
    oid: Oid | Cloid
    order: Order
    always_place: bool | None = field(name="a", default=None)


class BatchModify(Part, tag_field="type", tag="batchModify"):
    modifies: Annotated[list[ModifyOne], Meta(min_length=1, max_length=BATCH_MAX)]
    always_place: bool | None = field(name="a", default=None)


class ScheduleCancel(Part, tag_field="type", tag="scheduleCancel"):
    time_ms: Count | None = field(name="time", default=None)


class UpdateLeverage(Part, tag_field="type", tag="updateLeverage"):
    market: Market = field(name="asset")
    is_cross: bool = field(name="isCross")
    leverage: Count


class UpdateIsolatedMargin(Part, tag_field="type", tag="updateIsolatedMargin"):
    market: Market = field(name="asset")
    is_buy: bool = field(name="isBuy")  # without a meaning
    amount: Signed = field(name="ntli")  # 10**-6 USD


class TwapOrder(Part, tag_field="type", tag="twapOrder"):
    twap: Twap
    details: TwapDetails | None = None


class TwapCancel(Part, tag_field="type", tag="twapCancel"):
    market: Market = field(name="a")
    id: Oid = field(name="t")


class Noop(Part, tag_field="type", tag="noop"):
    pass


class CreateSubAccount(Part, tag_field="type", tag="createSubAccount"):
    name: Name


class SubAccountTransfer(Part, tag_field="type", tag="subAccountTransfer"):
    sub: Address = field(name="subAccountUser")
    is_deposit: bool = field(name="isDeposit")
    amount: Count = field(name="usd")  # 10**-6 USD


class Login(Part, tag_field="type", tag="login"):
    """Ours alone: what this connection sends from here on is its signer's, and needs no signature."""

    valid_until_ms: Count = field(name="validUntil")
    cancel_on_disconnect: bool = field(name="cancelOnDisconnect")


# --- actions signed field by field, as typed data ----------------------------------------------------------


class UsdSend(Part, tag_field="type", tag="usdSend"):
    chain_id: ChainId = field(name="signatureChainId")
    chain: Literal["Mainnet", "Testnet"] = field(name="hyperliquidChain")
    destination: User
    amount: Amount  # USD
    nonce: Count = field(name="time")


class ApproveAgent(Part, tag_field="type", tag="approveAgent"):
    chain_id: ChainId = field(name="signatureChainId")
    chain: Literal["Mainnet", "Testnet"] = field(name="hyperliquidChain")
    agent: User = field(name="agentAddress")
    nonce: Count
    full_name: AgentName | None = field(name="agentName", default=None)

    @property
    def name(self) -> str:
        """The name without the time that may follow it; empty for the unnamed agent."""
        return self._parts()[0]

    @property
    def valid_until_ms(self) -> int:
        """0: for ever."""
        return int(self._parts()[1] or 0)

    def _parts(self) -> tuple[str, str | None]:
        match = re.match(AGENT_PATTERN, self.full_name or "")
        assert match, "decoding has seen to it"
        return match[1], match[2]


Action = (
    PlaceOrders
    | Cancel
    | CancelByCloid
    | Modify
    | BatchModify
    | ScheduleCancel
    | UpdateLeverage
    | UpdateIsolatedMargin
    | TwapOrder
    | TwapCancel
    | Noop
    | CreateSubAccount
    | SubAccountTransfer
    | Login
    | UsdSend
    | ApproveAgent
)
TYPED = (UsdSend, ApproveAgent)  # neither a vault nor an expiry is among what they sign
NO_VAULT = (*TYPED, CreateSubAccount, SubAccountTransfer)  # an account's own: clients sign no vault there

NOT_SERVED = frozenset(  # what else the wire has
    "topUpIsolatedOnlyMargin reserveRequestWeight subAccountModify subAccountSpotTransfer "
    "vaultTransfer vaultModify vaultDistribute createVault setReferrer registerReferrer setDisplayName "
    "evmUserModify agentEnableDexAbstraction agentSetAbstraction agentSendAsset spotUser claimRewards "
    "borrowLend perpDeploy spotDeploy CSignerAction CValidatorAction gossipPriorityBid spotSend withdraw3 "
    "usdClassTransfer sendAsset approveBuilderFee tokenDelegate cDeposit cWithdraw userDexAbstraction "
    "userSetAbstraction userPortfolioMargin linkStakingUser convertToMultiSigUser multiSig".split()
)


# --- the envelope ------------------------------------------------------------------------------------------


class Signature(msgspec.Struct, frozen=True, gc=False):
    r: Number  # not always padded
    s: Number
    v: Literal[0, 1, 27, 28]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """An action as it may be executed: all of it is under the signature, once that is found to be good."""

    action: Action
    nonce: int
    signature: Signature | None  # None: of a connection that has logged in
    vault: bytes | None  # the sub-account's address
    expires_ms: int | None


class _Unsigned(msgspec.Struct, kw_only=True):
    """The envelope as it is sent where a signature is not asked for."""

    action: Raw
    nonce: Count | UnsetType = UNSET
    signature: Signature | UnsetType | None = UNSET
    vault: User | UnsetType | None = field(name="vaultAddress", default=UNSET)
    expires_ms: Expiry | UnsetType | None = field(name="expiresAfter", default=UNSET)


class _Signed(_Unsigned, kw_only=True):
    nonce: Count
    signature: Signature


_NOT_JSON = (msgspec.MsgspecError, ValueError, RecursionError)
_unsigned: msgspec.json.Decoder[_Unsigned] = msgspec.json.Decoder(_Unsigned)
_signed: msgspec.json.Decoder[_Signed] = msgspec.json.Decoder(_Signed)
_action: msgspec.json.Decoder[Action] = msgspec.json.Decoder(Action)
_typed = msgspec.json.Decoder(Typed)
_encode = msgspec.json.Encoder().encode


def decode(body: bytes, signed: bool = True) -> Envelope:
    """The envelope `body` of a POST /exchange, or the payload of a post that is an action.

    signed  whether it must have a nonce and a signature, which only a connection that has logged in may omit
    Raises Refusal: with BAD_BODY's message for what is no envelope, with what is wrong for any other action.
    """
    if len(body) > BODY_BYTES_MAX:
        raise Refusal(errors.BAD_BODY.message)
    try:
        body.decode()  # msgspec does not look at the keys that it ignores
        sent = _signed.decode(body) if signed else _unsigned.decode(body)
    except _NOT_JSON:
        raise Refusal(errors.BAD_BODY.message) from None
    raw = bytes(sent.action)
    try:
        action = _action.decode(raw)
        if _names_a_key_twice(body, raw, sent, action):
            raise Refusal(errors.KEY_TWICE)
    except _NOT_JSON as error:
        raise Refusal(_reason(raw, error)) from None
    vault = None if isinstance(action, NO_VAULT) else sent.vault or None
    return Envelope(
        action,
        sent.nonce or 0,
        sent.signature or None,
        bytes.fromhex(vault[2:]) if vault else None,
        None if isinstance(action, TYPED) else sent.expires_ms or None,
    )


def _names_a_key_twice(body: bytes, raw: bytes, sent: _Unsigned, action: Action) -> bool:
    """Whether an object in `body` has two values for a key; what was decoded holds the last of them.

    More colons in their text than in our encoding may be such a key, or one that is null or ignored, and a
    text may be spelled otherwise than we would: only then is all of it looked at.
    """
    theirs = body.count(b":") + raw.count(b":")  # the action is in what was sent, and once more by itself
    if b"\\" not in body and theirs == _encode((sent, action)).count(b":"):
        return False
    try:
        json.loads(body, object_pairs_hook=_without_twice, parse_int=str)  # of any length
    except _Twice:
        return True
    return False


class _Twice(Exception):
    pass


def _without_twice(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _Twice


def _reason(raw: bytes, error: Exception) -> str:
    """What to tell of an action that does not decode: never more of the client's words than a cut piece."""
    try:
        name = _typed.decode(raw).type
    except _NOT_JSON:
        name = ""
    if name in NOT_SERVED:
        return errors.NOT_SUPPORTED.format(name)
    text = str(error)
    for pattern, spelling in SPELLINGS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", spelling)
    return errors.INVALID_ACTION.format(errors.quoted(text[:ERROR_CHARACTERS_MAX].encode(), whole=False))
