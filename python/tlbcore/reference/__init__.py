"""Slow, obvious twins of the fast engines: oracles for tests, and readable statements of the rules."""
