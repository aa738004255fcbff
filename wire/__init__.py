"""What two tiers must agree on: messages, points, units, quality, topics, signing, expressions, settings.

Everything in this package is pure (no files, no sockets, no clock); the I/O kit lives in ``wire.runtime``.
"""
