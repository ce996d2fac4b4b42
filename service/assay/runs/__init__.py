"""Run health inside the server: recording, evaluation, subscriptions, gauges and webhooks."""
