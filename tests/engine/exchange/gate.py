"""A gateway's side of a door, as plain as can be, for tests of the engine's."""

import os

import numpy as np

from shm import layout, region, spsc
from shm.codes import Ask, Command, Side, Tif

SLOTS = 256
BTC = 0


class Gate:
    """Makes a door for one epoch; `fd` is the engine's own descriptor of it, each time it is asked for."""

    def __init__(self, epoch=1, slots=SLOTS):
        sections = {
            name: (dtype, 1 if dtype == layout.RING else slots) for name, dtype in layout.DOOR.items()
        }
        self.region = region.create("door", sections, epoch)
        self.arrays = self.region.arrays
        self._acks = np.zeros(slots, layout.ACK)

    @property
    def fd(self):
        return os.dup(self.region.fd)

    def push(self, *actions):
        """Push whole actions (COMMAND[] each), each with a count and places."""
        for commands in actions:
            commands["count"], commands["place"] = len(commands), np.arange(len(commands))
            self.push_as_it_is(commands)

    def push_as_it_is(self, commands):
        assert spsc.push(self.arrays["command_ring"], self.arrays["commands"], commands) == len(commands)

    def acks(self):
        """Take the acks that have come."""
        count = spsc.pop(self.arrays["ack_ring"], self.arrays["acks"], self._acks)
        return self._acks[:count].copy()


def action(*requests, kind=Command.NOOP, **fields):
    """An action of one command for each request number; fields of all of them."""
    commands = np.zeros(len(requests), layout.COMMAND)
    commands["request"], commands["kind"] = requests, kind
    for name, value in fields.items():
        commands[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    return commands


def order(signer, request=1, price=600_000, quantity=1000, side=Side.BUY, tif=Tif.GTC, **fields):
    """One that needs no nonce, of `signer` (20 bytes)."""
    return action(
        request,
        kind=Command.ORDER,
        signer=signer,
        price=price,
        quantity=quantity,
        side=side,
        tif=tif,
        market=BTC,
        flags=Ask.SESSION,
        **fields,
    )
