package main

import (
	"crypto/sha1"
	"fmt"
	"math/rand"
	"strings"

	"golang.org/x/build/maintner"
	"golang.org/x/build/maintner/maintpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A writer makes mutations of every kind, at random, in an order that a leader could write them in, with
// the oddities that real logs have.
type writer struct {
	*rand.Rand
	log      maintner.MutationLogger
	now      int64
	issues   map[string]bool
	projects []*project
	ids      int64
}

type project struct {
	name    string
	commits []string
	// Named as parents, and not written yet.
	owed    []*maintpb.GitCommit
	changes []*change
}

type change struct {
	number, patchSets int
	commit, meta      string
	// What moved since the refs were written.
	moved []*maintpb.GitRef
}

func newWriter(dir string, seed int64) *writer {
	return &writer{
		Rand:     rand.New(rand.NewSource(seed)),
		log:      maintner.NewDiskMutationLogger(dir),
		now:      1_500_000_000,
		issues:   map[string]bool{},
		projects: []*project{{name: "go.googlesource.com/go"}, {name: "go.googlesource.com/build"}, {name: "review.example.org/x"}},
	}
}

func (w *writer) run(count int) {
	for range count {
		w.now += int64(w.Intn(500))
		m := &maintpb.Mutation{}
		switch w.Intn(12) {
		case 0, 1, 2, 3:
			m.GithubIssue = w.issue()
		case 4:
			m.Github = w.definitions()
		case 5:
			m.Git = &maintpb.GitMutation{Repo: &maintpb.GitRepo{GoRepo: "go"}, Commit: w.code(w.project(), "")}
		case 6, 7:
			m.Gerrit = w.patchSet(w.project())
		case 8, 9:
			m.Gerrit = w.metaStep(w.project())
		case 10:
			m.Gerrit = w.otherRefs(w.project())
		case 11:
			// Both at once are applied too.
			m.GithubIssue, m.Gerrit = w.issue(), w.metaStep(w.project())
		}
		must(w.log.Log(m))
	}
	for _, p := range w.projects {
		for _, commit := range p.owed {
			must(w.log.Log(&maintpb.Mutation{Gerrit: &maintpb.GerritMutation{Project: p.name, Commits: []*maintpb.GitCommit{commit}}}))
		}
		var refs []*maintpb.GitRef
		for _, c := range p.changes {
			refs = append(refs, c.moved...)
		}
		must(w.log.Log(&maintpb.Mutation{Gerrit: &maintpb.GerritMutation{Project: p.name, Refs: refs}}))
	}
}

func (w *writer) one(of ...string) string { return of[w.Intn(len(of))] }
func (w *writer) maybe() bool             { return w.Intn(3) == 0 }
func (w *writer) id() int64               { w.ids += 1 + w.Int63n(5); return w.ids }

func (w *writer) time() *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: w.now + w.Int63n(100), Nanos: int32(w.Intn(2)) * 123456000}
}

func (w *writer) text() string {
	return w.one("", "crash", "größer ☃", "a\nb", "100% \"sure\"", "x", strings.Repeat("long ", 1+w.Intn(300)))
}

func (w *writer) user() *maintpb.GithubUser {
	id := 1 + w.Int63n(20)
	return &maintpb.GithubUser{Id: id, Login: w.one("", fmt.Sprint("user", id), fmt.Sprint("renamed", id))}
}

func (w *writer) label() *maintpb.GithubLabel {
	id := 1 + w.Int63n(9)
	return &maintpb.GithubLabel{Id: id, Name: w.one("", fmt.Sprint("label", id), "big label")}
}

func (w *writer) flag() *maintpb.BoolChange { return &maintpb.BoolChange{Val: w.maybe()} }

func (w *writer) repo() (string, string) {
	if w.maybe() {
		return "golang", "tools"
	}
	return "golang", "go"
}

func (w *writer) definitions() *maintpb.GithubMutation {
	owner, repo := w.repo()
	m := &maintpb.GithubMutation{Owner: owner, Repo: repo}
	for range w.Intn(3) {
		m.Labels = append(m.Labels, w.label())
		milestone := &maintpb.GithubMilestone{Id: 1 + w.Int63n(5), Title: w.one("", "Go1", "Unplanned"), Number: w.Int63n(3)}
		if w.maybe() {
			milestone.Closed = w.flag()
		}
		m.Milestones = append(m.Milestones, milestone)
	}
	return m
}

func (w *writer) issue() *maintpb.GithubIssueMutation {
	owner, repo := w.repo()
	m := &maintpb.GithubIssueMutation{Owner: owner, Repo: repo, Number: int32(w.Intn(40))}
	key := fmt.Sprint(repo, m.Number)
	if !w.issues[key] {
		w.issues[key] = true
		m.Created = w.time()
		m.Id = w.Int63n(1000)
		m.User = w.user()
	}
	m.NotExist = w.Intn(30) == 0
	if w.maybe() {
		m.Updated = w.time()
	}
	if w.maybe() {
		m.User = w.user()
	}
	if w.maybe() {
		m.Body = w.text()
	}
	if w.maybe() {
		m.BodyChange = &maintpb.StringChange{Val: w.text()}
	}
	if w.maybe() {
		m.Title = w.text()
	}
	if w.maybe() {
		m.Closed, m.ClosedAt, m.ClosedBy = w.flag(), w.time(), w.user()
	}
	if w.maybe() {
		m.Locked = w.flag()
	}
	m.PullRequest = w.maybe()
	m.NoMilestone = w.Intn(9) == 0
	if w.maybe() {
		m.MilestoneId, m.MilestoneNum, m.MilestoneTitle = 1+w.Int63n(5), w.Int63n(9), w.one("", "Go2")
	}
	for range w.Intn(3) {
		m.Assignees = append(m.Assignees, w.user())
		m.DeletedAssignees = append(m.DeletedAssignees, 1+w.Int63n(20))
		m.RemoveLabel = append(m.RemoveLabel, 1+w.Int63n(9))
		m.AddLabel = append(m.AddLabel, w.label())
	}
	for range w.Intn(3) {
		c := &maintpb.GithubIssueCommentMutation{Id: w.Int63n(60), Body: w.text()}
		if w.maybe() {
			c.User, c.Created = w.user(), w.time()
		}
		if w.maybe() {
			c.Updated = w.time()
		}
		m.Comment = append(m.Comment, c)
	}
	for range w.Intn(3) {
		m.Event = append(m.Event, w.event())
	}
	if w.maybe() {
		w.now++
		m.Review = append(m.Review, &maintpb.GithubReview{Id: w.id(), ActorId: w.Int63n(9), Created: &timestamppb.Timestamp{Seconds: w.now * 10},
			Body: w.text(), State: w.one("APPROVED", "COMMENTED"), CommitId: w.one("", "abc"), ActorAssociation: "MEMBER", OtherJson: []byte(w.one("", `{"x":1}`))})
	}
	status := &maintpb.GithubIssueSyncStatus{ServerDate: w.time()}
	switch w.Intn(4) {
	case 0:
		m.CommentStatus = status
	case 1:
		m.EventStatus = status
	case 2:
		m.ReviewStatus = status
	}
	return m
}

func (w *writer) event() *maintpb.GithubIssueEvent {
	e := &maintpb.GithubIssueEvent{Id: w.Int63n(200), EventType: w.one("labeled", "closed", "renamed", "new one"), ActorId: w.Int63n(9),
		AssigneeId: w.Int63n(4), AssignerId: w.Int63n(4), ReviewerId: w.Int63n(4), ReviewRequesterId: w.Int63n(4),
		RenameFrom: w.text(), RenameTo: w.text(), OtherJson: []byte(w.one("", `{"a":null}`))}
	if w.maybe() {
		e.Created = w.time()
	}
	if w.maybe() {
		e.Label, e.Milestone = &maintpb.GithubLabel{Name: w.text()}, &maintpb.GithubMilestone{Title: w.text()}
	}
	if w.maybe() {
		e.Commit = &maintpb.GithubCommit{Owner: "golang", Repo: "go", CommitId: w.one("", "0123")}
	}
	if w.maybe() {
		e.TeamReviewer = &maintpb.GithubTeam{Id: 1 + w.Int63n(3), Slug: w.one("", "core", "infra")}
	}
	if w.maybe() {
		e.DismissedReview = &maintpb.GithubDismissedReviewEvent{ReviewId: 7, State: "approved", DismissalMessage: w.text()}
	}
	return e
}

func (w *writer) project() *project { return w.projects[w.Intn(len(w.projects))] }

func (w *writer) commit(parents []string, who, message string) *maintpb.GitCommit {
	var raw strings.Builder
	fmt.Fprintf(&raw, "tree %040x\n", w.Int63())
	for _, parent := range parents {
		fmt.Fprintf(&raw, "parent %s\n", parent)
	}
	fmt.Fprintf(&raw, "author %s %d %s\ncommitter Gerrit <g@srv> %d +0000\n", who, w.now-9, w.one("+0000", "-0730", "+0545"), w.now)
	raw.WriteString(w.one("", "encoding ISO-8859-1\n", "gpgsig -----BEGIN\n \n xyz\n", "mergetag object 1\n type commit\n"))
	raw.WriteString("\n" + message)
	text := raw.String()
	sum := sha1.Sum([]byte(fmt.Sprintf("commit %d\x00%s", len(text), text)))
	c := &maintpb.GitCommit{Sha1: fmt.Sprintf("%x", sum), Raw: []byte(text)}
	if w.Intn(5) > 0 {
		c.DiffTree = &maintpb.GitDiffTree{}
		for n := range w.Intn(4) {
			c.DiffTree.File = append(c.DiffTree.File, &maintpb.GitDiffTreeFile{File: w.one("b", "a", `"d/\303\236.go"`, "z y") + fmt.Sprint(n),
				Added: w.Int63n(3), Deleted: w.Int63n(3), Binary: w.maybe()})
		}
	}
	return c
}

// code makes a commit of sources; sometimes its parent is written later than itself.
func (w *writer) code(p *project, footer string) *maintpb.GitCommit {
	var parents []string
	for range w.Intn(3) {
		if len(p.commits) > 0 {
			parents = append(parents, p.commits[w.Intn(len(p.commits))])
		}
	}
	who := w.one("A <a@b>", "J\xf6rg <j@x>", "No Mail", "Ünï <u@x> <y>")
	message := w.one("fix", "net: fix\nmore\n\nbody", "\nodd", "one\n\xff\xfe two", "") + "\n\n" +
		w.one("Fixes #12", "Updates golang/go#5, Foo/Bar-x#9 and #5", "For a.b/c#1x #2", "-a/b#3 #4/#5 x#6", "none #") + "\n\n" + footer
	if w.Intn(6) == 0 {
		late := w.commit(parents, who, "late "+message)
		p.owed = append(p.owed, late)
		parents = []string{late.Sha1}
	} else if len(p.owed) > 0 && w.maybe() {
		first := p.owed[0]
		p.owed = p.owed[1:]
		return first
	}
	c := w.commit(parents, who, message)
	p.commits = append(p.commits, c.Sha1)
	return c
}

func (w *writer) patchSet(p *project) *maintpb.GerritMutation {
	c := w.code(p, w.one("", "Change-Id: I"+strings.Repeat("a", 40)+"\n", "Change-Id: Ishort\n"))
	if len(p.changes) == 0 || w.maybe() {
		p.changes = append(p.changes, &change{number: 1000 + 7*len(p.changes) + w.Intn(3)})
	}
	ch := p.changes[w.Intn(len(p.changes))]
	ch.patchSets++
	ch.commit = c.Sha1
	ch.moved = append(ch.moved, &maintpb.GitRef{Ref: fmt.Sprintf("refs/changes/%02d/%d/%d", ch.number%100, ch.number, ch.patchSets), Sha1: c.Sha1})
	return &maintpb.GerritMutation{Project: p.name, Commits: []*maintpb.GitCommit{c}}
}

func (w *writer) metaStep(p *project) *maintpb.GerritMutation {
	m := &maintpb.GerritMutation{Project: p.name}
	if len(p.changes) == 0 {
		return m
	}
	ch := p.changes[w.Intn(len(p.changes))]
	var parents []string
	if ch.meta != "" {
		parents = []string{ch.meta}
	}
	who := fmt.Sprintf("Gerrit User %d <%[1]d@62eb7196>", 5000+w.Intn(3))
	c := w.commit(parents, w.one(who, who, "Named Person <p@example.org>"), w.metaText(ch))
	ch.meta = c.Sha1
	m.Commits = append(m.Commits, c)
	ch.moved = append(ch.moved, &maintpb.GitRef{Ref: fmt.Sprintf("refs/changes/%02d/%d/meta", ch.number%100, ch.number), Sha1: c.Sha1})
	if w.maybe() {
		m.Refs, ch.moved = ch.moved, nil
	}
	return m
}

func (w *writer) metaText(ch *change) string {
	n := 1 + w.Intn(3)
	subject := w.one("Update patch set 1", "Create change", "Update change\nPatch Set 2: sneaky")
	said := w.one("", "", "Uploaded patch set 1.\n\n", "Uploaded patch set 2: Run-TryBot+1.\n\n", fmt.Sprintf("Patch Set %d: Code-Review+1\n\nok\n\n", n),
		fmt.Sprintf("Patch Set %d:\n\nStatus: abandoned\nPrivate: true\nWork-in-progress: true\nLabel: Fake=+1\n\n", n), "Patch Set x: no\n\n",
		"Hashtag added: one\nHashtags removed: two, three\n\n")
	footers := []string{fmt.Sprintf("Patch-set: %d", n)}
	for range w.Intn(6) {
		footers = append(footers, w.one("Status: new", "Status: merged", "Status: abandoned", "Status: draft", "Private: true", "Private: false",
			"Work-in-progress: true", "Work-in-progress: false", "Branch: refs/heads/master", "Branch: refs/heads/release-branch.go1", "Branch: odd",
			"Hashtags: one, two", "Hashtags: ", "Tag: autogenerated:gerrit:setHashtag", "Tag: autogenerated:gerrit:newPatchSet", "Commit: "+ch.commit,
			"Commit: 0123456789012345678901234567890123456789", "Reviewer: Gerrit User 5 <5@62eb7196>",
			"Label: Code-Review=+2", "Label: Code-Review=-1 Gerrit User 6 <6@62eb7196>", "Label: -Code-Review", "Label: -Run-TryBot G <6@62eb7196>",
			"Label: Run-TryBot=+1", "Label: TryBot-Result=-1", "Label: Code-Review=+2, 0123456789012345678901234567890123456789", "Label: Big=+200", "Label: SUBM=+1",
			"Topic: ", "Current: true"))
	}
	if ch.commit == "" {
		return subject + "\n\n" + said + strings.Join(footers[:1], "\n") + "\n"
	}
	return subject + "\n\n" + said + strings.Join(footers, "\n") + "\n"
}

func (w *writer) otherRefs(p *project) *maintpb.GerritMutation {
	m := &maintpb.GerritMutation{Project: p.name}
	for _, ch := range p.changes {
		if w.maybe() {
			m.Refs, ch.moved = append(m.Refs, ch.moved...), nil
		}
	}
	if len(p.commits) > 0 {
		name := w.one("HEAD", "refs/heads/master", "refs/tags/v1", "refs/tags/v1^{}", "refs/meta/config", "refs/changes/01/1001/robot-comments")
		m.Refs = append(m.Refs, &maintpb.GitRef{Ref: name, Sha1: p.commits[w.Intn(len(p.commits))]})
	}
	if len(p.owed) > 0 {
		m.Refs = append(m.Refs, &maintpb.GitRef{Ref: "refs/heads/owed", Sha1: p.owed[0].Sha1})
	}
	m.Refs = append(m.Refs, &maintpb.GitRef{Ref: "refs/heads/unknown", Sha1: fmt.Sprintf("%040x", w.Int63())})
	if w.maybe() {
		m.DeletedRefs = []string{w.one("HEAD", "refs/heads/master", "refs/tags/v1", "never")}
	}
	return m
}
