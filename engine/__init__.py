"""The state of the exchange, and all that changes it: one process, one order of events.

Here: a functional core, pure up to `verify` (no clock, no I/O, no chance, no allocation): preallocated
tables (`state`), orders and levels (`book`), one command or one diff applied (`apply`), and the laws that
hold between any two of them (`verify`). Around it a thin shell that writes what happened into shared memory
(`publish`).

Not here: a socket, a wire spelling, a float. The gateways read what this package publishes and are never
imported.

Two sources feed the same state: commands of our own gateways, and the logs of a node (`engine.follow`).
Start with `state`, then `apply`.
"""
