"""A mail server for development: takes every mail over SMTP, delivers none, and shows them on a page of its own."""
