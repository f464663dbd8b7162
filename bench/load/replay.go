package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// replayAll does a round of calls for each line on standard input.
func replayAll() error {
	callers := make([]*grpc.ClientConn, 0, *connections**streams)
	for range *connections {
		connection, err := dial()
		if err != nil {
			return err
		}
		for range *streams {
			callers = append(callers, connection)
		}
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var from, to string
		if _, err := fmt.Sscan(lines.Text(), &from, &to); err != nil {
			return err
		}
		requests, err := readMessages(from)
		if err != nil {
			return err
		}
		done, answers := replay(callers, requests)
		if err := writeMessages(to, answers); err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
			return err
		}
	}
	return nil
}

// replay has each caller make calls, one after the other, until all are made.
func replay(callers []*grpc.ClientConn, requests [][]byte) (result, [][]byte) {
	var (
		done    result
		mutex   sync.Mutex
		group   sync.WaitGroup
		next    atomic.Int64
		answers = make([][]byte, len(requests))
		started = time.Now()
	)
	for _, connection := range callers {
		group.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(requests); i = next.Add(1) - 1 {
				err := connection.Invoke(context.Background(), *method, &requests[i], &answers[i])
				if err != nil {
					mutex.Lock()
					if done.Failed++; done.Error == "" {
						done.Error = err.Error()
					}
					mutex.Unlock()
				}
			}
		})
	}
	group.Wait()
	done.Seconds = time.Since(started).Seconds()
	done.Messages = len(requests) - done.Failed
	return done, answers
}

// Messages lie in a file one after the other, each behind its length in four bytes.

func readMessages(path string) ([][]byte, error) {
	content, err := os.ReadFile(path)
	var messages [][]byte
	for err == nil && len(content) > 0 {
		end := 4 + binary.BigEndian.Uint32(content)
		messages = append(messages, content[4:end])
		content = content[end:]
	}
	return messages, err
}

func writeMessages(path string, messages [][]byte) error {
	var content bytes.Buffer
	for _, message := range messages {
		content.Write(binary.BigEndian.AppendUint32(nil, uint32(len(message))))
		content.Write(message)
	}
	return os.WriteFile(path, content.Bytes(), 0o600)
}
