"""What the next commands of a batch will need, fetched while earlier ones are applied.

A command's rows lie all over memory, and one is found through another: the command itself, what it names at
first sight, then what that leads to, then its neighbours in their lists. Each step is taken STEP commands
after the one before it, when its line has come. All of it is a guess and changes nothing: a wrong one is a
fetch in vain.
"""

from shm import bulk, index
from shm.kernel import inner
from shm.layout import COMMAND, NO_SLOT

COMMAND_LINES = -(-COMMAND.itemsize // bulk.CACHE_LINE)
STEP = 4  # commands: about the time that a line takes to come


@inner
def fetch(state, commands, at, count):
    """Take each of the four steps for one of the commands behind commands[at]."""
    for line in range(COMMAND_LINES):
        bulk.prefetch(commands, at + 4 * STEP, line)
    if at + 3 * STEP < count:
        _named(state, commands[at + 3 * STEP])
    if at + 2 * STEP < count:
        _found(state, commands[at + 2 * STEP])
    if at + STEP < count:
        _beside(state, commands[at + STEP])


@inner
def _named(state, command):
    bulk.prefetch(state.signers, command.signer_row, 0)
    mask, oid = len(state.order_index) - 1, state.heap[0].orders + 3 * STEP  # that of an order to come
    bulk.prefetch(state.order_index, index.mix(command.order) & mask, 0)
    bulk.prefetch(state.order_index, index.mix(oid) & mask, 0)


@inner
def _found(state, command):
    account, slot = _account_of(state, command), _slot_of(state, command)
    bulk.prefetch(state.accounts, account, 0)
    bulk.prefetch(state.accounts, account, 1)  # what a trade and a block's end need
    bulk.prefetch(state.positions, account * len(state.markets) + command.market, 0)
    bulk.prefetch(state.orders, slot, 0)
    bulk.prefetch(state.facts, slot, 0)


@inner
def _beside(state, command):
    slot = _slot_of(state, command)
    if slot != NO_SLOT:
        order = state.orders[slot]
        bulk.prefetch(state.orders, order.prior, 0)
        bulk.prefetch(state.orders, order.next, 0)
        bulk.prefetch(state.orders, order.account_prior, 0)
        bulk.prefetch(state.orders, order.account_next, 0)
    bulk.prefetch(state.orders, state.accounts[_account_of(state, command)].last_order, 0)


@inner
def _account_of(state, command):
    """The account of whoever stands where the gateway believes the signer to stand."""
    row = command.signer_row
    return state.signers[row].account if 0 <= row < len(state.signers) else 0


@inner
def _slot_of(state, command):
    """Where the order that the command names stands, unless another has its place in the index."""
    return state.order_index[index.mix(command.order) & (len(state.order_index) - 1)] - 1
