// The contract on Fabric's contract API, which makes arguments and results of text, and runs as a
// service too if CHAINCODE_SERVER_ADDRESS is set.
package main

import (
	"log"

	"github.com/hyperledger/fabric-contract-api-go/v2/contractapi"

	"selvedge/shims/contract"
	"selvedge/shims/ledger"
)

type transaction = contractapi.TransactionContextInterface

// Shims is the contract.
type Shims struct {
	contractapi.Contract
}

func of(ctx transaction) ledger.Contract {
	return ledger.New(ctx.GetStub())
}

func (*Shims) Put(ctx transaction, key, value string) error {
	return of(ctx).Put(key, value)
}

func (*Shims) PutSeries(ctx transaction, prefix string, count int32) error {
	return of(ctx).PutSeries(prefix, count)
}

func (*Shims) Get(ctx transaction, key string) (string, error) {
	return of(ctx).Get(key)
}

func (*Shims) Delete(ctx transaction, key string) error {
	return of(ctx).Delete(key)
}

func (*Shims) PutThenGet(ctx transaction, key, value string) (string, error) {
	return of(ctx).PutThenGet(key, value)
}

func (*Shims) GetMany(ctx transaction, keys string) ([]string, error) {
	return of(ctx).GetMany(keys)
}

func (*Shims) Batch(ctx transaction, prefix string, count int32, organisation string) error {
	return of(ctx).Batch(prefix, count, organisation)
}

func (*Shims) List(ctx transaction, start, end string) ([]contract.Row, error) {
	return of(ctx).List(start, end)
}

func (*Shims) First(ctx transaction, start, end string) (string, error) {
	return of(ctx).First(start, end)
}

func (*Shims) ListPage(
	ctx transaction, start, end string, size int32, bookmark string,
) (contract.Page, error) {
	return of(ctx).ListPage(start, end, size, bookmark)
}

func (*Shims) PutComposite(
	ctx transaction, objectType, first, second, value string,
) ([]string, error) {
	return of(ctx).PutComposite(objectType, first, second, value)
}

func (*Shims) ListComposite(
	ctx transaction, objectType, first string,
) ([]contract.CompositeRow, error) {
	return of(ctx).ListComposite(objectType, first)
}

func (*Shims) ListCompositePage(
	ctx transaction, objectType, first string, size int32, bookmark string,
) (contract.CompositePage, error) {
	return of(ctx).ListCompositePage(objectType, first, size, bookmark)
}

func (*Shims) ListEveryComposite(
	ctx transaction, size int32, bookmark string,
) (contract.CompositePage, error) {
	return of(ctx).ListEveryComposite(size, bookmark)
}

func (*Shims) History(ctx transaction, key string) ([]contract.Version, error) {
	return of(ctx).History(key)
}

func (*Shims) SetPolicy(ctx transaction, key, organisation string) error {
	return of(ctx).SetPolicy(key, organisation)
}

func (*Shims) GetPolicy(ctx transaction, key string) ([]string, error) {
	return of(ctx).GetPolicy(key)
}

func (*Shims) Call(ctx transaction, chaincode, channel, arguments string) (contract.Reply, error) {
	return of(ctx).Call(chaincode, channel, arguments)
}

func (*Shims) Event(ctx transaction, name, payload string) error {
	return of(ctx).Event(name, payload)
}

func (*Shims) Creator(ctx transaction) (contract.Creator, error) {
	return of(ctx).Creator()
}

func (*Shims) Identity(ctx transaction, attribute string) (contract.Identity, error) {
	return contract.IdentityOf(ctx.GetClientIdentity(), attribute)
}

func (*Shims) Transient(ctx transaction, key string) (string, error) {
	return of(ctx).Transient(key)
}

func (*Shims) Arguments(ctx transaction, first, second string) ([]string, error) {
	return of(ctx).Arguments(first, second)
}

func (*Shims) Transaction(ctx transaction) (contract.Transaction, error) {
	return of(ctx).Transaction()
}

func (*Shims) Binding(ctx transaction) (string, error) {
	return of(ctx).Binding()
}

func (*Shims) Signature(ctx transaction) (string, error) {
	return of(ctx).Signature()
}

func (*Shims) PeerMspid(ctx transaction) (string, error) {
	return of(ctx).PeerMspid()
}

func (*Shims) Fail(ctx transaction, key, message string) error {
	return of(ctx).Fail(key, message)
}

func (*Shims) Panic(ctx transaction, message string) error {
	return of(ctx).Panic(message)
}

func main() {
	chaincode, err := contractapi.NewChaincode(&Shims{})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(chaincode.Start())
}
