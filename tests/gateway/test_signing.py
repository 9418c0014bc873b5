"""Who signed what: the vectors of the wire, the official client's own signatures, and what is nobody's."""

import coincurve
import eth_account
import msgspec
import pytest
from eth_account.messages import encode_typed_data
from hyperliquid.utils import signing as sdk

from gateway import actions, signing
from gateway.actions import Envelope, Signature
from gateway.errors import Refusal
from tests.gateway import signed
from tests.gateway.signed import ACTIONS, AGENT, NONCE, SIGNER, VAULT

MAINNET, TESTNET = "a", "b"


class Dummy(msgspec.Struct, tag_field="type", tag="dummy"):
    """An action that only the official client's tests know."""

    num: int = 100_000_000_000


def taken(action):
    """The action of the wire, decoded."""
    body = msgspec.json.encode({"action": action})
    return actions.decode(body, signed=False).action


PLAIN = {"a": 1, "b": True, "p": "100", "s": "100", "r": False, "t": {"limit": {"tif": "Gtc"}}}
STOP = {**PLAIN, "t": signed.STOP["t"]}
IOC = {"limit": {"tif": "Ioc"}}
KNOWN = {"type": "order", "grouping": "na"}
SUB = "0x1d9470d4b963f552e6f671a81619d395877bf409"

VECTORS = {  # r, s, v on mainnet, then on testnet: of the key `signed.KEY` at nonce 0
    "dummy": (
        Dummy(), None,
        ("53749d5b30552aeb2fca34b530185976545bb22d0b3ce6f62e31be961a59298",
         "755c40ba9bf05223521753995abb2f73ab3229be8ec921f350cb447e384d8ed8", 27),
        ("542af61ef1f429707e3c76c5293c80d01f74ef853e34b76efffcb57e574f9510",
         "17b8b32f086e8cdede991f1e2c529f5dd5297cbe8128500e00cbaf766204a613", 28),
    ),
    "dummy of a vault": (
        Dummy(), VAULT,
        ("3c548db75e479f8012acf3000ca3a6b05606bc2ec0c29c50c515066a326239",
         "4d402be7396ce74fbba3795769cda45aec00dc3125a984f2a9f23177b190da2c", 28),
        ("e281d2fb5c6e25ca01601f878e4d69c965bb598b88fac58e475dd1f5e56c362b",
         "7ddad27e9a238d045c035bc606349d075d5c5cd00a6cd1da23ab5c39d4ef0f60", 27),
    ),
    "order": (
        taken({**KNOWN, "orders": [PLAIN]}), None,
        ("d65369825a9df5d80099e513cce430311d7d26ddf477f5b3a33d2806b100d78e",
         "2b54116ff64054968aa237c20ca9ff68000f977c93289157748a3162b6ea940e", 28),
        ("82b2ba28e76b3d761093aaded1b1cdad4960b3af30212b343fb2e6cdfa4e3d54",
         "6b53878fc99d26047f4d7e8c90eb98955a109f44209163f52d8dc4278cbbd9f5", 27),
    ),
    "order with a cloid": (
        taken({**KNOWN, "orders": [{**PLAIN, "c": "0x00000000000000000000000000000001"}]}), None,
        ("41ae18e8239a56cacbc5dad94d45d0b747e5da11ad564077fcac71277a946e3",
         "3c61f667e747404fe7eea8f90ab0e76cc12ce60270438b2058324681a00116da", 27),
        ("eba0664bed2676fc4e5a743bf89e5c7501aa6d870bdb9446e122c9466c5cd16d",
         "7f3e74825c9114bc59086f1eebea2928c190fdfbfde144827cb02b85bbe90988", 28),
    ),
    "order with a stop": (
        taken({**KNOWN, "orders": [STOP]}), None,
        ("98343f2b5ae8e26bb2587daad3863bc70d8792b09af1841b6fdd530a2065a3f9",
         "6b5bb6bb0633b710aa22b721dd9dee6d083646a5f8e581a20b545be6c1feb405", 27),
        ("971c554d917c44e0e1b6cc45d8f9404f32172a9d3b3566262347d0302896a2e4",
         "206257b104788f80450f8e786c329daa589aa0b32ba96948201ae556d5637eac", 28),
    ),
    "createSubAccount": (
        taken({"type": "createSubAccount", "name": "example"}), None,
        ("51096fe3239421d16b671e192f574ae24ae14329099b6db28e479b86cdd6caa7",
         "b71f7d293af92d3772572afb8b102d167a7cef7473388286bc01f52a5c5b423", 27),
        ("a699e3ed5c2b89628c746d3298b5dc1cca604694c2c855da8bb8250ec8014a5b",
         "53f1b8153a301c72ecc655b1c315d64e1dcea3ee58921fd7507e35818fcc1584", 28),
    ),
    "subAccountTransfer": (
        taken({"type": "subAccountTransfer", "subAccountUser": SUB, "isDeposit": True, "usd": 10}), None,
        ("43592d7c6c7d816ece2e206f174be61249d651944932b13343f4d13f306ae602",
         "71a926cb5c9a7c01c3359ec4c4c34c16ff8107d610994d4de0e6430e5cc0f4c9", 28),
        ("e26574013395ad55ee2f4e0575310f003c5bb3351b5425482e2969fa51543927",
         "efb08999196366871f919fd0e138b3a7f30ee33e678df7cfaf203e25f0a4278", 28),
    ),
    "scheduleCancel without": (
        taken({"type": "scheduleCancel"}), None,
        ("6cdfb286702f5917e76cd9b3b8bf678fcc49aec194c02a73e6d4f16891195df9",
         "6557ac307fa05d25b8d61f21fb8a938e703b3d9bf575f6717ba21ec61261b2a0", 27),
        ("c75bb195c3f6a4e06b7d395acc20bbb224f6d23ccff7c6a26d327304e6efaeed",
         "342f8ede109a29f2c0723bd5efb9e9100e3bbb493f8fb5164ee3d385908233df", 28),
    ),
    "scheduleCancel": (
        taken({"type": "scheduleCancel", "time": 123456789}), None,
        ("609cb20c737945d070716dcc696ba030e9976fcf5edad87afa7d877493109d55",
         "16c685d63b5c7a04512d73f183b3d7a00da5406ff1f8aad33f8ae2163bab758b", 28),
        ("4e4f2dbd4107c69783e251b7e1057d9f2b9d11cee213441ccfa2be63516dc5bc",
         "706c656b23428c8ba356d68db207e11139ede1670481a9e01ae2dfcdb0e1a678", 27),
    ),
}  # fmt: skip

HASHES = [  # action, nonce, vault, expires_ms, and what they hash to
    ({**KNOWN, "orders": [{**PLAIN, "a": 4, "p": "1670.1", "s": "0.0147", "t": IOC}]},
     1_677_777_606_040, None, None, "0fcbeda5ae3c4950a548021552a4fea2226858c4453571bf3f24ba017eac2908"),
    ({**KNOWN, "orders": [PLAIN]}, 0, None, None,
     "884f2c32bb6dbdd65f6033e32fb28c0cb6f5b345db0f6471fd3366d85c9252c1"),
    ({**KNOWN, "orders": [PLAIN]}, 0, None, 1,
     "6af7021db1f759dd84e4172b6d91de403119c9243d0d3c07e91645a003be6735"),
    ({**KNOWN, "orders": [PLAIN]}, 0, VAULT, None,
     "150e1f50d4eee6b707a7ea3aa65da66b659871402b237a5ce4f3bec601629e04"),
    ({"type": "cancel", "cancels": [{"a": 0, "o": 91490942}]}, 0, None, None,
     "e820960da26725398592439e62ab0824b4268cef4ae0ed6c3e22d6cc30ab67f2"),
    ({**KNOWN, "orders": [STOP]}, 0, None, None,
     "430a86fb9876e901920d931f5bb20c9d011f6389bd179f39a73c09e6219adcad"),
    ({"type": "scheduleCancel"}, 0, None, None,
     "a2887a3147b6542306b61d311a056fd1753913d63cc904f30cba61712a98f4ae"),
    ({"type": "scheduleCancel", "time": 123456789}, 0, None, None,
     "4be18e445114437c5d1d9dd35a09f5601a3cc34ed4ac94a0281251b9bd8f6832"),
    ({"type": "noop"}, 0, None, None,
     "a2ee76b34dea5a2a8c6619db63efd46b60a928fa373789478a401bc62852f69e"),
    ({"type": "updateLeverage", "asset": 0, "isCross": True, "leverage": 5}, 0, None, None,
     "7495a1d9d85e6446518518533040bdd0df24dca0b0a44313c0a70072cf543261"),
]  # fmt: skip

USD_SEND = {
    "type": "usdSend",
    "signatureChainId": "0x66eee",
    "hyperliquidChain": "Testnet",
    "destination": "0x5e9ee1089755c3435139848e47e6635505d5a13a",
    "amount": "1",
    "time": NONCE,
}


def address_bytes(text):
    return bytes.fromhex(text[2:]) if text else None


def with_signature(action, r, s, v, nonce=0, vault=None):
    return Envelope(action, nonce, Signature(f"0x{r}", f"0x{s}", v), address_bytes(vault), None)


def signer_or_none(envelope, source=TESTNET):
    try:
        return signing.recover(envelope, source)
    except Refusal:
        return None


@pytest.mark.parametrize(("action", "nonce", "vault", "expires_ms", "hashed"), HASHES)
def test_known_hashes(action, nonce, vault, expires_ms, hashed):
    assert signing.l1_hash(taken(action), nonce, address_bytes(vault), expires_ms).hex() == hashed


@pytest.mark.parametrize(("action", "vault", "mainnet", "testnet"), VECTORS.values(), ids=VECTORS)
def test_known_signatures_are_taken_on_their_own_network_alone(action, vault, mainnet, testnet):
    on_mainnet = with_signature(action, *mainnet, vault=vault)
    on_testnet = with_signature(action, *testnet, vault=vault)
    assert signing.recover(on_testnet) == SIGNER
    assert signing.recover(on_mainnet, MAINNET) == SIGNER
    assert signer_or_none(on_mainnet) != SIGNER
    assert signer_or_none(on_testnet, MAINNET) != SIGNER


def test_a_known_signature_of_fields():
    action = taken(USD_SEND)
    hashed = "e81f1691f350bb9a59d2b40b3d16c9526a8f93407dd72bcb9ea95e291a5de6da"
    r = "637b37dd731507cdd24f46532ca8ba6eec616952c56218baeff04144e4a77073"
    s = "11a6a24900e6e314136d2592e2f8d502cd89b7c15b198e1bee043c9589f9fad7"
    assert signing.typed_hash(action).hex() == hashed
    assert signing.recover(with_signature(action, r, s, 27, nonce=NONCE)) == SIGNER


@pytest.mark.parametrize(
    ("chain_id", "domain"),
    [
        (0x66EEE, "feb1393ca4412a4ca577bd51d04f0a77033514c602f4d0a11490fb95f7428df6"),
        (0xA4B1, "2f54e643b38c9c2b65cb731aaf11c54f01705ee0cdf45aea16e2ac0a5ce7531a"),
        (1, "db17d1ad595c034a414294c8a640f420ba18e2b7488231f5b97d02780d8e8648"),
    ],
)
def test_known_domains(chain_id, domain):
    assert signing._domain(b"HyperliquidSignTransaction", chain_id).hex() == domain
    assert signing._EXCHANGE.hex() == "d79297fcdf2ffcd4ae223d01edaa2ba214ff8f401d7c9300d995d17c82aa4040"


@pytest.mark.parametrize("expires_ms", [None, signed.EXPIRES_MS])
@pytest.mark.parametrize("vault", [None, AGENT])
@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_what_the_official_client_signs_is_its_own(action, vault, expires_ms):
    by_itself = isinstance(actions.decode(signed.body(action)).action, actions.NO_VAULT)
    sent = signed.envelope(action, vault=None if by_itself else vault, expires_ms=expires_ms)
    sent["vaultAddress"] = vault  # the client sends it even where it signs none
    agent = eth_account.Account.from_key("0x" + "11" * 32)
    assert signing.recover(actions.decode(msgspec.json.encode(sent))) == SIGNER
    assert signing.recover(actions.decode(signed.body(action, wallet=agent))) == address_bytes(agent.address)


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_mainnets_signatures_are_nobodys(action):
    envelope = actions.decode(signed.body(action, mainnet=True))
    assert signer_or_none(envelope) != SIGNER
    assert signing.recover(envelope, MAINNET) == SIGNER
    if isinstance(envelope.action, actions.TYPED):
        with pytest.raises(Refusal, match="Invalid hyperliquidChain: expected Testnet"):
            signing.recover(envelope)


@pytest.mark.parametrize("chain_id", ["0x1", "0xA4b1", "0x0066eee", "0x" + "f" * 16])
@pytest.mark.parametrize("name", sorted(signed.SIGNED_BY_FIELDS))
def test_a_wallet_may_sign_fields_on_any_chain(name, chain_id):
    kind, fields = {
        "usdSend": ("UsdSend", sdk.USD_SEND_SIGN_TYPES),
        "approveAgent": (
            "ApproveAgent",
            [
                {"name": "hyperliquidChain", "type": "string"},
                {"name": "agentAddress", "type": "address"},
                {"name": "agentName", "type": "string"},
                {"name": "nonce", "type": "uint64"},
            ],
        ),
    }[name]
    action = {**ACTIONS[name], "signatureChainId": chain_id, "hyperliquidChain": "Testnet"}
    payload = sdk.user_signed_payload(f"HyperliquidTransaction:{kind}", fields, action)
    made = signed.WALLET.sign_message(encode_typed_data(full_message=payload))
    envelope = with_signature(taken(action), f"{made.r:x}", f"{made.s:x}", made.v, nonce=NONCE)
    assert signing.recover(envelope) == SIGNER


@pytest.mark.parametrize("name", sorted(signed.SIGNED_BY_FIELDS))
def test_fields_and_envelope_have_one_nonce(name):
    sent = {**signed.envelope(ACTIONS[name]), "nonce": NONCE + 1}
    with pytest.raises(Refusal, match="Invalid nonce"):
        signing.recover(actions.decode(msgspec.json.encode(sent)))


def test_the_order_of_keys_is_not_under_the_signature():
    sent = signed.envelope(ACTIONS["order of a builder"], vault=VAULT)
    sent["action"] = dict(reversed(sent["action"].items()))
    sent["action"]["orders"] = [dict(reversed(order.items())) for order in sent["action"]["orders"]]
    assert signing.recover(actions.decode(msgspec.json.encode(sent))) == SIGNER


def test_an_empty_vault_and_no_vault_differ():
    envelope = actions.decode(signed.body(ACTIONS["noop"], vault="0x" + "00" * 20))
    assert envelope.vault == bytes(20)
    assert signing.recover(envelope) == SIGNER


SIGNATURE = VECTORS["order"][3]
N = signing.ORDER_OF_GROUP


@pytest.mark.parametrize(
    ("r", "s"),
    [
        (0, 1),
        (N, 1),
        (N + 1, 1),
        (2**256 - 1, 1),
        (1, 0),
        (1, signing.S_MAX + 1),
        (1, N - 1),
        (1, N),
        (1, N + 1),
        (5, 1),  # on no point
    ],
)
def test_numbers_that_are_no_signature(r, s):
    for v in (0, 1, 27, 28):
        with pytest.raises(Refusal, match="Invalid signature"):
            signing.recover(with_signature(VECTORS["order"][0], f"{r:x}", f"{s:x}", v))


def test_bounds_of_a_signature():
    for r, s in [(1, 1), (1, signing.S_MAX)]:
        assert len(signing.recover(with_signature(VECTORS["order"][0], f"{r:x}", f"{s:x}", 27))) == 20


def test_a_signature_has_one_form():
    """The library would take the mirrored one as well."""
    r, s, v = SIGNATURE
    action = VECTORS["order"][0]
    low = with_signature(action, r, s, v)
    high = with_signature(action, r, f"{N - int(s, 16):x}", 55 - v)
    compact = bytes.fromhex(r) + (N - int(s, 16)).to_bytes(32, "big") + bytes([28 - v])
    digest = signing.digest(low, TESTNET)
    key = coincurve.PublicKey.from_signature_and_message(compact, digest, hasher=None)
    assert signing.keccak256(key.format(compressed=False)[1:])[-20:] == SIGNER
    with pytest.raises(Refusal, match="Invalid signature"):
        signing.recover(high)


def test_other_spellings_of_a_signature():
    r, s, v = VECTORS["order with a cloid"][2]
    assert len(r) == 63, "not padded"
    action = VECTORS["order with a cloid"][0]
    for same in [(r.zfill(64), s, v), (r.upper(), s, v), (r, s, v - 27)]:
        assert signing.recover(with_signature(action, *same), MAINNET) == SIGNER


def test_no_signature_is_nobodys():
    with pytest.raises(Refusal, match="Invalid signature"):
        signing.recover(Envelope(taken({"type": "noop"}), 0, None, None, None))


def meaning(envelope):
    """All that is executed. A chain is signed as a number, and an agent's address as bytes."""
    fields = msgspec.to_builtins(envelope.action)
    fields["signatureChainId"] = int(fields.get("signatureChainId", "0x0"), 16)
    fields["agentAddress"] = fields.get("agentAddress", "").lower()
    return msgspec.json.encode((fields, envelope.nonce, envelope.vault, envelope.expires_ms))


@pytest.mark.parametrize("name", ["order of a builder", "cancel", "login", "usdSend", "approveAgent"])
def test_a_bit_that_changes_what_is_executed_changes_the_signer(name):
    """Every single bit of some bodies of 3,000 to 5,000 of them."""
    body = signed.body(ACTIONS[name], vault=VAULT, expires_ms=signed.EXPIRES_MS)
    was = actions.decode(body)
    recovered = []
    for bit in range(8 * len(body)):
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            envelope = actions.decode(bytes(changed))
            recovered.append((signing.recover(envelope), meaning(envelope)))
        except Refusal:
            continue
    assert len(recovered) > 200, "not all of them are refused for their shape alone"
    assert {executed for signer, executed in recovered if signer == SIGNER} == {meaning(was)}


def test_every_bit_of_a_signature_and_of_a_nonce_counts():
    was = actions.decode(signed.body(ACTIONS["order"], vault=VAULT, expires_ms=signed.EXPIRES_MS))
    r, s, nonce = int(was.signature.r, 16), int(was.signature.s, 16), was.nonce
    for bit in range(256):
        for other in (
            Signature(hex(r ^ 1 << bit), hex(s), was.signature.v),
            Signature(hex(r), hex(s ^ 1 << bit), 27),
        ):
            changed = msgspec.structs.replace(was, signature=other)
            assert signer_or_none(changed) != SIGNER
    other = msgspec.structs.replace(was.signature, v=55 - was.signature.v)
    assert signer_or_none(msgspec.structs.replace(was, signature=other)) != SIGNER
    for bit in range(63):
        assert signer_or_none(msgspec.structs.replace(was, nonce=nonce ^ 1 << bit)) != SIGNER
        assert signer_or_none(msgspec.structs.replace(was, expires_ms=was.expires_ms ^ 1 << bit)) != SIGNER
    for bit in range(160):
        vault = (int.from_bytes(was.vault, "big") ^ 1 << bit).to_bytes(20, "big")
        assert signer_or_none(msgspec.structs.replace(was, vault=vault)) != SIGNER
    for less in ({"vault": None}, {"expires_ms": None}):
        assert signer_or_none(msgspec.structs.replace(was, **less)) != SIGNER
