"""The captured node log, if it is present: 51 blocks of BTC in both forms, a snapshot, expected quotes.

It lies outside of the repository, at `../shared/data` from the project root or where RINGSIDE_DATA says. A
test that asks for it is skipped, with the reason, where it is absent.
"""

import gzip
import json
import os
import tarfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FIRST_HEIGHT, LAST_HEIGHT = 985_148_182, 985_148_232
ORDERS_AT_END = 51_336

Quote = tuple[str, str, int, str, str, int]  # bid price, size, orders; ask price, size, orders


def extract(folder: Path, form: str) -> Path:
    """Unpack the log of a form (`by_block` or `streaming`); return the directory that holds node_*."""
    with tarfile.open(_capture() / f"{form}_btc_{FIRST_HEIGHT}_{LAST_HEIGHT}.tar.gz") as archive:
        for member in archive:
            if (content := archive.extractfile(member)) is not None:
                path = folder / form / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
    return folder / form / "hl" / "data"


def snapshot_path(folder: Path) -> Path:
    """Unpack the snapshot of the block before the first; return the JSON file."""
    path = folder / f"snapshot_{FIRST_HEIGHT - 1}.json"
    path.write_bytes(gzip.decompress((_capture() / f"{path.name}.gz").read_bytes()))
    return path


def quotes() -> dict[int, Quote]:
    """Return {block time in ms: best bid and ask at the block's end}, decimals as the node writes them."""
    expected = {}
    for line in (_capture() / "derived_end_of_block_quotes.jsonl").read_text().splitlines():
        fields = json.loads(line)["fields"]
        if fields["source_ts_ms"]:  # the first row is the state before any block
            expected[fields["source_ts_ms"]] = _quote(fields)
    return expected


def _quote(fields: dict[str, Any]) -> Quote:
    def scaled(name: str, exponent: str) -> str:
        text = f"{Decimal(fields[name]).scaleb(fields[exponent]):f}"
        return text.rstrip("0") + "0" if text.rstrip("0").endswith(".") else text.rstrip("0")

    sides = [
        (
            scaled(f"{side}_px_raw", "price_exponent"),
            scaled(f"{side}_sz_raw", "qty_exponent"),
            fields[f"{side}_n"],
        )
        for side in ("bid", "ask")
    ]
    return (*sides[0], *sides[1])


def _capture() -> Path:
    data = Path(os.environ.get("RINGSIDE_DATA") or ROOT.parent / "shared" / "data")
    folder = data / "hl-node-btc-20260505"
    if not folder.is_dir():
        pytest.skip(f"the captured node log is not here: no {folder.name} in the data directory")
    return folder
