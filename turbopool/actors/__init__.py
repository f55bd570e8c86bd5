"""Actors: they decide who may use which connection, and never block."""
