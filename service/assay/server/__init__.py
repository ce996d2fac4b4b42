"""The parts between the sockets and the app: the HTTP protocol, and the limits of connections."""
