// Golang/build's own log server: serves a log that grows as it is told on standard input.
//
//	gcslog BUCKET HOST:PORT STORE
//
// The bucket is of the store at $STORAGE_EMULATOR_HOST, which is STORE too: what the index says is at the
// real one is there. Prints its address, then `ok` after each line that it read: `issue N SIZE`, with a
// body of so many bytes, or `flush`, as at an end in order.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	_ "unsafe" // for what a timer does

	"golang.org/x/build/maintner/maintnerd/gcslog"
	"golang.org/x/build/maintner/maintpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What a timer does after ten minutes.
//
//go:linkname onFlushTimer golang.org/x/build/maintner/maintnerd/gcslog.(*GCSLog).onFlushTimer
func onFlushTimer(gl *gcslog.GCSLog)

func flush(gl *gcslog.GCSLog) { onFlushTimer(gl) }

func main() {
	ctx := context.Background()
	gl, err := gcslog.NewGCSLog(ctx, os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	gl.RegisterHandlers(mux)
	l, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/logs" {
			mux.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		w.Write(bytes.ReplaceAll(rec.Body.Bytes(), []byte("https://storage.googleapis.com"), []byte(os.Args[3])))
	}))
	fmt.Printf("http://%s/logs\n", l.Addr())
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if lines.Text() == "flush" {
			flush(gl)
			fmt.Println("ok")
			continue
		}
		var number int32
		var size int
		fields := strings.Fields(lines.Text())
		fmt.Sscan(fields[1], &number)
		fmt.Sscan(fields[2], &size)
		m := &maintpb.Mutation{GithubIssue: &maintpb.GithubIssueMutation{
			Owner: "golang", Repo: "go", Number: number,
			Created: &timestamppb.Timestamp{Seconds: 1},
			Title:   fmt.Sprintf("issue %d", number),
			Body:    strings.Repeat("x", size),
		}}
		if err := gl.Log(m); err != nil {
			log.Fatal(err)
		}
		fmt.Println("ok")
	}
}
