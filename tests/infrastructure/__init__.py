"""Proof that the servers, guards and helpers of the other tests do what they say."""
