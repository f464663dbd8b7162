package contract

import "crypto/x509"

// Ledger is what a shim gives a transaction. The first part both releases give alike; the rest they
// give in types of their own, so each has an adapter.
type Ledger interface {
	GetFunctionAndParameters() (string, []string)
	GetTxID() string
	GetChannelID() string
	GetTransient() (map[string][]byte, error)
	GetBinding() ([]byte, error)
	GetState(key string) ([]byte, error)
	PutState(key string, value []byte) error
	DelState(key string) error
	SetStateValidationParameter(key string, policy []byte) error
	GetStateValidationParameter(key string) ([]byte, error)
	CreateCompositeKey(objectType string, attributes []string) (string, error)
	SplitCompositeKey(key string) (string, []string, error)
	SetEvent(name string, payload []byte) error

	Seconds() (int64, error)
	ProposalSignature() ([]byte, error)
	PeerMSPID() (string, error)
	Client() (Client, error)
	Range(start, end string) ([]Row, error)
	RangePage(start, end string, size int32, bookmark string) (Page, error)
	Partial(objectType string, attributes []string) ([]Row, error)
	PartialPage(objectType string, attributes []string, size int32, bookmark string) (Page, error)
	FirstOf(start, end string) (Row, error)
	HistoryOf(key string) ([]Version, error)
	Policy(organisation string) ([]byte, error)
	Organisations(policy []byte) ([]string, error)
	Invoke(chaincode string, args [][]byte, channel string) Reply
}

// Client is who proposed the transaction.
type Client interface {
	GetID() (string, error)
	GetMSPID() (string, error)
	GetAttributeValue(name string) (string, bool, error)
	GetX509Certificate() (*x509.Certificate, error)
}

// Iterator is an open query, in either release.
type Iterator[T any] interface {
	HasNext() bool
	Next() (T, error)
	Close() error
}

type keyValue interface {
	GetKey() string
	GetValue() []byte
}

type modification interface {
	GetTxId() string
	GetValue() []byte
	GetIsDelete() bool
}

// Rows reads a query to its end.
func Rows[T keyValue](rows Iterator[T], err error) ([]Row, error) {
	return read(rows, err, row)
}

// PageOf reads a page of a query, of which the peer has told the size and the bookmark.
func PageOf[T keyValue](rows Iterator[T], fetched int32, bookmark string) (Page, error) {
	found, err := Rows(rows, nil)
	return Page{Rows: found, Fetched: fetched, Bookmark: bookmark}, err
}

// First reads one row of a query and leaves the others.
func First[T keyValue](rows Iterator[T], err error) (Row, error) {
	if err != nil {
		return Row{}, err
	}
	first, err := rows.Next()
	if err != nil {
		return Row{}, err
	}
	return row(first), rows.Close()
}

// Versions reads a key's history to its end.
func Versions[T modification](rows Iterator[T], err error, seconds func(T) int64) ([]Version, error) {
	return read(rows, err, func(each T) Version {
		return Version{each.GetTxId(), string(each.GetValue()), each.GetIsDelete(), seconds(each)}
	})
}

func row[T keyValue](each T) Row {
	return Row{Key: each.GetKey(), Value: string(each.GetValue())}
}

func read[T, R any](rows Iterator[T], err error, convert func(T) R) ([]R, error) {
	if err != nil {
		return nil, err
	}
	found := []R{}
	for rows.HasNext() {
		each, err := rows.Next()
		if err != nil {
			return nil, err
		}
		found = append(found, convert(each))
	}
	return found, rows.Close()
}
