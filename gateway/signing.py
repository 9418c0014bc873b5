"""Who signed an action: the hash of what will be executed, and the address whose key made the signature.

There are two schemes. Most actions are signed by their hash: msgpack of the action, in the key order of its
type, then nonce, vault and expiry. Those that move money or power are signed as typed data (EIP-712), field
by field, so that a wallet can show them. Both name a network, and neither names a venue: a signature made for
the mainnet of the public venue would be as good here, and the reverse. Only the testnet's are taken,
therefore, unless an operator asks for others.

A signature over anything else recovers to some address too, which nobody holds: whether the address may act
is for the engine to say. Nothing may be remembered of an address that it does not know.
"""

from functools import lru_cache

import coincurve
import msgspec
from Crypto.Hash import keccak

from gateway import errors
from gateway.actions import TYPED, Action, ApproveAgent, Envelope, Signature, UsdSend
from gateway.errors import Refusal

NETWORKS = {"a": "Mainnet", "b": "Testnet"}  # by its source letter: both are signed
OURS = "b"

ORDER_OF_GROUP = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
S_MAX = ORDER_OF_GROUP // 2  # of (r, s) and (r, -s) only the lower is taken: one signature, one spelling

_pack = msgspec.msgpack.Encoder().encode


def keccak256(content: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=content).digest()


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


@lru_cache(64)  # chains are few, though a client may name any
def _domain(name: bytes, chain_id: int) -> bytes:
    """Hash of the EIP-712 domain `name`, version 1, of no contract."""
    fields = b"string name,string version,uint256 chainId,address verifyingContract"
    return keccak256(
        keccak256(b"EIP712Domain(" + fields + b")")
        + keccak256(name)
        + keccak256(b"1")
        + _word(chain_id)
        + _word(0)
    )


_EXCHANGE = _domain(b"Exchange", 1337)
_AGENT = {
    letter: keccak256(b"Agent(string source,bytes32 connectionId)") + keccak256(letter.encode())
    for letter in NETWORKS
}
_COMMON = b"HyperliquidTransaction:%b(string hyperliquidChain,%b)"
_USD_SEND = keccak256(_COMMON % (b"UsdSend", b"string destination,string amount,uint64 time"))
_APPROVE_AGENT = keccak256(_COMMON % (b"ApproveAgent", b"address agentAddress,string agentName,uint64 nonce"))


def l1_hash(action: Action, nonce: int, vault: bytes | None, expires_ms: int | None) -> bytes:
    """What stands for an action in its signature. vault: 20 bytes."""
    content = _pack(action) + nonce.to_bytes(8, "big") + (b"\0" if vault is None else b"\1" + vault)
    if expires_ms is not None:
        content += b"\0" + expires_ms.to_bytes(8, "big")
    return keccak256(content)


def typed_hash(action: UsdSend | ApproveAgent) -> bytes:
    """Hash of the typed data that such an action is, without its domain."""
    chain, nonce = keccak256(action.chain.encode()), _word(action.nonce)
    if isinstance(action, UsdSend):
        destination, amount = keccak256(action.destination.encode()), keccak256(action.amount.encode())
        return keccak256(_USD_SEND + chain + destination + amount + nonce)
    agent, name = _word(int(action.agent, 16)), keccak256((action.full_name or "").encode())
    return keccak256(_APPROVE_AGENT + chain + agent + name + nonce)


def digest(envelope: Envelope, source: str) -> bytes:
    """The 32 bytes that the signature of `envelope` signs, on the network of the letter `source`.

    Raises Refusal where an action says by itself that it is of another network or nonce.
    """
    action = envelope.action
    if isinstance(action, TYPED):
        if action.nonce != envelope.nonce:
            raise Refusal(errors.OTHER_NONCE)
        if action.chain != NETWORKS[source]:
            raise Refusal(errors.OTHER_NETWORK.format(NETWORKS[source]))
        domain = _domain(b"HyperliquidSignTransaction", int(action.chain_id, 16))
        return keccak256(b"\x19\x01" + domain + typed_hash(action))
    connection = l1_hash(action, envelope.nonce, envelope.vault, envelope.expires_ms)
    return keccak256(b"\x19\x01" + _EXCHANGE + keccak256(_AGENT[source] + connection))


def recover(envelope: Envelope, source: str = OURS) -> bytes:
    """The address (20 bytes) that signed `envelope` for the network of the letter `source`.

    Raises Refusal if it is not signed, or the signature could be nobody's.
    """
    if envelope.signature is None:
        raise Refusal(errors.INVALID_SIGNATURE)
    signature = _compact(envelope.signature)
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, digest(envelope, source), hasher=None)
    except ValueError:  # such an r is on no point of the curve
        raise Refusal(errors.INVALID_SIGNATURE) from None
    return keccak256(key.format(compressed=False)[1:])[-20:]


def _compact(signature: Signature) -> bytes:
    """r, s and the recovery id in 65 bytes."""
    r, s = int(signature.r, 16), int(signature.s, 16)
    if not (1 <= r < ORDER_OF_GROUP and 1 <= s <= S_MAX):
        raise Refusal(errors.INVALID_SIGNATURE)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((signature.v % 27,))
