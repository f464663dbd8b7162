"""The reference transport: stock grpcio."""
