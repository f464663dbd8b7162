// Package ledger adapts the shim of Fabric 3.x to the contract.
package ledger

import (
	"encoding/json"

	"github.com/hyperledger/fabric-chaincode-go/v2/pkg/cid"
	"github.com/hyperledger/fabric-chaincode-go/v2/pkg/statebased"
	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/queryresult"

	"selvedge/shims/contract"
)

// Contract has, beyond the common one, what came with this release.
type Contract struct {
	contract.Contract
	stub shim.ChaincodeStubInterface
}

// New gives the contract of one transaction.
func New(stub shim.ChaincodeStubInterface) Contract {
	return Contract{contract.Contract{Ledger: ledger{stub}}, stub}
}

// GetMany reads the keys of a JSON array at once.
func (c Contract) GetMany(keys string) ([]string, error) {
	var names []string
	if err := json.Unmarshal([]byte(keys), &names); err != nil {
		return nil, err
	}
	values, err := c.stub.GetMultipleStates(names...)
	found := []string{}
	for _, value := range values {
		found = append(found, string(value))
	}
	return found, err
}

// Batch writes so many keys `prefix-000`, …, deletes the key `prefix`, and sets a policy on the
// first, all of it in batches.
func (c Contract) Batch(prefix string, count int32, organisation string) error {
	c.stub.StartWriteBatch()
	if err := c.PutSeries(prefix, count); err != nil {
		return err
	}
	if err := c.Delete(prefix); err != nil {
		return err
	}
	if err := c.SetPolicy(prefix+"-000", organisation); err != nil {
		return err
	}
	return c.stub.FinishWriteBatch()
}

// ListEveryComposite reads a page of all composite keys.
func (c Contract) ListEveryComposite(size int32, bookmark string) (contract.CompositePage, error) {
	rows, metadata, err := c.stub.GetAllStatesCompositeKeyWithPagination(size, bookmark)
	if err != nil {
		return contract.CompositePage{}, err
	}
	page, err := contract.PageOf(rows, metadata.GetFetchedRecordsCount(), metadata.GetBookmark())
	if err != nil {
		return contract.CompositePage{}, err
	}
	return c.Apart(page)
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
	return contract.PageOf(rows, metadata.GetFetchedRecordsCount(), metadata.GetBookmark())
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
	return contract.PageOf(rows, metadata.GetFetchedRecordsCount(), metadata.GetBookmark())
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
		Status:  reply.GetStatus(),
		Message: reply.GetMessage(),
		Payload: string(reply.GetPayload()),
	}
}
