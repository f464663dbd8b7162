package main

import (
	"time"

	"google.golang.org/grpc"
)

// reader asks for messages and reads them all; at least once, and again while the round lasts.
func reader(connection *grpc.ClientConn) (worker, error) {
	stream, err := openStream(connection, *method)
	if err != nil {
		return nil, err
	}
	asked, err := readMessages(*requests)
	if err != nil {
		return nil, err
	}
	var message []byte
	return func(deadline time.Time) (messages int, err error) {
		for {
			if err := send(stream, &asked[0]); err != nil {
				return messages, err
			}
			for range *count {
				if err := stream.RecvMsg(&message); err != nil {
					return messages, err
				}
				messages++
			}
			if !time.Now().Before(deadline) {
				return messages, nil
			}
		}
	}, nil
}
