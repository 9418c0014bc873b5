"""What the next commands of a batch will need, fetched while earlier ones are applied.

A command's rows lie all over memory, and one is found through another: what it names at first sight, then
what that leads to, then its neighbours in their lists. Each step is taken STEP commands after the one before
it, when its line has come. All of it is a guess and changes nothing: a wrong one is a fetch in vain.
"""

from shm import bulk, index
from shm.kernel import inner
from shm.layout import NO_SLOT

STEP = 4  # commands: about the time that a line takes to come


@inner
def fetch(state, commands, at, count):
    """Take each of the three steps for one of the commands behind commands[at]."""
    if at + 3 * STEP < count:
        _named(state, commands[at + 3 * STEP])
    if at + 2 * STEP < count:
        _found(state, commands[at + 2 * STEP])
    if at + STEP < count:
        _beside(state, commands[at + STEP])


@inner
def _named(state, command):
    bulk.prefetch(state.signers, command.signer_row)
    mask = len(state.order_index) - 1
    bulk.prefetch(state.order_index, index.mix(command.order) & mask)
    bulk.prefetch(state.order_index, index.mix(state.heap[0].orders + 3 * STEP) & mask)  # of an order to come


@inner
def _found(state, command):
    account, slot = _account_of(state, command), _slot_of(state, command)
    bulk.prefetch(state.accounts, account)
    bulk.prefetch(state.positions, account * len(state.markets) + command.market)
    bulk.prefetch(state.orders, slot)
    bulk.prefetch(state.facts, slot)


@inner
def _beside(state, command):
    slot = _slot_of(state, command)
    if slot != NO_SLOT:
        order = state.orders[slot]
        bulk.prefetch(state.orders, order.prior)
        bulk.prefetch(state.orders, order.next)
        bulk.prefetch(state.orders, order.account_prior)
        bulk.prefetch(state.orders, order.account_next)
    bulk.prefetch(state.orders, state.accounts[_account_of(state, command)].last_order)


@inner
def _account_of(state, command):
    """The account of whoever stands where the gateway believes the signer to stand."""
    row = command.signer_row
    return state.signers[row].account if 0 <= row < len(state.signers) else 0


@inner
def _slot_of(state, command):
    """Where the order that the command names stands, unless another has its place in the index."""
    return state.order_index[index.mix(command.order) & (len(state.order_index) - 1)] - 1
