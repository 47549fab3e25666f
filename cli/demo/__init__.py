"""The whole loop on example documents: what the base knows, what was learned, at what price, and back again."""
