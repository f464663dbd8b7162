"""`python -m certificate_authority`: the same as the console script `certificate-authority`."""

from certificate_authority.main import main

main()
