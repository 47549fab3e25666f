"""The ledger: one append-only hash chain of events, payloads beside it, and the cache of answers."""
