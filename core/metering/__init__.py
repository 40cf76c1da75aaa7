"""Metering: usage events in, exact quantities out.

accept (verdicts) → log (durable, then 202) → aggregate (dedup, rows, rollups: one counting transaction) → queries.
"""
