"""The I/O kit that the tiers share: links, the durable outbox, delivery, service life cycle, observation."""
