"""Requests in, token events out. One interface (`base.Engine`), several engines behind it."""
