"""Corrections of counted usage, each with who, when and why; what was is kept.

`gate` keeps the aggregator out meanwhile; `events` voids and amends single events; `hours` adds their hours up anew; `proof` is the
part of the recount that knows corrections; `backfills`, `staging` and `applying` take files of past usage in and out again.
"""
