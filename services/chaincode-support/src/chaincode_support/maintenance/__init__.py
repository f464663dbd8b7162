"""What operators do with the files of channels: verify, back up, restore, rebuild."""
