"""The gateway's tests. Those of the rim speak to it over real sockets: see `rim`."""
