"""A second exchange beside the first: it applies what the journal holds, as the journal grows.

`copy` is that exchange, and finds out when the two differ; `archive` keeps what the world's rings forget;
`runner` is the process, which also takes the snapshots. Nobody waits for it, and nothing is lost with it.
"""
