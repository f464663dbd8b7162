"""`protos.Endorser`: checks a signed proposal, has it simulated, and signs the result."""
