"""How fast, always as a ratio to something else timed in the same run, over several fresh processes.

Here: the measure itself (`ratio`) and one `bench_*` for each claim. Start with `ratio`.

Not here: tests, which assert laws and never durations. Nobody imports this package.
"""
