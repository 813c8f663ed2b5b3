package catalog

import (
	"context"
	"errors"
	"io/fs"
	"runtime"

	"github.com/hypha-net/hypha/test/kube/image"
)

// Images that Kubernetes' own tests run besides agnhost. What their published ones take from a distribution comes from this machine's.
const (
	DNSClientImage = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0"
	WebServerImage = "registry.k8s.io/e2e-test-images/nginx:1.15-4"
	// PolicyImage is what the network policy API's tests run.
	PolicyImage = "registry.k8s.io/e2e-test-images/agnhost:2.45"
)

const accounts = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"

// DNSClient is the image that asks for names with the C library's resolver and with dig.
func DNSClient(ctx context.Context) (*image.Image, error) {
	i := &image.Image{Names: []string{DNSClientImage}, Arch: runtime.GOARCH, Env: []string{searched}, Cmd: []string{"bash"}}
	t := &i.Tree
	t.Dir("tmp", fs.ModeSticky|0o777)
	t.Data("etc/passwd", 0o644, []byte(accounts))
	t.Data("etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n"))
	var errs error
	for _, name := range []string{"dash", "bash", "dig", "nslookup", "getent", "seq", "sleep", "cat", "test", "hostname", "mawk"} {
		errs = errors.Join(errs, t.Program(ctx, name))
	}
	t.Link("bin/sh", "/usr/bin/dash")
	t.Link("usr/bin/awk", "mawk")
	return i, errs
}

// WebServer is nginx as Debian builds it. To install it would start it.
func WebServer(ctx context.Context, d Debian) (*image.Image, error) {
	program, err := d.file(ctx, "nginx", "usr/sbin/nginx")
	if err != nil {
		return nil, err
	}
	i := &image.Image{Names: []string{WebServerImage}, Arch: runtime.GOARCH, Env: []string{searched}, Cmd: []string{"nginx", "-c", "/etc/nginx/nginx.conf"}}
	t := &i.Tree
	for _, d := range []string{"var/log/nginx", "var/lib/nginx", "run"} {
		t.Dir(d, 0o755)
	}
	t.Dir("tmp", fs.ModeSticky|0o777)
	t.Data("etc/passwd", 0o644, []byte(accounts))
	t.Data("etc/group", 0o644, []byte("root:x:0:\nnobody:x:65534:\n"))
	t.Data("etc/nginx/nginx.conf", 0o644, []byte(`daemon off;
user nobody nobody;
error_log /dev/stderr;
events {}
http {
    access_log /dev/stdout;
    server { listen 80; root /usr/share/nginx/html; }
}
`))
	t.Data("usr/share/nginx/html/index.html", 0o644, []byte("<!DOCTYPE html><title>nginx</title>\n"))
	return i, t.Program(ctx, program)
}

// Policy is agnhost under the name that the network policy API's tests ask for. They wait until all of their servers run, those of SCTP
// as well, before they test anything: where the kernel has no SCTP, such a server stays without serving, and what asks it fails as it should.
func Policy(ctx context.Context, program, kubernetes string, d Debian) (*image.Image, error) {
	i, err := Agnhost(ctx, program, kubernetes, d)
	if err != nil {
		return nil, err
	}
	i.Names = []string{PolicyImage}
	i.Tree.Copy("agnhost-2", 0o755, program)
	i.Tree.Data("agnhost", 0o755, []byte("#!/bin/sh\n[ \"$1\" = porter ] || exec /agnhost-2 \"$@\"\n/agnhost-2 \"$@\"\nexec /agnhost-2 pause\n"))
	return i, nil
}
