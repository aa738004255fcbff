"""The life of a setpoint: ledger, signing, eight final states."""
