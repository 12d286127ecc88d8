// Syncs a project of Gerrit as the original's maintner does, for tests: one round, from where the log in
// DIR/log ends.
//
//	sync DIR HOST/PROJECT
//
// git is told by its configuration where https://HOST/PROJECT is.
package main

import (
	"context"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/build/maintner"
)

func main() {
	dir, project := os.Args[1], os.Args[2]
	logger := maintner.NewDiskMutationLogger(filepath.Join(dir, "log"))
	corpus := new(maintner.Corpus)
	corpus.EnableLeaderMode(logger, filepath.Join(dir, "work"))
	corpus.TrackGerrit(project)
	ctx := context.Background()
	if err := corpus.Initialize(ctx, logger); err != nil {
		log.Fatal(err)
	}
	if err := corpus.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	if err := corpus.Check(); err != nil {
		log.Fatal(err)
	}
}
