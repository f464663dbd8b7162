package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// followAll opens streams that each say what they want and read a first message. For each line on
// standard input, COUNT, every one of them reads so many messages more; or, MORE streams, that many
// are opened on top, as "+MORE".
func followAll() error {
	var followed []grpc.ClientStream
	open := func(count int) error {
		asked, err := readMessages(*requests)
		if err != nil {
			return err
		}
		var connection *grpc.ClientConn
		for i := range count {
			if i%*streams == 0 {
				if connection, err = dial(); err != nil {
					return err
				}
			}
			stream, err := openStream(connection, *method)
			if err != nil {
				return err
			}
			var first []byte
			if err := exchange(stream, &asked[0], &first); err != nil {
				return err
			}
			followed = append(followed, stream)
		}
		return nil
	}
	if err := open(*connections * *streams); err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var number int
		if _, err := fmt.Sscan(lines.Text(), &number); err != nil {
			return err
		}
		var done result
		if lines.Text()[0] == '+' {
			if err := open(number); err != nil {
				return err
			}
			done.Messages = len(followed)
		} else {
			done = follow(followed, number)
		}
		if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
			return err
		}
	}
	return nil
}

// follow has every stream read so many messages.
func follow(followed []grpc.ClientStream, number int) result {
	var (
		done    result
		mutex   sync.Mutex
		group   sync.WaitGroup
		started = time.Now()
	)
	for _, stream := range followed {
		group.Go(func() {
			var message []byte
			for i := range number {
				if err := stream.RecvMsg(&message); err != nil {
					mutex.Lock()
					done.Failed += number - i
					done.Error = err.Error()
					mutex.Unlock()
					return
				}
			}
		})
	}
	group.Wait()
	done.Seconds = time.Since(started).Seconds()
	done.Messages = len(followed)*number - done.Failed
	return done
}
