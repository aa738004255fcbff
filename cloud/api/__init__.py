"""The small HTTP API that the command line and the HMI use."""
