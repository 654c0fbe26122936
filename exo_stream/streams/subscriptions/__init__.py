"""Subscriptions to streams: who is to be woken when something is appended, and what is done."""
