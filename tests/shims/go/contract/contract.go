// Package contract is what every chaincode of these tests answers: each function asks one thing of
// its peer and tells what came.
package contract

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
)

// Contract is one transaction's.
type Contract struct {
	Ledger
}

// Row is a key and its value.
type Row struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// CompositeRow is a composite key, taken apart, and its value.
type CompositeRow struct {
	Parts []string `json:"parts"`
	Value string   `json:"value"`
}

// Page is a part of a range, and where the next one starts.
type Page struct {
	Rows     []Row  `json:"rows"`
	Fetched  int32  `json:"fetched"`
	Bookmark string `json:"bookmark"`
}

// CompositePage is a part of a range of composite keys.
type CompositePage struct {
	Rows     []CompositeRow `json:"rows"`
	Fetched  int32          `json:"fetched"`
	Bookmark string         `json:"bookmark"`
}

// Version is what a transaction made of a key.
type Version struct {
	Txid    string `json:"txid"`
	Value   string `json:"value"`
	Deleted bool   `json:"deleted"`
	Seconds int64  `json:"seconds"`
}

// Reply is what another chaincode answered.
type Reply struct {
	Status  int32  `json:"status"`
	Message string `json:"message"`
	Payload string `json:"payload"`
}

// Creator is who proposed, as the proposal has it.
type Creator struct {
	Mspid       string `json:"mspid"`
	Certificate string `json:"certificate"`
}

// Identity is what the client's certificate says.
type Identity struct {
	Mspid     string `json:"mspid"`
	ID        string `json:"id"`
	Attribute string `json:"attribute"`
}

// Transaction is what the proposal's header says.
type Transaction struct {
	Txid    string `json:"txid"`
	Channel string `json:"channel"`
	Seconds int64  `json:"seconds"`
}

// Put writes a key.
func (c Contract) Put(key, value string) error {
	return c.PutState(key, []byte(value))
}

// PutSeries writes so many keys `prefix-000`, `prefix-001`, ….
func (c Contract) PutSeries(prefix string, count int32) error {
	for number := range count {
		if err := c.Put(fmt.Sprintf("%s-%03d", prefix, number), fmt.Sprint(number)); err != nil {
			return err
		}
	}
	return nil
}

// Get reads a key; one that is not there is empty.
func (c Contract) Get(key string) (string, error) {
	value, err := c.GetState(key)
	return string(value), err
}

// Delete removes a key.
func (c Contract) Delete(key string) error {
	return c.DelState(key)
}

// PutThenGet writes a key and reads it.
func (c Contract) PutThenGet(key, value string) (string, error) {
	if err := c.Put(key, value); err != nil {
		return "", err
	}
	return c.Get(key)
}

// List reads a range.
func (c Contract) List(start, end string) ([]Row, error) {
	return c.Range(start, end)
}

// First reads the first row of a range and leaves the others.
func (c Contract) First(start, end string) (string, error) {
	first, err := c.FirstOf(start, end)
	return first.Key, err
}

// ListPage reads a page of a range.
func (c Contract) ListPage(start, end string, size int32, bookmark string) (Page, error) {
	return c.RangePage(start, end, size, bookmark)
}

// PutComposite writes a composite key, and gives its parts.
func (c Contract) PutComposite(objectType, first, second, value string) ([]string, error) {
	key, err := c.CreateCompositeKey(objectType, []string{first, second})
	if err != nil {
		return nil, err
	}
	if err := c.Put(key, value); err != nil {
		return nil, err
	}
	return c.parts(key)
}

// ListComposite reads the composite keys of a type and a first attribute.
func (c Contract) ListComposite(objectType, first string) ([]CompositeRow, error) {
	rows, err := c.Partial(objectType, []string{first})
	if err != nil {
		return nil, err
	}
	return c.apart(rows)
}

// ListCompositePage reads a page of them.
func (c Contract) ListCompositePage(
	objectType, first string, size int32, bookmark string,
) (CompositePage, error) {
	page, err := c.PartialPage(objectType, []string{first}, size, bookmark)
	if err != nil {
		return CompositePage{}, err
	}
	return c.Apart(page)
}

// Apart takes the keys of a page apart.
func (c Contract) Apart(page Page) (CompositePage, error) {
	rows, err := c.apart(page.Rows)
	return CompositePage{Rows: rows, Fetched: page.Fetched, Bookmark: page.Bookmark}, err
}

// History gives what became of a key, the newest first.
func (c Contract) History(key string) ([]Version, error) {
	return c.HistoryOf(key)
}

// SetPolicy has writes of a key endorsed by a peer of an organisation.
func (c Contract) SetPolicy(key, organisation string) error {
	policy, err := c.Policy(organisation)
	if err != nil {
		return err
	}
	return c.SetStateValidationParameter(key, policy)
}

// GetPolicy gives the organisations that a key's policy names.
func (c Contract) GetPolicy(key string) ([]string, error) {
	policy, err := c.GetStateValidationParameter(key)
	if err != nil || policy == nil {
		return []string{}, err
	}
	return c.Organisations(policy)
}

// Call calls another chaincode with arguments that are a JSON array of text.
func (c Contract) Call(chaincode, channel, arguments string) (Reply, error) {
	var words []string
	if err := json.Unmarshal([]byte(arguments), &words); err != nil {
		return Reply{}, err
	}
	args := [][]byte{}
	for _, word := range words {
		args = append(args, []byte(word))
	}
	return c.Invoke(chaincode, args, channel), nil
}

// Event sets the transaction's event.
func (c Contract) Event(name, payload string) error {
	return c.SetEvent(name, []byte(payload))
}

// Creator gives who proposes.
func (c Contract) Creator() (Creator, error) {
	client, err := c.Client()
	if err != nil {
		return Creator{}, err
	}
	mspid, err := client.GetMSPID()
	if err != nil {
		return Creator{}, err
	}
	certificate, err := client.GetX509Certificate()
	if err != nil {
		return Creator{}, err
	}
	block := pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}
	return Creator{mspid, string(pem.EncodeToMemory(&block))}, nil
}

// Identity gives who proposes, and one attribute of theirs.
func (c Contract) Identity(attribute string) (Identity, error) {
	client, err := c.Client()
	if err != nil {
		return Identity{}, err
	}
	return IdentityOf(client, attribute)
}

// IdentityOf gives who a client is, and one attribute of theirs.
func IdentityOf(client Client, attribute string) (Identity, error) {
	mspid, err := client.GetMSPID()
	if err != nil {
		return Identity{}, err
	}
	id, err := client.GetID()
	if err != nil {
		return Identity{}, err
	}
	value, _, err := client.GetAttributeValue(attribute)
	return Identity{mspid, id, value}, err
}

// Transient gives what the client sent for this chaincode's eyes only.
func (c Contract) Transient(key string) (string, error) {
	values, err := c.GetTransient()
	return string(values[key]), err
}

// Arguments gives the transaction's function and arguments as the shim tells them.
func (c Contract) Arguments(_, _ string) ([]string, error) {
	function, parameters := c.GetFunctionAndParameters()
	return append([]string{function}, parameters...), nil
}

// Transaction gives its id, its channel, and when it was proposed.
func (c Contract) Transaction() (Transaction, error) {
	seconds, err := c.Seconds()
	return Transaction{c.GetTxID(), c.GetChannelID(), seconds}, err
}

// Binding gives the hash that ties the transaction to its proposal, in hexadecimal digits.
func (c Contract) Binding() (string, error) {
	binding, err := c.GetBinding()
	return hex.EncodeToString(binding), err
}

// Signature gives the client's signature over the proposal, in hexadecimal digits.
func (c Contract) Signature() (string, error) {
	signature, err := c.ProposalSignature()
	return hex.EncodeToString(signature), err
}

// PeerMspid gives the organisation of the peer that started the chaincode.
func (c Contract) PeerMspid() (string, error) {
	return c.PeerMSPID()
}

// Fail refuses, after it has written a key.
func (c Contract) Fail(key, message string) error {
	if err := c.Put(key, "left behind"); err != nil {
		return err
	}
	return errors.New(message)
}

// Panic does what no chaincode should.
func (c Contract) Panic(message string) error {
	panic(message)
}

func (c Contract) parts(key string) ([]string, error) {
	objectType, attributes, err := c.SplitCompositeKey(key)
	return append([]string{objectType}, attributes...), err
}

func (c Contract) apart(rows []Row) ([]CompositeRow, error) {
	found := []CompositeRow{}
	for _, row := range rows {
		parts, err := c.parts(row.Key)
		if err != nil {
			return nil, err
		}
		found = append(found, CompositeRow{parts, row.Value})
	}
	return found, nil
}
