"""Proofs of the shared memory: laws, interleavings, races, machine code, and a stop at every instruction."""
