"""An exchange of our own: the other source of what the world shows.

`apply` is the exchange: sequenced commands in, outcomes and acks out, a function of the commands and nothing
else. `project` makes the world that readers see from the outcomes, and `runner` is the process around both.
"""
