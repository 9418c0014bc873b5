"""Programs that people start: the `ringside` command, the simulated node, the warming of kernels.

A script may import any package of the project; no package imports a script.
"""
