"""Compare-and-set storage of twin state: who owns a shard, and what its twins believe."""
