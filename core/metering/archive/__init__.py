"""Closed days of usage events as Parquet files, proved readable, and back again.

`models` what is archived; `place` where files lie; `parquet` their form; `rows` rows in and out of PostgreSQL, with their digest;
`days` archives, verifies and restores a day. Purging is core.metering.retention.
"""
