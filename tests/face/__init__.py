"""What a user of the package sees: the client, its futures and responses, the factory."""
