package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/hypha-net/hypha/internal/model"
)

// keepRetired is how many rules that are gone can still be named: events come a little later than policies go.
const keepRetired = 4096

// ruleIDs names rules. A number is a hash of the rule's place; of two places with the same hash, the later one moves on.
type ruleIDs struct {
	places  map[model.RuleID]string
	refs    map[model.RuleID]model.RuleRef
	users   map[model.RuleID]int
	retired []model.RuleID
	times   map[model.RuleID]int // how often one is in retired
}

func newRuleIDs() *ruleIDs {
	r := &ruleIDs{places: map[model.RuleID]string{}, refs: map[model.RuleID]model.RuleRef{}, users: map[model.RuleID]int{}, times: map[model.RuleID]int{}}
	for id, text := range map[model.RuleID]string{
		model.RuleNoPolicy:   "no policy denies by default in this direction",
		model.RuleModeNever:  "enforcement mode is \"never\"",
		model.RuleModeAlways: "enforcement mode is \"always\" and no rule allows",
		model.RuleLocalHost:  "the node may reach its own workloads (allow-localhost)",
	} {
		r.refs[id] = model.RuleRef{ID: id, Implicit: true, Deny: id == model.RuleModeAlways, Ingress: id == model.RuleLocalHost, Text: text}
	}
	return r
}

// user is the number of the rule at a place, the same for the same place as long as somebody uses it. Every call is to
// be matched by a release.
func (r *ruleIDs) user(place string, ref model.RuleRef) model.RuleID {
	id := hashPlace(place)
	for salt := 1; ; salt++ {
		if p, ok := r.places[id]; !ok || p == place || r.users[id] == 0 {
			break
		}
		id = hashPlace(fmt.Sprintf("%s#%d", place, salt))
	}
	ref.ID = id
	r.places[id], r.refs[id] = place, ref
	r.users[id]++
	return id
}

func (r *ruleIDs) release(id model.RuleID) {
	if id < model.RuleUser {
		return
	}
	if r.users[id]--; r.users[id] > 0 {
		return
	}
	r.retired = append(r.retired, id)
	r.times[id]++
	for len(r.retired) > keepRetired {
		old := r.retired[0]
		r.retired = r.retired[1:]
		if r.times[old]--; r.times[old] > 0 {
			continue // it was used again, and retired later
		}
		delete(r.times, old)
		if r.users[old] <= 0 {
			delete(r.places, old)
			delete(r.refs, old)
			delete(r.users, old)
		}
	}
}

func hashPlace(place string) model.RuleID {
	sum := sha256.Sum256([]byte(place))
	id := model.RuleID(binary.BigEndian.Uint32(sum[:]))
	if id < model.RuleUser {
		id += model.RuleUser
	}
	return id
}
