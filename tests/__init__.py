"""The tests of turbopool: they mirror the package; `servers` holds the peers they talk to."""
