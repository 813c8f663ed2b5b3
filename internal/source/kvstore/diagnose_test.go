package kvstore

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A store that cannot be reached says why, not only that time ran out.
func TestDiagnose(t *testing.T) {
	s1, config := pair(t)
	good, _ := s1.ClientFiles()
	foreign := must[*PKI](t)(OpenPKI(filepath.Join(shortDir(t), "pki")))
	must[bool](t)(foreign.Renew(nil))
	stores := map[string]*Store{}
	for want, change := range map[string]func(*Config){
		"unknown authority":   func(c *Config) { c.TLS.CA = foreign.Files().CA },
		"certificate":         func(c *Config) { c.TLS.Cert, c.TLS.Key = foreign.Files().Cert, foreign.Files().Key },
		"connection refused":  func(c *Config) { c.Endpoints = []string{"https://" + freePort(t)} },
		"remote error: tls: ": func(c *Config) { c.TLS = TLSFiles{CA: good.CA} },
	} {
		c := config("node2")
		change(&c)
		stores[want] = open(t, c)
	}
	for want, s := range stores {
		eventually(t, 20*time.Second, func() error {
			if got := s.Status().Err; !strings.Contains(got, want) || !strings.Contains(got, s.cfg.Endpoints[0]) {
				return fmt.Errorf("want %q in %q", want, got)
			}
			return nil
		})
	}
	if err := diagnose(t.Context(), config("node2").Endpoints, open(t, config("node2")).tls); err != nil {
		t.Errorf("good credentials: %v", err)
	}
}
