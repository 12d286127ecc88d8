// Go's own buildlet client and reverse dialer, for the tests of the agent.
//
//	peer client ADDRESS [CERT KEY]     calls a buildlet that listens
//	peer coordinator CERT KEY          is the coordinator that a buildlet dials: prints its address first
//
// Each prints a line for what it saw; the test knows what has to be there.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/build/buildlet"
)

func main() {
	log.SetFlags(0)
	switch args := os.Args[1:]; args[0] {
	case "client":
		var pair buildlet.KeyPair
		if len(args) > 2 {
			pair = buildlet.KeyPair{CertPEM: read(args[2]), KeyPEM: read(args[3])}
		}
		drive(newClient(args[1], pair))
	case "keypair":
		pair, err := buildlet.NewKeyPair()
		check(err)
		check(os.WriteFile(args[1], []byte(pair.CertPEM), 0o600))
		check(os.WriteFile(args[2], []byte(pair.KeyPEM), 0o600))
		fmt.Println(pair.Password())
	case "coordinator":
		coordinate(args[1], args[2])
	}
}

// What is used of the client, whose type is not the same in all versions: see today.go and old.go.
type client interface {
	Status(context.Context) (buildlet.Status, error)
	WorkDir(context.Context) (string, error)
	PutTar(context.Context, io.Reader, string) error
	Put(context.Context, io.Reader, string, os.FileMode) error
	Exec(context.Context, string, buildlet.ExecOpts) (remoteErr, execErr error)
	ListDir(context.Context, string, buildlet.ListDirOpts, func(buildlet.DirEntry)) error
	GetTar(context.Context, string) (io.ReadCloser, error)
	RemoveAll(context.Context, ...string) error
	Close() error
}

func drive(c client) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	status, err := c.Status(ctx)
	check(err)
	fmt.Println("version", status.Version)
	dir, err := c.WorkDir(ctx)
	check(err)
	fmt.Println("workdir", strings.HasSuffix(dir, "/work"))
	check(c.PutTar(ctx, bytes.NewReader(archive()), "go"))
	check(c.Put(ctx, strings.NewReader("#!/bin/sh\necho from put; pwd\n"), "go/bin/tool", 0o755))
	exec := func(cmd string, opts buildlet.ExecOpts) {
		var out bytes.Buffer
		opts.Output = &out
		remote, failed := c.Exec(ctx, cmd, opts)
		text := strings.ReplaceAll(out.String(), dir, "$WORKDIR")
		fmt.Printf("exec %s: %q remote=%s failed=%s\n", cmd, text, shown(remote, dir), shown(failed, dir))
	}
	exec("go/bin/tool", buildlet.ExecOpts{})
	exec("/bin/sh", buildlet.ExecOpts{SystemLevel: true, Args: []string{"-c", "echo out; echo err >&2; exit 1"}})
	exec("/bin/sh", buildlet.ExecOpts{SystemLevel: true, Args: []string{"-c", "kill -9 $$"}})
	exec("sh", buildlet.ExecOpts{Dir: "go", Args: []string{"-c", "echo $A $PATH; pwd"},
		ExtraEnv: []string{"A=1", "A=2"}, Path: []string{"$WORKDIR/go/bin"}})
	exec("go/none", buildlet.ExecOpts{})
	exec("no-such-program", buildlet.ExecOpts{})
	check(c.ListDir(ctx, "go", buildlet.ListDirOpts{Recursive: true, Digest: true}, func(entry buildlet.DirEntry) {
		fmt.Println("ls", perm(entry), entry.Name(), entry.Digest())
	}))
	content, err := c.GetTar(ctx, "go")
	check(err)
	unzipped, err := gzip.NewReader(content)
	check(err)
	for entries := tar.NewReader(unzipped); ; {
		entry, err := entries.Next()
		if err == io.EOF {
			break
		}
		check(err)
		n, err := io.Copy(io.Discard, entries)
		check(err)
		fmt.Printf("tgz %s %v %d\n", entry.Name, entry.FileInfo().Mode(), n)
	}
	content.Close()
	fmt.Println("bad tar:", shown(c.PutTar(ctx, strings.NewReader("nonsense"), ""), dir))
	fmt.Println("bad path:", shown(c.RemoveAll(ctx, "../x"), dir))
	check(c.RemoveAll(ctx, "go", "none"))
	count := 0
	check(c.ListDir(ctx, "", buildlet.ListDirOpts{}, func(entry buildlet.DirEntry) {
		if entry.Name() == "go/" {
			count++
		}
	}))
	fmt.Println("left", count)
	check(c.Close())
	fmt.Println("done")
}

func archive() []byte {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	entries := tar.NewWriter(zipped)
	content := "hello\n"
	check(entries.WriteHeader(&tar.Header{Name: "src/", Mode: 0o755, Typeflag: tar.TypeDir}))
	check(entries.WriteHeader(&tar.Header{Name: "src/hello", Mode: 0o644, Size: int64(len(content))}))
	_, err := io.WriteString(entries, content)
	check(err)
	check(entries.Close())
	check(zipped.Close())
	return out.Bytes()
}

// coordinate takes one registration as Go's coordinator does, and drives the buildlet through it.
func coordinate(cert, key string) {
	pair, err := tls.X509KeyPair([]byte(read(cert)), []byte(read(key)))
	check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println("listening", listener.Addr())
	secured := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})
	mux := http.NewServeMux()
	if pickups != nil {
		mux.Handle("/revdial", pickups)
	}
	mux.HandleFunc("/reverse", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("registered", r.Header.Get("X-Go-Builder-Hostname"), r.Header.Get("X-Go-Host-Type"),
			r.Header.Get("X-Go-Builder-Key"), r.Header.Get("X-Go-Builder-Version"), r.Header.Get("X-Revdial-Version"))
		conn, buffered, err := w.(http.Hijacker).Hijack()
		check(err)
		// A response without a version, whose line is `HTTP/0.0 101 Switching Protocols`.
		check((&http.Response{StatusCode: http.StatusSwitchingProtocols}).Write(buffered))
		check(buffered.Flush())
		c, done := dialled(conn, buffered)
		drive(c)
		<-done
		fmt.Println("session ended")
		os.Exit(0)
	})
	log.Fatal(http.Serve(secured, mux))
}

func shown(err error, dir string) string {
	if err == nil {
		return "none"
	}
	return strings.ReplaceAll(fmt.Sprintf("%q", strings.TrimSpace(err.Error())), dir, "$WORKDIR")
}

func read(path string) string {
	text, err := os.ReadFile(path)
	check(err)
	return string(text)
}

func check(err error) {
	if err != nil {
		log.Fatal("peer: ", err)
	}
}

