"""Plants with their own physics, served over real Modbus TCP, OPC UA and MQTT, with faults; the demo launcher."""
