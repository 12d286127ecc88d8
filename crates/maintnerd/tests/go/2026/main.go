// Runs the original's maintner of 2026 for tests: writes a log, or reads one and says what is in it.
//
//	write DIR SEED COUNT   writes random mutations with the disk logger
//	read DIR [DUMP]        reads a disk log
//	follow URL CACHE       follows a server; each line of standard input is one Update
//
// Reading ends with a line "N lines sha256 SUM" about every entity as lines of text.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"log"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/build/maintner"
)

func main() {
	log.SetOutput(io.Discard)
	args := os.Args[1:]
	switch args[0] {
	case "write":
		seed, _ := strconv.ParseInt(args[2], 10, 64)
		count, _ := strconv.Atoi(args[3])
		newWriter(args[1], seed).run(count)
	case "read":
		corpus := new(maintner.Corpus)
		start := time.Now()
		must(corpus.Initialize(context.Background(), maintner.NewDiskMutationLogger(args[1])))
		loaded := time.Since(start)
		if len(args) > 2 && args[2] == "-time" {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			fmt.Printf("loaded in %.2f s, heap %d MB, peak %s\n", loaded.Seconds(), stats.HeapAlloc>>20, peak())
			return
		}
		dump := io.Discard
		if len(args) > 2 {
			file, err := os.Create(args[2])
			must(err)
			buffered := bufio.NewWriter(file)
			defer buffered.Flush()
			dump = buffered
		}
		say(corpus, dump)
	case "follow":
		corpus := new(maintner.Corpus)
		must(corpus.Initialize(context.Background(), maintner.NewNetworkMutationSource(args[1], args[2])))
		say(corpus, io.Discard)
		asked := bufio.NewScanner(os.Stdin)
		for asked.Scan() {
			if err := corpus.Update(context.Background()); err == maintner.ErrSplit {
				fmt.Println("split")
				return
			} else {
				must(err)
			}
			say(corpus, io.Discard)
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func peak() string {
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}

func say(corpus *maintner.Corpus, out io.Writer) {
	d := &dump{corpus: corpus, out: out, sum: sha256.New(), commits: map[string]*maintner.GitCommit{}}
	d.github()
	d.gerrit()
	d.allCommits()
	fmt.Printf("%d lines sha256 %x\n", d.lines, d.sum.Sum(nil))
}

type dump struct {
	corpus  *maintner.Corpus
	out     io.Writer
	sum     hash.Hash
	lines   int
	commits map[string]*maintner.GitCommit
}

func (d *dump) raw(words ...string) {
	line := strings.Join(words, " ") + "\n"
	io.WriteString(d.sum, line)
	io.WriteString(d.out, line)
	d.lines++
}

func (d *dump) say(words ...any) {
	var quoted []string
	for _, word := range words {
		quoted = append(quoted, quote(lossy(fmt.Sprint(word))))
	}
	d.raw(quoted...)
}

func quote(word string) string {
	if word == "" {
		return "%"
	}
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if c := word[i]; c > ' ' && c < 0x7f && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

func at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return fmt.Sprint(t.UnixMicro())
}

func user(u *maintner.GitHubUser) string {
	if u == nil {
		return "-"
	}
	return fmt.Sprintf("%d:%s", u.ID, u.Login)
}

func (d *dump) github() {
	d.corpus.GitHub().ForeachRepo(func(repo *maintner.GitHubRepo) error {
		labels := map[int64]*maintner.GitHubLabel{}
		milestones := map[int64]*maintner.GitHubMilestone{}
		issues := 0
		repo.ForeachLabel(func(l *maintner.GitHubLabel) error { labels[l.ID] = l; return nil })
		repo.ForeachMilestone(func(m *maintner.GitHubMilestone) error { milestones[m.ID] = m; return nil })
		repo.ForeachIssue(func(*maintner.GitHubIssue) error { issues++; return nil })
		// A repository that commits name, and nothing else.
		if len(labels)+len(milestones)+issues == 0 {
			return nil
		}
		d.say("repo", repo.ID().Owner, repo.ID().Repo)
		for _, id := range keys(labels) {
			d.say("label", id, labels[id].Name)
		}
		for _, id := range keys(milestones) {
			m := milestones[id]
			d.say("milestone", id, m.Title, m.Number, m.Closed)
		}
		return repo.ForeachIssue(d.issue)
	})
}

func keys[V any](m map[int64]V) []int64 {
	var ids []int64
	for id := range m {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	return ids
}

func (d *dump) issue(issue *maintner.GitHubIssue) error {
	if issue.NotExist {
		d.say("gone", issue.Number)
		return nil
	}
	flags := ""
	for _, flag := range []bool{issue.Closed, issue.Locked, issue.PullRequest} {
		if flag {
			flags += "+"
		} else {
			flags += "-"
		}
	}
	var assignees, labels []string
	for _, u := range issue.Assignees {
		assignees = append(assignees, user(u))
	}
	for _, id := range keys(issue.Labels) {
		labels = append(labels, fmt.Sprint(id))
	}
	milestone := "?"
	if issue.Milestone.IsNone() {
		milestone = "-"
	} else if !issue.Milestone.IsUnknown() {
		milestone = fmt.Sprint(issue.Milestone.ID)
	}
	d.say("issue", issue.Number, issue.ID, flags, user(issue.User), strings.Join(assignees, ","),
		at(issue.Created), at(issue.Updated), at(issue.ClosedAt), user(issue.ClosedBy), issue.Title, issue.Body,
		milestone, strings.Join(labels, ","), at(issue.LastModified()))
	issue.ForeachComment(func(c *maintner.GitHubComment) error {
		d.say("comment", c.ID, user(c.User), at(c.Created), at(c.Updated), c.Body)
		return nil
	})
	issue.ForeachEvent(func(e *maintner.GitHubIssueEvent) error {
		team, dismissed := "", ""
		if e.TeamReviewer != nil {
			team = fmt.Sprintf("%d:%s", e.TeamReviewer.ID, e.TeamReviewer.Slug)
		}
		if r := e.DismissedReview; r != nil {
			dismissed = fmt.Sprintf("%d:%s:%s", r.ReviewID, r.State, r.DismissalMessage)
		}
		d.say("event", e.ID, e.Type, user(e.Actor), at(e.Created), e.Label, user(e.Assignee), user(e.Assigner), e.Milestone,
			e.From, e.To, e.CommitID, user(e.Reviewer), user(e.ReviewRequester), team, dismissed, e.OtherJSON)
		return nil
	})
	return issue.ForeachReview(func(r *maintner.GitHubReview) error {
		d.say("review", r.ID, user(r.Actor), at(r.Created), r.Body, r.State, r.CommitID, r.ActorAssociation, r.OtherJSON)
		return nil
	})
}

func (d *dump) gerrit() {
	projects := map[string]*maintner.GerritProject{}
	var names []string
	d.corpus.Gerrit().ForeachProjectUnsorted(func(p *maintner.GerritProject) error {
		projects[p.ServerSlashProject()] = p
		names = append(names, p.ServerSlashProject())
		return nil
	})
	sort.Strings(names)
	for _, name := range names {
		d.say("project", name)
		p := projects[name]
		p.ForeachNonChangeRef(func(ref string, hash maintner.GitHash) error {
			d.say("ref", ref, hash)
			d.named(d.corpus.GitCommit(hash.String()))
			return nil
		})
		var changes []*maintner.GerritCL
		p.ForeachCLUnsorted(func(cl *maintner.GerritCL) error { changes = append(changes, cl); return nil })
		sort.Slice(changes, func(i, j int) bool { return changes[i].Number < changes[j].Number })
		for _, cl := range changes {
			d.change(cl)
		}
	}
}

func (d *dump) named(commit *maintner.GitCommit) {
	d.commits[commit.Hash.String()] = commit
}

func (d *dump) change(cl *maintner.GerritCL) {
	var refs []string
	for _, ref := range cl.GitHubIssueRefs {
		refs = append(refs, fmt.Sprintf("%s#%d", ref.Repo.ID(), ref.Number))
	}
	owner := ""
	if o := cl.Owner(); o != nil {
		owner = o.Str
	}
	d.say("change", cl.Number, cl.Version, cl.Status, cl.Private, cl.WorkInProgress(), cl.Branch(), cl.Created.Unix(), cl.OwnerID(),
		owner, cl.Subject(), cl.ChangeID(), cl.Commit.Hash, strings.Join(refs, ","))
	for v := int32(1); v <= cl.Version; v++ {
		if commit := cl.CommitAtVersion(v); commit != nil {
			d.say("patch-set", v, commit.Hash)
			d.named(commit)
		}
	}
	for _, meta := range cl.Metas {
		d.say("meta", meta.Commit.Hash, meta.ActionTag(), meta.Hashtags())
		d.named(meta.Commit)
	}
	for _, m := range cl.Messages {
		d.say("message", m.Version, m.Date.Unix(), m.Author.Str, m.Message)
	}
	votes, err := cl.Metas[len(cl.Metas)-1].LabelVotes()
	if err != nil {
		d.say("votes", "unknown")
		return
	}
	var labels []string
	for label := range votes {
		labels = append(labels, label)
	}
	sort.Strings(labels)
	for _, label := range labels {
		var voters []string
		for voter := range votes[label] {
			voters = append(voters, voter)
		}
		sort.Strings(voters)
		for _, voter := range voters {
			d.say("vote", label, voter, votes[label][voter])
		}
	}
}

func (d *dump) allCommits() {
	var next []*maintner.GitCommit
	for _, commit := range d.commits {
		next = append(next, commit)
	}
	for len(next) > 0 {
		commit := next[len(next)-1]
		next = next[:len(next)-1]
		for _, parent := range commit.Parents {
			if d.commits[parent.Hash.String()] == nil {
				d.named(parent)
				next = append(next, parent)
			}
		}
	}
	var hashes []string
	for hash := range d.commits {
		hashes = append(hashes, hash)
	}
	sort.Strings(hashes)
	for _, hash := range hashes {
		d.commit(hash, d.commits[hash])
	}
}

func (d *dump) commit(hash string, c *maintner.GitCommit) {
	if c.Tree == "" && c.Author == nil {
		d.say("named", hash)
		return
	}
	var parents []string
	for _, parent := range c.Parents {
		parents = append(parents, parent.Hash.String())
	}
	words := []string{"commit", hash, c.Tree.String(), quote(strings.Join(parents, ",")),
		quote(c.Author.Str), fmt.Sprint(c.AuthorTime.Unix()), zone(c.AuthorTime),
		quote(c.Committer.Str), fmt.Sprint(c.CommitTime.Unix()), zone(c.CommitTime), quote(c.Msg)}
	for _, f := range c.Files {
		words = append(words, quote(f.File), fmt.Sprint(f.Added), fmt.Sprint(f.Deleted), fmt.Sprint(f.Binary))
	}
	d.raw(words...)
}

func zone(t time.Time) string {
	_, seconds := t.Zone()
	return fmt.Sprint(seconds / 60)
}
