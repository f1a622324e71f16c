// Command load is both ends of the benchmark's TCP connections.
//
//	load serve                     answers on port 5201 until it is killed
//	load stream ADDRESS SECONDS    sends as much as goes, prints bytes per second
//	load request ADDRESS SECONDS   sends one byte and waits for it, prints each round trip in microseconds
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

const port = "5201"

// The first byte of a connection says what it is for.
const (
	stream  = 's'
	request = 'r'
)

// So many bytes in one write: what fills a segment of the kernel's own batching.
const chunk = 128 * 1024

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) == 1 && words[0] == "serve" {
		return serve()
	}
	if len(words) != 3 {
		return errors.New("serve | stream ADDRESS SECONDS | request ADDRESS SECONDS")
	}
	seconds, err := strconv.ParseFloat(words[2], 64)
	if err != nil {
		return err
	}
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(words[1], port), 5*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	last := time.Duration(seconds * float64(time.Second))
	if words[0] == "stream" {
		return send(connection, last)
	}
	return ask(connection, last)
}

func serve() error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(connection)
	}
}

func answer(connection net.Conn) {
	defer connection.Close()
	kind := make([]byte, 1)
	if _, err := io.ReadFull(connection, kind); err != nil {
		return
	}
	if kind[0] == request {
		for {
			if _, err := connection.Read(kind); err != nil {
				return
			}
			if _, err := connection.Write(kind); err != nil {
				return
			}
		}
	}
	// The sender asks how many bytes have arrived by closing its side.
	arrived := 0
	buffer := make([]byte, chunk)
	for {
		count, err := connection.Read(buffer)
		arrived += count
		if err != nil {
			break
		}
	}
	fmt.Fprintln(connection, arrived)
}

func send(connection net.Conn, last time.Duration) error {
	if _, err := connection.Write([]byte{stream}); err != nil {
		return err
	}
	buffer := make([]byte, chunk)
	began := time.Now()
	for time.Since(began) < last {
		if _, err := connection.Write(buffer); err != nil {
			return err
		}
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	var arrived int
	if _, err := fmt.Fscan(connection, &arrived); err != nil {
		return err
	}
	fmt.Println(float64(arrived) / time.Since(began).Seconds())
	return nil
}

func ask(connection net.Conn, last time.Duration) error {
	if _, err := connection.Write([]byte{request}); err != nil {
		return err
	}
	output := bufio.NewWriter(os.Stdout)
	one := []byte{1}
	began := time.Now()
	for time.Since(began) < last {
		sent := time.Now()
		if _, err := connection.Write(one); err != nil {
			return err
		}
		if _, err := io.ReadFull(connection, one); err != nil {
			return err
		}
		fmt.Fprintln(output, float64(time.Since(sent).Nanoseconds())/1000)
	}
	return output.Flush()
}
