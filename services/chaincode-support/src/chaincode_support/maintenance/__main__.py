"""`python -m chaincode_support.maintenance`: the console script `chaincode-support-ledger`."""

from chaincode_support.maintenance.command import main

main()
