"""A wallet signs what the official SDK signs, and keeps its key to itself."""

import stat

import eth_account
import msgspec
import pytest
from hyperliquid.utils import signing as sdk

from gateway import actions, signing
from gateway.errors import Refusal
from scripts.simulated_market import BUY, SPECS
from scripts.simulated_quotes import Market, order_action, order_wire
from scripts.wallet import Unusable, Wallet

SECRET = bytes.fromhex("0123456789" * 6 + "0123")
ADDRESS = "0x14791697260e4c9a71f18484c9f997b308e59325"  # of this key, in the wire's documents
VAULT = "0x1719884eb866cb12b2287399b15f7db5e7d775ea"
CLOID = "0x" + "1" * 32
ORDER = order_wire(Market(SPECS["ETH"], 1), BUY, 10_000, 1_000_000, "Gtc")
ACTIONS = [
    order_action([ORDER]),
    order_action([ORDER | {"c": CLOID}, ORDER | {"b": False, "r": True}]),
    {"type": "cancel", "cancels": [{"a": 0, "o": 91_490_942}]},
    {"type": "cancelByCloid", "cancels": [{"asset": 0, "cloid": CLOID}]},
    {"type": "modify", "oid": 7, "order": ORDER},
    {"type": "batchModify", "modifies": [{"oid": CLOID, "order": ORDER | {"c": CLOID}}]},
    {"type": "scheduleCancel"},
    {"type": "scheduleCancel", "time": 123_456_789},
    {"type": "updateLeverage", "asset": 0, "isCross": True, "leverage": 5},
    {"type": "updateIsolatedMargin", "asset": 0, "isBuy": True, "ntli": -1_000_000},
    {"type": "noop"},
    {"type": "createSubAccount", "name": "mine"},
    {"type": "login", "validUntil": 1_800_000_000_000, "cancelOnDisconnect": True},
]


@pytest.fixture
def wallet():
    return Wallet(SECRET)


@pytest.fixture
def sdk_wallet():
    return eth_account.Account.from_key(SECRET)


def numbers(signature):
    """r and s are not always padded, so they are compared as numbers."""
    return int(signature["r"], 16), int(signature["s"], 16), signature["v"]


@pytest.mark.parametrize("expires_after", [None, 1_800_000_000_000])
@pytest.mark.parametrize("vault", [None, VAULT])
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action["type"])
def test_signatures_are_the_sdks(wallet, sdk_wallet, action, vault, expires_after):
    vault = None if action["type"] == "createSubAccount" else vault  # it has none to sign
    wanted = sdk.sign_l1_action(sdk_wallet, action, vault, 17, expires_after, False)
    assert numbers(wallet.sign(action, 17, vault, expires_after)) == numbers(wanted)


@pytest.mark.parametrize(
    ("sign", "action"),
    [
        (
            sdk.sign_usd_transfer_action,
            {"type": "usdSend", "destination": VAULT, "amount": "1.5", "time": 18},
        ),
        (sdk.sign_agent, {"type": "approveAgent", "agentAddress": VAULT, "agentName": "bot", "nonce": 18}),
    ],
    ids=["usdSend", "approveAgent"],
)
def test_typed_signatures_are_the_sdks(wallet, sdk_wallet, sign, action):
    wanted = sign(sdk_wallet, action, False)  # which also writes the network into the action
    assert numbers(wallet.sign(action, 18)) == numbers(wanted)


def test_what_is_signed_recovers_to_the_address(wallet):
    assert wallet.address == ADDRESS
    for nonce in range(20):
        made = Wallet.new()
        signature = made.sign(ACTIONS[0], nonce)
        body = msgspec.json.encode({"action": ACTIONS[0], "nonce": nonce, "signature": signature})
        assert signing.recover(actions.decode(body)).hex() == made.address[2:]


def test_a_key_is_kept_in_a_file_of_its_owner(tmp_path, wallet):
    path = tmp_path / "key"
    wallet.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Wallet.load(path).address == ADDRESS
    with pytest.raises(FileExistsError):
        Wallet.new().save(path)
    assert Wallet.load(path).address == ADDRESS


@pytest.mark.parametrize("text", ["", "0x12", "zz" * 32, "00" * 32, "ff" * 32, "01" * 33])
def test_a_file_without_a_key_is_named(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(Unusable, match=str(path)):
        Wallet.load(path)


@pytest.mark.parametrize(
    "action", [{"type": "none"}, order_action([]), order_action([ORDER | {"p": "1e5"}]), {}]
)
def test_what_the_exchange_would_not_take_is_not_signed(wallet, action):
    with pytest.raises(Refusal):
        wallet.sign(action, 1)
