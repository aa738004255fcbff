"""The agent beside the machine: drivers, read planner, durable outbox, setpoint guard."""
