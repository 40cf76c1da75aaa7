"""Kafka as the log of usage: requests are acknowledged by its brokers, and taken from there into the database.

`message` what is written, `log` the producer behind the API, `relay` the consumer, `models` how far each partition was taken.
"""
