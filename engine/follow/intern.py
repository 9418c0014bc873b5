"""Texts become rows: markets by name, accounts by address, statuses and their like by text.

Markets and interned names have small private indexes here (int64 words: row + 1); the rows themselves are
shared. A row that someone else added is found too: the indexes catch up before they call a text new.
"""

from typing import NamedTuple

import numpy as np

from engine.follow.scan import WORD, kernel, step, word
from shm import codes, index
from shm.constants import ADDRESS_BYTES, MARKET_NAME_BYTES, NAME_BYTES, PLACES
from shm.layout import NO_ACCOUNT, NO_MARKET, NO_SLOT
from shm.units import POWERS

_SCALES = np.array(POWERS, np.int64)
_PERP, _SPOT = int(codes.MarketKind.PERP), int(codes.MarketKind.SPOT)
_BUILDER, _OUTCOME = int(codes.MarketKind.BUILDER), int(codes.MarketKind.OUTCOME)
_AT, _HASH, _SLASH, _COLON = (ord(sign) for sign in "@#/:")
RECENT = 1 << 12  # most statuses come from some hundred accounts


class Tables(NamedTuple):
    """The tables in which texts become rows. Make it with `tables`."""

    markets: np.ndarray  # layout.MARKET[]
    names: np.ndarray  # layout.NAME[]
    accounts: np.ndarray  # layout.ACCOUNT[]
    account_index: np.ndarray  # i8[], a power of two
    counts: np.ndarray  # layout.WORLD_STATUS[1]: market_count, account_count, name_count
    market_texts: np.ndarray  # u1[markets, MARKET_NAME_BYTES], the names within `markets`
    name_texts: np.ndarray  # u1[names, NAME_BYTES]
    market_words: np.ndarray  # i8[], private
    name_words: np.ndarray
    indexed: np.ndarray  # i8[2]: rows of markets and of names that the private indexes hold
    recent: np.ndarray  # i8[RECENT]: rows of accounts seen lately, plus one, by a few bits of their address


def tables(markets, names, accounts, account_index, counts) -> Tables:
    """Join the shared arrays with new private indexes. An empty table of names is seeded with codes.NAMES."""
    if counts[0]["name_count"] == 0:
        for row, text in enumerate(codes.NAMES):
            names[row]["text"][: len(text)] = np.frombuffer(text.encode(), np.uint8)
        counts[0]["name_count"] = len(codes.NAMES)
    words = [np.zeros(4 << (len(rows) - 1).bit_length(), np.int64) for rows in (markets, names)]
    private = (*words, np.zeros(2, np.int64), np.zeros(RECENT, np.int64))
    return Tables(markets, names, accounts, account_index, counts, markets["name"], names["text"], *private)


@kernel
def _words(text, start, length):
    """Give the first and the last eight bytes of text[start:start+length], zero filled; together they are
    short texts.
    """
    if length < WORD:
        low = word(text, start) & ((np.int64(1) << (WORD * length)) - 1)
        return low, low
    return word(text, start), word(text, start + length - WORD)


@kernel
def _find(words, texts, text, start, length):
    """Return (row or NO_SLOT, the place in `words` where the search ended) of text[start:start+length].

    Eight bytes can be read at `start`; length >= 1.
    """
    mask = len(words) - 1
    head, tail = _words(text, start, length)
    at = index.mix(head ^ index.mix(tail + length)) & mask
    for _ in range(len(words)):
        row = words[at] - 1
        if row < 0:
            break
        held = texts[row]
        if word(held, 0) == head and (length == len(held) or held[length] == 0):
            if length <= WORD or _same(held, text, start, length):
                return row, at
        at = (at + 1) & mask
    return NO_SLOT, at


@kernel
def _same(held, text, start, length):
    """Compare held[8:length] with text[start+8:start+length]."""
    differs = word(held, length - WORD) ^ word(text, start + length - WORD)
    for i in range(WORD, length - WORD, WORD):
        differs |= word(held, i) ^ word(text, start + i)
    return differs == 0


@kernel
def _length(held):
    """Count the bytes of a zero-filled text."""
    length = 0
    while length < len(held) and held[length] != 0:
        length += 1
    return length


@kernel
def _catch_up(words, texts, first, end):
    """Index the rows texts[first:end], which someone else added."""
    for row in range(first, end):
        length = _length(texts[row])
        if length > 0:
            at = _find(words, texts, texts[row], 0, length)[1]
            words[at] = row + 1


@kernel
def _kind(text, start, length):
    """Tell a market's kind from its name: "@n", "A/B" spot, "dex:COIN" builder, "#n" outcome, else a perp."""
    if text[start] == _AT:
        return _SPOT
    if text[start] == _HASH:
        return _OUTCOME
    for i in range(start, start + length):
        if text[i] == _COLON:
            return _BUILDER
        if text[i] == _SLASH:
            return _SPOT
    return _PERP


@kernel
def _new_market(tables, text, start, length):
    """Look at the rows that others added, and give an unknown market the next row, or NO_MARKET when full."""
    words, texts, row = tables.market_words, tables.market_texts, tables.counts[0].market_count
    _catch_up(words, texts, tables.indexed[0], row)
    tables.indexed[0] = row
    found, at = _find(words, texts, text, start, length)
    if found != NO_SLOT:
        return found
    if row == len(texts):
        return NO_MARKET
    _write(texts[row], text, start, length)
    market = tables.markets[row]
    market.kind = _kind(text, start, length)
    market.size_decimals = 0
    market.price_places = PLACES
    market.quantity_places = PLACES
    words[at] = row + 1
    tables.indexed[0] = row + 1
    tables.counts[0].market_count = row + 1
    return row


@kernel
def _new_name(tables, text, start, length):
    """Look at the rows that others added, and give an unknown text the next row, or NONE_NAME when full."""
    words, texts, row = tables.name_words, tables.name_texts, tables.counts[0].name_count
    _catch_up(words, texts, tables.indexed[1], row)
    tables.indexed[1] = row
    found, at = _find(words, texts, text, start, length)
    if found != NO_SLOT:
        return found
    if row == len(texts):
        return codes.NONE_NAME
    _write(texts[row], text, start, length)
    words[at] = row + 1
    tables.indexed[1] = row + 1
    tables.counts[0].name_count = row + 1
    return row


@kernel
def _write(held, text, start, length):
    for i in range(len(held)):
        held[i] = text[start + i] if i < length else 0


# What follows is called for every event and passes all tables on only for what is new: they are 80 words.


@step
def market_of(tables, text, start, length):
    """Give the row of the market named text[start:start+length] (1 to 32 bytes), a new one if it is unknown.

    NO_MARKET when the table is full. Eight bytes can be read at `start`.
    """
    row, _ = _find(tables.market_words, tables.market_texts, text, start, length)
    return row if row != NO_SLOT else _new_market(tables, text, start, length)


@step
def name_of(tables, text, start, length):
    """Give the row of the interned text[start:start+length] (1 to 48 bytes), a new one if it is unknown.

    NONE_NAME when the table is full. Eight bytes can be read at `start`.
    """
    row, _ = _find(tables.name_words, tables.name_texts, text, start, length)
    return row if row != NO_SLOT else _new_name(tables, text, start, length)


@step
def account_of(tables, address):
    """Give the row of the account with this address (u1[20]), a new one if it is unknown, or NO_ACCOUNT when
    the table is full."""
    accounts = tables.accounts
    slot = index.mix(word(address, ADDRESS_BYTES - WORD)) & (RECENT - 1)
    row = tables.recent[slot] - 1
    if row < 0 or not _same_address(accounts[row].address, address):
        row = index.find_account(tables.account_index, accounts, address, 0)
        row = row if row != NO_SLOT else _add_account(tables, address)
        tables.recent[slot] = row + 1
    return row


@step
def _same_address(held, address):
    differs = word(held, 0) ^ word(address, 0)
    for at in (WORD, ADDRESS_BYTES - WORD):
        differs |= word(held, at) ^ word(address, at)
    return differs == 0


@kernel
def _add_account(tables, address):
    """Give an unknown account the next row, or NO_ACCOUNT when the table or its index is full."""
    words, accounts = tables.account_index, tables.accounts
    row = tables.counts[0].account_count
    if row == len(accounts) or 2 * (row + 1) > len(words):
        return NO_ACCOUNT
    account = accounts[row]
    for i in range(ADDRESS_BYTES):
        account.address[i] = address[i]
    account.order_count = 0
    account.first_order = NO_SLOT
    account.last_order = NO_SLOT
    index.add_account(words, address, 0, row)
    tables.counts[0].account_count = row + 1
    return row


@kernel
def see_size(markets, market, quantity):
    """Raise a market's size_decimals where `quantity` (10**-PLACES) has more. Nothing lowers them."""
    row = markets[market]
    while row.size_decimals < PLACES and quantity % _SCALES[PLACES - row.size_decimals] != 0:
        row.size_decimals += 1


def _padded(text: str, longest: int) -> tuple[np.ndarray, int]:
    """Give a kernel a text with zeros behind it. Raises ValueError where no row could hold it."""
    raw = text.encode("ascii")
    if not 1 <= len(raw) <= longest or not is_plain(text):
        raise ValueError(f"expected 1 to {longest} bytes of printable ASCII")
    return np.frombuffer(raw.ljust(longest, b"\0"), np.uint8), len(raw)


def is_plain(text: str) -> bool:
    """Whether a text is printable ASCII that JSON writes without a backslash."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def market(tables: Tables, name: str) -> int:
    """Give the row of a market by its name, a new one if it is unknown; NO_MARKET when the table is full.

    Raises ValueError for a name that no market can have.
    """
    text, length = _padded(name, MARKET_NAME_BYTES)
    return int(market_of(tables, text, 0, length))


def is_known(tables: Tables, name: str) -> bool:
    """Whether a market of this name has a row."""
    text = np.zeros(MARKET_NAME_BYTES, np.uint8)
    raw = name.encode("ascii")[:MARKET_NAME_BYTES]
    text[: len(raw)] = np.frombuffer(raw, np.uint8)
    return bool((tables.market_texts[: tables.counts[0]["market_count"]] == text).all(axis=1).any())


def name(tables: Tables, text: str | None) -> int:
    """Give the row of an interned text, a new one if it is unknown; NONE_NAME for None, or when the table is
    full.

    Raises ValueError for a text that no row can hold.
    """
    if text is None:
        return codes.NONE_NAME
    raw, length = _padded(text, NAME_BYTES)
    return int(name_of(tables, raw, 0, length))


def account(tables: Tables, address: bytes) -> int:
    """Give the row of an account by its 20 bytes, a new one if it is unknown; NO_ACCOUNT when the table is
    full.
    """
    return int(account_of(tables, np.frombuffer(address, np.uint8)))
