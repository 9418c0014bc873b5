"""The other source of the engine's state: the append-only logs of a node, followed as they grow.

Here: hourly files read as they are written (`tail`), their lines taken apart by a compiled parser (`parse`)
or, when a line is unusual, by a slower and general one (`decode`), three streams joined by block number
(`join`), the first state from a snapshot (`bootstrap`), the place to go on from after a crash
(`checkpoint`), the comparison with newer snapshots and the repair of one market at a time (`check`), and
the loop that owns the clock (`runner`).

Not here: matching, for the node has matched already. Input never ends the process: a line that cannot be
read is counted and set aside, a gap makes its market stale until it is repaired.

Start with `join`, which says what a block is made of, then `runner`.
"""
