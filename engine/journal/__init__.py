"""What keeps an exchange's commands: a journal of them on disk, and the process that writes it.

A journal is a directory of segments. `record` is the format, a function of bytes; `disk` is every system call
that a journal makes; `reader` gives back the commands, of a finished journal or of one that is still being
written. The order of the commands in it is the truth: all that an exchange is follows from them.

Not here: what a command means. `engine.exchange` applies them.
"""
