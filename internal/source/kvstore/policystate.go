package kvstore

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// policyState is the policies' part of the store as read, key by key, and what it means.
//
// A change that fits into one transaction writes its rules and the revision together. A larger one is laid down under
// staged/<change>/<n> first; then one write of the revision, "<revision> <change> <chunks>", puts all of it in force: what
// is in force is the rules with the staged change laid over them. Its author, or whoever writes next, then moves the
// change into the rules, which alters nothing in force, and takes the reference out of the revision.
type policyState struct {
	rules  map[string]StoredPolicy
	staged map[string]policyChange // by key below staged/

	exists   bool // there is a revision
	revision uint64
	change   string // staged change in force, "" if none
	chunks   int
	rev      int64  // etcd's revision of the revision key
	value    string // of the revision key
}

// policyChange is (a part of) a change.
type policyChange struct {
	Put    []StoredPolicy `json:"put,omitempty"`
	Delete []string       `json:"delete,omitempty"`
}

func newPolicyState() *policyState {
	return &policyState{rules: map[string]StoredPolicy{}, staged: map[string]policyChange{}}
}

func stagedKey(change string, n int) string { return change + "/" + strconv.Itoa(n) }

// put takes over one key. On error what was known of it stands.
func (st *policyState) put(key string, value []byte, rev int64) error {
	switch {
	case key == policyRevision:
		n, change, chunks, err := parseRevision(string(value))
		if err != nil {
			return err
		}
		st.exists, st.revision, st.change, st.chunks, st.rev, st.value = true, n, change, chunks, rev, string(value)
	case strings.HasPrefix(key, policyRules):
		var sp StoredPolicy
		if err := json.Unmarshal(value, &sp); err != nil {
			return err
		}
		if sp.Key != key[len(policyRules):] {
			return fmt.Errorf("the row is about policy %q", sp.Key)
		}
		st.rules[sp.Key] = sp
	case strings.HasPrefix(key, policyStaged):
		var c policyChange
		if err := json.Unmarshal(value, &c); err != nil {
			return err
		}
		st.staged[key[len(policyStaged):]] = c
	}
	return nil
}

func (st *policyState) remove(key string) {
	switch {
	case key == policyRevision:
		st.exists, st.revision, st.change, st.chunks, st.rev, st.value = false, 0, "", 0, 0, ""
	case strings.HasPrefix(key, policyRules):
		delete(st.rules, key[len(policyRules):])
	case strings.HasPrefix(key, policyStaged):
		delete(st.staged, key[len(policyStaged):])
	}
}

// overlay is the staged change in force.
func (st *policyState) overlay() (all policyChange, err error) {
	for n := range st.chunks {
		c, ok := st.staged[stagedKey(st.change, n)]
		if !ok {
			return all, fmt.Errorf("part %d of %d of change %s is missing", n, st.chunks, st.change)
		}
		all.Put = append(all.Put, c.Put...)
		all.Delete = append(all.Delete, c.Delete...)
	}
	return all, nil
}

// effective is the rules in force. The map is the caller's.
func (st *policyState) effective() (map[string]StoredPolicy, error) {
	over, err := st.overlay()
	if err != nil {
		return nil, err
	}
	rules := maps.Clone(st.rules)
	for _, key := range over.Delete {
		delete(rules, key)
	}
	for _, sp := range over.Put {
		rules[sp.Key] = sp
	}
	return rules, nil
}

func parseRevision(s string) (rev uint64, change string, chunks int, err error) {
	f := strings.Fields(s)
	if len(f) != 1 && len(f) != 3 {
		return 0, "", 0, fmt.Errorf("policy revision %q: not a number", s)
	}
	if rev, err = strconv.ParseUint(f[0], 10, 64); err != nil {
		return 0, "", 0, fmt.Errorf("policy revision %q: %w", s, err)
	}
	if len(f) == 3 {
		if chunks, err = strconv.Atoi(f[2]); err != nil || chunks < 0 || chunks > defaultTxnOps {
			return 0, "", 0, fmt.Errorf("policy revision %q: bad number of parts", s)
		}
		change = f[1]
	}
	return rev, change, chunks, nil
}

func formatRevision(rev uint64) string { return strconv.FormatUint(rev, 10) }
