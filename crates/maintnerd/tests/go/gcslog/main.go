// Golang/build's own log server: serves a log that grows as it is told on standard input.
//
//	gcslog BUCKET
//
// The bucket is at $STORAGE_EMULATOR_HOST. Prints its address, then `ok` after each line that it read:
// `issue N TITLE`, or `flush`, which starts the log anew as another process would: what was flushed is
// in the bucket, under a name of its own.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/build/maintner/maintnerd/gcslog"
	"golang.org/x/build/maintner/maintpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func main() {
	ctx := context.Background()
	gl, err := gcslog.NewGCSLog(ctx, os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	gl.RegisterHandlers(mux)
	var served atomic.Int64
	l, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		mux.ServeHTTP(w, r)
	}))
	fmt.Printf("http://%s/logs\n", l.Addr())
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
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
