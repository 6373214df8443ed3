// The Go server under test: net/http as it comes, its handlers told of the leaving by the request's context.
//
// Every handler reports on standard output, one JSON line for each thing that happens, with the
// monotonic clock's nanoseconds of that moment.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const clockMonotonic = 1

var output sync.Mutex

// now reads CLOCK_MONOTONIC itself: Go's own clock has another zero, and the driver must compare.
func now() int64 {
	var moment syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&moment)), 0)
	return moment.Nano()
}

func report(event string, fields map[string]any) {
	fields["event"], fields["ns"] = event, now()
	line, _ := json.Marshal(fields)
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func tell(r *http.Request, event string) {
	report(event, map[string]any{"id": r.URL.Query().Get("id")})
}

func millis(r *http.Request, otherwise int) time.Duration {
	ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
	if err != nil {
		ms = otherwise
	}
	return time.Duration(ms) * time.Millisecond
}

func slow(w http.ResponseWriter, r *http.Request) {
	tell(r, "began")
	select {
	case <-r.Context().Done():
		tell(r, "left")
		panic(http.ErrAbortHandler)
	case <-time.After(millis(r, 4000)):
	}
	tell(r, "finished")
	io.WriteString(w, "worked\n")
}

func slowRead(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		tell(r, "left")
		panic(http.ErrAbortHandler)
	}
	slow(w, r)
}

// echo works for a while at what it has read, and answers with it.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		tell(r, "left")
		panic(http.ErrAbortHandler)
	}
	tell(r, "began")
	select {
	case <-r.Context().Done():
		tell(r, "left")
		panic(http.ErrAbortHandler)
	case <-time.After(millis(r, 1500)):
	}
	tell(r, "finished")
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, body)
}

func quick(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, strings.Repeat("q", 1024))
}

// chunked answers in pieces, ten a second for as long as it is told to.
func chunked(w http.ResponseWriter, r *http.Request) {
	tell(r, "began")
	pieces := int(millis(r, 0)/(100*time.Millisecond)) + 1
	for piece := 0; piece < pieces; piece++ {
		fmt.Fprintf(w, "piece %d\n", piece)
		w.(http.Flusher).Flush()
		if piece == pieces-1 {
			break
		}
		select {
		case <-r.Context().Done():
			tell(r, "left")
			panic(http.ErrAbortHandler)
		case <-time.After(100 * time.Millisecond):
		}
	}
	tell(r, "finished")
	io.WriteString(w, "end\n")
}

// pausing answers in two pieces, with a silence between them.
func pausing(w http.ResponseWriter, r *http.Request) {
	tell(r, "began")
	io.WriteString(w, "piece 0\n")
	w.(http.Flusher).Flush()
	select {
	case <-r.Context().Done():
		tell(r, "left")
		panic(http.ErrAbortHandler)
	case <-time.After(millis(r, 4000)):
	}
	tell(r, "finished")
	io.WriteString(w, "end\n")
}

func main() {
	http.HandleFunc("/slow", slow)
	http.HandleFunc("/slow-unread", slow)
	http.HandleFunc("/slow-read", slowRead)
	http.HandleFunc("/echo", echo)
	http.HandleFunc("/quick", quick)
	http.HandleFunc("/chunked", chunked)
	http.HandleFunc("/pausing", pausing)
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Args[1], "0"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	report("listening", map[string]any{"port": listener.Addr().(*net.TCPAddr).Port})
	http.Serve(listener, nil)
}
