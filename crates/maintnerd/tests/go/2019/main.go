// Runs the original's maintner client of January 2019 for tests: follows the server at URL with the
// folder CACHE, and says how much it knows; each line of standard input is one Update.
//
// As "rewrite FROM TO" it reads the daily files of one folder and logs every mutation anew in another.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io/ioutil"
	"log"
	"os"
	"path/filepath"

	"github.com/golang/protobuf/proto"
	"golang.org/x/build/maintner"
	"golang.org/x/build/maintner/maintpb"
	"golang.org/x/build/maintner/reclog"
)

func main() {
	log.SetOutput(ioutil.Discard)
	if os.Args[1] == "rewrite" {
		rewrite(os.Args[2], maintner.NewDiskMutationLogger(os.Args[3]))
		return
	}
	corpus := new(maintner.Corpus)
	must(corpus.Initialize(context.Background(), maintner.NewNetworkMutationSource(os.Args[1], os.Args[2])))
	say(corpus)
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		must(corpus.Update(context.Background()))
		say(corpus)
	}
}

func rewrite(from string, to maintner.MutationLogger) {
	days, err := filepath.Glob(filepath.Join(from, "maintner-*.mutlog"))
	must(err)
	for _, day := range days {
		must(reclog.ForeachFileRecord(day, func(_ int64, _, record []byte) error {
			m := new(maintpb.Mutation)
			must(proto.Unmarshal(record, m))
			return to.Log(m)
		}))
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func say(corpus *maintner.Corpus) {
	var issues, comments, events, changes, metas int
	corpus.GitHub().ForeachRepo(func(repo *maintner.GitHubRepo) error {
		return repo.ForeachIssue(func(issue *maintner.GitHubIssue) error {
			issues++
			issue.ForeachComment(func(*maintner.GitHubComment) error { comments++; return nil })
			issue.ForeachEvent(func(*maintner.GitHubIssueEvent) error { events++; return nil })
			return nil
		})
	})
	corpus.Gerrit().ForeachProjectUnsorted(func(project *maintner.GerritProject) error {
		return project.ForeachCLUnsorted(func(cl *maintner.GerritCL) error {
			changes++
			metas += len(cl.Metas)
			return nil
		})
	})
	fmt.Println("issues", issues, "comments", comments, "events", events, "changes", changes, "metas", metas)
}
