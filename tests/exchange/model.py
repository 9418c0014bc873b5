"""An exchange in plain Python, too simple to be wrong: dicts, sorted looks, sums from scratch.

Written from the rules, not from the engine, which must give the same outcomes and acks for the same commands.
Nothing here is fast, kept up or derived twice: margin is summed over all positions and open orders whenever
it is asked for, the best order is looked for in all of them. This file is who asks, and accounts; orders are
in floor.py, triggers.py and twap.py, the operator's commands and the end of a block in operating.py.
What is computed of prices, margin, funding and liquidation is in the modules of these names, in exact
rationals.
"""

from engine.exchange.records import NONCES_KEPT, Kind
from engine.exchange.state import FEE_ADDRESS, INSURANCE_ADDRESS
from shm.codes import Ack, Ask, Ledger, Refusal
from shm.codes import Command as Kinds
from tests.exchange import margin
from tests.exchange.floor import Floor
from tests.exchange.liquidation import INSURANCE, Circle
from tests.exchange.operating import Operator
from tests.exchange.terms import NO_TEXT, Command
from tests.exchange.things import Account, Refused, Signer, check_amount, check_room, plain
from tests.exchange.triggers import Triggers
from tests.exchange.twap import Twaps

DAY_MS = 86_400_000
SUBS_MAX = SCHEDULES_A_DAY = 10
OWNER_ONLY = {Kinds.USD_SEND, Kinds.APPROVE_AGENT, Kinds.CREATE_SUB, Kinds.SUB_TRANSFER}


class Model(Floor, Triggers, Twaps, Operator):
    """All of an exchange. `apply` is its only door; the rest is there to be looked at."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.markets, self.accounts, self.signers, self.open = [], {}, {}, {}
        self.oids = self.height = self.trades = 0
        self.told = {}  # (kind, account, market) -> the absolute row that was told last
        self.outcomes, self.standing = [], {}
        self.action = None  # (code, signer, account) of the action under way
        self.is_killed, self.deposited = False, 0
        self.twaps, self.twap_ids = [], 0  # those that run
        self.circle = Circle(self)
        self.sampled, self.hour = 0, None  # when premiums were last sampled, and funding paid

    def apply(self, command: Command):
        """Do it; return outcomes and ack in the terms of tests/exchange/terms.py, and how all stands."""
        self.outcomes, self.standing = [], {}
        if not self.accounts:
            self.command, self.now_ms = Command(), 0  # at the beginning of all things
            self._make_account(FEE_ADDRESS)
            self._make_account(INSURANCE_ADDRESS)
        self.command, self.now_ms = command, command.time_ns // 1_000_000
        self.oid = self.filled = self.notional = 0
        try:
            outcome = self._act(command) or Ack.DONE
            code, filled, notional = 0, self.filled, self.notional
        except Refused as why:
            outcome, code, filled, notional = Ack.REFUSED, why.code, why.bid, why.ask
        c = command
        ack = (c.request, c.sequence, self.oid, filled, notional, c.gateway, c.place, c.count)
        ack = (*ack, int(code), int(outcome), self.now_ms)
        return self.outcomes, ack, self.standing

    def whole(self, account):
        """The account's margin, at this moment."""
        return margin.Whole(account)

    def _tell(self, kind, *fields):
        self.outcomes.append((int(kind), self.command.sequence, self.command.time_ns, *map(plain, fields)))

    def _act(self, command):
        by_operator = {
            Kinds.ADD_MARKET: self._add_market,
            Kinds.DEPOSIT: self._deposit,
            Kinds.WITHDRAW: self._withdraw,
            Kinds.END_BLOCK: self._end_block,
            Kinds.ORACLE: self._oracle,
            Kinds.LIMITS: self._limits,
            Kinds.TIER: self._tier,
            Kinds.MODE: self._mode,
            Kinds.KILL: self._kill,
        }
        by_signer = {
            Kinds.NOOP: lambda *_: None,
            Kinds.ORDER: self._order,
            Kinds.CANCEL: self._cancel,
            Kinds.CANCEL_CLOID: self._cancel,
            Kinds.MODIFY: self._modify,
            Kinds.SCHEDULE_CANCEL: self._schedule_cancel,
            Kinds.UPDATE_LEVERAGE: self._update_leverage,
            Kinds.ISOLATED_MARGIN: self._isolated_margin,
            Kinds.USD_SEND: self._usd_send,
            Kinds.APPROVE_AGENT: self._approve_agent,
            Kinds.CREATE_SUB: self._create_sub,
            Kinds.SUB_TRANSFER: self._sub_transfer,
            Kinds.CANCEL_ALL: self._cancel_all,
            Kinds.TWAP: self._twap,
            Kinds.TWAP_CANCEL: self._twap_cancel,
        }
        if command.kind in by_operator:
            return by_operator[command.kind](command)
        account = self._open_envelope(command)
        if command.kind not in by_signer:
            raise Refused(Refusal.NOT_A_COMMAND)
        return by_signer[command.kind](command, account)

    # --- the envelope ---------------------------------------------------------------------------------

    def _open_envelope(self, command):
        """The account that acts. Decided by the first command of an action, for all of them."""
        if command.place == 0:
            try:
                self.action = (0, self._judge_envelope(command))
            except Refused as why:
                self.action = (why.code, None)
        elif command.kind != self.kind:
            self.action = (Refusal.NOT_A_COMMAND, None)
        self.kind = command.kind
        code, account = self.action
        if code:
            raise Refused(code)
        return account

    def _judge_envelope(self, c):
        signer = self.signers.get(c.signer)
        if signer is None or signer.account.row == INSURANCE or not signer.may_act(self.now_ms):
            raise Refused(Refusal.UNKNOWN_SIGNER)
        account = signer.account
        if c.flags & Ask.HAS_VAULT:
            sub = self.accounts.get(c.vault)
            if sub is None or sub.master is not account:
                raise Refused(Refusal.UNKNOWN_VAULT)
            account = sub
        if not c.flags & Ask.SESSION:
            self._take_nonce(signer, c.nonce)
        account.actions += 1
        if c.expires_ms != 0 and self.now_ms > c.expires_ms:
            raise Refused(Refusal.EXPIRED)
        if c.kind in OWNER_ONLY and (signer.is_agent or c.flags & Ask.HAS_VAULT):
            raise Refused(Refusal.NOT_ALLOWED)
        return account

    def _take_nonce(self, signer, nonce):
        if not self.now_ms - 2 * DAY_MS < nonce < self.now_ms + DAY_MS:
            raise Refused(Refusal.NONCE_WINDOW)
        if nonce in signer.nonces:
            raise Refused(Refusal.NONCE_DUPLICATE)
        if len(signer.nonces) == NONCES_KEPT and nonce < min(signer.nonces):
            raise Refused(Refusal.NONCE_TOO_LOW)
        signer.nonces = sorted([*signer.nonces, nonce])[-NONCES_KEPT:]

    # --- accounts and their money ---------------------------------------------------------------------

    def _make_account(self, address, master=None, name=NO_TEXT):
        if len(self.accounts) == self.capacity.accounts:
            raise Refused(Refusal.TABLE_FULL)
        account = Account(len(self.accounts), address, self.now_ms, master, name)
        self.accounts[address] = account
        self.signers[address] = Signer(len(self.signers), address, account)
        self._tell(Kind.ACCOUNT, address, account.row, master.row if master else -1)
        return account

    def _account_for(self, address, amount):
        """Who gets an amount: made if new, and not too rich for it."""
        if address in self.signers and self.signers[address].is_agent:
            raise Refused(Refusal.AGENT_USED)
        if address in self.accounts:
            check_room(self.accounts[address], amount)
            return self.accounts[address]
        return self._make_account(address)

    def _move(self, account, amount, why, other):
        account.cash += amount
        account.deposited += amount
        self._tell(Kind.MONEY, self.command.nonce, amount, account.row, other.row if other else -1, why)

    def _transfer(self, giver, taker, amount, why):
        self._move(giver, -amount, why, taker)
        self._move(taker, amount, why, giver)

    def _usd_send(self, c, account):
        check_amount(c.amount)
        if c.other == account.address:
            raise Refused(Refusal.AMOUNT)
        if c.amount > self.whole(account).withdrawable:
            raise Refused(Refusal.BALANCE)
        taker = self._account_for(c.other, c.amount)
        self._transfer(account, taker, c.amount, Ledger.SEND)

    def _sub_transfer(self, c, account):
        sub = self.accounts.get(c.other)
        if sub is None or sub.master is not account:
            raise Refused(Refusal.SUB_UNKNOWN)
        check_amount(c.amount)
        giver, taker = (account, sub) if c.flags & Ask.IS_DEPOSIT else (sub, account)
        if c.amount > self.whole(giver).withdrawable:
            raise Refused(Refusal.BALANCE)
        check_room(taker, c.amount)
        self._transfer(giver, taker, c.amount, Ledger.SUB_TRANSFER)

    def _create_sub(self, c, account):
        if account.master is not None:
            raise Refused(Refusal.NOT_ALLOWED)
        if account.subs == SUBS_MAX:
            raise Refused(Refusal.SUBS_MANY)
        if c.other in self.accounts or c.other in self.signers:
            raise Refused(Refusal.AMOUNT)
        self._make_account(c.other, account, c.text)
        account.subs += 1

    def _approve_agent(self, c, account):
        if c.amount != 0 and c.amount <= self.now_ms:
            raise Refused(Refusal.AMOUNT)
        mine = [s for s in self.signers.values() if s.is_agent and s.account is account]
        agents = [agent for agent in mine if agent.may_act(self.now_ms)]
        same = next((agent for agent in agents if agent.name == c.text), None)
        if c.other in self.signers:
            if same is None or same.address != c.other:
                raise Refused(Refusal.AGENT_USED)
            same.valid_until_ms = c.amount
            return self._tell_agent(same)
        named = sum(agent.name != NO_TEXT for agent in agents)
        if same is None and c.text != NO_TEXT and named >= 3 + 2 * account.subs:
            raise Refused(Refusal.AGENTS_MANY)
        if len(self.signers) - len(self.accounts) == self.capacity.agents:
            raise Refused(Refusal.TABLE_FULL)
        for agent in reversed(mine):
            if agent.is_live and (agent is same or agent not in agents):
                agent.is_live = False
                self._tell_agent(agent)
        agent = Signer(len(self.signers), c.other, account, True, True, c.amount, c.text)
        self.signers[c.other] = agent
        return self._tell_agent(agent)

    def _tell_agent(self, s):
        fields = (s.row, s.valid_until_ms, s.name, s.address, s.account.row, not s.is_live)
        self._tell(Kind.AGENT, *fields)

    # --- an account's settings ------------------------------------------------------------------------

    def _market(self, number, code):
        if not 0 <= number < len(self.markets):
            raise Refused(code)
        return self.markets[number]

    def _schedule_cancel(self, c, account):
        if c.amount != 0 and c.amount < self.now_ms + 5000:
            raise Refused(Refusal.SCHEDULE_SOON)
        if c.amount != 0 and account.fired.get(self.now_ms // DAY_MS, 0) >= SCHEDULES_A_DAY:
            raise Refused(Refusal.SCHEDULE_OFTEN)
        account.schedule_ms = c.amount

    def _update_leverage(self, c, account):
        market = self._market(c.market, Refusal.UNKNOWN_MARKET)
        position, is_cross = account.position(market), bool(c.flags & Ask.IS_CROSS)
        whole = self.whole(account)
        held = whole.held[market.number]
        if not 1 <= c.amount <= market.max_leverage or held.exposure > margin.limit_of(market, c.amount):
            raise Refused(Refusal.LEVERAGE_VALUE)
        if position.size != 0 and position.is_cross != is_cross:
            raise Refused(Refusal.LEVERAGE_SWITCH)
        bears, moved = margin.bears_leverage(whole, market.number, c.amount)
        if not bears:
            raise Refused(Refusal.LEVERAGE_MARGIN)
        position.leverage, position.is_cross = c.amount, is_cross
        account.cash -= moved
        position.isolated += moved

    def _isolated_margin(self, c, account):
        market = self._market(c.market, Refusal.UNKNOWN_MARKET)
        position = account.position(market)
        if position.is_cross or position.size == 0:
            raise Refused(Refusal.NOT_ISOLATED)
        check_amount(abs(c.amount))
        if not margin.bears_isolated(self.whole(account), market.number, c.amount):
            raise Refused(Refusal.BALANCE)
        account.cash -= c.amount
        position.isolated += c.amount
