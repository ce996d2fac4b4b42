"""Traces of requests with OpenTelemetry. Only `parts` is imported by a server without traces."""
