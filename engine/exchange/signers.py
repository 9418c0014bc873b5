"""Who may act for whom, and once: accounts by address, their agents and sub-accounts, each signer's nonces.

A signer is an address that signs: an account's own, or that of an agent it has approved. Rows are never given
to another address, so a nonce that was used stays used, also of an agent that was revoked.
"""

from engine.exchange.outcomes import emit, touch_account
from engine.exchange.records import NONCES_KEPT, Kind
from engine.exchange.state import INSURANCE
from shm import index
from shm.bulk import copy_bytes, same_bytes
from shm.codes import Ask, Command, Refusal
from shm.kernel import inner
from shm.layout import NO_ACCOUNT, NO_SLOT

DAY_MS = 86_400_000
SUBS_MAX = 10
NAMED_AGENTS_MAX, NAMED_AGENTS_A_SUB = 3, 2


# --- accounts -----------------------------------------------------------------------------------------------


@inner
def find_account(state, address):
    """Return the row of the account with this address (u1[20]), or NO_SLOT."""
    return index.find_account(state.account_index, state.accounts, address, 0)


@inner
def find_signer(state, address):
    return index.find_account(state.signer_index, state.signers, address, 0)


@inner
def judge_new(state, address):
    """Say why no account can be made at this address, which is none yet."""
    status = state.status[0]
    if find_signer(state, address) != NO_SLOT:
        return Refusal.AGENT_USED
    return Refusal.TABLE_FULL if status.account_count == len(state.accounts) else Refusal.NONE


@inner
def make_account(state, address, master):
    """Make the account, which `judge_new` has nothing against; return its row."""
    status = state.status[0]
    row = status.account_count
    status.account_count += 1
    account = state.accounts[row]
    account.first_order, account.last_order = NO_SLOT, NO_SLOT
    account.first_agent, account.master = NO_SLOT, master
    account.created_ms = state.heap[0].time_ns // 1_000_000
    account.marks, account.funding_round = state.heap[0].marks, state.heap[0].funding_round
    copy_bytes(account.address, address)
    index.add_account(state.account_index, address, 0, row)
    account.signer = _add_signer(state, address, row)
    state.signers[account.signer].is_live = 1
    outcome = emit(state, Kind.ACCOUNT, row, -1)
    outcome.other = master
    copy_bytes(outcome.address, address)
    touch_account(state, row)
    return row


@inner
def _add_signer(state, address, account):
    status = state.status[0]
    row = status.signer_count
    status.signer_count += 1
    signer = state.signers[row]
    signer.account, signer.next = account, NO_SLOT
    copy_bytes(signer.address, address)
    index.add_account(state.signer_index, address, 0, row)
    return row


# --- the envelope of an action ------------------------------------------------------------------------------


@inner
def open_action(state, command):
    """Decide about the action that begins with this command: who acts, and whether it may."""
    heap = state.heap[0]
    heap.action_account = NO_ACCOUNT
    heap.action_request, heap.action_gateway = command.request, command.gateway
    heap.action_kind, heap.action_place = command.kind, 0
    heap.action_code = _judge(state, command)


@inner
def goes_on(state, command):
    """Whether the command is the next of the action under way, and of the kind by which it was judged."""
    heap = state.heap[0]
    heap.action_place += 1
    same = command.request == heap.action_request and command.gateway == heap.action_gateway
    return same and command.kind == heap.action_kind and command.place == heap.action_place < command.count


@inner
def _judge(state, command):
    heap = state.heap[0]
    now_ms = command.time_ns // 1_000_000
    row = _known(state, command)
    if row == NO_SLOT:
        return Refusal.UNKNOWN_SIGNER
    signer = state.signers[row]
    if signer.account == INSURANCE:
        return Refusal.UNKNOWN_SIGNER
    if signer.is_live == 0 or 0 < signer.valid_until_ms <= now_ms:
        return Refusal.UNKNOWN_SIGNER
    account = signer.account
    if command.flags & Ask.HAS_VAULT:
        account = find_account(state, command.vault)
        if account == NO_SLOT or state.accounts[account].master != signer.account:
            return Refusal.UNKNOWN_VAULT
    if command.flags & Ask.SESSION == 0:
        code = use_nonce(signer, command.nonce, now_ms)
        if code != Refusal.NONE:
            return code
    heap.action_account = account
    state.accounts[account].actions += 1
    touch_account(state, account)
    if 0 != command.expires_ms < now_ms:
        return Refusal.EXPIRED
    if Command.USD_SEND <= command.kind <= Command.SUB_TRANSFER:
        if signer.is_agent or command.flags & Ask.HAS_VAULT:
            return Refusal.NOT_ALLOWED
    return Refusal.NONE


@inner
def _known(state, command):
    """Return the signer's row: where the gateway believes it to stand, if it is so."""
    row = command.signer_row
    if 0 <= row < state.status[0].signer_count:
        if same_bytes(state.signers[row].address, command.signer):
            return row
    return find_signer(state, command.signer)


@inner
def use_nonce(signer, nonce, now_ms):
    """Keep the nonce, or say why not: the NONCES_KEPT highest of a signer are kept, in ascending order."""
    if nonce <= now_ms - 2 * DAY_MS or nonce >= now_ms + DAY_MS:
        return Refusal.NONCE_WINDOW
    count, nonces = signer.nonce_count, signer.nonces
    at = count
    while at > 0 and nonces[at - 1] > nonce:
        at -= 1
    if at > 0 and nonces[at - 1] == nonce:
        return Refusal.NONCE_DUPLICATE
    if count < NONCES_KEPT:
        for i in range(count, at, -1):
            nonces[i] = nonces[i - 1]
        nonces[at] = nonce
        signer.nonce_count += 1
        return Refusal.NONE
    if at == 0:
        return Refusal.NONCE_TOO_LOW
    for i in range(at - 1):
        nonces[i] = nonces[i + 1]
    nonces[at - 1] = nonce
    return Refusal.NONE


# --- agents and sub-accounts --------------------------------------------------------------------------------


@inner
def approve_agent(state, command, account):
    """Let another address trade for the account, in place of an agent of the same name; return a Refusal."""
    now_ms, until_ms = command.time_ns // 1_000_000, command.amount
    if until_ms < 0 or 0 < until_ms <= now_ms:
        return Refusal.AMOUNT
    known = find_signer(state, command.other)
    if known != NO_SLOT:
        signer = state.signers[known]
        if signer.account != account or not _may_act(signer, now_ms) or not _same_name(signer, command):
            return Refusal.AGENT_USED
        if signer.is_agent == 0:
            return Refusal.AGENT_USED
        signer.valid_until_ms = until_ms
        _tell_agent(state, known)
        return Refusal.NONE
    replaces, named = False, 0
    row = state.accounts[account].first_agent
    while row != NO_SLOT:
        agent = state.signers[row]
        if _may_act(agent, now_ms):
            replaces = replaces or _same_name(agent, command)
            named += agent.name[0] != 0
        row = agent.next
    most = NAMED_AGENTS_MAX + NAMED_AGENTS_A_SUB * state.accounts[account].subs
    if not replaces and command.text[0] != 0 and named >= most:
        return Refusal.AGENTS_MANY
    status = state.status[0]
    if status.signer_count - status.account_count == len(state.signers) - len(state.accounts):
        return Refusal.TABLE_FULL
    _revoke(state, command, account)
    row = _add_signer(state, command.other, account)
    agent = state.signers[row]
    agent.is_agent, agent.is_live, agent.valid_until_ms = 1, 1, until_ms
    copy_bytes(agent.name, command.text)
    agent.next = state.accounts[account].first_agent
    state.accounts[account].first_agent = row
    _tell_agent(state, row)
    return Refusal.NONE


@inner
def _revoke(state, command, account):
    """Revoke the agent whose name another is given, and those whose time is over: a list holds few."""
    row, before = state.accounts[account].first_agent, NO_SLOT
    while row != NO_SLOT:
        agent = state.signers[row]
        if _may_act(agent, command.time_ns // 1_000_000) and not _same_name(agent, command):
            before = row
        else:
            agent.is_live = 0
            _tell_agent(state, row)
            if before == NO_SLOT:
                state.accounts[account].first_agent = agent.next
            else:
                state.signers[before].next = agent.next
        row = agent.next


@inner
def _may_act(signer, now_ms):
    return signer.is_live != 0 and not 0 < signer.valid_until_ms <= now_ms


@inner
def _same_name(signer, command):
    same = True
    for i in range(len(signer.name)):
        same = same and signer.name[i] == command.text[i]
    return same


@inner
def _tell_agent(state, row):
    signer = state.signers[row]
    outcome = emit(state, Kind.AGENT, signer.account, -1)
    outcome.order, outcome.placed_ms, outcome.done = row, signer.valid_until_ms, 1 - signer.is_live
    copy_bytes(outcome.address, signer.address)
    copy_bytes(outcome.text, signer.name)
    touch_account(state, signer.account)


@inner
def create_sub(state, command, account):
    """Make a sub-account that `account` leads; return a Refusal."""
    master = state.accounts[account]
    if master.master != NO_ACCOUNT:
        return Refusal.NOT_ALLOWED
    if master.subs == SUBS_MAX:
        return Refusal.SUBS_MANY
    if find_signer(state, command.other) != NO_SLOT:
        return Refusal.AMOUNT
    code = judge_new(state, command.other)
    if code != Refusal.NONE:
        return code
    row = make_account(state, command.other, account)
    copy_bytes(state.accounts[row].name, command.text)
    master.subs += 1
    touch_account(state, account)
    return Refusal.NONE
