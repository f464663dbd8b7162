package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Moments are nanoseconds since 1970, so that those of several processes can be compared.

// paceAll sends the messages of a file at a pace, for each line on standard input. Before each answer
// in the other file are the moments when its message was sent and when the answer came.
func paceAll() error {
	stream, err := dialStream()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var (
			from, to  string
			perSecond float64
		)
		if _, err := fmt.Sscan(lines.Text(), &from, &perSecond, &to); err != nil {
			return err
		}
		messages, err := readMessages(from)
		if err != nil {
			return err
		}
		started := time.Now()
		answers, err := pace(stream, messages, time.Duration(float64(time.Second)/perSecond))
		if err != nil {
			return err
		}
		done := result{Seconds: time.Since(started).Seconds(), Messages: len(answers)}
		if err := writeMessages(to, answers); err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
			return err
		}
	}
	return nil
}

func pace(stream grpc.ClientStream, messages [][]byte, gap time.Duration) ([][]byte, error) {
	sent, failed := make([]time.Time, len(messages)), make(chan error, 1)
	go func() {
		started := time.Now()
		for i := range messages {
			// What is late because the ones before were not taken has waited since it was due.
			sent[i] = started.Add(time.Duration(i) * gap)
			if early := time.Until(sent[i]); early > 0 {
				time.Sleep(early)
				sent[i] = time.Now()
			}
			if err := send(stream, &messages[i]); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	came, answers := make([]time.Time, len(messages)), make([][]byte, len(messages))
	for i := range answers {
		if err := stream.RecvMsg(&answers[i]); err != nil {
			return nil, err
		}
		came[i] = time.Now()
	}
	if err := <-failed; err != nil {
		return nil, err
	}
	for i, answer := range answers {
		answers[i] = stamped(sent[i], stamped(came[i], answer))
	}
	return answers, nil
}

// watchAll sends what it is to and waits for the first message that comes. For each line on standard
// input it writes all that came since then to the file named, each behind the moment when it came.
func watchAll() error {
	stream, err := dialStream()
	if err != nil {
		return err
	}
	asked, err := readMessages(*requests)
	if err != nil {
		return err
	}
	var first []byte
	if err := exchange(stream, &asked[0], &first); err != nil {
		return err
	}
	var (
		mutex sync.Mutex
		came  [][]byte
		ended error
	)
	go func() {
		for {
			var message []byte
			err := stream.RecvMsg(&message)
			now := time.Now()
			mutex.Lock()
			if ended = err; err == nil {
				came = append(came, stamped(now, message))
			}
			mutex.Unlock()
			if err != nil {
				return
			}
		}
	}()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		mutex.Lock()
		messages, err := came, ended
		came = nil
		mutex.Unlock()
		if err != nil {
			return err
		}
		if err := writeMessages(lines.Text(), messages); err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(result{Messages: len(messages)}); err != nil {
			return err
		}
	}
	return nil
}

func dialStream() (grpc.ClientStream, error) {
	connection, err := dial()
	if err != nil {
		return nil, err
	}
	return openStream(connection, *method)
}

func stamped(moment time.Time, message []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(moment.UnixNano())), message...)
}
