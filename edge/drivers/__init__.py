"""One module per field protocol; the module's name is the ``kind`` in a device's configuration."""
