package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/build/buildlet"
	"golang.org/x/build/revdial"
)

// old has the methods of later clients, which take contexts.
type old struct{ c *buildlet.Client }

func newClient(address string, pair buildlet.KeyPair) client { return old{buildlet.NewClient(address, pair)} }

func (o old) Status(context.Context) (buildlet.Status, error) { return o.c.Status() }

func (o old) WorkDir(context.Context) (string, error) { return o.c.WorkDir() }

func (o old) PutTar(_ context.Context, r io.Reader, dir string) error { return o.c.PutTar(r, dir) }

func (o old) Put(_ context.Context, r io.Reader, path string, mode os.FileMode) error {
	return o.c.Put(r, path, mode)
}

func (o old) Exec(_ context.Context, cmd string, opts buildlet.ExecOpts) (remoteErr, execErr error) {
	return o.c.Exec(cmd, opts)
}

func (o old) ListDir(_ context.Context, dir string, opts buildlet.ListDirOpts, fn func(buildlet.DirEntry)) error {
	return o.c.ListDir(dir, opts, fn)
}

func (o old) GetTar(ctx context.Context, dir string) (io.ReadCloser, error) { return o.c.GetTar(ctx, dir) }

func (o old) RemoveAll(_ context.Context, paths ...string) error { return o.c.RemoveAll(paths...) }

func (o old) Close() error { return o.c.Close() }

func perm(entry buildlet.DirEntry) string { return strings.SplitN(entry.String(), "\t", 2)[0] }

// Before 2019 all connections came within the one that was registered.
var pickups http.Handler

func dialled(conn net.Conn, buffered *bufio.ReadWriter) (client, <-chan struct{}) {
	dialer := revdial.NewDialer(buffered, conn)
	c := buildlet.NewClient("127.0.0.1:80", buildlet.NoKeyPair)
	c.SetHTTPClient(&http.Client{Transport: &http.Transport{
		Dial: func(network, addr string) (net.Conn, error) { return dialer.Dial() },
	}})
	c.SetDialer(dialer.Dial)
	return old{c}, dialer.Done()
}
