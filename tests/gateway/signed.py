"""One action of every type as the official client spells it, signed by that client's own functions."""

import copy
import json

import eth_account
from hyperliquid.utils import signing as sdk

KEY = "0x" + ("0123456789" * 7)[:64]  # of the client's own tests
WALLET = eth_account.Account.from_key(KEY)
SIGNER = bytes.fromhex(WALLET.address[2:])
VAULT = "0x1719884eb866cb12b2287399b15f7db5e7d775ea"
AGENT = "0x5E9EE1089755C3435139848E47E6635505D5a13A"
CLOID = "0x00000000000000000000000000000abc"
NONCE = 1_687_816_341_423
EXPIRES_MS = NONCE + 5_000

ORDER = {"a": 1, "b": True, "p": "100", "s": "0.25", "r": False, "t": {"limit": {"tif": "Gtc"}}}
STOP = {**ORDER, "t": {"trigger": {"isMarket": True, "triggerPx": "103", "tpsl": "sl"}}}

ACTIONS = {
    "order": {"type": "order", "orders": [ORDER], "grouping": "na"},
    "order of a builder": {
        "type": "order",
        "orders": [{**ORDER, "c": CLOID}, {**ORDER, "t": {"limit": {"tif": "FrontendMarket"}}}],
        "grouping": "na",
        "builder": {"b": VAULT, "f": 10},
    },
    "order with a stop": {"type": "order", "orders": [ORDER, STOP], "grouping": "normalTpsl"},
    "order with priority": {"type": "order", "orders": [ORDER], "grouping": {"p": 1}},
    "cancel": {"type": "cancel", "cancels": [{"a": 0, "o": 91_490_942}, {"a": 1, "o": 481_029_459_465}]},
    "fast cancel": {"type": "cancel", "cancels": [{"a": 0, "o": 1}], "f": True},
    "cancelByCloid": {"type": "cancelByCloid", "cancels": [{"asset": 65_536, "cloid": CLOID}]},
    "modify": {"type": "modify", "oid": 255, "order": ORDER},
    "modify by cloid": {"type": "modify", "oid": CLOID, "order": STOP, "a": True},
    "batchModify": {"type": "batchModify", "modifies": [{"oid": CLOID, "order": ORDER}]},
    "scheduleCancel": {"type": "scheduleCancel", "time": NONCE},
    "scheduleCancel without": {"type": "scheduleCancel"},
    "updateLeverage": {"type": "updateLeverage", "asset": 0, "isCross": False, "leverage": 5},
    "updateIsolatedMargin": {"type": "updateIsolatedMargin", "asset": 3, "isBuy": True, "ntli": -1_000_000},
    "twapOrder": {
        "type": "twapOrder",
        "twap": {"a": 0, "b": True, "s": "1", "r": False, "m": 5, "t": False},
    },
    "twapOrder with details": {
        "type": "twapOrder",
        "twap": {"a": 0, "b": True, "s": "1", "r": False, "m": 5, "t": False},
        "details": {"t": {"p": "103", "a": True}, "s": None},
    },
    "twapCancel": {"type": "twapCancel", "a": 0, "t": 77_738_308},
    "noop": {"type": "noop"},
    "createSubAccount": {"type": "createSubAccount", "name": "desk: 2"},
    "subAccountTransfer": {
        "type": "subAccountTransfer",
        "subAccountUser": VAULT,
        "isDeposit": True,
        "usd": 10,
    },
    "login": {"type": "login", "validUntil": NONCE, "cancelOnDisconnect": True},
    "usdSend": {"destination": AGENT, "amount": "1.0", "time": NONCE, "type": "usdSend"},
    "approveAgent": {
        "type": "approveAgent",
        "agentAddress": AGENT,
        "agentName": "bot valid_until 1700000000000",
        "nonce": NONCE,
    },
    "approveAgent unnamed": {"type": "approveAgent", "agentAddress": AGENT, "agentName": "", "nonce": NONCE},
}
SIGNED_BY_FIELDS = {"usdSend": sdk.sign_usd_transfer_action, "approveAgent": sdk.sign_agent}


def envelope(action, *, wallet=WALLET, nonce=NONCE, vault=None, expires_ms=None, mainnet=False):
    """What the official client posts, as a dict."""
    action = copy.deepcopy(action)
    sign = SIGNED_BY_FIELDS.get(action["type"])
    if sign:
        signature = sign(wallet, action, mainnet)
        if action.get("agentName") == "":
            del action["agentName"]
    else:
        signature = sdk.sign_l1_action(wallet, action, vault, nonce, expires_ms, mainnet)
    return {
        "action": action,
        "nonce": nonce,
        "signature": signature,
        "vaultAddress": vault,
        "expiresAfter": expires_ms,
    }


def body(action, **more):
    """The same as it is sent."""
    return json.dumps(envelope(action, **more)).encode()
