// The contract on the shim of Fabric 3.x. With CHAINCODE_SERVER_ADDRESS it waits for its peer there
// instead of dialling it.
package main

import (
	"log"
	"os"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"selvedge/shims/contract"
	"selvedge/shims/ledger"
)

type chaincode struct{}

func (c chaincode) Init(stub shim.ChaincodeStubInterface) *peer.Response {
	return c.Invoke(stub)
}

func (chaincode) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	function, args := stub.GetFunctionAndParameters()
	answer, err := contract.Answer(ledger.New(stub), function, args)
	if err != nil {
		return shim.Error(err.Error())
	}
	return shim.Success(answer)
}

func serve(address string) error {
	server := shim.ChaincodeServer{
		CCID:     os.Getenv("CORE_CHAINCODE_ID_NAME"),
		Address:  address,
		CC:       chaincode{},
		TLSProps: shim.TLSProperties{Disabled: os.Getenv("CORE_PEER_TLS_ENABLED") != "true"},
	}
	if !server.TLSProps.Disabled {
		server.TLSProps.Key = read("CORE_TLS_CLIENT_KEY_FILE")
		server.TLSProps.Cert = read("CORE_TLS_CLIENT_CERT_FILE")
		server.TLSProps.ClientCACerts = read("CORE_PEER_TLS_ROOTCERT_FILE")
	}
	return server.Start()
}

func read(variable string) []byte {
	content, err := os.ReadFile(os.Getenv(variable))
	if err != nil {
		log.Fatalf("%s: %v", variable, err)
	}
	return content
}

func main() {
	if address := os.Getenv("CHAINCODE_SERVER_ADDRESS"); address != "" {
		log.Fatal(serve(address))
	}
	log.Fatal(shim.Start(chaincode{}))
}
