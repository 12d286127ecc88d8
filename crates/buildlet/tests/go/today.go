package main

import (
	"bufio"
	"context"
	"net"
	"net/http"

	"golang.org/x/build/buildlet"
	"golang.org/x/build/revdial/v2"
)

func newClient(address string, pair buildlet.KeyPair) client { return buildlet.NewClient(address, pair) }

func perm(entry buildlet.DirEntry) string { return entry.Perm() }

var pickups = revdial.ConnHandler()

// dialled is a client over the connection that a buildlet registered, and the end of that.
func dialled(conn net.Conn, _ *bufio.ReadWriter) (client, <-chan struct{}) {
	dialer := revdial.NewDialer(conn, "/revdial")
	c := buildlet.NewClient("127.0.0.1:80", buildlet.NoKeyPair)
	c.SetHTTPClient(&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { return dialer.Dial(ctx) },
	}})
	c.SetDialer(dialer.Dial)
	return c, dialer.Done()
}
