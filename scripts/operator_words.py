"""What an operator says to a running exchange on the command line, word by word: a table, and its reader.

A word is `name: (type, default, help)`; one with a default is an option, one without (REQUIRED) has its
place. What comes out is a message for scripts/operator.py, which checks what it means.
"""

import argparse
from collections.abc import Callable
from typing import Any

REQUIRED, LEFT_OUT = object(), None
Word = tuple[Callable[[str], Any], Any, str]

ADDRESS: dict[str, Word] = {"address": (str, REQUIRED, "0x and 40 hex digits")}
ANYONE: dict[str, Word] = {"address": (str, REQUIRED, "0x and 40 hex digits, or all")}
AMOUNT: dict[str, Word] = {"amount": (str, REQUIRED, "in USDC, as 100.25")}
COIN: dict[str, Word] = {"coin": (str, REQUIRED, "a market, as BTC")}

COMMANDS: dict[str, tuple[str, dict[str, Word]]] = {
    "deposit": ("give an account of a running exchange money", ADDRESS | AMOUNT),
    "withdraw": ("take it away", ADDRESS | AMOUNT),
    "oracle": (
        "say what a market's underlying is worth",
        COIN
        | {
            "price": (str, REQUIRED, "in USD, as 60000.5"),
            "external": (str, LEFT_OUT, "the price of such a contract elsewhere"),
        },
    ),
    "halt": ("stop a market: it takes cancels alone, and its mark stands", COIN),
    "cancel-only": ("let a market take cancels alone", COIN),
    "resume": ("open it again", COIN),
    "limits": (
        "set the bounds of a market, all of them",
        COIN
        | {
            "cap": (str, "0", "open interest at which no position may grow, in USDC (0: none)"),
            "band": (int, 800, "how far an order's price may be from the oracle, per mille"),
            "step": (int, 0, "how far the mark may move at once, per mille (0: any)"),
            "impact": (int, 6000, "USDC by which the premium is measured"),
        },
    ),
    "tier": (
        "ask more margin of positions from a notional on",
        COIN
        | {
            "notional": (str, REQUIRED, "in USDC"),
            "leverage": (int, REQUIRED, "the highest from there on"),
        },
    ),
    "kill": ("cancel all orders of an account, and take no more", ANYONE),
    "revive": ("take them again", ANYONE),
}


def add_parsers(commands: Any, add_places: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add a parser for each command to the subparsers `commands`."""
    for name, (does, words) in COMMANDS.items():
        command = commands.add_parser(name, help=does)
        for word, (of, default, meaning) in words.items():
            if default is REQUIRED:
                command.add_argument(word, metavar=word.upper(), type=of, help=meaning)
            else:
                command.add_argument(
                    f"--{word}", metavar=word.upper(), type=of, default=default, help=meaning
                )
        add_places(command)


def message_of(given: argparse.Namespace) -> dict[str, Any]:
    """What was given, as a message to the operator's desk."""
    words = COMMANDS[given.command][1]
    values = {word: getattr(given, word) for word in words}
    return {
        "kind": given.command,
        **{word: value for word, value in values.items() if value is not LEFT_OUT},
    }


def described(message: dict[str, Any]) -> str:
    """The message in a few words, for the line that says that it is done."""
    match message:
        case {"kind": ("deposit" | "withdraw") as kind, "address": address, "amount": amount}:
            return f"{kind} of {amount} USDC, {address}"
        case _:
            return " ".join(str(value) for value in message.values())
