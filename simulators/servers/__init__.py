"""Device servers: any plant behind a real Modbus TCP, OPC UA or MQTT interface."""
