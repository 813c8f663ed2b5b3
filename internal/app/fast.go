package app

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/datapath/loader"
)

// fast is how the datapath accelerates services.
func (a *Agent) fast() loader.Fast {
	switch a.cfg.LBFast {
	case config.FastNative, config.FastBestEffort:
		return loader.FastNative
	case config.FastTesting, config.FastGeneric:
		return loader.FastGeneric
	}
	return loader.FastOff
}

// openFast puts the programs that accelerate services onto the devices that there are. With `native` each of them has to be able to.
func (a *Agent) openFast() error {
	if a.fast() == loader.FastOff {
		return nil
	}
	a.denials.bring()
	slow := slowness(a.denials.slow())
	if a.cfg.LBFast == config.FastNative && len(slow) > 0 {
		return fmt.Errorf("option bpf-lb-acceleration: native, but %w: use %s, or leave these devices out (devices)",
			errors.New(strings.Join(slow, "; ")), config.FastBestEffort)
	}
	for _, s := range slow {
		a.log.Warn("services are not accelerated on a device", "why", s)
	}
	return nil
}

// slowness says which devices do not accelerate services, and why.
func slowness(slow map[string]error) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(slow)) {
		out = append(out, name+": "+slow[name].Error())
	}
	return out
}

// fastStatus tells of acceleration: which devices, and how much it carries.
func (a *Agent) fastStatus(add addFunc) {
	if a.fast() == loader.FastOff {
		add("acceleration", stateDisabled, "bpf-lb-acceleration is "+config.FastOff, "")
		return
	}
	count, err := a.maps.Accelerated()
	if err != nil {
		add("acceleration", stateFailure, err.Error(), "see the agent's log")
		return
	}
	why := a.denials.slow()
	var on []string
	for _, d := range a.outside.Snapshot().All() {
		if _, slow := why[d.Name]; !slow {
			on = append(on, d.Name)
		}
	}
	text := fmt.Sprintf("%s on %s; %d packets sent on in XDP, %d of services left to tc", a.fast(), strings.Join(on, ", "), count.Sent, count.Left)
	if len(on) == 0 {
		text = "no device has it"
	}
	slow := slowness(why)
	switch {
	case len(slow) == 0:
		add("acceleration", stateOK, text, "")
	case a.cfg.LBFast == config.FastBestEffort && len(on) > 0:
		add("acceleration", stateOK, text+"; left to tc: "+strings.Join(slow, "; "), "")
	default:
		add("acceleration", stateWarning, text+"; left to tc: "+strings.Join(slow, "; "),
			"leave these devices out (devices), or set bpf-lb-acceleration to what they can")
	}
}
