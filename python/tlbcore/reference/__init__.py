"""Slow, obvious pure Python models: the oracles that the engine is tested against. Not for simulations."""
