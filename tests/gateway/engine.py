"""An engine that does nothing but answer: it pops what a door was given, and acks as it is told."""

import numpy as np

from gateway.door import Ack, Door
from shm import layout, spsc, wait
from shm.codes import Ack as Outcome
from shm.constants import COMMANDS_MAX


class Hand:
    """The engine's side of a door: `arrays` are the door's, `world` is a tests.world.World."""

    def __init__(self, world, arrays):
        self.world = world
        self.arrays = arrays
        self.sequence = int(world.status["command_sequence"][0])

    def pop(self, most=COMMANDS_MAX):
        """The commands that the gateway has sent, numbered (COMMAND[])."""
        commands = np.zeros(most, layout.COMMAND)
        commands = commands[: spsc.pop(self.arrays["command_ring"], self.arrays["commands"], commands)]
        commands["sequence"] = self.sequence + 1 + np.arange(len(commands))
        self.sequence += len(commands)
        return commands

    def ack(self, commands, outcome=Outcome.DONE, code=0, **facts):
        """Ack commands, all with the same words."""
        acks = np.zeros(len(commands), layout.ACK)
        for name in ("request", "sequence", "place", "count", "market"):
            acks[name] = commands[name]
        acks["outcome"], acks["code"] = outcome, code
        for name, values in facts.items():
            acks[name] = values
        assert spsc.push(self.arrays["ack_ring"], self.arrays["acks"], acks) == len(acks)

    def refuse(self, commands, code):
        self.ack(commands, Outcome.REFUSED, code)

    def show(self):
        """End the block: the world shows all that was popped."""
        self.world.status["command_sequence"] = self.sequence

    def answer_all(self, outcome=Outcome.DONE, code=0, **facts):
        """Do all that was sent, in one block; return the commands."""
        commands = self.pop()
        self.ack(commands, outcome, code, **facts)
        self.show()
        return commands


class Engine(Hand):
    """One with a door of its own, in this process."""

    def __init__(self, world, epoch=1):
        self.bell = np.zeros(1, layout.BELL)
        self.bell_fd = wait.new_eventfd()
        self.door = Door(epoch, world.status, self.bell, self.bell_fd)
        super().__init__(world, self.door.region.arrays)


class Heard:
    """A waiter of a door that remembers what it was told."""

    def __init__(self):
        self.told = []

    def acknowledged(self, acks: list[Ack]):
        self.told.append(acks)

    def unknown(self):
        self.told.append("unknown")
