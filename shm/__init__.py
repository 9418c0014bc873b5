"""The contract between processes: every record they share, and the only ways to touch it.

Here: bounds with their reasons (`constants`), refusal codes (`codes`), fixed point (`units`), the records
and the digest of them all (`layout`), memory order (`atomics`), and upon these the latest-value ring
(`seqlock`), the hand-over ring (`spsc`), the ring that laps its readers (`broadcast`), the three ways of
waiting (`wait`), counters and histograms (`stats`), where an id is found (`index`), and sealed memory that
is handed over a unix socket (`region`).

Not here: what a record means for a market or an account (`engine`), and how it looks on the wire
(`gateway`). Both import this package; it imports neither.

Start with `layout`, then `spsc`: the other rings are variations of it.
"""
