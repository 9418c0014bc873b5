"""A key that signs: its address, its file, and signatures of actions as the exchange wants them.

What is hashed is what gateway.signing says is hashed: an action that the exchange would not take cannot be
signed either.
"""

import os
from pathlib import Path
from typing import Any, Self

import coincurve
import msgspec

from gateway import actions, signing

KEY_BYTES = 32


class Unusable(ValueError):
    """What is no key. The text is for the user."""


class Wallet:
    """secret: the private key, 32 bytes. Raises Unusable for a number that is none."""

    def __init__(self, secret: bytes):
        if len(secret) != KEY_BYTES:
            raise Unusable(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        try:
            self._key = coincurve.PrivateKey(secret)
        except ValueError:
            raise Unusable("not a private key of secp256k1") from None
        public = self._key.public_key.format(compressed=False)[1:]
        self.address = f"0x{signing.keccak256(public)[-20:].hex()}"  # in lower case, as the wire has it

    @classmethod
    def new(cls) -> Self:
        """A key that nobody else has."""
        return cls(coincurve.PrivateKey().secret)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the key of a file. Raises Unusable, OSError."""
        try:
            return cls(bytes.fromhex(path.read_text().strip().removeprefix("0x")))
        except ValueError as error:  # Unusable is one
            raise Unusable(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the key to a new file that its owner alone may read. Raises FileExistsError, OSError."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"0x{self._key.secret.hex()}\n")

    def sign(
        self,
        action: dict[str, Any],
        nonce: int,
        vault: str | None = None,
        expires_after: int | None = None,
    ) -> dict[str, Any]:
        """The signature of an action in the wire's form, for the exchange's own network.

        vault: address of the sub-account that acts. nonce, expires_after: ms. Raises gateway.errors.Refusal
        for an action that no exchange of ours would take.
        """
        envelope = {"action": action, "nonce": nonce, "vaultAddress": vault, "expiresAfter": expires_after}
        decoded = actions.decode(msgspec.json.encode(envelope), signed=False)
        signature = self._key.sign_recoverable(signing.digest(decoded, signing.OURS), hasher=None)
        r, s, recovery = signature[:32], signature[32:64], signature[64]
        return {"r": f"0x{r.hex()}", "s": f"0x{s.hex()}", "v": 27 + recovery}
