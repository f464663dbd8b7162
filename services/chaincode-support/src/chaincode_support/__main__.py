"""`python -m chaincode_support`: the same as the console script `chaincode-support`."""

from chaincode_support.main import main

main()
