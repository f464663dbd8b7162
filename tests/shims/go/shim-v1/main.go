// The contract on the shim of Fabric 2.x.
package main

import (
	"log"

	"github.com/hyperledger/fabric-chaincode-go/pkg/cid"
	"github.com/hyperledger/fabric-chaincode-go/pkg/statebased"
	"github.com/hyperledger/fabric-chaincode-go/shim"
	"github.com/hyperledger/fabric-protos-go/ledger/queryresult"
	"github.com/hyperledger/fabric-protos-go/peer"

	"selvedge/shims/contract"
)

type chaincode struct{}

func (c chaincode) Init(stub shim.ChaincodeStubInterface) peer.Response {
	return c.Invoke(stub)
}

func (chaincode) Invoke(stub shim.ChaincodeStubInterface) peer.Response {
	function, args := stub.GetFunctionAndParameters()
	answer, err := contract.Answer(contract.Contract{Ledger: ledger{stub}}, function, args)
	if err != nil {
		return shim.Error(err.Error())
	}
	return shim.Success(answer)
}

type ledger struct {
	shim.ChaincodeStubInterface
}

func (l ledger) Seconds() (int64, error) {
	timestamp, err := l.GetTxTimestamp()
	return timestamp.GetSeconds(), err
}

func (l ledger) ProposalSignature() ([]byte, error) {
	proposal, err := l.GetSignedProposal()
	return proposal.GetSignature(), err
}

func (ledger) PeerMSPID() (string, error) {
	return shim.GetMSPID()
}

func (l ledger) Client() (contract.Client, error) {
	return cid.New(l)
}

func (l ledger) Range(start, end string) ([]contract.Row, error) {
	return contract.Rows(l.GetStateByRange(start, end))
}

func (l ledger) RangePage(start, end string, size int32, bookmark string) (contract.Page, error) {
	rows, metadata, err := l.GetStateByRangeWithPagination(start, end, size, bookmark)
	if err != nil {
		return contract.Page{}, err
	}
	return contract.PageOf(rows, metadata.FetchedRecordsCount, metadata.Bookmark)
}

func (l ledger) Partial(objectType string, attributes []string) ([]contract.Row, error) {
	return contract.Rows(l.GetStateByPartialCompositeKey(objectType, attributes))
}

func (l ledger) PartialPage(
	objectType string, attributes []string, size int32, bookmark string,
) (contract.Page, error) {
	rows, metadata, err := l.GetStateByPartialCompositeKeyWithPagination(
		objectType, attributes, size, bookmark,
	)
	if err != nil {
		return contract.Page{}, err
	}
	return contract.PageOf(rows, metadata.FetchedRecordsCount, metadata.Bookmark)
}

func (l ledger) FirstOf(start, end string) (contract.Row, error) {
	return contract.First(l.GetStateByRange(start, end))
}

func (l ledger) HistoryOf(key string) ([]contract.Version, error) {
	rows, err := l.GetHistoryForKey(key)
	return contract.Versions(rows, err, func(each *queryresult.KeyModification) int64 {
		return each.GetTimestamp().GetSeconds()
	})
}

func (ledger) Policy(organisation string) ([]byte, error) {
	policy, err := statebased.NewStateEP(nil)
	if err != nil {
		return nil, err
	}
	if err := policy.AddOrgs(statebased.RoleTypePeer, organisation); err != nil {
		return nil, err
	}
	return policy.Policy()
}

func (ledger) Organisations(policy []byte) ([]string, error) {
	parsed, err := statebased.NewStateEP(policy)
	if err != nil {
		return nil, err
	}
	return parsed.ListOrgs(), nil
}

func (l ledger) Invoke(chaincode string, args [][]byte, channel string) contract.Reply {
	reply := l.InvokeChaincode(chaincode, args, channel)
	return contract.Reply{
		Status: reply.Status, Message: reply.Message, Payload: string(reply.Payload),
	}
}

func main() {
	log.Fatal(shim.Start(chaincode{}))
}
