// Command load drives a server under test.
//
// It opens its connections, prints "ready", and does a round for each line on standard input. Each
// round is answered by one line of JSON. It ends with its standard input.
//
// Against bench/transport_server.py, where the line says for how many seconds:
//
//	unary     calls, so many -streams of them in flight on each connection
//	pingpong  a message back and forth on each of the streams
//	fanout    a consumer on each connection, and the server told to publish
//	idle      streams that exchange one message and then stay as they are; the line says how many
//	          connections to open on top
//
// Against any server, where -method says what:
//
//	exchange  messages of -size bytes on each of the streams, each answered by one of -answer bytes,
//	          so many unanswered at a time as -window says; the line says for how many seconds
//	replay    the unary calls of a file, so many -streams of them in flight on each connection; the
//	          line names the file, and one for the answers
//	read      -count messages on each of the streams, for the one in the file -requests; again while
//	          the seconds on the line have not passed
//	pace      the messages of a file on one stream, each answered by one; the line names the file, how
//	          many to send a second, and a file for the answers
//	follow    streams that each send the message in the file -requests and read one; the line says how
//	          many more every one of them reads, or, as "+100", how many streams to open on top
//	watch     all that comes on one stream for the message in the file -requests; the line names a file
//	          for what came since the line before
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const service = "/bench.Transport/"

var (
	mode        = flag.String("mode", "unary", "one of the above")
	address     = flag.String("address", "", "host:port of the server")
	tlsFolder   = flag.String("tls", "", "folder of ca.crt, client.crt and client.key; none for plaintext")
	connections = flag.Int("connections", 1, "connections to open")
	streams     = flag.Int("streams", 1, "streams, or calls in flight, on each connection")
	size        = flag.Int("size", 100, "bytes of a message, 8 at least")
	method      = flag.String("method", "", "against any server: /package.Service/Method")
	answer      = flag.Int("answer", 100, "of exchange: bytes of an answer")
	window      = flag.Int("window", 1, "of exchange: messages that wait for their answer at a time")
	requests    = flag.String("requests", "", "of read, follow and watch: a file with a message")
	count       = flag.Int("count", 1, "of read: messages after each request")
	pause       = flag.Duration("pause", 0, "how long each stream or caller rests after an answer")
)

// result is what a round came to.
type result struct {
	Seconds  float64 `json:"seconds"`
	Messages int     `json:"messages"`
	Failed   int     `json:"failed"`
	Error    string  `json:"error"` // the first of those that failed
}

// worker does its part of a round, which lasts until the deadline, and tells how many messages
// were as they should be. A worker that fails is called again while the round lasts.
type worker func(deadline time.Time) (messages int, err error)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	switch *mode {
	case "replay":
		return replayAll()
	case "pace":
		return paceAll()
	case "follow":
		return followAll()
	case "watch":
		return watchAll()
	}
	var workers []worker
	connect := func(count int) error {
		for range count {
			more, err := open()
			if err != nil {
				return err
			}
			workers = append(workers, more...)
		}
		return nil
	}
	if err := connect(*connections); err != nil {
		return err
	}
	if *mode == "fanout" {
		more, err := publisher()
		if err != nil {
			return err
		}
		workers = append(workers, more)
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		amount, err := strconv.ParseFloat(lines.Text(), 64)
		if err != nil {
			return err
		}
		var done result
		if *mode == "idle" {
			err = connect(int(amount))
			done.Messages = len(workers)
		} else {
			done = round(workers, time.Duration(amount*float64(time.Second)))
		}
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
			return err
		}
	}
	return nil
}

func round(workers []worker, length time.Duration) result {
	var (
		done    result
		mutex   sync.Mutex
		group   sync.WaitGroup
		started = time.Now()
	)
	for _, work := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			for failed := true; failed && time.Since(started) < length; {
				messages, err := work(started.Add(length))
				failed = err != nil
				mutex.Lock()
				done.Messages += messages
				if failed {
					done.Failed++
					if done.Error == "" {
						done.Error = err.Error()
					}
				}
				mutex.Unlock()
				if failed {
					time.Sleep(100 * time.Millisecond) // a server that is gone fails at once
				}
			}
		}()
	}
	group.Wait()
	done.Seconds = time.Since(started).Seconds()
	return done
}

// open makes one connection and what works on it.
func open() ([]worker, error) {
	connection, err := dial()
	if err != nil {
		return nil, err
	}
	if *mode == "unary" {
		workers := make([]worker, *streams)
		for i := range workers {
			workers[i] = caller(connection)
		}
		_, err := workers[0](time.Now()) // so that the connection is up
		return workers, err
	}
	var workers []worker
	for range *streams {
		var more worker
		switch *mode {
		case "fanout":
			more, err = consumer(connection)
		case "exchange":
			more, err = windower(connection)
		case "read":
			more, err = reader(connection)
		default:
			more, err = exchanger(connection)
		}
		if err != nil {
			return nil, err
		}
		workers = append(workers, more)
	}
	return workers, nil
}

// caller makes unary calls, one after the other and at least one.
func caller(connection *grpc.ClientConn) worker {
	request, number := make([]byte, *size), uint64(0)
	return func(deadline time.Time) (messages int, err error) {
		for {
			var answer []byte
			number++
			binary.LittleEndian.PutUint64(request, number)
			err := connection.Invoke(context.Background(), service+"Answer", &request, &answer)
			if err == nil && !bytes.Equal(request, answer) {
				err = errors.New("a call was answered with something else")
			}
			if err != nil {
				return messages, err
			}
			messages++
			if time.Sleep(*pause); !time.Now().Before(deadline) {
				return messages, nil
			}
		}
	}
}

// exchanger sends messages on a stream of its own, each after the answer to the one before.
func exchanger(connection *grpc.ClientConn) (worker, error) {
	stream, err := openStream(connection, service+"PingPong")
	if err != nil {
		return nil, err
	}
	request, answer, number := make([]byte, *size), []byte(nil), uint64(0)
	work := func(deadline time.Time) (messages int, err error) {
		for {
			number++
			binary.LittleEndian.PutUint64(request, number)
			if err := exchange(stream, &request, &answer); err != nil {
				return messages, err
			}
			if !bytes.Equal(request, answer) {
				return messages, errors.New("a message was answered by something else")
			}
			messages++
			if time.Sleep(*pause); !time.Now().Before(deadline) {
				return messages, nil
			}
		}
	}
	_, err = work(time.Now())
	return work, err
}

// windower keeps so many messages unanswered on a stream of its own.
func windower(connection *grpc.ClientConn) (worker, error) {
	stream, err := openStream(connection, *method)
	if err != nil {
		return nil, err
	}
	request, received := make([]byte, *size), []byte(nil)
	return func(deadline time.Time) (messages int, err error) {
		for range *window {
			if err := send(stream, &request); err != nil {
				return messages, err
			}
		}
		for unanswered := *window; unanswered > 0; {
			if err := stream.RecvMsg(&received); err != nil {
				return messages, err
			}
			if len(received) != *answer {
				return messages, fmt.Errorf("an answer came with %d bytes", len(received))
			}
			messages++
			if !time.Now().Before(deadline) {
				unanswered--
			} else if err := send(stream, &request); err != nil {
				return messages, err
			}
		}
		return messages, nil
	}, nil
}

// consumer counts what it is sent; an empty message ends a round.
func consumer(connection *grpc.ClientConn) (worker, error) {
	stream, err := openStream(connection, service+"Events")
	if err != nil {
		return nil, err
	}
	var message []byte
	work := func(time.Time) (messages int, err error) {
		for {
			if err := stream.RecvMsg(&message); err != nil {
				return messages, err
			}
			if len(message) == 0 {
				return messages, nil
			}
			if len(message) != *size {
				return messages, fmt.Errorf("an event came with %d bytes", len(message))
			}
			messages++
		}
	}
	// Answered once the server knows of the consumer.
	return work, exchange(stream, &[]byte{}, &message)
}

// publisher has the server send events to all consumers until the deadline.
func publisher() (worker, error) {
	connection, err := dial()
	return func(deadline time.Time) (messages int, err error) {
		order := fmt.Appendf(nil, "%d %f", *size, time.Until(deadline).Seconds())
		var answer []byte
		return 0, connection.Invoke(context.Background(), service+"Publish", &order, &answer)
	}, err
}

func openStream(connection *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	description := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	return connection.NewStream(context.Background(), description, method)
}

func exchange(stream grpc.ClientStream, request, answer *[]byte) error {
	if err := send(stream, request); err != nil {
		return err
	}
	return stream.RecvMsg(answer)
}

func send(stream grpc.ClientStream, request *[]byte) error {
	// io.EOF says that the stream has ended; what RecvMsg returns says why.
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func dial() (*grpc.ClientConn, error) {
	security := insecure.NewCredentials()
	if *tlsFolder != "" {
		file := func(name string) string { return filepath.Join(*tlsFolder, name) }
		pair, err := tls.LoadX509KeyPair(file("client.crt"), file("client.key"))
		if err != nil {
			return nil, err
		}
		root, err := os.ReadFile(file("ca.crt"))
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(root)
		security = credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12,
		})
	}
	return grpc.NewClient("passthrough:///"+*address, grpc.WithTransportCredentials(security),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})), grpc.WithNoProxy())
}
