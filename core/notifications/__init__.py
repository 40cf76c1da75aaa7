"""Telling people: audit events become notifications, notifications become e-mails, each at most once.

models · dispatch (outbox -> notifications) · email (render and send)
"""
