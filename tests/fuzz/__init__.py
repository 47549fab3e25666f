"""Mutated requests over all RPCs, sent to the real servers: `make fuzz`."""
