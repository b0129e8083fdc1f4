"""The dashboard: pages and an API on what the logs say, in a process of its own that never holds up the service."""
