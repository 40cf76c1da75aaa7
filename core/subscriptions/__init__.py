"""Subscriptions as timelines of terms.

models · spans (what a change makes of a timeline; pure) · timeline (rows -> core.pricing terms) · lifecycle (start, cancel, pause, resume)
plan_change (propose, apply, undo) · status (moves, snapshots, the passing of time) · queries
"""
