"""An exchange in plain Python, too simple to be wrong: dicts, sorted looks, sums from scratch.

Written from the rules, not from the engine, which must give the same outcomes and acks for the same commands.
Nothing here is fast, kept up or derived twice: margin is summed over all positions and open orders whenever
it is asked for, the best order is looked for in all of them. This file is who asks, and accounts; orders are
in floor.py, the operator's commands and the end of a block in operating.py, and what is computed of prices,
margin, funding and liquidation in the modules of these names, in exact rationals.
"""

from engine.exchange.records import NONCES_KEPT, Kind
from engine.exchange.state import FEE_ADDRESS, INSURANCE_ADDRESS
from shm.codes import Ack, Ask, Ledger, Refusal
from shm.codes import Command as Kinds
from tests.exchange.model_liquidation import Liquidations
from tests.exchange.terms import NO_TEXT, Command, but_the_mark
from tests.exchange.things import MICRO, PRICE_MAX, Account, Market, Order, Signer, ceil_div

DAY_MS = 86_400_000
SUBS_MAX = SCHEDULES_A_DAY = 10
OWNER_ONLY = {Kinds.USD_SEND, Kinds.APPROVE_AGENT, Kinds.CREATE_SUB, Kinds.SUB_TRANSFER}
CANCELED, SELF_TRADE, REDUCE_ONLY, SCHEDULED, MARGIN = (
    NAMES.index(text)
    for text in (
        "canceled", "selfTradeCanceled", "reduceOnlyCanceled", "scheduledCancel", "marginCanceled",
    )
)  # fmt: skip


# Which of the rules of risk are in the engine, besides prices. A model of other rules runs alone.
ALL = ("margin", "funding", "liquidation")
BUILT = ()


class Model(Liquidations):
    """All of an exchange. `apply` is its only door; the rest is there to be looked at."""

    def __init__(self, capacity, built=BUILT):
        self.capacity, self.built = capacity, built
        self.rules = margin if "margin" in built else until
        self.markets, self.accounts, self.signers, self.open = [], {}, {}, {}
        self.oids = self.height = self.trades = self.deposited = 0
        self.told = {}  # (kind, account, market) -> the absolute row that was told last
        self.outcomes = []
        self.circle_left = self.circle_next = 0
        self.is_stopped = False  # the taker under way could bear no more
        self.action = None  # (code, signer, account) of the action under way
        self.is_killed, self.deposited = False, 0
        self.circle = Circle(self)
        self.sampled, self.hour = 0, None  # when premiums were last sampled, and funding paid

    canceled = CANCELED

    @staticmethod
    def trade_name(oid):
        return trade_id(oid, oid)

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
        return self.rules.Whole(account)

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
        if signer is None or not signer.may_act(self.now_ms):
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

    # --- the operator's -------------------------------------------------------------------------------

    def _add_market(self, c):
        sound = 0 <= c.side <= 6 and 1 <= c.price <= PRICE_MAX and 1 <= c.amount <= LEVERAGE_MAX
        if not sound or max(abs(c.quantity), abs(c.order)) > RATE_MAX:
            raise Refused(Refusal.AMOUNT)
        if len(self.markets) == self.capacity.markets:
            raise Refused(Refusal.TABLE_FULL)
        market = Market(len(self.markets), c.text, c.side, c.amount, c.quantity, c.order, c.price)
        market.mark, market.mark_ms, market.tiers = c.price, self.now_ms, [(0, c.amount, 0)]
        market.sound_mark = c.price
        self.markets.append(market)
        self._tell_market(self.markets[-1])

    def _deposit(self, c):
        _check_amount(c.amount)
        account = self._account_for(c.other, c.amount)
        self.deposited += c.amount
        self._move(account, c.amount, Ledger.DEPOSIT, None)

    def _withdraw(self, c):
        _check_amount(c.amount)
        account = self.accounts.get(c.other)
        if account is None or c.amount > account.withdrawable():
            raise Refused(Refusal.BALANCE)
        self.deposited -= c.amount
        self._move(account, -c.amount, Ledger.WITHDRAW, None)

    def _end_block(self, c):
        for account in list(self.accounts.values()):
            if 0 < account.schedule_ms <= self.now_ms:
                account.schedule_ms = 0
                today = self.now_ms // DAY_MS
                account.fired[today] = account.fired.get(today, 0) + 1
                self._end_all(account, SCHEDULED)
        for market in self.markets:
            self._mark_itself(market)
        self._go_round()
        self.height += 1
        for account in self.accounts.values():
            self._tell_if_new(self._funds(account))
        for account in self.accounts.values():
            for number, used in account.margins().items():
                self._tell_if_new(self._position(account, self.markets[number], used))
        for market in self.markets:
            self._tell_if_new(self._contract(market))
        self._tell(Kind.BLOCK, self.height, c.sequence)

    def _mark_itself(self, market):
        mark = max(1, min(market.reference, INTEREST_VALUE_MAX // max(market.interest, 1)))
        if mark != market.mark and self.now_ms - market.mark_ms >= MARK_MS:
            market.mark, market.mark_ms = mark, self.now_ms
            self._make_circle_due()
            self._tell(Kind.PRICES, 0, mark, 0, 0, 0, 0, 0, 0, 0, market.number)

    def _tell_if_new(self, row):
        kind, subject, fields, default = row
        before = self.told.get((kind, subject), default)
        if before is None or but_the_mark(kind, before) != but_the_mark(kind, fields):
            self._tell_absolute(row)

    def _tell_absolute(self, row):
        kind, subject, fields, _ = row
        self.told[kind, subject] = fields
        self._tell(kind, *fields)

    def _tell_market(self, market):
        self._tell_absolute(self._contract(market))

    def _contract(self, m):
        fields = (m.size_decimals, m.reference, m.interest, m.maker_rate, m.taker_rate, m.max_leverage)
        return Kind.MARKET, m.number, (*fields, 0, 800, 0, m.name, 6000, 0, 0, m.number), None

    def _funds(self, a):
        fields = (a.actions, a.cash, a.used(), a.volume, a.schedule_ms, a.deposited, a.realised)
        return (
            Kind.FUNDS,
            a.row,
            (*fields, a.created_ms, a.fees, a.name, a.master.row if a.master else -1, 0, a.row),
            None,
        )

    def _position(self, account, market, used):
        p = account.position(market)
        orders = [o for o in account.orders.values() if o.market is market and not o.reduce]
        buys, sells = (sum(o.price * o.quantity for o in orders if o.side == side) for side in Side)
        row = (buys, p.size, p.entry, used, p.isolated, p.realised, p.leverage, sells, int(p.is_cross))
        default = (0, 0, 0, 0, 0, 0, min(20, market.max_leverage), 0, 1)
        subject = (account.row, market.number)
        return Kind.POSITION, subject, (*row, *subject), (*default, *subject)

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
        if c.amount > account.withdrawable():
            raise Refused(Refusal.BALANCE)
        taker = self._account_for(c.other, c.amount)
        self._transfer(account, taker, c.amount, Ledger.SEND)

    def _sub_transfer(self, c, account):
        sub = self.accounts.get(c.other)
        if sub is None or sub.master is not account:
            raise Refused(Refusal.SUB_UNKNOWN)
        check_amount(c.amount)
        giver, taker = (account, sub) if c.flags & Ask.IS_DEPOSIT else (sub, account)
        if c.amount > giver.withdrawable():
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
        if not 1 <= c.amount <= market.max_leverage or held.exposure > self.rules.limit_of(market, c.amount):
            raise Refused(Refusal.LEVERAGE_VALUE)
        if position.size != 0 and position.is_cross != is_cross:
            raise Refused(Refusal.LEVERAGE_SWITCH)
        before, old, moved = account.margins()[market.number], position.leverage, 0
        if not position.is_cross and position.size != 0 and c.amount < old:
            moved = max(0, ceil_div(abs(position.value), c.amount) - position.bucket)
        position.leverage = c.amount
        rises = account.margins()[market.number] > before or moved > 0
        if rises and account.free() - moved < 0:
            position.leverage = old
            raise Refused(Refusal.LEVERAGE_MARGIN)
        position.is_cross = is_cross
        position.isolated += moved
        account.cash -= moved

    def _isolated_margin(self, c, account):
        market = self._market(c.market, Refusal.UNKNOWN_MARKET)
        position = account.position(market)
        if position.is_cross or position.size == 0:
            raise Refused(Refusal.NOT_ISOLATED)
        _check_amount(abs(c.amount))
        value = abs(position.value)
        kept = max(ceil_div(value, position.leverage), ceil_div(value, 10))
        if c.amount > account.free() if c.amount > 0 else position.bucket + c.amount < kept:
            raise Refused(Refusal.BALANCE)
        account.cash -= c.amount
        position.isolated += c.amount

    # --- orders ---------------------------------------------------------------------------------------

    def _end(self, order, status, crossed=False):
        """An open order is no more; or (`crossed`) what is left of one that never rested."""
        if not crossed:
            del self.open[order.oid], order.account.orders[order.oid]
            del order.market.sides[order.side][order.oid]
        self._tell(
            Kind.ENDED, order.oid, order.price, order.quantity, order.original, order.placed_ms, order.text,
            order.account.row, order.market.number, status, order.side,
            order.flags + Flag.CROSSED * crossed, order.tif,
        )  # fmt: skip

    def _end_all(self, account, status):
        for order in list(account.orders.values()):
            self._end(order, status)

    def _cancel_all(self, c, account):
        self.filled = len(account.orders)
        self._end_all(account, CANCELED)

    def _find(self, account, c, by_cloid):
        for order in account.orders.values():
            if (order.cloid == c.of) if by_cloid else (order.oid == c.order):
                return order
        return None

    def _cancel(self, c, account):
        market = self._market(c.market, Refusal.ORDER_MARKET)
        order = self._find(account, c, c.kind == Kinds.CANCEL_CLOID)
        if order is None or order.market is not market:
            raise Refused(Refusal.GONE)
        self.oid = order.oid
        self._end(order, CANCELED)

    def _modify(self, c, account):
        self._market(c.market, Refusal.ORDER_MARKET)
        old = self._find(account, c, c.flags & Ask.BY_CLOID)
        if old is None and not c.flags & Ask.ALWAYS_PLACE:
            raise Refused(Refusal.MODIFY_GONE)
        return self._order(c, account, old)

    def _order(self, c, account, old=None):
        """Place an order, in the place of `old` if there is one; return what its ack says."""
        market = self._market(c.market, Refusal.ORDER_MARKET)
        self.oids += 1
        self.oid = self.oids
        order = Order(
            self.oid, account, market, c.side, c.price, c.quantity, c.quantity, self.now_ms, c.tif,
            c.text if c.flags & Ask.HAS_CLOID else None, bool(c.flags & Ask.REDUCE_ONLY),
        )  # fmt: skip
        try:
            self._judge(c, order, old)
        except Refused as why:
            return self._refuse(order, why)
        if old is not None:
            self._end(old, CANCELED)
        self._match(order)
        if order.quantity == 0:
            self._end(order, Status.FILLED, crossed=True)
            return Ack.FILLED
        if order.tif in (Tif.GTC, Tif.ALO) and not self.is_stopped:
            self.open[order.oid] = account.orders[order.oid] = market.sides[order.side][order.oid] = order
            self._tell(
                Kind.OPENED, order.oid, order.price, order.quantity, order.original, order.placed_ms,
                order.text, account.row, market.number, order.side, order.flags, order.tif,
            )  # fmt: skip
            return Ack.RESTING
        if self.filled == 0:
            return self._refuse(order, Refused(Refusal.MARGIN if self.is_stopped else Refusal.IOC))
        self._end(order, MARGIN if self.is_stopped else CANCELED, crossed=True)
        return Ack.FILLED

    def _refuse(self, order, why):
        status = NAMES.index(REFUSED_AS.get(why.code, "rejected"))
        self._tell(
            Kind.REFUSED, order.oid, order.price, order.text, order.account.row, order.market.number,
            status, order.side, order.flags, order.tif, why.code,
        )  # fmt: skip
        touch = [order.market.best(side) if why.code == Refusal.POST_ONLY else None for side in Side]
        raise Refused(why.code, *(best.price if best else 0 for best in touch))

    def _judge(self, c, order, old):
        """Raise Refused if the order may not be placed; a reduce-only one is cut to what it can reduce."""
        account, market, position = order.account, order.market, order.account.position(order.market)
        if c.flags & Ask.IS_TRIGGER:
            raise Refused(Refusal.TRIGGER)
        if not 0 < order.quantity <= QUANTITY_MAX:
            raise Refused(Refusal.SIZE)
        if not market.is_legal(order.price):
            raise Refused(Refusal.PRICE)
        if order.price * order.quantity > market.value_max(order.tif):
            raise Refused(Refusal.VALUE_MAX)
        if order.reduce:
            if position.size * order.sign >= 0:
                raise Refused(Refusal.REDUCE_ONLY)
            order.quantity = order.original = min(order.quantity, abs(position.size))
        value = order.price * order.quantity
        if value < VALUE_MIN and not (order.reduce and order.quantity == abs(position.size)):
            raise Refused(Refusal.VALUE_MIN)
        if not market.reference <= 5 * order.price <= 9 * market.reference:
            raise Refused(Refusal.PRICE_FAR)
        bid = market.best(Side.BUY)
        dearest = max(order.price, market.mark, bid.price if bid else 0)
        if not order.reduce and (market.interest + order.quantity) * dearest > INTEREST_VALUE_MAX:
            raise Refused(Refusal.INTEREST_FAST)
        others = [each for each in account.orders.values() if each is not old]
        if order.tif in (Tif.GTC, Tif.ALO):
            limit = min(5000, 1000 + account.volume // (5_000_000 * MICRO))
            if len(others) >= (1000 if order.reduce else limit):
                raise Refused(Refusal.OPEN_ORDERS)
        if order.cloid is not None and any(each.cloid == order.cloid for each in others):
            raise Refused(Refusal.CLOID)
        if len(self.open) - (old is not None) >= self.capacity.orders:
            raise Refused(Refusal.ORDERS_FULL)
        self._judge_price(order, old)
        if not order.reduce:
            plus, number = (market, order.side, value), market.number
            fee = ceil_div(value * max(market.taker_rate, 0), MICRO)
            rises = account.margins(old, plus)[number] > account.margins()[number]
            if rises and account.value() - account.used(old, plus) - fee < 0:
                raise Refused(Refusal.MARGIN)

    def _judge_price(self, order, old):
        """Whether it may meet what is on the other side; `old` has left the book before that."""
        sides = order.market.sides
        if old is not None and (back := old.market.sides[old.side].pop(old.oid)):
            try:
                return self._judge_price(order, None)
            finally:
                old.market.sides[old.side][old.oid] = back
        crosses = self._reached(order) is not None
        if order.tif == Tif.ALO and crosses:
            raise Refused(Refusal.POST_ONLY)
        if order.tif == Tif.MARKET and not sides[1 - order.side]:
            raise Refused(Refusal.LIQUIDITY)
        if order.tif in (Tif.IOC, Tif.MARKET) and not crosses:
            raise Refused(Refusal.IOC)
        return None

    def _reached(self, order):
        """The order that this one would meet first, or None."""
        best = order.market.best(1 - order.side)
        limit = order.limit or order.price
        return best if best and best.price * order.sign <= limit * order.sign else None

    def _match(self, order):
        self.is_stopped = False
        while order.quantity > 0 and not self.is_stopped and (maker := self._reached(order)):
            size = maker.account.position(order.market).size
            closable = max(0, -maker.sign * size) if maker.reduce else maker.quantity
            if maker.account is order.account:
                self._end(maker, SELF_TRADE)
            elif closable == 0:
                self._end(maker, REDUCE_ONLY)
            else:
                self._trade(order, maker, min(order.quantity, maker.quantity, closable))

    def _trade(self, taker, maker, quantity):
        market, price = taker.market, maker.price
        notional = price * quantity
        fees = [ceil_div(notional * rate, MICRO) for rate in (market.maker_rate, market.taker_rate)]
        fees[0] = max(fees[0], -fees[1])
        buyer, seller = (taker, maker) if taker.side == Side.BUY else (maker, taker)
        name = trade_id(buyer.oid, seller.oid)
        if not _bears(maker, price, quantity, fees[0]):
            return self._end(maker, MARGIN)
        if not _bears(taker, price, quantity, fees[1]):
            self.is_stopped = True
            return None
        longs = max(0, taker.account.position(market).size), max(0, maker.account.position(market).size)
        for order, fee, other in ((maker, fees[0], taker), (taker, fees[1], maker)):
            account, position = order.account, order.account.position(market)
            start = position.size
            pnl, out, _ = position.trade(order.sign, price, quantity, fee)
            account.cash += out
            account.volume += notional
            account.fees += fee
            account.realised += pnl
            order.quantity -= quantity
            order.start = start
            self._tell(
                Kind.FILLED, order.oid, price, quantity, order.quantity, order.placed_ms, name, pnl, start,
                fee, order.text, account.row, market.number, other.account.row, order.side,
                order.flags + Flag.CROSSED * (order is taker) + Flag.LIQUIDATION * (taker.method > 0),
                order.quantity == 0, taker.method,
            )  # fmt: skip
        self.accounts[FEE_ADDRESS].cash += sum(fees)
        market.interest -= sum(longs)
        market.interest += sum(max(0, each.account.position(market).size) for each in (taker, maker))
        market.reference = price
        self.trades += 1
        self.filled += quantity
        self.notional += notional
        if maker.quantity == 0:
            del self.open[maker.oid], maker.account.orders[maker.oid], market.sides[maker.side][maker.oid]
        for order in (maker, taker):
            self._drop_reducing(order.account, market, order.start)
        return None

    def _drop_reducing(self, account, market, start):
        """End the orders that can reduce no more, if the position was closed or turned round."""
        size = account.position(market).size
        if size == 0 or size * start < 0:
            for order in list(account.orders.values()):
                if order.market is market and order.reduce and size * order.sign >= 0:
                    self._end(order, REDUCE_ONLY)


def trade_id(buyer, seller):
    """The name of the trade between two orders: fifty bits that look like chance."""
    return _mix(_mix(buyer) ^ seller) % 2**50


def _mix(key):
    word = key * 0x9E3779B97F4A7C15 % 2**64
    return (word ^ word >> 29) >> 1


def _plain(field):
    return int(field) if not isinstance(field, bytes) else field


def _check_amount(amount):
    if not 1 <= amount <= AMOUNT_MAX:
        raise Refused(Refusal.AMOUNT)


def _check_room(account, amount):
    if account.cash + amount > CASH_MAX:
        raise Refused(Refusal.AMOUNT)


def _bears(order, price, quantity, fee):
    """Whether the order's account may have this fill: as it would be then, tried out and taken back."""
    account, position = order.account, order.account.position(order.market)
    as_it_was = vars(position).copy(), account.cash, order.quantity
    before, over = position.size, account.value() - account.maintenance()
    over_aside = position.bucket - position.maintenance
    _, out, closed = position.trade(order.sign, price, quantity, fee)
    account.cash += out
    order.quantity -= quantity
    closes = abs(position.size) < abs(before) and position.size * before >= 0
    if order.method:
        aside = closed if position.size == 0 else position.bucket
        fine = (account.value() if position.is_cross else aside) >= 0
    elif closes and position.is_cross:
        fine = account.value() - account.maintenance() >= min(0, over)
    elif closes:
        fine = (
            closed >= 0
            if position.size == 0
            else position.bucket - position.maintenance >= min(0, over_aside)
        )
    else:
        fine = account.free() >= 0
        if not position.is_cross:
            fine = fine and position.bucket >= position.maintenance
            fine = fine and (closed >= 0 or position.size * before >= 0)
    was, account.cash, order.quantity = as_it_was
    vars(position).update(was)
    return fine
