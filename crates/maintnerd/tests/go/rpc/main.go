// Asks golang/build's own RPC service, in this process on the log in a folder, and the one at an
// address, the same, and prints what differs.
//
//	rpc LOGDIR HOST:PORT REVIEW
//
// REVIEW is the URL of a double of the review server, which Go's service asks what waits to be tried.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"time"
	_ "unsafe" // for the review server of Go's service

	"golang.org/x/build/gerrit"
	"golang.org/x/build/maintner"
	"golang.org/x/build/maintner/maintnerd/apipb"
	"golang.org/x/build/maintner/maintnerd/maintapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

//go:linkname tryBotGerrit golang.org/x/build/maintner/maintnerd/maintapi.tryBotGerrit
var tryBotGerrit *gerrit.Client

// What holds of a page wherever commits of one second stand in it: Go's service sorts them by no rule.
func sequence(r *apipb.DashboardResponse) string {
	s := ""
	for _, c := range r.Commits {
		s += fmt.Sprintln(c.CommitTimeSec, c.GoCommitAtTime, c.GoCommitLatest)
	}
	return s
}

// Brings commits of one second into an order, and leaves out those of the oldest if some were cut off.
func untie(r *apipb.DashboardResponse) {
	oldest := int64(-1)
	if n := len(r.Commits); n > 0 && r.CommitsTruncated {
		oldest = r.Commits[n-1].CommitTimeSec
	}
	r.Commits = slices.DeleteFunc(r.Commits, func(c *apipb.DashCommit) bool { return c.CommitTimeSec == oldest })
	for _, c := range r.Commits {
		c.GoCommitAtTime, c.GoCommitLatest = "", ""
	}
	slices.SortFunc(r.Commits, func(a, b *apipb.DashCommit) int {
		return cmp.Or(cmp.Compare(b.CommitTimeSec, a.CommitTimeSec), cmp.Compare(a.Commit, b.Commit), cmp.Compare(a.Branch, b.Branch))
	})
}

func main() {
	dir, addr, review := os.Args[1], os.Args[2], os.Args[3]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tryBotGerrit = gerrit.NewClient(review, gerrit.NoAuth)
	log.SetOutput(os.Stderr)
	corpus := new(maintner.Corpus)
	if err := corpus.Initialize(ctx, maintner.NewDiskMutationLogger(dir)); err != nil {
		log.Fatal(err)
	}
	theirs := maintapi.NewAPIService(corpus)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ours := apipb.NewMaintnerServiceClient(conn)

	asked, differ := 0, 0
	check := func(what string, a proto.Message, errA error, b proto.Message, errB error) {
		asked++
		say := func(m proto.Message, err error) string {
			if err != nil {
				s, _ := status.FromError(err)
				return fmt.Sprintf("error %v %q", s.Code(), s.Message())
			}
			return prototext.MarshalOptions{Multiline: true}.Format(m)
		}
		if errA == nil && errB == nil && proto.Equal(a, b) {
			return
		}
		if errA != nil && errB != nil && say(a, errA) == say(b, errB) {
			return
		}
		differ++
		fmt.Printf("%s\ntheirs: %s\nours: %s\n", what, say(a, errA), say(b, errB))
	}

	// Every commit and what is none, against each other.
	hashes := []string{"", "x", "0000000000000000000000000000000000000000", "zz00000000000000000000000000000000000000"}
	refs := []string{"HEAD", "refs/heads/none", "refs/changes/01/1/meta"}
	projects := []string{"none"}
	corpus.Gerrit().ForeachProjectUnsorted(func(p *maintner.GerritProject) error {
		projects = append(projects, p.Project())
		return p.ForeachNonChangeRef(func(ref string, hash maintner.GitHash) error {
			refs = append(refs, ref)
			for c, n := corpus.GitCommit(hash.String()), 0; c != nil && n < 4; n++ {
				hashes = append(hashes, c.Hash.String())
				if len(c.Parents) == 0 {
					break
				}
				c = c.Parents[0]
			}
			return nil
		})
	})
	for _, a := range hashes {
		for _, b := range hashes {
			req := &apipb.HasAncestorRequest{Commit: a, Ancestor: b}
			ra, ea := theirs.HasAncestor(ctx, req)
			rb, eb := ours.HasAncestor(ctx, req)
			check(fmt.Sprintf("HasAncestor %v", req), ra, ea, rb, eb)
		}
	}
	for _, server := range []string{"go.googlesource.com", "go-review.googlesource.com", "other.example.org"} {
		for _, project := range projects {
			for _, ref := range refs {
				req := &apipb.GetRefRequest{Ref: ref, GerritServer: server, GerritProject: project}
				ra, ea := theirs.GetRef(ctx, req)
				rb, eb := ours.GetRef(ctx, req)
				check(fmt.Sprintf("GetRef %v", req), ra, ea, rb, eb)
			}
		}
	}
	{
		ra, ea := theirs.ListGoReleases(ctx, &apipb.ListGoReleasesRequest{})
		rb, eb := ours.ListGoReleases(ctx, &apipb.ListGoReleasesRequest{})
		check("ListGoReleases", ra, ea, rb, eb)
	}
	for _, repo := range []string{"", "go", "golang.org/x/net", "golang.org/x/tools", "golang.org/x/mod", "example.org/x"} {
		for _, branch := range []string{"", "master", "mixed", "release-branch.go1.20", "none"} {
			for _, size := range []int32{-1, 0, 1, 2, 3, 5, 7, 1001} {
				for _, page := range []int32{-1, 0, 1, 2, 20000} {
					req := &apipb.DashboardRequest{Repo: repo, Branch: branch, MaxCommits: size, Page: page}
					// Go's service changes what it is asked.
					ra, ea := theirs.GetDashboard(ctx, proto.Clone(req).(*apipb.DashboardRequest))
					rb, eb := ours.GetDashboard(ctx, req)
					if branch == "mixed" && ea == nil && eb == nil {
						if sequence(ra) == sequence(rb) {
							untie(ra)
							untie(rb)
						}
					}
					check(fmt.Sprintf("GetDashboard %v", req), ra, ea, rb, eb)
				}
			}
		}
	}
	{
		ra, ea := theirs.GoFindTryWork(ctx, &apipb.GoFindTryWorkRequest{})
		rb, eb := ours.GoFindTryWork(ctx, &apipb.GoFindTryWorkRequest{})
		check("GoFindTryWork", ra, ea, rb, eb)
		if ea == nil {
			fmt.Fprintf(os.Stderr, "%d wait\n", len(ra.Waiting))
			fmt.Printf("waiting %d\n", len(ra.Waiting))
		}
	}
	fmt.Printf("asked %d differ %d\n", asked, differ)
}
