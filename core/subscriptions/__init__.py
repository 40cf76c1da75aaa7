"""Subscriptions as timelines of terms.

models · lifecycle (start, cancel, pause, resume) · plan_change (quote, apply) · timeline (rows -> core.pricing terms) · queries
"""
