"""The decoders of what comes from outside, fed by a fuzzer that sees which of their branches it reached.

`targets` says what is fed to which decoder, and which outcomes are documented; `seeds` has the valid and the
famous invalid examples that a run begins with; `pipe` is a connection without a socket. `__main__` is the
program: `python -m tests.fuzz TARGET`.
"""
