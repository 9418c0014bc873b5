"""The gateway: what clients speak, turned into commands, and what happened, turned into what clients read.

Here: the wire and its spelling, signatures, limits, sessions, channels and fan-out; and the rim, which knows
sockets and no markets. Not here: matching, accounts, journals. The engine is never imported; the two meet in
the records of `shm`.

Start at the rim, from the outside in: `accept` (who may be connected), `http` (bytes to requests), `ws`
(strict WebSocket above picows), `front` (one port for both, and what the layer above must offer).
"""
