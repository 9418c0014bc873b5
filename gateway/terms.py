"""What the wire's requests are made of: the checks that a field passes while it is decoded."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

USER_PATTERN = r"\A0x[0-9a-fA-F]{40}\Z"
CLOID_PATTERN = r"\A0x[0-9a-fA-F]{32}\Z"
COIN_CHARACTERS_MAX = 64

Coin = Annotated[str, Meta(min_length=1, max_length=COIN_CHARACTERS_MAX)]
User = Annotated[str, Meta(pattern=USER_PATTERN)]
Dex = Annotated[str, Meta(max_length=COIN_CHARACTERS_MAX)] | None
Milliseconds = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Oid = Annotated[int, Meta(ge=0, le=2**63 - 1)]
PostId = Annotated[int, Meta(ge=0, le=2**63 - 1)]

Key = tuple[Any, ...]  # a subscription by what it delivers: two of the same key are the same


class Wire(msgspec.Struct):
    """Base of what is decoded here."""
