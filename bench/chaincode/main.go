// Command chaincode is what the services are measured with, on Fabric's own shim.
//
// It dials the peer as any chaincode does, and ends with its standard input. Functions that say so
// answer with the seconds that their calls took. The keys of a prefix end in a number from 0 on.
//
//	noop                             answers
//	put KEY BYTES EVENT_BYTES        puts one key; sets an event unless that is 0
//	gets PREFIX COUNT BYTES          GetState of each key, which has a value of that size; seconds
//	puts PREFIX COUNT BYTES          PutState of each key; seconds
//	batches PREFIX COUNT BYTES       the same in write batches; seconds
//	ranges PREFIX ROWS BYTES TIMES   GetStateByRange over the keys, read to the end; seconds
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

type chaincode struct{}

func (c chaincode) Init(stub shim.ChaincodeStubInterface) *peer.Response {
	return c.Invoke(stub)
}

func (chaincode) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	answer, err := invoke(stub)
	if err != nil {
		return shim.Error(err.Error())
	}
	return shim.Success(answer)
}

func invoke(stub shim.ChaincodeStubInterface) ([]byte, error) {
	function, words := stub.GetFunctionAndParameters()
	if function == "noop" {
		return nil, nil
	}
	name, words := words[0], words[1:]
	numbers := make([]int, len(words))
	for i, word := range words {
		number, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		numbers[i] = number
	}
	switch function {
	case "put":
		return nil, put(stub, name, numbers[0], numbers[1])
	case "gets":
		return timed(func() error { return gets(stub, name, numbers[0], numbers[1]) })
	case "puts":
		return timed(func() error { return puts(stub, name, numbers[0], numbers[1]) })
	case "batches":
		return timed(func() error {
			stub.StartWriteBatch()
			if err := puts(stub, name, numbers[0], numbers[1]); err != nil {
				return err
			}
			return stub.FinishWriteBatch()
		})
	case "ranges":
		return timed(func() error {
			for range numbers[2] {
				if err := readRange(stub, name, numbers[0], numbers[1]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return nil, fmt.Errorf("there is no function %q", function)
}

// timed does the work and answers with the seconds that it took.
func timed(work func() error) ([]byte, error) {
	started := time.Now()
	err := work()
	return fmt.Appendf(nil, "%.9f", time.Since(started).Seconds()), err
}

func put(stub shim.ChaincodeStubInterface, key string, size, event int) error {
	if err := stub.PutState(key, make([]byte, size)); err != nil || event == 0 {
		return err
	}
	return stub.SetEvent("put", make([]byte, event))
}

func puts(stub shim.ChaincodeStubInterface, prefix string, count, size int) error {
	value := make([]byte, size)
	for number := range count {
		if err := stub.PutState(key(prefix, number), value); err != nil {
			return err
		}
	}
	return nil
}

func gets(stub shim.ChaincodeStubInterface, prefix string, count, size int) error {
	for number := range count {
		value, err := stub.GetState(key(prefix, number))
		if err != nil {
			return err
		}
		if len(value) != size {
			return fmt.Errorf("%s has %d bytes", key(prefix, number), len(value))
		}
	}
	return nil
}

func readRange(stub shim.ChaincodeStubInterface, prefix string, rows, size int) error {
	found, err := stub.GetStateByRange(key(prefix, 0), key(prefix, rows))
	if err != nil {
		return err
	}
	defer found.Close()
	for rows > 0 {
		row, err := found.Next()
		if err != nil {
			return err
		}
		if len(row.Value) != size {
			return fmt.Errorf("%s has %d bytes", row.Key, len(row.Value))
		}
		rows--
	}
	if found.HasNext() {
		return fmt.Errorf("the range of %s has too many rows", prefix)
	}
	return nil
}

func key(prefix string, number int) string {
	return fmt.Sprintf("%s-%05d", prefix, number)
}

func main() {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(shim.Start(chaincode{}))
}
