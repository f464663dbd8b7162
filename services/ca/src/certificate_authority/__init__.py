"""The certificate authority: two roots, one-time tokens, certificates by profile."""
