package main

import (
	"slices"

	"google.golang.org/grpc/mem"
)

// codec takes messages as the bytes that they are, so nothing here has to know protobuf. What is
// received goes into the slice given, as far as it has room.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, message any) error {
	into := message.(*[]byte)
	*into = slices.Grow((*into)[:0], data.Len())[:data.Len()]
	data.CopyTo(*into)
	return nil
}
