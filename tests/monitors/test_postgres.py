"""Runs in a PostgreSQL database: the tests of a file's store and recorder, and what is its own."""
