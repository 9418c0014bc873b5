"""Who may import whom. The architecture is these tables; the rest of the file only reads them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {  # besides itself and the standard library; nobody imports scripts, tests or perf
    "shm": {"llvmlite", "numba", "numpy"},
    "engine": {"msgspec", "numba", "numpy", "shm"},
    "gateway": {
        *("aiofastnet", "coincurve", "Crypto", "httptools", "msgspec", "numba", "numpy", "picows"),
        *("shm", "uvloop"),
    },
}
ORDER = {  # a module imports only what stands before it in its package; a new file takes its place
    "shm": "constants codes kernel bulk units layout atomics seqlock spsc broadcast wait index rows "
    "account_rows archived region control stats",
    "engine": "process bells state book history publish apply image verify "
    "journal.record journal.disk journal.reader journal.writer journal.runner journal.__main__ "
    "exchange.records exchange.state exchange.arithmetic exchange.outcomes exchange.signers exchange.prices "
    "exchange.funding exchange.margin exchange.money exchange.cloids exchange.shelf exchange.judging "
    "exchange.telling exchange.matching exchange.markets "
    "exchange.liquidation exchange.triggers exchange.twap exchange.ahead exchange.apply "
    "exchange.candles exchange.world exchange.statements exchange.project exchange.snapshot "
    "exchange.recovery exchange.doors exchange.operating exchange.durable exchange.runner exchange.__main__ "
    "replica.equity replica.archive replica.copy replica.source replica.runner replica.__main__ "
    "follow.records follow.scan follow.intern follow.events follow.decode follow.snapshot follow.parse "
    "follow.tail follow.join follow.bootstrap follow.meta follow.checkpoint follow.check follow.watch "
    "follow.follower follow.runner follow.__main__",
    "gateway": "errors terms exchange_schema schema codec actions signing numbers encode quotes world older "
    "commands door answers exchange interest candles contracts accounts ledger twaps portfolio account_info "
    "bound account_channels channels rings fanout readers notices feed session info http accept ws archive "
    "application front server "
    "__main__",
}
ONLY_IN = {  # a library, and the only files that may import it
    "Crypto": {"gateway/signing.py"},
    "coincurve": {"gateway/signing.py"},
    "httptools": {"gateway/front.py", "gateway/http.py"},
    "llvmlite": {"shm/atomics.py", "shm/bulk.py", "shm/wait.py"},
    "picows": {"gateway/ws.py"},
    "uvloop": {"gateway/server.py"},
}
PURE = {  # modules that know no clock, no chance, no outside world
    "shm": "constants codes bulk units layout atomics seqlock spsc broadcast rows account_rows archived "
    "index",
    "engine": "state book history publish apply image verify journal.record "
    "exchange.records exchange.state exchange.arithmetic exchange.outcomes exchange.signers exchange.prices "
    "exchange.funding exchange.margin exchange.money exchange.cloids exchange.shelf exchange.judging "
    "exchange.telling exchange.matching exchange.markets "
    "exchange.liquidation exchange.triggers exchange.twap exchange.ahead exchange.apply "
    "exchange.candles exchange.world exchange.statements exchange.project "
    "follow.records follow.scan follow.intern follow.events follow.decode follow.parse follow.join",
    "gateway": "errors terms exchange_schema schema codec actions signing numbers encode quotes world older "
    "commands door answers exchange interest candles contracts accounts ledger twaps portfolio account_info "
    "bound account_channels channels rings fanout readers notices feed session info",
}
OUTSIDE = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time"}


class Source(NamedTuple):
    """One module: its package, its name in there, its file below the root, the dotted names it imports."""

    package: str
    module: str
    file: str
    imported: list[str]

    def libraries(self) -> set[str]:
        return {name.partition(".")[0] for name in self.imported}


def imports(path: Path) -> Iterator[str]:
    """The dotted name of everything the file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = "." * node.level + (node.module or "")
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def sources(root: Path) -> Iterator[Source]:
    for package in MAY_IMPORT:
        for path in sorted((root / package).rglob("*.py")):
            module = ".".join(path.relative_to(root / package).with_suffix("").parts)
            if path.stem != "__init__":
                yield Source(package, module, path.relative_to(root).as_posix(), list(imports(path)))


def without_place(root: Path) -> list[str]:
    return [
        f"give {source.file} its place in ORDER: {source.module}"
        for source in sources(root)
        if source.module not in ORDER[source.package].split()
    ]


def foreign(root: Path) -> list[str]:
    return [
        f"{source.file} imports {name}"
        for source in sources(root)
        for name in sorted(source.libraries() - sys.stdlib_module_names - {source.package})
        if name not in MAY_IMPORT[source.package]
    ]


def upward(root: Path) -> list[str]:
    """Imports within a package that do not name a module standing before the importing one."""
    found = []
    for source in sources(root):
        order = ORDER[source.package].split()
        before = order[: order.index(source.module)] if source.module in order else order
        for name in source.imported:
            package, _, inner = name.partition(".")
            if package == source.package and not any(
                f"{inner}.".startswith(f"{module}.") for module in before
            ):
                found.append(f"{source.file} imports {name}")
    return found


def out_of_place(root: Path) -> list[str]:
    return [
        f"{source.file} imports {name}"
        for source in sources(root)
        for name in sorted(source.libraries())
        if source.file not in ONLY_IN.get(name, {source.file})
    ]


def impure(root: Path) -> list[str]:
    return [
        f"{source.file} imports {name}"
        for source in sources(root)
        if source.module in PURE[source.package].split()
        for name in sorted(OUTSIDE & source.libraries())
    ]


RULES = [without_place, foreign, upward, out_of_place, impure]


@pytest.mark.parametrize("rule", RULES)
def test_the_sources_keep(rule):
    assert rule(ROOT) == []


def test_the_tables_agree():
    assert MAY_IMPORT.keys() == ORDER.keys() == PURE.keys()
    for package, order in ORDER.items():
        modules = order.split()
        assert len(set(modules)) == len(modules), package
        assert set(PURE[package].split()) <= set(modules), package


@pytest.mark.parametrize(
    ("rule", "file", "text"),
    [
        (without_place, "engine/follow/somewhere.py", ""),
        (foreign, "engine/book.py", "import gateway.schema"),
        (foreign, "gateway/feed.py", "def late():\n    from engine import state"),
        (foreign, "shm/spsc.py", "from perf import ratio"),
        (foreign, "gateway/feed.py", "from . import codec"),
        (upward, "engine/book.py", "from engine import apply"),
        (upward, "engine/book.py", "from engine import book"),
        (upward, "engine/publish.py", "from engine.follow import parse"),
        (upward, "engine/follow/join.py", "from engine.follow import tail, runner"),
        (upward, "engine/follow/join.py", "from engine import follow"),
        (upward, "shm/layout.py", "from shm.region import attach"),
        (out_of_place, "shm/spsc.py", "from llvmlite import ir"),
        (out_of_place, "gateway/front.py", "import picows"),
        (impure, "engine/apply.py", "from time import time_ns"),
    ],
)
def test_a_breach_is_found(tmp_path, rule, file, text):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert [breach for breach in rule(tmp_path) if file in breach] != []


def test_what_is_allowed_is_not_a_breach(tmp_path):
    path = tmp_path / "engine/follow/runner.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import time\nimport numpy as np\n"
        "from engine import book\nfrom engine.follow.tail import Tail\nfrom shm import spsc\n"
    )
    assert [breach for rule in RULES for breach in rule(tmp_path)] == []
