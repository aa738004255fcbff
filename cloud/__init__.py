"""The cloud tier: twin types, estimation, stores, commands, controllers, provisioning, API and the ``twin`` command."""
